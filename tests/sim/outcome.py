"""What came of a world: its violations, its history, and figures by which to see what it went through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.history import History

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation came to."""

    seed: int
    violations: list[str]
    digest: str
    history: History
    acknowledged: int
    records_read: int
    crashes: int
    faults: int
    hedges: int
    """PUTs and GETs that were sent a second time."""
    hedges_won: int
    groups: int
    group_commits: int
    """OffsetCommits of members that were answered without an error."""
    merges: int
    records_compacted: int
    """Dropped, because later ones had their keys."""
    starts_moved: int
    """Of logs, by retention."""
    objects_deleted: int
    """By jobs, a time of grace after nothing referred to them any more."""
    spans_cut: int
    """Extents that jobs have ended where records are of a later span of time."""
    held_back: int
    """How often producers were, because too much waited to be merged."""
    evictions: int
    """From agents' caches."""
    without_memory: int
    """Answers to Fetch that had to do without."""
    steps: int
    virtual_s: float


def outcome_of(world: World, virtual_s: float) -> Outcome:
    """Of a world that is over, after so many seconds of its time."""
    jobs = world.jobs
    return Outcome(
        seed=world.seed,
        violations=world.history.violations,
        digest=world.history.digest(),
        history=world.history,
        acknowledged=world.facts.acknowledged,
        records_read=world.facts.records_read,
        crashes=world.crashes,
        faults=world.sky.faults,
        hedges=world.hedges,
        hedges_won=world.hedges_won,
        groups=len(world.groups),
        group_commits=sum(group.facts.commits for group in world.groups),
        merges=jobs.merges,
        records_compacted=jobs.records_compacted,
        starts_moved=jobs.starts_moved,
        objects_deleted=jobs.objects_deleted,
        spans_cut=0 if world.life is None else world.life.spans.cuts,
        held_back=world.held_back,
        evictions=world.evictions,
        without_memory=world.without_memory,
        steps=world.loop.steps,
        virtual_s=virtual_s,
    )

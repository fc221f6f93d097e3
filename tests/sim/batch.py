"""Many seeds, in several processes at once: a result of each, and how far the whole has come."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.sim.outcome import Outcome
from tests.sim.story import LINES_MAX, tell
from tests.sim.world import simulate

TWICE_EVERY = 20
"""Of so many seeds one is run twice, and has to tell the same."""
SEEDS_PER_PROCESS = 200
"""Then a new process takes its place: none grows for long."""
LINE_S = 15.0
"""How often progress is told where nobody watches."""
PROBLEMS_SHOWN = 20
FIGURES = (
    "acknowledged",
    "records_read",
    "crashes",
    "faults",
    "hedges_won",
    "group_commits",
    "merges",
    "records_compacted",
    "starts_moved",
    "objects_deleted",
    "spans_cut",
    "held_back",
    "evictions",
    "without_memory",
    "steps",
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one seed came to, for another process to know. `report` is of those that failed."""

    seed: int
    digest: str
    problems: Sequence[str]
    report: str
    summary: str
    figures: Counter[str] = field(default_factory=Counter)


def run_seed(seed: int, *, is_twice: bool = False, lines_max: int = LINES_MAX) -> Result:
    """Simulate a seed; twice, to see whether it tells the same."""
    outcome = simulate(seed)
    problems = list(outcome.violations)
    if is_twice:
        problems += differences(outcome, simulate(seed))
    told = report(outcome, problems, lines_max) if problems else ""
    figures = Counter({name: int(getattr(outcome, name)) for name in FIGURES})
    return Result(seed, outcome.digest, problems, told, summary(outcome), figures)


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Where two histories of a seed part."""
    if one.digest == other.digest:
        return []
    for line, (here, there) in enumerate(zip(one.history.lines, other.history.lines, strict=False)):
        if here != there:
            return [f"the same seed gave another history from line {line} on: {here!r}, then {there!r}"]
    return ["the same seed gave a longer history"]


def run_seeds(seeds: Sequence[int], processes: int, *, lines_max: int = LINES_MAX) -> Iterator[Result]:
    """Each seed's result as soon as it is there, in any order."""
    work = [(seed, number % TWICE_EVERY == 0, lines_max) for number, seed in enumerate(seeds)]
    if processes == 1:
        yield from map(_run, work)
        return
    # Not by fork: each process is to be as a new one.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=SEEDS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(_run, work)


def _run(work: tuple[int, bool, int]) -> Result:
    seed, is_twice, lines_max = work
    return run_seed(seed, is_twice=is_twice, lines_max=lines_max)


def cores() -> int:
    """How many processes may run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """How far it has come: a line that is written over again and again, or one now and then where nobody watches."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._failed = 0
        self._began_s = self._told_s = time.perf_counter()
        self._is_watched = sys.stderr.isatty()

    def add(self, result: Result) -> None:
        """One more seed is done."""
        self._done += 1
        self._failed += bool(result.problems)
        now_s = time.perf_counter()
        if not self._is_watched and now_s - self._told_s < LINE_S:
            return
        self._told_s = now_s
        took_s = now_s - self._began_s
        left_s = took_s / self._done * (self._total - self._done)
        text = (
            f"{self._done}/{self._total} seeds, {self._failed} failed, {self._done / took_s:.2f} a second, "
            f"{left_s / 60:.0f} min left"
        )
        sys.stderr.write(f"\r\033[K{text}" if self._is_watched else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """No more."""
        if self._is_watched:
            sys.stderr.write("\r\033[K")


def summary(outcome: Outcome) -> str:
    """A line on what a seed went through."""
    return (
        f"seed {outcome.seed}: {outcome.acknowledged} batches acknowledged, {outcome.records_read} records read, "
        f"{outcome.crashes} crashes, {outcome.faults} faults, "
        f"{outcome.hedges_won} of {outcome.hedges} hedges won, {outcome.groups} groups, "
        f"{outcome.group_commits} commits of theirs, {outcome.merges} merges, "
        f"{outcome.records_compacted} records compacted, {outcome.starts_moved} starts moved, "
        f"{outcome.objects_deleted} objects deleted, producers held back {outcome.held_back} times, "
        f"{outcome.evictions} evictions, {outcome.without_memory} answers without memory, "
        f"{outcome.steps} steps, {outcome.virtual_s:.0f} s"
    )


def report(outcome: Outcome, problems: Sequence[str], lines_max: int = LINES_MAX) -> str:
    """What went wrong, and how it came to it."""
    return "\n".join(
        (
            f"=== seed {outcome.seed}",
            tell(outcome.history, lines_max=lines_max),
            "--- " + summary(outcome),
            *(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN]),
            f"  {len(problems)} problems in all",
            f"again: make sim SEEDS={outcome.seed}    all of its history: ... ARGS=--show",
        )
    )

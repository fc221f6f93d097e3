"""The jobs that merge, delete and compact, run by tests: several crews of them over the stores of one agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tests.broker.support import Broker
from warp.clock import SystemClock
from warp.errors import MetadataError, ObjectStoreError
from warp.lifecycle.compact import Compaction
from warp.lifecycle.dead import DeadLimits, DeadSegments
from warp.lifecycle.levels import MergeLimits
from warp.lifecycle.merge import MergeJob
from warp.lifecycle.orphans import OrphanLimits, OrphanSweep
from warp.lifecycle.retention import Retention
from warp.metadata.group_model import Lease

DUE_SEGMENTS = 3
GRACE_S = 1.0
ORPHAN_AGE_S = 60.0
LEASE = "job/everything"


class AheadClock(SystemClock):
    """The machine's clocks, as much ahead as a test says: what waits for hours is due at once."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time_ms(self) -> int:
        return super().time_ms() + round(self.ahead_s * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def boottime(self) -> float:
        return super().boottime() + self.ahead_s


class Crew:
    """One agent's jobs, as another agent beside the broker would have them; they merge few segments already."""

    def __init__(self, broker: Broker) -> None:
        agent, lifecycle = broker.agent, broker.agent.lifecycle
        store, objects = agent._metadata, agent._object_store
        clock = self.clock = AheadClock()
        due = MergeLimits(due_segments=(DUE_SEGMENTS, DUE_SEGMENTS, 1000), due_small_segments=DUE_SEGMENTS)
        may_delete = lifecycle.epoch.may_delete
        self.merge = MergeJob(
            store, objects, clock, agent._ids, lifecycle.policies, lifecycle.pace, limits=due
        )
        self.compaction = Compaction(store, objects, clock, agent._ids, lifecycle.policies, lifecycle.pace)
        self.retention = Retention(store, clock, lifecycle.policies, agent.log.fetch.log_starts_at)
        self.segments = DeadSegments(store, objects, clock, may_delete, DeadLimits(grace_s=GRACE_S))
        self.orphans = OrphanSweep(store, objects, clock, may_delete, OrphanLimits(age_s=ORPHAN_AGE_S))
        self.jobs: dict[str, Callable[[Lease], Awaitable[None]]] = {
            # First, before what is old is merged with what is not.
            "retention": self.retention.run,
            "merge": self.merge.run,
            "compact": self.compaction.run,
            "segments": self.segments.run,
            "orphans": self.orphans.run,
        }
        self.failures: list[str] = []
        """Passes that were cut short."""

    async def work(self, lease: Lease, rounds: int) -> None:
        """Run each job so often. A pass that a store cuts short is over, as it is in an agent."""
        for _ in range(rounds):
            for name, run in self.jobs.items():
                try:
                    await run(lease)
                except (MetadataError, ObjectStoreError) as error:
                    self.failures.append(f"{name}: {error!r}")
                await asyncio.sleep(0)
            self.clock.ahead_s += 2 * ORPHAN_AGE_S


def idle_jobs(crews: Sequence[Crew]) -> list[str]:
    """What no crew has done: then a test has shown nothing about it."""
    done = {
        "merge": [crew.merge.counters.merges for crew in crews],
        "compact": [crew.compaction.counters.records_dropped for crew in crews],
        "delete": [crew.segments.counters.segments_deleted for crew in crews],
        "claim": [crew.orphans.counters.orphans_claimed for crew in crews],
        "trim": [crew.retention.counters.extents_trimmed for crew in crews],
    }
    return [name for name, counts in done.items() if not any(counts)]


async def take_lease(broker: Broker) -> Lease:
    """The lease of all jobs, which the agent's own jobs don't ask for; taken again it gets another epoch."""
    store = broker.agent._metadata
    seen = (await store.read_leases([LEASE])).get(LEASE)
    [lease] = await store.take_leases_as_seen({LEASE: seen}, broker.agent.broker_id)
    return lease

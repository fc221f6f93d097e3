"""Builds the jobs that look after data in an agent, by its configuration: what merges, compacts and deletes.

Each agent has all of them; `warp.cluster.jobs` decides which it runs. They share a bound on what they move and one on
memory, read the rules of topics from the catalogue, and count what they do. The same place keeps an eye on the
cluster's backlog, by which producers are held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from warp.agent_cluster import AgentCluster
from warp.agent_policies import Policies
from warp.clock import Clock
from warp.cluster.catalogue import CatalogueService
from warp.cluster.jobs import Job, JobCounters, JobLimits, job_lease
from warp.config import AgentConfig
from warp.ids import IdSource, LogId
from warp.lifecycle.ages import SteadyTime
from warp.lifecycle.backlog import Backlog, HoldBack
from warp.lifecycle.compact import Compaction
from warp.lifecycle.compact_plan import CompactionLimits
from warp.lifecycle.dead import DeadLimits, DeadSegments
from warp.lifecycle.epoch import EpochCheck
from warp.lifecycle.levels import MergeLimits
from warp.lifecycle.merge import MergeJob
from warp.lifecycle.objects import JobObjects
from warp.lifecycle.orphans import RECEIPTS_AGE_S, OrphanLimits, OrphanSweep
from warp.lifecycle.pace import Considerate, Pace
from warp.lifecycle.producer_expiry import ProducerExpiry
from warp.lifecycle.retention import Retention
from warp.metadata.cluster_model import JOBS
from warp.metadata.group_model import Lease
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import ObjectStore

BACKLOG: Final = "backlog"
"""The job that measures what waits to be merged."""
BACKLOG_INTERVAL_S: Final = 2.0
SEGMENTS_INTERVAL_S: Final = 60.0
"""Between two looks for segments that have died, or whose objects may go; sooner with a short grace period."""
PRODUCERS_INTERVAL_S: Final = 600.0
"""Between two looks for idle producers, as in Kafka; sooner with a short expiry."""
MEMORY_SHARES: Final = 2
"""Merging and compaction may both run at one agent: each has its share of --jobs-memory."""
SHARE: Final = 4
"""So many looks fit into a short grace period or expiry."""
WATCH_S: Final = 0.5
"""How often an agent looks at the backlog that is told, to hold producers back by it."""

Run = Callable[[Lease], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LifecycleLimits:
    """Bounds that no option sets; a simulation has smaller ones. None: as the configuration makes them."""

    merge: MergeLimits | None = None
    compaction: CompactionLimits | None = None
    runner: JobLimits | None = None


class AgentLifecycle:
    """The jobs on data at one agent, and its watch on their backlog: `start`, then `close`.

    `log_starts_at` lets readers know where a log begins from now on, `written_bytes` counts what producers have written
    here. `objects` is open.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: MetadataStore,
        objects: ObjectStore,
        clock: Clock,
        ids: IdSource,
        catalogue: CatalogueService,
        cluster: AgentCluster,
        log_starts_at: Callable[[LogId, int], None],
        written_bytes: Callable[[], int],
        *,
        has_conditional_puts: bool,
        limits: LifecycleLimits | None = None,
    ) -> None:
        limits = limits or LifecycleLimits()
        self.policies = Policies(catalogue)
        considerate = Considerate(clock, written_bytes, lambda: self.debt)
        self.pace = Pace(clock, config.jobs_bandwidth_bytes_per_s, considerate)
        self.hold_back = HoldBack()
        memory_bytes = config.jobs_memory_bytes_max // MEMORY_SHARES
        self.runner_limits = limits.runner
        self.merge_limits = limits.merge or MergeLimits(
            memory_bytes=memory_bytes,
            backlog_bytes_max=config.merge_backlog_bytes_max,
        )
        self._compaction_limits = limits.compaction or CompactionLimits(memory_bytes=memory_bytes)
        self.backlog = Backlog(store, clock, self.merge_limits)
        self.epoch = EpochCheck(objects, store, ids, is_conditional=has_conditional_puts)
        self._config = config
        self._store = store
        self._clock = clock
        self._time = SteadyTime(clock)
        self._catalogue = catalogue
        self._cluster = cluster
        self._objects = objects
        self._seen: dict[str, JobObjects] = {}
        self._counters: dict[str, Any] = {}
        """What each job counts by itself: dataclasses of numbers."""
        self._log_starts_at = log_starts_at
        self._watch: asyncio.Task[None] | None = None
        self.jobs = [
            Job(BACKLOG, BACKLOG_INTERVAL_S, self.backlog.run),
            *self._rewriting_jobs(ids),
            *self._deleting_jobs(),
        ]

    def _rewriting_jobs(self, ids: IdSource) -> Iterator[Job]:
        config, store, clock = self._config, self._store, self._clock
        objects = self._objects_of("merge")
        merge = MergeJob(store, objects, clock, ids, self.policies, self.pace, limits=self.merge_limits)
        yield self._job("merge", config.merge_interval_ms / 1000, merge.run, merge.counters)
        compaction = Compaction(
            store,
            self._objects_of("compact"),
            clock,
            ids,
            self.policies,
            self.pace,
            limits=self._compaction_limits,
            time=self._time,
            is_clock_trusted=self._is_clock_trusted,
        )
        yield self._job("compact", config.compaction_interval_ms / 1000, compaction.run, compaction.counters)

    def _deleting_jobs(self) -> Iterator[Job]:
        config, store, clock = self._config, self._store, self._clock
        grace_s, window_s = config.delete_grace_ms / 1000, config.restore_window_ms / 1000
        retention = Retention(
            store,
            clock,
            self.policies,
            self._log_starts_at,
            time=self._time,
            is_clock_trusted=self._is_clock_trusted,
        )
        yield self._job(
            "retention", config.retention_check_interval_ms / 1000, retention.run, retention.counters
        )
        segments = DeadSegments(
            store,
            self._objects_of("segments"),
            clock,
            self.epoch.may_delete,
            DeadLimits(grace_s=grace_s, restore_window_s=window_s),
            time=self._time,
        )
        yield self._job(
            "segments", min(SEGMENTS_INTERVAL_S, grace_s / SHARE), segments.run, segments.counters
        )
        orphans = OrphanSweep(
            store,
            self._objects_of("orphans"),
            clock,
            self.epoch.may_delete,
            OrphanLimits(age_s=config.orphan_age_ms / 1000, receipts_age_s=max(RECEIPTS_AGE_S, window_s)),
            time=self._time,
            is_clock_trusted=self._is_clock_trusted,
        )
        yield self._job("orphans", config.orphan_interval_ms / 1000, orphans.run, orphans.counters)
        expiry_s = config.producer_expiry_ms / 1000
        producers = ProducerExpiry(
            store,
            clock,
            expiry_ms=config.producer_expiry_ms,
            time=self._time,
            is_clock_trusted=self._is_clock_trusted,
        )
        yield self._job(
            "producers", min(PRODUCERS_INTERVAL_S, expiry_s / SHARE), producers.run, producers.counters
        )

    @property
    def debt(self) -> float:
        """The largest debt of merging in the cluster, as far as this agent knows."""
        return max(self.own_debt, self._cluster.membership.view.merge_debt)

    @property
    def quarantined_extents(self) -> int:
        """How many extents of the cluster jobs leave alone because they can't be read, as far as this agent knows."""
        return max(self.own_quarantined_extents, self._cluster.membership.view.quarantined_extents)

    @property
    def own_quarantined_extents(self) -> int:
        """What this agent has to tell of them; 0 while counting is another's job."""
        return self.backlog.quarantined_extents if self._holds(BACKLOG) else 0

    @property
    def own_debt(self) -> float:
        """The debt that this agent has to tell; 0.0 while measuring is another's job."""
        return self.backlog.debt if self._holds(BACKLOG) else 0.0

    def start(self) -> None:
        """Begin to hold producers back, whenever that is needed."""
        self._watch = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Look no more. The jobs are closed with the cluster's."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])

    async def _look(self) -> None:
        while True:
            if not self._holds(BACKLOG):
                self.backlog.forget()
            self.hold_back.seen(self.debt)
            await asyncio.sleep(WATCH_S)

    def _job(self, name: str, interval_s: float, run: Run, counters: object) -> Job:
        """A job that knows the catalogue of the moment at which a pass begins."""

        async def informed(lease: Lease) -> None:
            await self._catalogue.look()
            await run(lease)

        self._counters[name] = counters
        return Job(name, interval_s, informed)

    def _objects_of(self, name: str) -> ObjectStore:
        """The object store, as a job of that name is to have it."""
        seen = self._seen[name] = JobObjects(self._objects)
        return seen

    def _is_clock_trusted(self) -> bool:
        return self._cluster.membership.is_clock_trusted

    def _holds(self, name: str) -> bool:
        jobs = self._cluster.jobs
        return jobs is not None and any(lease.name == job_lease(name) for lease in jobs.held)

    # What it shows.

    def summary(self) -> dict[str, Any]:
        """What there is to do in the whole cluster, as far as this agent knows: fields of /v1/cluster and /v1/jobs."""
        return {"merge_debt": round(self.debt, 3), "quarantined_extents": self.quarantined_extents}

    def describe(self) -> dict[str, Any]:
        """The fields of /v1/jobs: docs/operations.md says what each means."""
        jobs, measured = self._cluster.jobs, self.backlog
        counters = {} if jobs is None else jobs.counters
        intervals_s = {} if jobs is None else jobs.intervals_s
        return {
            "has_role": JOBS in self._config.roles,
            **self.summary(),
            "holds_producers_back": self.hold_back.is_on,
            "bandwidth_bytes_per_s": self._config.jobs_bandwidth_bytes_per_s,
            "refused_deletions": self.epoch.refusals,
            "measured": {
                "levels": [total._asdict() for total in measured.levels],
                "dead_segments": measured.dead_segments,
            }
            if measured.is_known
            else None,
            "jobs": [
                self._describe_job(name, intervals_s[name], counters[name]) for name in sorted(counters)
            ],
        }

    def _describe_job(self, name: str, interval_s: float, counters: JobCounters) -> dict[str, Any]:
        seen, own = self._seen.get(name), self._counters.get(name)
        running_s = None if counters.began_s is None else self._clock.monotonic() - counters.began_s
        return {
            "name": name,
            "is_held": self._holds(name),
            "interval_s": interval_s,
            "passes": counters.passes,
            "failures": counters.failures,
            "last_pass_s": round(counters.last_pass_s, 3),
            "running_s": None if running_s is None else round(running_s, 3),
            "last_error": counters.last_error,
            "read_bytes": 0 if seen is None else seen.moved.read_bytes,
            "written_bytes": 0 if seen is None else seen.moved.written_bytes,
            "deleted_objects": 0 if seen is None else seen.moved.deleted_objects,
            "done": {} if own is None else asdict(own),
        }

    def show(self, metrics: Metrics) -> None:
        """Show all of it to Prometheus."""
        cluster, backlog, seen = self._cluster, self.backlog, self._seen

        def counted(pick: Callable[[JobCounters], float]) -> Callable[[], list[tuple[tuple[str], float]]]:
            return lambda: (
                []
                if cluster.jobs is None
                else [((name,), pick(counters)) for name, counters in cluster.jobs.counters.items()]
            )

        metrics.job_passes.read = counted(lambda counters: counters.passes)
        metrics.job_failures.read = counted(lambda counters: counters.failures)
        metrics.job_seconds.read = counted(lambda counters: counters.last_pass_s)
        metrics.jobs_held.read = lambda: [
            ((name,), float(self._holds(name)))
            for name in (() if cluster.jobs is None else cluster.jobs.counters)
        ]
        metrics.job_bytes.read = lambda: [
            row
            for name, objects in seen.items()
            for row in (
                ((name, "read"), objects.moved.read_bytes),
                ((name, "written"), objects.moved.written_bytes),
            )
        ]
        metrics.job_deleted_objects.read = lambda: [
            ((name,), objects.moved.deleted_objects) for name, objects in seen.items()
        ]
        metrics.job_done.read = lambda: [
            ((name, what), amount)
            for name, counters in self._counters.items()
            for what, amount in asdict(counters).items()
        ]
        metrics.jobs_paced_seconds.read = lambda: self.pace.waited_s
        metrics.deletions_refused.read = lambda: self.epoch.refusals
        metrics.merge_backlog.read = lambda: self.debt
        metrics.held_back.read = lambda: self.hold_back.times
        metrics.held_back_seconds.read = lambda: self.hold_back.seconds
        metrics.live_segments.read = lambda: [
            ((str(total.level),), total.segments) for total in backlog.levels
        ]
        metrics.live_segment_bytes.read = lambda: [
            ((str(total.level),), total.size_bytes) for total in backlog.levels
        ]
        metrics.dead_segments.read = lambda: backlog.dead_segments
        metrics.quarantined_extents.read = lambda: self.quarantined_extents

"""Background jobs: each is run by one agent of the cluster, under a lease, from time to time.

The lease of a job saves work; it makes nothing right by itself. What a job writes comes under its lease
(`warp.metadata.leases.share_leases`), so that a holder who has lost it without knowing changes nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from warp import rendezvous
from warp.clock import Clock
from warp.errors import MetadataError, ObjectStoreError
from warp.ids import BrokerId
from warp.metadata.cluster_model import JOBS, ClusterView
from warp.metadata.group_model import Lease, LeaseLost, LeaseState

_log = logging.getLogger("warp.jobs")

JOB_LEASE_PREFIX = "job/"


def job_lease(name: str) -> str:
    """The name of a job's lease."""
    return JOB_LEASE_PREFIX + name


@dataclass(frozen=True, slots=True)
class Job:
    """`run` does one pass under a lease; what it writes, it writes under that lease. It may raise MetadataError and
    ObjectStoreError where a store keeps it from going on.

    `interval_s` lies between the end of a pass and the next.
    """

    name: str
    interval_s: float
    run: Callable[[Lease], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Times of the runner."""

    look_s: float = 1.0
    """How often an agent looks whether a job is to be taken, or due; more often for jobs with shorter intervals."""
    look_s_min: float = 0.05
    """The shortest time between two looks, however short the interval."""
    first_pass_s: float = 60.0
    """From taking a job to its first pass, unless its interval is shorter: agents that come and go begin no passes."""
    failure_pause_s: float = 10.0
    """After a pass that failed."""

    def between_looks_s(self, interval_s: float) -> float:
        """How long not to look after a job of that interval."""
        return min(self.look_s, max(self.look_s_min, interval_s))


@dataclass(slots=True)
class JobCounters:
    """What a job has done in this agent."""

    passes: int = 0
    failures: int = 0
    last_pass_s: float = 0.0
    """How long the last one took that was not cut short."""
    began_s: float | None = None
    """When the pass under way began (monotonic), None while there is none."""
    last_error: str | None = None
    """What cut the last pass short, None if nothing did."""


class LeaseStore(Protocol):
    """The part of the metadata store that holds leases."""

    async def read_leases(self, names: Iterable[str]) -> dict[str, LeaseState]: ...

    async def take_leases_as_seen(
        self, seen: Mapping[str, LeaseState | None], holder: BrokerId
    ) -> list[Lease]: ...

    async def release_leases(self, held: Sequence[Lease]) -> list[Lease]: ...


@dataclass(slots=True)
class _Seat:
    """One job at this agent."""

    job: Job
    lease: Lease | None = None
    due_s: float = 0.0
    counters: JobCounters = field(default_factory=JobCounters)


class JobRunner:
    """Runs the jobs that fall to this agent, each in a task of its own.

    `may_run` says whether this agent may hold jobs at all: it has the role, its session lives, its clock is right.
    """

    def __init__(
        self,
        store: LeaseStore,
        clock: Clock,
        jobs: Sequence[Job],
        *,
        view: Callable[[], ClusterView],
        may_run: Callable[[], bool],
        limits: JobLimits | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._view = view
        self._may_run = may_run
        self._limits = limits or JobLimits()
        self._seats = [_Seat(job) for job in jobs]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def counters(self) -> dict[str, JobCounters]:
        """Per job what it has done here."""
        return {seat.job.name: seat.counters for seat in self._seats}

    @property
    def intervals_s(self) -> dict[str, float]:
        """Per job the time between two passes."""
        return {seat.job.name: seat.job.interval_s for seat in self._seats}

    @property
    def held(self) -> list[Lease]:
        """The leases of the jobs that this agent holds."""
        return [seat.lease for seat in self._seats if seat.lease is not None]

    def start(self) -> None:
        """Begin to look for jobs."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._attend(seat)) for seat in self._seats]

    async def close(self) -> None:
        """Stop, also in the middle of a pass, and give the leases up where the store can be told.

        Who gives up to wait for it may call it again.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        held = self.held
        if not held:
            return
        for seat in self._seats:
            seat.lease = None
        try:
            await self._store.release_leases(held)
        except MetadataError as error:
            _log.warning("the leases of jobs were not released: %s", error)

    async def _attend(self, seat: _Seat) -> None:
        while True:
            try:
                await self._look(seat)
            except LeaseLost:
                _log.info("job %s is another agent's now", seat.job.name)
                seat.lease = None
            except (MetadataError, ObjectStoreError) as error:
                self._failed(seat, error)
                _log.warning("job %s was cut short: %s: %s", seat.job.name, type(error).__name__, error)
            except Exception as error:  # noqa: BLE001 - a bug: logged, and tried again
                self._failed(seat, error)
                _log.exception("job %s failed", seat.job.name)
            await asyncio.sleep(self._limits.between_looks_s(seat.job.interval_s))

    async def _look(self, seat: _Seat) -> None:
        """Take the job if it falls to this agent, and do a pass if one is due."""
        if not self._may_run():
            await self._give_up(seat)
            return
        if seat.lease is not None and self._was_taken(seat.lease):
            raise LeaseLost([seat.lease])
        if seat.lease is None:
            if not self._is_free(seat.job):
                return
            await self._take(seat)
        if seat.lease is None or self._clock.monotonic() < seat.due_s:
            return
        counters, began_s = seat.counters, self._clock.monotonic()
        counters.began_s = began_s
        try:
            await seat.job.run(seat.lease)
        finally:
            counters.began_s = None
        now_s = self._clock.monotonic()
        counters.passes += 1
        counters.last_pass_s, counters.last_error = now_s - began_s, None
        seat.due_s = now_s + seat.job.interval_s

    def _is_free(self, job: Job) -> bool:
        """Nobody who lives holds the job, and it falls to this agent; or it is this agent's without its knowing.

        So it is after a taking of unknown outcome. The others leave it alone then, whomever it falls to. Agents of
        another release are left out, for they may not know the job. Where they do, the lease decides.
        """
        view = self._view()
        holder = view.holder(job_lease(job.name))
        if holder is not None:
            return holder.broker_id == view.own
        own = view.agents.get(view.own)
        if own is None:
            return False
        able = [
            agent.broker_id
            for agent in view.agents.values()
            if JOBS in agent.facts.roles and not agent.is_leaving and agent.facts.version == own.facts.version
        ]
        return rendezvous.first(job_lease(job.name), able) == view.own

    def _was_taken(self, lease: Lease) -> bool:
        """By what was read last, which may have been before this agent took it: then its epoch is an older one."""
        seen = self._view().leases.get(lease.name)
        if seen is None or seen.epoch < lease.epoch:
            return False
        return seen.epoch > lease.epoch or seen.holder != lease.holder

    async def _take(self, seat: _Seat) -> None:
        name = job_lease(seat.job.name)
        view = self._view()
        seen = view.leases.get(name)
        now = (await self._store.read_leases([name])).get(name)
        is_as_seen = now is None or now.epoch == (0 if seen is None else seen.epoch)
        if not is_as_seen and now is not None and now.holder not in (None, view.own):
            return  # Somebody has been faster; the next view will show whom.
        taken = await self._store.take_leases_as_seen({name: now}, view.own)
        if not taken:
            return
        [seat.lease] = taken
        wait_s = min(self._limits.first_pass_s, seat.job.interval_s)
        seat.due_s = self._clock.monotonic() + wait_s
        _log.debug("job %s is this agent's, epoch %d", seat.job.name, seat.lease.epoch)

    async def _give_up(self, seat: _Seat) -> None:
        """Let another agent have the job. A session that has lapsed lets go of it by itself."""
        if seat.lease is not None:
            lease, seat.lease = seat.lease, None
            await self._store.release_leases([lease])

    def _failed(self, seat: _Seat, error: Exception) -> None:
        seat.counters.failures += 1
        seat.counters.last_error = f"{type(error).__name__}: {error}"
        seat.due_s = self._clock.monotonic() + self._limits.failure_pause_s

"""A job has one holder, whoever else would like to run it, and goes on elsewhere when its holder is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.unit.metadata.support import Store, sqlite_store
from warp import rendezvous
from warp.cluster.jobs import Job, JobLimits, JobRunner, LeaseStore, job_lease
from warp.errors import MetadataUnavailable, ObjectStoreError
from warp.ids import BrokerId
from warp.metadata.cluster_model import ROLES, AgentFacts, ClusterView, LiveAgent
from warp.metadata.group_model import Lease, LeaseLost, LeaseState
from warp.metadata.sqlite import IN_MEMORY
from warp.metadata.store import MetadataStore

LEASE = job_lease("sweep")
SETTLE_S = 15.0
"""All of it takes milliseconds."""
LIMITS = JobLimits(look_s=0.001, look_s_min=0.001, first_pass_s=0.0, failure_pause_s=0.0)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = sqlite_store(IN_MEMORY)
    yield opened
    opened.close()


class Cluster:
    """Agents that live, as each sees it; leases as the store has them, when they are looked at."""

    def __init__(self, store: Store, *live: int) -> None:
        self.metadata: MetadataStore = store.metadata
        self.clock = store.clock
        self.live = list(live)
        self.roles: dict[int, tuple[str, ...]] = {}
        self.versions: dict[int, str] = {}
        self.leaving: list[int] = []
        self.leases: dict[str, LeaseState] = {}
        self.passes: list[tuple[int, Lease]] = []

    def view(self, own: int) -> ClusterView:
        agents = {
            BrokerId(broker_id): LiveAgent(
                BrokerId(broker_id),
                "first",
                AgentFacts(
                    roles=self.roles.get(broker_id, ROLES), version=self.versions.get(broker_id, "2.0.0")
                ),
                broker_id in self.leaving,
            )
            for broker_id in sorted({own, *self.live})
        }
        return ClusterView(1, BrokerId(own), agents, dict(self.leases))

    def runner(
        self,
        own: int,
        run: Callable[[Lease], Awaitable[None]] | None = None,
        *,
        may_run: Callable[[], bool] = lambda: True,
        interval_s: float = 0.0,
        first_pass_s: float = 0.0,
        leases: LeaseStore | None = None,
    ) -> JobRunner:
        async def note(lease: Lease) -> None:
            self.passes.append((own, lease))

        return JobRunner(
            leases or self.metadata,
            self.clock,
            [Job("sweep", interval_s, run or note)],
            view=lambda: self.view(own),
            may_run=may_run,
            limits=replace(LIMITS, first_pass_s=first_pass_s),
        )

    async def look(self) -> None:
        self.leases = await self.metadata.read_leases([LEASE])


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLE_S):
        while not met():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)


async def close_all(runners: Sequence[JobRunner]) -> None:
    for runner in runners:
        await runner.close()


def test_of_three_agents_one_runs_the_job(store: Store) -> None:
    async def run() -> list[tuple[int, Lease]]:
        cluster = Cluster(store, 1, 2, 3)
        runners = [cluster.runner(own) for own in (1, 2, 3)]
        for runner in runners:
            runner.start()
        await until(lambda: len(cluster.passes) >= 10)
        await close_all(runners)
        return cluster.passes

    passes = store.run(run())
    assert len({own for own, _ in passes}) == 1
    assert {lease.epoch for _, lease in passes} == {1}


def test_another_takes_it_under_a_new_epoch_when_the_holder_is_gone(store: Store) -> None:
    async def run() -> list[tuple[int, Lease]]:
        cluster = Cluster(store, 1)
        first = cluster.runner(1)
        first.start()
        await until(lambda: bool(cluster.passes))
        await cluster.look()
        second = cluster.runner(2)
        second.start()
        await asyncio.sleep(0.02)
        assert {own for own, _ in cluster.passes} == {1}, "its holder lives"
        cluster.live = [2]
        await until(lambda: any(own == 2 for own, _ in cluster.passes))
        await close_all([first, second])
        return cluster.passes

    by_agent = dict(store.run(run()))
    assert by_agent[2].epoch == by_agent[1].epoch + 1


def test_one_who_has_lost_the_lease_unawares_stops_when_a_write_says_so(store: Store) -> None:
    async def run() -> int:
        cluster = Cluster(store, 1)
        runs = 0

        async def write(lease: Lease) -> None:
            nonlocal runs
            runs += 1
            await store.metadata.take_leases([LEASE], BrokerId(2))
            await cluster.look()
            cluster.live = [1, 2]
            raise LeaseLost([lease])

        runner = cluster.runner(1, write)
        runner.start()
        await until(lambda: runs == 1 and not runner.held)
        await asyncio.sleep(0.02)
        await runner.close()
        assert runner.counters["sweep"].failures == 0
        return runs

    assert store.run(run()) == 1
    state = store.run(store.metadata.read_leases([LEASE]))[LEASE]
    assert (state.holder, state.epoch) == (2, 2)


def test_one_whose_lease_was_taken_before_its_first_pass_sees_so_and_may_take_it_again(store: Store) -> None:
    async def run() -> list[Lease]:
        cluster = Cluster(store, 1)
        runner = cluster.runner(1, interval_s=3600.0, first_pass_s=3600.0)
        runner.start()
        await until(lambda: bool(runner.held))
        # Another took it at the same time, and has released it since: by then nobody but this one is to run the job.
        taken = await store.metadata.take_leases([LEASE], BrokerId(2))
        await store.metadata.release_leases(taken)
        await cluster.look()
        await until(lambda: [lease.epoch for lease in runner.held] == [3])
        await cluster.look()
        await asyncio.sleep(0.02)
        held = runner.held
        await runner.close()
        return held

    assert [lease.epoch for lease in store.run(run())] == [3]


def test_of_two_that_take_a_job_at_once_one_gets_it(store: Store) -> None:
    class Together:
        """Lets nobody take before both have read."""

        def __init__(self) -> None:
            self.readers = 0
            self.takings = 0
            self.both = asyncio.Event()

        async def read_leases(self, names: Iterable[str]) -> dict[str, LeaseState]:
            found = await store.metadata.read_leases(names)
            self.readers += 1
            if self.readers == 2:
                self.both.set()
            await self.both.wait()
            return found

        async def take_leases_as_seen(
            self, seen: Mapping[str, LeaseState | None], holder: BrokerId
        ) -> list[Lease]:
            taken = await store.metadata.take_leases_as_seen(seen, holder)
            self.takings += 1
            return taken

        async def release_leases(self, held: Sequence[Lease]) -> list[Lease]:
            return await store.metadata.release_leases(held)

    async def run() -> list[Lease]:
        together = Together()
        # Each takes the other for gone.
        runners = [Cluster(store, own).runner(own, interval_s=3600.0, leases=together) for own in (1, 2)]
        for runner in runners:
            runner.start()
        await until(lambda: together.takings >= 2)
        held = [lease for runner in runners for lease in runner.held]
        await close_all(runners)
        return held

    assert len(store.run(run())) == 1


def test_a_job_that_is_an_agents_without_its_knowing_is_run_by_it_whomever_it_falls_to(store: Store) -> None:
    async def run() -> list[tuple[int, Lease]]:
        # The answer to the taking was lost, and then others came.
        cluster = Cluster(store, 1, 2, 3, 4)
        able = [BrokerId(own) for own in cluster.live]
        holder = next(own for own in able if rendezvous.first(LEASE, able) != own)
        await store.metadata.take_leases([LEASE], holder)
        await cluster.look()
        runners = [cluster.runner(own) for own in able]
        for runner in runners:
            runner.start()
        await until(lambda: bool(cluster.passes))
        await close_all(runners)
        assert {own for own, _ in cluster.passes} == {holder}
        return cluster.passes

    assert store.run(run())[0][1].epoch == 2


def test_an_agent_without_the_role_or_that_leaves_takes_no_job(store: Store) -> None:
    async def run() -> list[tuple[int, Lease]]:
        cluster = Cluster(store, 1, 2, 3)
        cluster.roles = {1: ("produce", "fetch")}
        cluster.leaving = [2]
        runners = [cluster.runner(own) for own in (1, 2, 3)]
        for runner in runners:
            runner.start()
        await until(lambda: len(cluster.passes) >= 3)
        await close_all(runners)
        return cluster.passes

    assert {own for own, _ in store.run(run())} == {3}


@pytest.mark.parametrize("newer", [1, 2, 3])
def test_a_job_is_not_left_to_an_agent_of_another_release_that_may_not_have_it(
    store: Store, newer: int
) -> None:
    async def run() -> list[tuple[int, Lease]]:
        cluster = Cluster(store, 1, 2, 3)
        cluster.versions = {broker_id: "1.0.0" for broker_id in (1, 2, 3) if broker_id != newer}
        runner = cluster.runner(newer)
        runner.start()
        await asyncio.wait_for(until(lambda: len(cluster.passes) >= 3), 5)
        await runner.close()
        return cluster.passes

    assert {own for own, _ in store.run(run())} == {newer}


def test_what_takes_the_right_to_run_gives_the_lease_up(store: Store) -> None:
    async def run() -> LeaseState:
        cluster = Cluster(store, 1)
        is_allowed = True
        runner = cluster.runner(1, may_run=lambda: is_allowed)
        runner.start()
        await until(lambda: bool(cluster.passes))
        is_allowed = False
        await until(lambda: not runner.held)
        await asyncio.sleep(0.01)
        await runner.close()
        return (await store.metadata.read_leases([LEASE]))[LEASE]

    assert store.run(run()).holder is None


def test_a_job_that_fails_is_counted_and_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [MetadataUnavailable("away"), ObjectStoreError("down"), RuntimeError("a bug")]

    async def run() -> JobRunner:
        cluster = Cluster(store, 1)

        async def fail(lease: Lease) -> None:
            if errors:
                raise errors.pop(0)
            cluster.passes.append((1, lease))

        runner = cluster.runner(1, fail)
        runner.start()
        await until(lambda: bool(cluster.passes))
        await runner.close()
        return runner

    counters = store.run(run()).counters["sweep"]
    assert counters.failures == 3
    assert counters.passes >= 1
    assert counters.last_error is None
    assert [line.levelname for line in caplog.records] == ["WARNING", "WARNING", "ERROR"]


@pytest.mark.parametrize(("interval_s", "between_s"), [(0.0, 0.05), (0.2, 0.2), (1.0, 1.0), (3600.0, 1.0)])
def test_jobs_with_short_intervals_are_looked_after_more_often(interval_s: float, between_s: float) -> None:
    assert JobLimits().between_looks_s(interval_s) == between_s


def test_close_in_the_middle_of_a_pass_releases_the_lease(store: Store) -> None:
    async def run() -> LeaseState:
        cluster = Cluster(store, 1)
        begun = asyncio.Event()

        async def hang(_: Lease) -> None:
            begun.set()
            await asyncio.Event().wait()

        runner = cluster.runner(1, hang)
        runner.start()
        await begun.wait()
        await runner.close()
        return (await store.metadata.read_leases([LEASE]))[LEASE]

    assert store.run(run()).holder is None


def test_a_restarted_agent_alone_takes_its_job_again(store: Store) -> None:
    async def run() -> list[tuple[int, Lease]]:
        cluster = Cluster(store)
        await store.metadata.take_leases([LEASE], BrokerId(1))
        runner = cluster.runner(1)
        runner.start()
        await until(lambda: bool(cluster.passes))
        await runner.close()
        return cluster.passes

    assert store.run(run())[0][1].epoch == 2

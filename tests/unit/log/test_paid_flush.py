"""What producers get from a store that charges for requests, on virtual time: latency, throughput, number of PUTs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from statistics import median, quantiles

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import FakeMetadata, append, make_unit, run_sim
from warp.errors import ErrorCode, ObjectStoreError
from warp.ids import IdSource
from warp.log.flush import Flusher, FlushLimits
from warp.log.hedge import HedgeLimits
from warp.log.model import Append
from warp.log.pacing import PacingLimits
from warp.metadata.model import CommitResult, SegmentCommit
from warp.objectstore.base import Buffer, ObjectInfo
from warp.objectstore.memory import MemoryStore

PUT_S = 0.060
COMMIT_S = 0.002
SLOW_PUT_S = 2.0
LIBRDKAFKA_WINDOW = 5
"""`max.in.flight` of an idempotent producer; its batches are of 1,000,000 bytes at most."""


class SizesStore(MemoryStore):
    """Remembers the sizes of objects, not their bytes. Each PUT takes about `PUT_S`, and some far longer."""

    requests_are_free = False

    def __init__(self, clock: SimClock, *, slow_share: float = 0.0, slow_s: float = SLOW_PUT_S) -> None:
        super().__init__(clock, bytes_max=2**40)
        self.slow_share = slow_share
        self.slow_s = slow_s
        self.slow_puts: Sequence[int] = ()
        """Of these numbers, from 1."""
        self.sizes: dict[str, int] = {}
        self.keys: list[str] = []
        self.stored_late: list[str] = []
        self.fails = False
        self._chance = random.Random(7)

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        assert key not in self.keys, "every PUT has a key of its own"
        self.keys.append(key)
        is_slow = self._chance.random() < self.slow_share or len(self.keys) in self.slow_puts
        try:
            await asyncio.sleep(self.slow_s if is_slow else PUT_S * self._chance.uniform(0.95, 1.05))
        except asyncio.CancelledError:
            # What was sent may arrive all the same.
            self.stored_late.append(key)
            raise
        if self.fails:
            raise ObjectStoreError("down")
        self.sizes[key] = sum(map(len, parts))

    async def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self.sizes[key], 0)


class Metadata(FakeMetadata):
    """Takes only what is stored, under keys that were never given up."""

    store: SizesStore

    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        for segment in segments:
            assert segment.key not in self.store.stored_late
        return await super().commit(segments, now_ms)


class Agent:
    """A flusher on a paid store, and what its clients see."""

    def __init__(self, loop: SimLoop, store: SizesStore, limits: FlushLimits | None = None) -> None:
        self.loop = loop
        self.clock = SimClock(loop)
        self.store = store
        self.metadata = Metadata(store)
        self.metadata.store = store
        self.metadata.delay_s = COMMIT_S
        ids = IdSource(self.clock, random.Random(1).randbytes)
        self.flusher = Flusher(store, self.metadata, self.clock, ids, limits=limits)
        self.latencies_s: list[float] = []

    async def produce(self, request: Append) -> None:
        """One request, from its arrival to its answer."""
        began = self.loop.time()
        unit = make_unit(self.clock, [request])
        await self.flusher.add(unit)
        (outcome,) = await unit.result
        assert outcome.error is ErrorCode.NONE
        self.latencies_s.append(self.loop.time() - began)

    async def producer(self, requests: int, request: Append, window: int, transmit_s: float) -> None:
        """A client that has `window` requests in flight and sends the next as soon as one is answered."""
        free = asyncio.Semaphore(window)

        async def one() -> None:
            await self.produce(request)
            free.release()

        sent = []
        for _ in range(requests):
            await free.acquire()
            await asyncio.sleep(transmit_s)
            sent.append(asyncio.ensure_future(one()))
        await asyncio.gather(*sent)

    @property
    def hedges(self) -> int:
        assert self.flusher.put_hedges is not None
        return self.flusher.put_hedges.started

    def p(self, percent: int) -> float:
        return quantiles(self.latencies_s, n=100)[percent - 1]


MEGABYTE = append(1, value=bytes(999_900))


def test_a_quiet_client_waits_for_one_put_and_one_commit_and_no_timer() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop)))
        for _ in range(240):
            began = loop.time()
            await agent.produce(append(1))
            await asyncio.sleep(0.5 - (loop.time() - began))
        assert median(agent.latencies_s) <= PUT_S + COMMIT_S + 0.001
        assert agent.p(99) <= 1.05 * PUT_S + COMMIT_S + 0.001
        assert len(agent.store.keys) / 2 <= 60 / 0.25

    run_sim(main)


def test_many_small_requests_cost_no_more_puts_than_a_timer() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop)))
        chance = random.Random(2)
        sent = []
        while loop.time() < 60:
            await asyncio.sleep(chance.expovariate(50))
            sent.append(asyncio.ensure_future(agent.produce(append(1))))
        await asyncio.gather(*sent)
        assert len(agent.store.keys) <= 60 / 0.25 + PacingLimits().burst_requests + 2
        assert max(agent.latencies_s) <= 0.25 + 1.05 * PUT_S + COMMIT_S + 0.01

    run_sim(main)


@pytest.mark.parametrize("transmit_s", [0.0022, 0.0004])
def test_one_producer_of_large_requests_is_limited_by_its_own_window_only(transmit_s: float) -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop)))
        began = loop.time()
        await agent.producer(600, MEGABYTE, LIBRDKAFKA_WINDOW, transmit_s)
        rate = 600 / (loop.time() - began)
        assert rate >= 0.9 * LIBRDKAFKA_WINDOW / (PUT_S + COMMIT_S)
        assert len(agent.store.keys) <= 600
        assert agent.hedges == 0

    run_sim(main)


def test_one_percent_of_slow_puts_is_hedged_away() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=0.01))
        began = loop.time()
        await agent.producer(2_000, MEGABYTE, LIBRDKAFKA_WINDOW, 0.0022)
        assert agent.p(99) <= 3 * median(agent.latencies_s)
        assert len(agent.store.keys) <= 1.03 * 2_000
        assert 10 <= agent.hedges <= 0.03 * 2_000
        rate = 2_000 / (loop.time() - began)
        assert rate >= 0.8 * LIBRDKAFKA_WINDOW / (PUT_S + COMMIT_S)

    run_sim(main)


def test_one_percent_of_slow_puts_is_hedged_away_for_a_quiet_client_too() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=0.01))
        for _ in range(1_500):
            began = loop.time()
            await agent.produce(append(1))
            await asyncio.sleep(max(0.0, 0.5 - (loop.time() - began)))
        assert agent.p(99) <= 3 * median(agent.latencies_s)
        assert len(agent.store.keys) <= 1.03 * 1_500

    run_sim(main)


def test_when_the_whole_store_becomes_slow_hardly_any_put_is_sent_twice() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_s=0.6))
        await agent.producer(300, MEGABYTE, LIBRDKAFKA_WINDOW, 0.0022)
        agent.store.slow_share = 1.0
        sent = len(agent.store.keys)
        await agent.producer(500, MEGABYTE, LIBRDKAFKA_WINDOW, 0.0022)
        assert len(agent.store.keys) - sent <= 1.03 * 500
        assert agent.hedges <= HedgeLimits().burst_requests + 2

    run_sim(main)


def test_a_put_of_a_hundred_that_hangs_delays_those_behind_it_by_little() -> None:
    """Commits are in order, so the segments behind a slow one wait for its hedge."""

    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=0.01, slow_s=1e6))
        await asyncio.gather(*(agent.producer(400, MEGABYTE, LIBRDKAFKA_WINDOW, 0.0022) for _ in range(4)))
        assert max(agent.latencies_s) < 20
        assert agent.p(99) <= 4 * median(agent.latencies_s)

    run_sim(main)


@pytest.mark.parametrize(("slow_puts", "winner"), [((1,), 1), ((1, 2), 0)])
def test_a_hedge_has_a_key_of_its_own_and_only_the_winners_is_committed(
    slow_puts: Sequence[int], winner: int
) -> None:
    """The store asserts that no key is used twice, the metadata that none is committed that was given up."""

    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop)))
        agent.store.slow_puts = slow_puts
        await agent.produce(append(1))
        keys = agent.store.keys
        assert len(keys) == 2
        assert agent.metadata.attempts == [[keys[winner]]]
        assert agent.store.stored_late == [keys[1 - winner]]

    run_sim(main)


def test_no_put_is_sent_twice_for_requests_that_nobody_waits_for() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=1.0))
        unit = make_unit(agent.clock, [append(1)], timeout_s=0.5)
        await agent.flusher.add(unit)
        assert (await unit.result)[0].error is ErrorCode.REQUEST_TIMED_OUT
        await asyncio.sleep(10)
        assert len(agent.store.keys) == 1

    run_sim(main)


def test_no_put_is_sent_twice_beyond_the_request_budget() -> None:
    async def main(loop: SimLoop) -> None:
        pacing = PacingLimits(flush_interval_s=10.0, burst_requests=1.0, debt_requests=0.0)
        agent = Agent(
            loop, SizesStore(SimClock(loop), slow_share=1.0, slow_s=5.0), FlushLimits(pacing=pacing)
        )
        await agent.produce(append(1))
        assert len(agent.store.keys) == 1
        assert loop.time() == pytest.approx(5.0 + COMMIT_S)
        await asyncio.sleep(60.0)
        agent.store.slow_s = 18.0
        # Asked for after 1, 3, 7 and 15 seconds; the next token comes after 10.
        await agent.produce(append(1))
        assert agent.hedges == 1

    run_sim(main)


def test_hedges_that_fail_like_their_firsts_are_followed_by_the_usual_attempts() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=1.0))
        agent.store.fails = True
        unit = make_unit(agent.clock, [append(1)])
        await agent.flusher.add(unit)
        assert (await unit.result)[0].error is ErrorCode.KAFKA_STORAGE_ERROR
        assert len(agent.store.keys) == 6
        assert agent.flusher.failed_puts == 6
        agent.store.fails = False
        await agent.produce(append(1))

    run_sim(main)


def test_close_leaves_no_put_behind() -> None:
    async def main(loop: SimLoop) -> None:
        agent = Agent(loop, SizesStore(SimClock(loop), slow_share=1.0, slow_s=1e6))
        unit = make_unit(agent.clock, [append(1)], timeout_s=1e5)
        await agent.flusher.add(unit)
        await asyncio.sleep(5.0)
        assert len(agent.store.keys) == 2
        await agent.flusher.close()
        assert agent.store.stored_late == agent.store.keys
        assert (await unit.result)[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER

    run_sim(main)

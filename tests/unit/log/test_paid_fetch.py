"""What reading costs on a store that charges for requests, counted in GETs; and GETs that are slow, on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import append, make_unit, run_sim
from tests.unit.log.read_support import LOG, OTHER, PlainLogs, PlainStore
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.ids import IdSource, LogId
from warp.log.answer import FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import Flusher
from warp.log.hedge import HedgeLimits
from warp.log.memory import MemoryBudget
from warp.log.race import HedgedRequests
from warp.log.tail import TailIndex
from warp.log.trace import FetchNote, RequestTrace
from warp.metadata.model import NewTopic
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore

MIB = 2**20
CACHE_BYTES = 128 * MIB
"""The default of --cache-bytes."""


def service_of(clock: SimClock, logs: Any, store: Any) -> FetchService:
    cache = ChunkCache(store, bytes_max=CACHE_BYTES)
    return FetchService(logs, cache, TailIndex(), MemoryBudget(100 * MIB), trace=RequestTrace(clock))


async def read_all(
    service: FetchService, logs: Sequence[LogId], ends: dict[LogId, int], bytes_max: int
) -> int:
    """Read logs from their start as a consumer does, `bytes_max` per partition and request; how many bytes came."""
    offsets = dict.fromkeys(logs, 0)
    size_bytes = 0
    while any(offsets[log] < ends[log] for log in logs):
        queries = [FetchPartitionQuery(log, offsets[log], bytes_max) for log in logs]
        answer = await service.fetch(queries, bytes_max=50 * MIB, bytes_min=1, wait_ms=0)
        for log, result in zip(logs, answer.partitions, strict=True):
            assert not result.error
            data = b"".join(result.records)
            size_bytes += len(data)
            # One record per batch.
            at = 0
            while at < len(data):
                at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
                offsets[log] += 1
        answer.release()
    return size_bytes


@pytest.mark.parametrize(
    "batches_bytes",
    [
        [MIB] * 8,
        [1_088_000] * 8,
        [8 * MIB + 1],
        [MIB] * 9,
        [MIB - 200] * 12,
        [MIB] * 12,
        [MIB] * 16,
        [MIB] * 33,
    ],
    ids=lambda sizes: f"{sum(sizes) / MIB:.1f} MiB",
)
@pytest.mark.parametrize("fetched_bytes", [300_000, 5 * MIB])
def test_catching_up_takes_a_get_per_four_mib(batches_bytes: list[int], fetched_bytes: int) -> None:
    async def main(loop: SimLoop) -> None:
        store = PlainStore()
        logs = PlainLogs(store)
        half = len(batches_bytes) // 2
        for _ in range(3):
            rows = [[(bytes(size), 1)] for size in batches_bytes]
            logs.append({LOG: rows[half:], **({OTHER: rows[:half]} if half else {})})
        ends = {LOG: 3 * (len(batches_bytes) - half), OTHER: 3 * half}
        service = service_of(SimClock(loop), logs, store)
        size_bytes = await read_all(service, [LOG, OTHER], ends, fetched_bytes)
        assert size_bytes >= 3 * sum(batches_bytes)
        assert store.gets <= 1.05 * size_bytes / (4 * MIB)
        await service.close()

    run_sim(main)


@pytest.mark.parametrize(("cache_bytes", "chunk_bytes"), [(16, 4), (63, 4), (64, 8), (1024, 8)])
def test_a_small_cache_keeps_to_small_chunks(cache_bytes: int, chunk_bytes: int) -> None:
    cache = ChunkCache(PlainStore(), bytes_max=cache_bytes * MIB)  # type: ignore[arg-type]
    assert cache.chunk_bytes == chunk_bytes * MIB


class CountingStore(MemoryStore):
    """Charges for requests, and counts GETs."""

    requests_are_free = False
    gets = 0

    async def get(self, key: str, start: int, length: int) -> bytes:
        self.gets += 1
        return await super().get(key, start, length)


class Readers:
    """Tells a fetch service of commits."""

    def __init__(self, service: FetchService) -> None:
        self.committed = service.committed

    def phase_done(self, phase: str, seconds: float) -> None: ...

    def phase_failed(self, phase: str) -> None: ...

    def sealed(self, size_bytes: int) -> None: ...


def test_a_consumer_that_keeps_up_takes_no_get() -> None:
    async def main(loop: SimLoop) -> None:
        clock = SimClock(loop)
        ids = IdSource(clock, random.Random(3).randbytes)
        store = CountingStore(clock, bytes_max=2**30)
        metadata = MetadataStore(SqliteDatabase(IN_MEMORY, now_ms=clock.time_ms), clock, ids)
        await metadata.open()
        (topic,) = await metadata.create_topics([NewTopic("orders", ids.topic_id(), 1)])
        log = topic.logs[0]  # type: ignore[union-attr]  # it is new
        service = service_of(clock, metadata, store)
        flusher = Flusher(store, metadata, clock, ids, observers=[Readers(service)])  # type: ignore[list-item]
        read = 0
        for offset in range(40):
            unit = make_unit(clock, [append(log, value=bytes(500_000))])
            await flusher.add(unit)
            query = FetchPartitionQuery(log, offset, MIB)
            answer = await service.fetch([query], bytes_max=50 * MIB, bytes_min=1, wait_ms=5_000)
            read += answer.records_bytes
            answer.release()
        assert read >= 40 * 500_000
        assert store.gets == 0
        assert await flusher.drain(60)
        await service.close()
        await metadata.close()

    run_sim(main)


class SlowStore:
    """Objects of `size` bytes; the n-th GET (from 1) takes as long as told, and fails where told."""

    requests_are_free = False

    def __init__(self, size: int = 150) -> None:
        self.size = size
        self.gets = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.delays_s: dict[int, float] = {}
        self.faults: dict[int, Exception] = {}

    async def get(self, key: str, start: int, length: int) -> Buffer:
        self.gets += 1
        number = self.gets
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(self.delays_s.get(number, 0.03))
        finally:
            self.in_flight -= 1
        if number in self.faults:
            raise self.faults[number]
        data = bytes(self.size)[start : start + length]
        if len(data) < length:
            raise ShortObject(key, data)
        return data


class Reading:
    """A cache on a slow store."""

    def __init__(self, loop: SimLoop, bytes_max: int = 1_000) -> None:
        self.store = SlowStore()
        self.hedges = HedgedRequests(SimClock(loop), HedgeLimits(delay_unknown_s=0.2))
        self.cache = ChunkCache(self.store, bytes_max=bytes_max, chunk_bytes=100, hedges=self.hedges)  # type: ignore[arg-type]
        self.note = FetchNote()

    async def read(self, key: str = "a", position: int = 0, size: int = 100) -> bytes:
        return b"".join(await self.cache.read(key, position, size, self.note))


def test_a_slow_get_is_hedged_and_its_readers_share_the_faster_one() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Reading(loop)
        bench.store.delays_s = {1: 5.0}
        assert await asyncio.gather(*(bench.read() for _ in range(3))) == [bytes(100)] * 3
        assert loop.time() == pytest.approx(0.23)
        assert (bench.store.gets, bench.hedges.started, bench.hedges.won) == (2, 1, 1)
        assert (bench.note.gets, bench.note.hedged_gets, bench.note.hedges_won) == (3, 3, 3)
        assert bench.note.load_s == pytest.approx(3 * 0.23)
        await asyncio.sleep(1.0)
        assert bench.store.in_flight == 0
        assert bench.cache.used_bytes == 100
        # The end of an object is hedged as well.
        bench.store.delays_s = {3: 5.0}
        assert await bench.read("a", 100, 50) == bytes(50)
        assert loop.time() == pytest.approx(1.46)
        await asyncio.sleep(1.0)
        assert bench.cache.used_bytes == 150

    run_sim(main)


def test_a_second_get_needs_memory_of_its_own() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Reading(loop, bytes_max=100)
        bench.store.delays_s = {1: 5.0}
        await bench.read()
        assert loop.time() == pytest.approx(5.0)
        assert (bench.store.gets, bench.hedges.denied) == (1, 1)
        bench = Reading(loop, bytes_max=200)
        bench.store.delays_s = {1: 5.0, 2: 1.0}
        reading = asyncio.ensure_future(bench.read())
        await asyncio.sleep(0.5)
        assert bench.cache.used_bytes == 200
        waiting = asyncio.ensure_future(bench.read("b"))
        await asyncio.sleep(0.5)
        assert bench.store.gets == 2
        assert await reading == await waiting == bytes(100)
        assert bench.cache.used_bytes <= 200
        await bench.cache.close()

    run_sim(main)


def test_when_both_gets_fail_the_load_has_failed_and_gives_its_memory_back() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Reading(loop)
        bench.store.delays_s = {1: 1.0, 2: 0.1}
        bench.store.faults = {1: ObjectNotFound("a"), 2: ObjectStoreError("reset")}
        with pytest.raises(ObjectNotFound):
            await bench.read()
        await asyncio.sleep(0)
        assert (bench.cache.used_bytes, bench.cache.failed_loads) == (0, 1)
        assert await bench.read() == bytes(100)

    run_sim(main)


def test_close_stops_both_gets() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Reading(loop)
        bench.store.delays_s = {1: 1e6, 2: 1e6}
        reading = asyncio.ensure_future(bench.read())
        await asyncio.sleep(1.0)
        assert bench.store.in_flight == 2
        await bench.cache.close()
        with pytest.raises(ObjectStoreError, match="closed"):
            await reading
        assert (bench.store.in_flight, bench.cache.used_bytes) == (0, 0)

    run_sim(main)


def test_one_percent_of_slow_gets_is_hedged_away() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Reading(loop)
        chance = random.Random(3)
        bench.store.delays_s = {n: 2.0 for n in range(100, 3_000) if chance.random() < 0.01}
        slow_reads = 0
        for number in range(2_000):
            began = loop.time()
            await bench.read(str(number))
            slow_reads += loop.time() - began > 0.3
        assert len([n for n in bench.store.delays_s if n < 2_000]) >= 15
        assert slow_reads <= 2
        assert bench.store.gets <= 1.02 * 2_000

    run_sim(main)

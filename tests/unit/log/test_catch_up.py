"""Reading old data of many partitions: what lies together is read once for all, whatever the cache holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.unit.log.read_support import LOG, OTHER, PlainLogs, PlainStore, run, values_of
from warp.ids import LogId
from warp.log import fetch
from warp.log.answer import FetchLimits, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.memory import MemoryBudget
from warp.log.tail import TailIndex

NOW = 1_700_000_000_000
PARTITIONS = 40
SEGMENTS = 30
VALUE = b"v" * 500
CHUNK_BYTES = 32 * 1024
"""A little more than a segment of all partitions."""
LOGS = [LogId(100 + number) for number in range(PARTITIONS)]

Order = Callable[[int, Sequence[LogId]], list[LogId]]


def as_before(_round: int, logs: Sequence[LogId]) -> list[LogId]:
    """What a client asks for that never changes the order of its partitions."""
    return list(logs)


def rotated_by_one(number: int, logs: Sequence[LogId]) -> list[LogId]:
    """What librdkafka asks for."""
    first = number % len(logs)
    return [*logs[first:], *logs[:first]]


def _key_of(number: int) -> str:
    """The key of a segment that was made at this time."""
    return f"segments/{number * 37 % 256:02x}/{number:012x}-{0:020x}"


class Bench:
    """An agent that has just started, beside logs that were written interleaved, a batch of each to a segment."""

    def __init__(self, *, cache_chunks: int, segments: int = SEGMENTS) -> None:
        self.store = PlainStore()
        self.logs = PlainLogs(self.store, _key_of)
        for log_id in LOGS:
            self.logs.extents[log_id] = []
            self.logs.starts[log_id] = 0
        for _ in range(segments):
            self.logs.append({log_id: [[(VALUE, NOW)]] for log_id in LOGS})
        self.cache = ChunkCache(self.store, bytes_max=cache_chunks * CHUNK_BYTES, chunk_bytes=CHUNK_BYTES)  # type: ignore[arg-type]
        self.memory = MemoryBudget(2**24)
        self.service = FetchService(self.logs, self.cache, TailIndex(), self.memory)
        self.used_bytes_max = 0

    async def fetch(
        self, logs: Sequence[LogId], offsets: dict[LogId, int], bytes_max: int = 2**20
    ) -> list[LogId]:
        """One fetch of these logs; moves their offsets on, and gives back those that got something."""
        answer = await self.service.fetch(
            [FetchPartitionQuery(log_id, offsets[log_id], 2**20) for log_id in logs],
            bytes_max=bytes_max,
            bytes_min=1,
            wait_ms=0,
        )
        self.used_bytes_max = max(self.used_bytes_max, self.cache.used_bytes)
        served = []
        for log_id, part in zip(logs, answer.partitions, strict=True):
            records = values_of(part.records)
            assert not part.error
            assert [offset for offset, _ in records] == list(
                range(offsets[log_id], offsets[log_id] + len(records))
            )
            if records:
                served.append(log_id)
                offsets[log_id] += len(records)
        answer.release()
        return served


@pytest.mark.parametrize("order", [as_before, rotated_by_one])
@pytest.mark.parametrize("cache_chunks", [1, 2, 4, 8, 64])
def test_each_fetch_of_many_cold_partitions_gets_something_for_few_gets(
    cache_chunks: int, order: Order
) -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=cache_chunks)
        offsets = dict.fromkeys(LOGS, 0)
        fetches = 0
        while any(offset < SEGMENTS for offset in offsets.values()):
            fetches += 1
            before = bench.store.gets
            assert await bench.fetch(order(fetches, LOGS), offsets)
            assert bench.store.gets - before <= max(1, cache_chunks)
        assert bench.store.gets == SEGMENTS
        assert bench.used_bytes_max <= bench.cache.bytes_max
        assert bench.memory.used_bytes == 0

    run(scenario())


def test_partitions_that_lag_behind_come_up_with_the_others() -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=8)
        offsets = {log_id: 4 - number % 5 for number, log_id in enumerate(LOGS)}
        while any(offset < SEGMENTS for offset in offsets.values()):
            assert await bench.fetch(LOGS, offsets)
        assert bench.store.gets <= SEGMENTS + 5

    run(scenario())


def test_the_first_partition_is_served_however_far_others_lag_behind() -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=8)
        ahead = LOGS[7]
        offsets = dict.fromkeys(LOGS, 0) | {ahead: SEGMENTS - 2}
        served = await bench.fetch([ahead, *(log_id for log_id in LOGS if log_id != ahead)], offsets)
        assert ahead in served
        assert len(served) == PARTITIONS
        served = await bench.fetch([ahead, *LOGS[:7]], offsets, bytes_max=600)
        assert served == [ahead]

    run(scenario())


def test_many_consumers_that_catch_up_in_a_small_cache_all_get_something() -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=4)
        # Each reads another part of the logs, so none can use what another has loaded.
        starts = [dict.fromkeys(LOGS, 2 * number) for number in range(SEGMENTS // 2)]
        for _ in range(2):
            before = bench.store.gets
            served = await asyncio.gather(*(bench.fetch(LOGS, offsets, 40_000) for offsets in starts))
            assert all(len(each) == PARTITIONS for each in served)
            assert bench.store.gets - before <= 2 * len(starts)
        assert bench.used_bytes_max <= bench.cache.bytes_max

    run(scenario())


def test_the_index_is_asked_for_little_of_each_when_many_are_asked_for() -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=8, segments=300)
        offsets = dict.fromkeys(LOGS, 0)
        await bench.fetch(LOGS, offsets)
        [asked] = bench.logs.reads
        assert {query.bytes_max for query in asked} == {64 * 1024}
        await bench.fetch(LOGS[:2], offsets)
        assert {query.bytes_max for query in bench.logs.reads[1]} == {512 * 1024}

    run(scenario())


def test_few_extents_of_each_are_asked_for_when_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_ASK_EXTENTS_MAX", 20 * PARTITIONS)

    async def scenario() -> None:
        bench = Bench(cache_chunks=64, segments=100)
        offsets = dict.fromkeys(LOGS, 0)
        await bench.fetch(LOGS, offsets)
        await bench.fetch(LOGS[:2], dict.fromkeys(LOGS, 0))
        asked = [{query.extents_max for query in read} for read in bench.logs.reads]
        assert asked == [{20}, {20 * PARTITIONS // 2}]
        while any(offset < 100 for offset in offsets.values()):
            before = dict(offsets)
            assert await bench.fetch(LOGS, offsets)
            assert all(offsets[log_id] - before[log_id] <= 20 for log_id in LOGS)

    run(scenario())


def test_a_minimum_beyond_what_the_index_is_asked_for_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "_ASK_EXTENTS_MAX", 20 * PARTITIONS)

    async def scenario() -> None:
        bench = Bench(cache_chunks=64, segments=100)
        queries = [FetchPartitionQuery(log_id, 0, 2**20) for log_id in LOGS]
        asked_for = 20 * sum(bench.logs.extents[log_id][0].size_bytes for log_id in LOGS)
        fetching = bench.service.fetch(queries, bytes_max=2**24, bytes_min=2 * asked_for, wait_ms=3_600_000)
        answer = await asyncio.wait_for(fetching, 20)
        assert answer.records_bytes > 0
        assert bench.service.counters.waits == 0
        answer.release()

    run(scenario())


def test_a_minimum_that_few_of_many_partitions_can_give_is_not_waited_for() -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=64, segments=300)
        ended = dict.fromkeys(LOGS[1:], 300)
        queries = [FetchPartitionQuery(log_id, ended.get(log_id, 0), 2**20) for log_id in LOGS]
        fetching = asyncio.ensure_future(
            bench.service.fetch(queries, bytes_max=2**20, bytes_min=100_000, wait_ms=3_600_000)
        )
        answer = await asyncio.wait_for(fetching, 20)
        assert answer.records_bytes > 0
        assert bench.service.counters.waits == 0
        answer.release()

    run(scenario())


def test_fetches_that_need_room_in_the_cache_and_memory_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        store = PlainStore()
        logs = PlainLogs(store, _key_of)
        # The second batch of LOG begins in one chunk and ends in the next one.
        logs.append({LOG: [[(VALUE, NOW)], [(b"v" * CHUNK_BYTES, NOW)]]})
        logs.append({OTHER: [[(VALUE, NOW)]]})
        cache = ChunkCache(store, bytes_max=4 * CHUNK_BYTES, chunk_bytes=CHUNK_BYTES)  # type: ignore[arg-type]
        assert cache.claims_bytes_max == CHUNK_BYTES
        memory = MemoryBudget(1)
        limits = FetchLimits(memory_wait_s_max=5, claim_wait_s_max=5)
        service = FetchService(logs, cache, TailIndex(), memory, limits)

        async def read(log_id: LogId, offset: int, *, allow_zstd: bool) -> list[int]:
            query = FetchPartitionQuery(log_id, offset, 2**20)
            answer = await service.fetch(
                [query], bytes_max=2**20, bytes_min=1, wait_ms=0, allow_zstd=allow_zstd
            )
            found = [offset for offset, _ in values_of(answer.partitions[0].records)]
            answer.release()
            return found

        assert await read(LOG, 0, allow_zstd=True) == [0]
        store.gate.clear()
        claiming = asyncio.ensure_future(read(OTHER, 0, allow_zstd=False))
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.gets == 2
        crossing = asyncio.ensure_future(read(LOG, 1, allow_zstd=True))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not claiming.done()
        assert not crossing.done()
        store.gate.set()
        assert await claiming == [0]
        assert await crossing == [1]
        assert service.counters.answers_without_memory == 0
        assert memory.used_bytes == 0

    run(scenario())


@pytest.mark.parametrize(("bytes_max", "of_partition_max"), [(0, 2**20), (2**20, 0), (0, 0)])
def test_a_limit_of_nothing_lets_one_batch_out_of_what_has_to_be_loaded(
    bytes_max: int, of_partition_max: int
) -> None:
    async def scenario() -> None:
        bench = Bench(cache_chunks=8)
        queries = [FetchPartitionQuery(log_id, 0, of_partition_max) for log_id in LOGS[:3]]
        answer = await bench.service.fetch(queries, bytes_max=bytes_max, bytes_min=1, wait_ms=0)
        assert [len(values_of(part.records)) for part in answer.partitions] == [1, 0, 0]
        answer.release()

    run(scenario())

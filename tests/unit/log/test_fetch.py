"""Fetch: Kafka's limits and waits, freshness, and what happens when an object or a store is not there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit.log.read_support import LOG, OTHER, PlainLogs, PlainStore, run, values_of
from warp._records import scan_batches
from warp.errors import ErrorCode, KafkaError, MetadataError
from warp.ids import LogId
from warp.log.answer import FetchAnswer, FetchLimits, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.hints import LogHint
from warp.log.memory import MemoryBudget
from warp.log.reader import VIEW_BYTES_MIN
from warp.log.tail import TailIndex
from warp.metadata.model import CommitResult, ExtentQuery, LogRead

NOW = 1_700_000_000_000
MIB = 2**20


def rows(*values: bytes) -> list[tuple[bytes, int]]:
    return [(value, NOW) for value in values]


class Bench:
    """A fetch service over plain logs. `commit` is this agent's, `commit_elsewhere` another agent's."""

    def __init__(
        self,
        *,
        memory_bytes: int = 100 * MIB,
        chunk_bytes: int = 4 * MIB,
        cache_bytes: int = 64 * MIB,
        **limits: Any,
    ) -> None:
        self.store = PlainStore()
        self.logs = PlainLogs(self.store)
        self.memory = MemoryBudget(memory_bytes)
        self.cache = ChunkCache(self.store, bytes_max=cache_bytes, chunk_bytes=chunk_bytes)  # type: ignore[arg-type]
        self.tail = TailIndex()
        self.service = FetchService(self.logs, self.cache, self.tail, self.memory, FetchLimits(**limits))

    def commit(self, batches: dict[LogId, list[list[tuple[bytes, int]]]], **options: Any) -> CommitResult:
        result, images = self.logs.append(batches, **options)
        self.service.committed(result, images)
        return result

    def commit_elsewhere(self, batches: dict[LogId, list[list[tuple[bytes, int]]]]) -> CommitResult:
        result, _ = self.logs.append(batches)
        return result

    async def fetch(
        self, *queries: tuple[LogId, int] | tuple[LogId, int, int], **options: Any
    ) -> FetchAnswer:
        settings: dict[str, Any] = {"bytes_max": 50 * MIB, "bytes_min": 1, "wait_ms": 0, **options}
        return await self.service.fetch(
            [FetchPartitionQuery(*((*query, MIB)[:3])) for query in queries], **settings
        )


def found(answer: FetchAnswer, partition: int = 0) -> list[tuple[int, bytes]]:
    return values_of(answer.partitions[partition].records)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something has happened."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


# What is read


def test_records_come_with_their_offsets_and_the_ends_of_the_log() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a", b"b"), rows(b"c")]})
        bench.commit({LOG: [rows(b"d")]})
        answer = await bench.fetch((LOG, 0))
        [part] = answer.partitions
        assert found(answer) == [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d")]
        assert (part.error, part.high_watermark, part.last_stable_offset, part.log_start_offset) == (
            0,
            4,
            4,
            0,
        )
        assert part.aborted_transactions is None
        assert bench.store.gets == 0

    run(scenario())


def test_the_first_batch_is_the_one_that_holds_the_offset() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a", b"b"), rows(b"c", b"d", b"e"), rows(b"f")]})
        expected = {0: 0, 1: 0, 2: 2, 3: 2, 4: 2, 5: 5}
        for offset, first in expected.items():
            answer = await bench.fetch((LOG, offset))
            assert found(answer)[0][0] == first
            assert found(answer)[-1] == (5, b"f")

    run(scenario())


@pytest.mark.parametrize("chunk_bytes", [64, 100, 4096])
def test_a_cold_log_is_read_the_same_whatever_the_chunks(chunk_bytes: int) -> None:
    async def scenario() -> None:
        bench = Bench(chunk_bytes=chunk_bytes, chunks_max=10_000)
        truth = []
        for number in range(20):
            values = [b"%d-%d" % (number, item) * 20 for item in range(number % 4 + 1)]
            bench.commit_elsewhere({LOG: [rows(value) for value in values], OTHER: [rows(b"noise" * number)]})
            truth.extend(values)
        for offset in range(len(truth)):
            answer = await bench.fetch((LOG, offset))
            assert found(answer) == list(enumerate(truth))[offset:]
            answer.release()
        assert bench.memory.used_bytes == 0

    run(scenario())


@pytest.mark.parametrize("piece_bytes", [1, 50, 64, 1000])
def test_a_fresh_segment_is_read_the_same_whatever_pieces_it_is_in(piece_bytes: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        values = [b"%d" % number * 10 for number in range(30)]
        result, images = bench.logs.append({LOG: [rows(value) for value in values]})
        [(key, image)] = images.items()
        pieces = [image[start : start + piece_bytes] for start in range(0, len(image), piece_bytes)]
        bench.service.committed(result, {key: pieces})
        for offset in range(30):
            answer = await bench.fetch((LOG, offset, 400))
            records = found(answer)
            assert records == list(enumerate(values))[offset : offset + len(records)]
            assert records
        assert bench.store.gets == 0

    run(scenario())


def test_partitions_that_are_not_in_memory_are_loaded_beside_each_other() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"a")]})
        bench.commit_elsewhere({OTHER: [rows(b"b")]})
        bench.store.gate.clear()
        fetching = asyncio.create_task(bench.fetch((LOG, 0), (OTHER, 0)))
        await until(lambda: bench.store.gets == 2)
        bench.store.gate.set()
        answer = await fetching
        assert (found(answer, 0), found(answer, 1)) == ([(0, b"a")], [(0, b"b")])
        assert bench.store.gets == 2

    run(scenario())


def test_reading_on_does_not_walk_the_extent_from_its_start_again() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"%d" % number) for number in range(100)]})
        offset, sizes = 0, 0
        while offset < 100:
            answer = await bench.fetch((LOG, offset, 500))
            records = found(answer)
            assert records[0] == (offset, b"%d" % offset)
            assert len(answer.partitions[0].records[0]) <= 500
            offset = records[-1][0] + 1
            sizes += 1
        assert sizes > 5

    run(scenario())


def test_batches_are_stamped_with_the_constant_epoch_and_whole() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a" * 100), rows(b"b" * 100), rows(b"c" * 100)]})
        answer = await bench.fetch((LOG, 0, 400))
        data = bytes(answer.partitions[0].records[0])
        spans = scan_batches(data)
        assert [span.base_offset for span in spans] == [0, 1]
        assert sum(span.size_bytes for span in spans) == len(data)
        assert all(data[span.position + 12 : span.position + 16] == bytes(4) for span in spans)

    run(scenario())


# Limits


def test_the_first_batch_goes_out_whatever_its_size_and_no_other() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"x" * 1000), rows(b"y")], OTHER: [rows(b"z" * 1000)]})
        for limits in ((10, 50 * MIB), (MIB, 10), (0, 0)):
            answer = await bench.fetch((LOG, 0, limits[0]), (OTHER, 0, limits[0]), bytes_max=limits[1])
            assert found(answer, 0) == [(0, b"x" * 1000)]
            assert found(answer, 1) == []
            assert answer.partitions[1].error == ErrorCode.NONE
            assert answer.partitions[1].high_watermark == 1

    run(scenario())


def test_partitions_are_filled_in_request_order_up_to_the_whole_limit() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"x" * 1000)] * 5, OTHER: [rows(b"y" * 1000)] * 5})
        for first, second in ((LOG, OTHER), (OTHER, LOG)):
            answer = await bench.fetch((first, 0, 3500), (second, 0, 3500), bytes_max=5500)
            assert [len(found(answer, 0)), len(found(answer, 1))] == [3, 2]

    run(scenario())


def test_the_broker_caps_the_size_of_an_answer() -> None:
    async def scenario() -> None:
        bench = Bench(bytes_max=2500)
        bench.commit({LOG: [rows(b"x" * 1000)] * 5})
        assert len(found(await bench.fetch((LOG, 0)))) == 2

    run(scenario())


def test_read_committed_stops_at_the_last_stable_offset_even_inside_an_extent() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.logs.append({LOG: [rows(b"a"), rows(b"b"), rows(b"c")]})
        bench.logs.stable[LOG] = 1
        answer = await bench.fetch((LOG, 0), read_committed=True)
        assert found(answer) == [(0, b"a")]
        assert answer.partitions[0].last_stable_offset == 1
        assert answer.partitions[0].aborted_transactions == []
        assert found(await bench.fetch((LOG, 1), read_committed=True)) == []
        assert found(await bench.fetch((LOG, 1))) == [(1, b"b"), (2, b"c")]

    run(scenario())


# Errors


def test_offset_out_of_range_is_said_only_after_asking_the_store() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.commit_elsewhere({LOG: [rows(b"b"), rows(b"c")]})
        # This agent has seen the end at 1; the consumer learnt of offset 2 elsewhere.
        assert found(await bench.fetch((LOG, 2))) == [(2, b"c")]
        for offset in (4, -1, 2**62):
            answer = await bench.fetch((LOG, offset), wait_ms=10_000)
            part = answer.partitions[0]
            assert part.error == ErrorCode.OFFSET_OUT_OF_RANGE
            assert (part.high_watermark, part.last_stable_offset, part.log_start_offset) == (-1, -1, -1)
            assert part.records == []
        end = await bench.fetch((LOG, 3))
        assert (end.partitions[0].error, end.partitions[0].high_watermark) == (ErrorCode.NONE, 3)

    run(scenario())


def test_offsets_below_a_moved_log_start_are_out_of_range_exactly() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a", b"b", b"c")]})
        bench.logs.starts[LOG] = 2
        bench.service.log_starts_at(LOG, 2)
        assert (await bench.fetch((LOG, 1))).partitions[0].error == ErrorCode.OFFSET_OUT_OF_RANGE
        answer = await bench.fetch((LOG, 2))
        assert answer.partitions[0].log_start_offset == 2
        # The batch that straddles the start is sent whole.
        assert found(answer) == [(0, b"a"), (1, b"b"), (2, b"c")]

    run(scenario())


def test_a_gone_log_is_unknown_and_ends_the_wait_of_its_readers() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        waiting = asyncio.create_task(bench.fetch((LOG, 1), wait_ms=60_000))
        await until(lambda: bench.service.waiting)
        del bench.logs.extents[LOG]
        bench.service.logs_gone([LOG])
        answer = await waiting
        assert answer.partitions[0].error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(scenario())


def test_a_missing_object_fails_its_partition_alone_after_a_fresh_look_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"lost")]})
        bench.commit_elsewhere({OTHER: [rows(b"here")]})
        del bench.store.objects["segments/1"]
        answer = await bench.fetch((LOG, 0), (OTHER, 0))
        assert answer.partitions[0].error == ErrorCode.KAFKA_STORAGE_ERROR
        assert found(answer, 1) == [(0, b"here")]
        assert bench.service.counters.missing_objects == 1
        assert [query.log_id for read in bench.logs.reads for query in read].count(LOG) == 2
        assert "log 7: offset 0 can't be read" in caplog.text

    run(scenario())


def test_a_missing_object_that_the_index_no_longer_names_is_no_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a"), rows(b"b")]})
        # Merged away: the same records in another object.
        [old] = bench.logs.extents[LOG]
        data = bench.store.objects.pop(old.key)
        bench.cache.forget(old.key)
        bench.store.objects["merged"] = data
        bench.logs.extents[LOG] = [
            type(old)(LOG, 0, 2, "merged", old.position, old.size_bytes, old.max_timestamp_ms)
        ]
        assert found(await bench.fetch((LOG, 0))) == [(0, b"a"), (1, b"b")]
        assert bench.service.counters.missing_objects == 0

    run(scenario())


def test_records_are_looked_up_again_when_where_they_are_was_learned_too_long_ago() -> None:
    async def scenario() -> None:
        now = [0.0]
        bench = Bench()
        bench.tail = TailIndex(age_s_max=900, now=lambda: now[0])
        bench.service = FetchService(bench.logs, bench.cache, bench.tail, bench.memory)
        bench.commit({LOG: [rows(b"a"), rows(b"b")]})
        [old] = bench.logs.extents[LOG]
        bench.store.objects["merged"] = bench.store.objects[old.key]
        bench.logs.extents[LOG] = [
            type(old)(LOG, 0, 2, "merged", old.position, old.size_bytes, old.max_timestamp_ms)
        ]
        for seconds, looks in ((900.0, 0), (901.0, 1)):
            now[0] = seconds
            assert found(await bench.fetch((LOG, 0))) == [(0, b"a"), (1, b"b")]
            assert (len(bench.logs.reads), bench.store.gets) == (looks, looks)

    run(scenario())


def test_an_older_answer_does_not_stand_in_for_a_question_that_failed() -> None:
    """Seed 2121 of the simulator: a record that had been acknowledged before a fetch began was not there for it."""

    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"a")]})
        read_extents, gate = bench.logs.read_extents, asyncio.Event()

        async def late(queries: Sequence[ExtentQuery]) -> list[LogRead]:
            answer = await read_extents(queries)
            await gate.wait()
            return answer

        bench.logs.read_extents = late  # type: ignore[method-assign]
        older = asyncio.ensure_future(bench.fetch((LOG, 0)))
        await until(lambda: bench.logs.reads)
        await asyncio.sleep(0.01)
        bench.commit_elsewhere({LOG: [rows(b"b")]})
        fetches = [asyncio.ensure_future(bench.fetch((LOG, 1), bytes_min=number)) for number in range(2)]
        await asyncio.sleep(0.01)
        bench.logs.is_down = True
        gate.set()
        assert found(await older) == [(0, b"a")]
        for fetch in fetches:
            assert (await fetch).partitions[0].error is ErrorCode.KAFKA_STORAGE_ERROR

    run(scenario())


def test_what_memory_lets_go_of_while_the_store_is_asked_about_others_is_looked_up_too() -> None:
    async def scenario() -> None:
        bench = Bench()
        third = LogId(9)
        bench.logs.extents[third], bench.logs.starts[third] = [], 0
        # Each question makes what is known older, and after three of them too old.
        bench.tail = TailIndex(age_s_max=2, now=lambda: float(len(bench.logs.reads)))
        bench.service = FetchService(bench.logs, bench.cache, bench.tail, bench.memory)
        bench.commit({LOG: [rows(b"a")], OTHER: [rows(b"b")]})
        bench.commit_elsewhere({third: [rows(b"c")]})
        # It is asked about in vain: what was heard of it has not happened yet.
        bench.service.hinted([LogHint(OTHER, next_offset=5)])
        answer = await bench.fetch((LOG, 0), (OTHER, 1), (third, 0))
        assert [part.error for part in answer.partitions] == [ErrorCode.NONE] * 3
        assert [found(answer, number) for number in range(3)] == [[(0, b"a")], [], [(0, b"c")]]
        assert len(bench.logs.reads) == 4

    run(scenario())


def test_a_cut_object_is_a_storage_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"a" * 500)]})
        bench.store.objects["segments/1"] = bench.store.objects["segments/1"][:300]
        answer = await bench.fetch((LOG, 0))
        assert answer.partitions[0].error == ErrorCode.KAFKA_STORAGE_ERROR
        assert bench.service.counters.missing_objects == 1
        assert bench.memory.used_bytes == answer.reserved_bytes
        answer.release()
        assert bench.memory.used_bytes == 0

    run(scenario())


@pytest.mark.parametrize("at", [8 + 8, 8 + 16, 8 + 23])
def test_bytes_that_are_not_the_promised_batches_are_a_storage_error(at: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"a" * 500)]})
        data = bytearray(bench.store.objects["segments/1"])
        data[at] ^= 0x40
        bench.store.objects["segments/1"] = bytes(data)
        answer = await bench.fetch((LOG, 0))
        assert answer.partitions[0].error == ErrorCode.KAFKA_STORAGE_ERROR

    run(scenario())


def test_a_metadata_store_that_is_down_is_a_storage_error_for_what_is_not_known() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.logs.is_down = True
        answer = await bench.fetch((LOG, 0), (OTHER, 0), wait_ms=60_000)
        assert found(answer) == [(0, b"a")]
        assert answer.partitions[1].error == ErrorCode.KAFKA_STORAGE_ERROR
        at_end = await bench.fetch((LOG, 1), wait_ms=60_000)
        assert at_end.partitions[0].error == ErrorCode.KAFKA_STORAGE_ERROR
        assert bench.service.counters.metadata_failures == 2
        bench.logs.is_down = False
        assert (await bench.fetch((LOG, 1))).partitions[0].error == ErrorCode.NONE

    run(scenario())


def test_zstd_records_are_not_sent_to_a_client_that_does_not_know_them() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"plain")]})
        bench.commit({OTHER: [rows(b"a" * 100)]}, codec=4)
        answer = await bench.fetch((LOG, 0), (OTHER, 0), allow_zstd=False)
        assert found(answer) == [(0, b"plain")]
        assert answer.partitions[1].error == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert found(await bench.fetch((OTHER, 0)), 0) == [(0, b"a" * 100)]

    run(scenario())


# Waiting and freshness


def test_a_waiting_fetch_is_woken_by_the_commit_that_brings_enough() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        waiting = asyncio.create_task(bench.fetch((OTHER, 0), (LOG, 1), wait_ms=60_000, bytes_min=150))
        await until(lambda: bench.service.waiting)
        bench.commit({LOG: [rows(b"b")]})
        await asyncio.sleep(0.01)
        assert not waiting.done()
        bench.commit({LOG: [rows(b"c" * 100)]})
        # At once, that is in the next turns of the loop: no time has to pass.
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.service.waiting == 0
        assert found(await waiting, 1) == [(1, b"b"), (2, b"c" * 100)]

    run(scenario())


def test_a_partition_counts_towards_the_minimum_with_its_own_limit_only() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a" * 1000)]})
        waiting = asyncio.create_task(
            bench.fetch((LOG, 0, 100), (OTHER, 0, 100), wait_ms=60_000, bytes_min=150)
        )
        await until(lambda: bench.service.waiting)
        bench.commit({LOG: [rows(b"a" * 1000)]})
        await asyncio.sleep(0.01)
        assert not waiting.done()
        bench.commit({OTHER: [rows(b"b")]})
        assert found(await waiting) == [(0, b"a" * 1000)]

    run(scenario())


def test_when_the_time_is_up_what_is_there_is_sent_without_an_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        answer = await bench.fetch((LOG, 0), wait_ms=20, bytes_min=1000)
        assert found(answer) == [(0, b"a")]
        answer = await bench.fetch((LOG, 1), wait_ms=20)
        assert (answer.partitions[0].error, found(answer)) == (ErrorCode.NONE, [])
        assert bench.service.waiting == 0

    run(scenario())


def test_no_partitions_and_no_minimum_are_answered_at_once() -> None:
    async def scenario() -> None:
        bench = Bench()
        assert (await bench.fetch(wait_ms=60_000)).partitions == []
        answer = await bench.fetch((LOG, 0), wait_ms=60_000, bytes_min=0)
        assert answer.partitions[0].error == ErrorCode.NONE
        assert bench.service.counters.waits == 0

    run(scenario())


def test_an_error_in_one_partition_ends_the_wait_for_all() -> None:
    async def scenario() -> None:
        bench = Bench()
        answer = await bench.fetch((LOG, 0), (OTHER, 99), wait_ms=60_000)
        assert [part.error for part in answer.partitions] == [
            ErrorCode.NONE,
            ErrorCode.OFFSET_OUT_OF_RANGE,
        ]

    run(scenario())


@pytest.mark.parametrize("bytes_min", [0, 1, 100_000])
def test_a_fetch_that_would_answer_too_little_sees_what_was_committed_elsewhere_before(
    bytes_min: int,
) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.commit_elsewhere({LOG: [rows(b"b")]})
        assert found(await bench.fetch((LOG, 1), bytes_min=bytes_min)) == [(1, b"b")]

    run(scenario())


@pytest.mark.parametrize("is_known", [True, False])
def test_a_fetch_that_waits_holds_no_extents(is_known: bool) -> None:
    async def scenario() -> None:
        bench = Bench()
        commit = bench.commit if is_known else bench.commit_elsewhere
        for _ in range(5):
            commit({LOG: [rows(b"a")]})
        extent = bench.logs.extents[LOG][2]
        fetching = asyncio.ensure_future(bench.fetch((LOG, 0), bytes_min=MIB, wait_ms=3_600_000))
        await until(lambda: bench.service.waiting)
        bench.tail.forget(LOG)
        assert not [who for who in gc.get_referrers(extent) if who is not bench.logs.extents[LOG]]
        bench.commit({LOG: [rows(b"v" * MIB)]})
        answer = await asyncio.wait_for(fetching, 5)
        assert [offset for offset, _ in found(answer)] == [0, 1, 2, 3, 4]

    run(scenario())


def test_a_fetch_with_enough_in_memory_asks_nobody() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        assert found(await bench.fetch((LOG, 0))) == [(0, b"a")]
        assert bench.logs.reads == []

    run(scenario())


def test_questions_to_the_store_coalesce_and_never_use_an_older_answer() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.logs.gate.clear()
        early = asyncio.create_task(bench.fetch((LOG, 1)))
        await until(lambda: bench.logs.reads)
        late = [asyncio.create_task(bench.fetch((LOG, 1))) for _ in range(50)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(bench.logs.reads) == 1
        bench.logs.gate.set()
        await early
        await asyncio.gather(*late)
        assert len(bench.logs.reads) == 2

    run(scenario())


def test_a_commit_during_the_question_to_the_store_is_not_missed() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.logs.gate.clear()
        # LOG is answered from memory; while the store is asked about OTHER, LOG grows.
        waiting = asyncio.create_task(bench.fetch((LOG, 1), (OTHER, 0), wait_ms=60_000))
        await until(lambda: bench.logs.reads)
        bench.commit({LOG: [rows(b"b")]})
        bench.logs.gate.set()
        assert found(await waiting) == [(1, b"b")]

    run(scenario())


def test_a_cancelled_fetch_disturbs_no_other() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit_elsewhere({LOG: [rows(b"a")]})
        bench.logs.gate.clear()
        bench.store.gate.clear()
        tasks = [asyncio.create_task(bench.fetch((LOG, 0))) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        bench.logs.gate.set()
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0)
        bench.store.gate.set()
        answer = await tasks[2]
        assert found(answer) == [(0, b"a")]
        answer.release()
        assert bench.memory.used_bytes == 0
        waiting = asyncio.create_task(bench.fetch((LOG, 1), wait_ms=60_000))
        await until(lambda: bench.service.waiting)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert bench.service.waiting == 0

    run(scenario())


def test_watermarks_never_go_back() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a")]})
        bench.logs.gate.clear()
        # The answer of the store will be older than the commit that this agent makes meanwhile.
        stale = bench.logs.state(LOG)
        asking = asyncio.create_task(bench.fetch((LOG, 1)))
        await until(lambda: bench.logs.reads)
        bench.commit({LOG: [rows(b"b")]})
        bench.logs.state = lambda log_id: stale  # type: ignore[method-assign]
        bench.logs.gate.set()
        assert (await asking).partitions[0].high_watermark == 2

    run(scenario())


def test_draining_answers_all_who_wait_and_lets_nobody_wait() -> None:
    async def scenario() -> None:
        bench = Bench()
        waiting = [asyncio.create_task(bench.fetch((LOG, 0), wait_ms=60_000)) for _ in range(3)]
        await until(lambda: bench.service.waiting == 3)
        bench.service.stop_waiting()
        for task in waiting:
            assert (await task).partitions[0].error == ErrorCode.NONE
        assert (await bench.fetch((LOG, 0), wait_ms=60_000)).partitions[0].error == ErrorCode.NONE
        await bench.service.close()

    run(scenario())


# Large batches, which are sent from the cache's memory


@pytest.mark.parametrize("piece_bytes", [30, 70_000, 10**9])
def test_large_batches_are_sent_without_a_copy_and_read_the_same(piece_bytes: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        sizes = [100_000, 100_000, 10, 100_000, 20, 30, 200_000]
        values = [bytes([number]) * size for number, size in enumerate(sizes)]
        for chosen in (values[:4], values[4:]):
            result, images = bench.logs.append({LOG: [rows(value) for value in chosen]})
            [(key, image)] = images.items()
            pieces = [image[start : start + piece_bytes] for start in range(0, len(image), piece_bytes)]
            bench.service.committed(result, {key: pieces})
        for offset in range(len(values)):
            answer = await bench.fetch((LOG, offset))
            data = b"".join(answer.partitions[0].records)
            assert values_of([data]) == list(enumerate(values))[offset:]
            assert answer.records_bytes == len(data)
            # A header that is torn is copied, and so is what follows a small batch.
            assert bool(bench.cache.held_bytes) == (piece_bytes > 61 and sizes[offset] > VIEW_BYTES_MIN)
            answer.release()
            answer.release()
        assert (bench.cache.held_bytes, bench.memory.used_bytes) == (0, 0)
        first = await bench.fetch((LOG, 0), (OTHER, 0), bytes_max=200_200)
        assert [offset for offset, _ in values_of([b"".join(first.partitions[0].records)])] == [0, 1]
        assert bool(first.reserved_bytes) == (piece_bytes < 61)
        whole = await bench.fetch((LOG, 2, 1))
        assert values_of([b"".join(whole.partitions[0].records)]) == [(2, values[2])]

    run(scenario())


def test_an_answer_that_holds_the_cache_can_still_load_the_rest_of_itself() -> None:
    async def scenario() -> None:
        bench = Bench(cache_bytes=300_000, chunk_bytes=300_000)
        bench.commit_elsewhere({LOG: [rows(b"small")]})
        bench.commit({OTHER: [rows(b"b" * 100_000)]})
        answer = await bench.fetch((OTHER, 0), (LOG, 0))
        assert values_of([b"".join(answer.partitions[0].records)]) == [(0, b"b" * 100_000)]
        assert found(answer, 1) == [(0, b"small")]
        answer.release()
        assert (bench.cache.held_bytes, bench.memory.used_bytes) == (0, 0)

    run(scenario())


def test_held_batches_are_whole_and_below_the_last_stable_offset() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a" * 100_000), rows(b"b" * 100_000, b"c")]})
        bench.logs.stable[LOG] = 2
        bench.tail.forget(LOG)
        answer = await bench.fetch((LOG, 0), read_committed=True)
        assert values_of([b"".join(answer.partitions[0].records)]) == [(0, b"a" * 100_000)]

    run(scenario())


def test_consumers_that_are_slow_to_read_hold_no_more_than_half_of_the_cache() -> None:
    async def scenario() -> None:
        bench = Bench(cache_bytes=4_000_000, chunk_bytes=100_000)
        for number in range(20):
            bench.commit({LOG: [rows(bytes([number]) * 500_000)]})
        answers = []
        for offset in range(20):
            answer = await bench.fetch((LOG, offset))
            assert values_of([b"".join(answer.partitions[0].records)])[0][0] == offset
            answers.append(answer)
            assert bench.cache.held_bytes <= 2_000_000
            assert bench.cache.used_bytes <= 4_000_000
        assert bench.cache.held_bytes > 1_000_000
        for answer in answers:
            answer.release()
        assert (bench.cache.held_bytes, bench.memory.used_bytes) == (0, 0)

    run(scenario())


@pytest.mark.parametrize("at", [16, 23, 26])
def test_a_large_batch_that_is_not_what_the_index_says_is_a_storage_error(at: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        result, images = bench.logs.append({LOG: [rows(b"a" * 100_000), rows(b"b" * 100_000)]})
        [(key, image)] = images.items()
        data = bytearray(image)
        data[result.extents[0].position + at] ^= 0x40
        bench.service.committed(result, {key: bytes(data)})
        bench.store.objects[key] = bytes(data)
        answer = await bench.fetch((LOG, 0))
        assert answer.partitions[0].error == ErrorCode.KAFKA_STORAGE_ERROR
        assert answer.partitions[0].records == []
        answer.release()
        assert (bench.cache.held_bytes, bench.memory.used_bytes) == (0, 0)

    run(scenario())


# Memory


def test_memory_of_an_answer_is_held_until_it_is_released() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.commit({LOG: [rows(b"a" * 1000)], OTHER: [rows(b"b" * 1000)]})
        answer = await bench.fetch((LOG, 0), (OTHER, 0))
        assert bench.memory.used_bytes == answer.reserved_bytes >= answer.records_bytes > 2000
        answer.release()
        answer.release()
        assert bench.memory.used_bytes == 0

    run(scenario())


def test_without_memory_later_partitions_stay_empty_and_the_first_waits_for_it() -> None:
    async def scenario() -> None:
        bench = Bench(memory_bytes=1500)
        bench.commit({LOG: [rows(b"a" * 1000)], OTHER: [rows(b"b" * 1000)]})
        first = await bench.fetch((LOG, 0), (OTHER, 0))
        assert [len(found(first, 0)), len(found(first, 1))] == [1, 0]
        second = asyncio.create_task(bench.fetch((OTHER, 0)))
        await asyncio.sleep(0.01)
        assert not second.done()
        first.release()
        assert found(await second) == [(0, b"b" * 1000)]

    run(scenario())


def test_a_fetch_that_gets_no_memory_in_time_is_answered_without_records() -> None:
    async def scenario() -> None:
        bench = Bench(memory_bytes=1500, memory_wait_s_max=0.02)
        bench.commit({LOG: [rows(b"a" * 1000)]})
        held = await bench.fetch((LOG, 0))
        answer = await bench.fetch((LOG, 0))
        assert found(answer) == []
        assert (answer.partitions[0].error, answer.partitions[0].high_watermark) == (ErrorCode.NONE, 1)
        assert bench.service.counters.answers_without_memory == 1
        held.release()
        assert bench.memory.used_bytes == 0

    run(scenario())


def test_a_batch_larger_than_the_budget_is_still_sent() -> None:
    async def scenario() -> None:
        bench = Bench(memory_bytes=500)
        bench.commit({LOG: [rows(b"a" * 1000)]})
        answer = await bench.fetch((LOG, 0))
        assert found(answer) == [(0, b"a" * 1000)]
        answer.release()

    run(scenario())


def test_an_unexpected_failure_rises_and_holds_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()

        async def broken(queries: object) -> list[Any]:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "a bug")

        bench.logs.read_extents = broken  # type: ignore[method-assign]
        with pytest.raises(KafkaError, match="a bug"):
            await bench.fetch((LOG, 0))
        assert bench.memory.used_bytes == 0
        assert not issubclass(KafkaError, MetadataError)

    run(scenario())

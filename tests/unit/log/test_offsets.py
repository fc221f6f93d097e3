"""Offsets by special timestamp and by time (against the obvious answer), epochs, and deleting records."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.log.read_support import LOG, OTHER, PlainLogs, PlainStore, run
from warp.errors import ErrorCode
from warp.ids import LogId
from warp.log.cache import ChunkCache
from warp.log.memory import MemoryBudget
from warp.log.offsets import EpochAnswer, OffsetAnswer, OffsetQuery, OffsetService, SpecialTimestamp

MIB = 2**20
GONE = LogId(99)
NOTHING = OffsetAnswer()


class Bench:
    def __init__(self) -> None:
        self.store = PlainStore()
        self.logs = PlainLogs(self.store)
        self.memory = MemoryBudget(MIB)
        self.started: list[tuple[LogId, int]] = []
        self.service = OffsetService(
            self.logs,
            ChunkCache(self.store, bytes_max=8 * MIB, chunk_bytes=256),  # type: ignore[arg-type]
            self.memory,
            lambda log_id, offset: self.started.append((log_id, offset)),
            decompressed_bytes_max=16 * MIB,
        )

    def append(self, *batches: list[int], **options: Any) -> None:
        """One extent of LOG: batches of records with these times."""
        self.logs.append({LOG: [[(b"v", time_ms) for time_ms in times] for times in batches]}, **options)

    async def ask(self, timestamp_ms: int, *, read_committed: bool = False) -> OffsetAnswer:
        [answer] = await self.service.list_offsets([OffsetQuery(LOG, timestamp_ms, read_committed)])
        assert self.memory.used_bytes == 0
        return answer


def test_the_ends_of_a_log_come_without_a_timestamp() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10, 11], [12])
        bench.logs.starts[LOG] = 1
        bench.logs.stable[LOG] = 2
        assert await bench.ask(SpecialTimestamp.LATEST) == OffsetAnswer(offset=3)
        assert await bench.ask(SpecialTimestamp.LATEST, read_committed=True) == OffsetAnswer(offset=2)
        assert await bench.ask(SpecialTimestamp.EARLIEST) == OffsetAnswer(offset=1)
        assert await bench.ask(SpecialTimestamp.EARLIEST_LOCAL) == OffsetAnswer(offset=1)
        assert await bench.ask(SpecialTimestamp.LATEST_TIERED) == NOTHING
        assert await bench.ask(SpecialTimestamp.EARLIEST_PENDING_UPLOAD) == NOTHING

    run(scenario())


def test_other_negative_timestamps_and_gone_logs_are_errors_of_their_partition() -> None:
    async def scenario() -> None:
        bench = Bench()
        answers = await bench.service.list_offsets(
            [OffsetQuery(LOG, -7), OffsetQuery(GONE, -1), OffsetQuery(OTHER, -1)]
        )
        assert answers == [
            OffsetAnswer(ErrorCode.UNSUPPORTED_VERSION),
            OffsetAnswer(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            OffsetAnswer(offset=0),
        ]

    run(scenario())


def test_nothing_is_found_in_an_empty_log_or_after_its_last_time() -> None:
    async def scenario() -> None:
        bench = Bench()
        assert await bench.ask(0) == NOTHING
        assert await bench.ask(SpecialTimestamp.MAX_TIMESTAMP) == NOTHING
        bench.append([10])
        assert await bench.ask(11) == NOTHING

    run(scenario())


def test_a_result_at_or_above_what_the_consumer_may_read_is_not_found() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10], [20])
        bench.logs.stable[LOG] = 1
        assert await bench.ask(20) == OffsetAnswer(offset=1, timestamp_ms=20)
        assert await bench.ask(20, read_committed=True) == NOTHING
        assert await bench.ask(10, read_committed=True) == OffsetAnswer(offset=0, timestamp_ms=10)

    run(scenario())


def test_with_log_append_time_the_first_offset_of_the_batch_answers() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10, 20, 30], log_append=True, append_time_ms=50)
        assert await bench.ask(25) == OffsetAnswer(offset=0, timestamp_ms=50)

    run(scenario())


@pytest.mark.parametrize("seed", range(40))
def test_times_are_found_exactly_to_the_record(seed: int) -> None:
    """Times that go up and down, extents of several batches, any codec, a log start in the middle of a batch."""

    async def scenario() -> None:
        chance = random.Random(seed)
        bench = Bench()
        times: list[int] = []
        for _ in range(chance.randint(1, 8)):
            batches = [
                [chance.randint(0, 60) for _ in range(chance.randint(1, 5))]
                for _ in range(chance.randint(1, 4))
            ]
            bench.append(*batches, codec=chance.choice((0, 1, 2, 3, 4)))
            times.extend(time_ms for batch in batches for time_ms in batch)
        start = bench.logs.starts[LOG] = chance.choice((0, chance.randrange(len(times))))
        live = list(enumerate(times))[start:]
        for wanted in range(62):
            first = next(((offset, time_ms) for offset, time_ms in live if time_ms >= wanted), (-1, -1))
            assert await bench.ask(wanted) == OffsetAnswer(ErrorCode.NONE, *first)
        largest = max(live, key=lambda item: (item[1], -item[0]))
        assert await bench.ask(SpecialTimestamp.MAX_TIMESTAMP) == OffsetAnswer(ErrorCode.NONE, *largest)

    run(scenario())


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("before", [0, 1, 250])
@pytest.mark.parametrize("after", [0, 1, 250])
def test_extents_without_timestamps_hide_none_that_have_them(before: int, after: int, start: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        committed_ms = 1_000_000

        def append_without_timestamp() -> None:
            nonlocal committed_ms
            bench.append([-1])
            committed_ms += 1
            stamped = bench.logs.extents[LOG][-1]
            bench.logs.extents[LOG][-1] = replace(stamped, max_timestamp_ms=committed_ms)

        for _ in range(before):
            append_without_timestamp()
        bench.append([10, 30, 20])
        for _ in range(after):
            append_without_timestamp()
        bench.logs.starts[LOG] = min(start, before)
        for timestamp_ms, offset in ((5, 0), (10, 0), (11, 1), (30, 1)):
            found_ms = (10, 30, 20)[offset]
            found = OffsetAnswer(offset=before + offset, timestamp_ms=found_ms)
            assert await bench.ask(timestamp_ms) == found
        assert await bench.ask(31) == NOTHING
        largest = OffsetAnswer(offset=before + 1, timestamp_ms=30)
        assert await bench.ask(SpecialTimestamp.MAX_TIMESTAMP) == largest

    run(scenario())


def test_many_questions_about_times_let_others_run_between_them() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10])
        steps = 0

        async def count_steps() -> None:
            nonlocal steps
            while True:
                steps += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(count_steps())
        await bench.service.list_offsets([OffsetQuery(LOG, 10)] * 50)
        other.cancel()
        assert steps >= 50

    run(scenario())


def test_large_compressed_batches_are_opened_in_a_thread_with_the_same_answer() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.logs.append({LOG: [[(b"v" * 1000, 1000 + number) for number in range(3000)]]}, codec=4)
        assert await bench.ask(2500) == OffsetAnswer(offset=1500, timestamp_ms=2500)

    run(scenario())


def test_a_missing_object_is_looked_up_again_and_then_a_storage_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10])
        data = bench.store.objects.pop("segments/1")
        assert await bench.ask(10) == OffsetAnswer(ErrorCode.KAFKA_STORAGE_ERROR)
        assert bench.store.gets == 2
        assert bench.service.storage_failures == 1
        bench.store.objects["segments/1"] = data
        assert await bench.ask(10) == OffsetAnswer(offset=0, timestamp_ms=10)

    run(scenario())


def test_bytes_that_are_no_batches_are_a_storage_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10])
        bench.store.objects["segments/1"] = bytes(len(bench.store.objects["segments/1"]))
        assert await bench.ask(10) == OffsetAnswer(ErrorCode.KAFKA_STORAGE_ERROR)

    run(scenario())


def test_without_the_metadata_store_every_answer_is_a_storage_error() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10])
        bench.logs.is_down = True
        assert await bench.ask(-1) == OffsetAnswer(ErrorCode.KAFKA_STORAGE_ERROR)
        assert await bench.service.end_of_epochs([(LOG, 0)]) == [EpochAnswer(ErrorCode.KAFKA_STORAGE_ERROR)]
        deleted = await bench.service.delete_records({LOG: 1})
        assert deleted[LOG].error == ErrorCode.KAFKA_STORAGE_ERROR

    run(scenario())


def test_the_one_epoch_ends_at_the_end_of_the_log() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10, 11])
        answers = await bench.service.end_of_epochs([(LOG, 0), (LOG, 1), (LOG, -1), (GONE, 0)])
        assert answers == [
            EpochAnswer(ErrorCode.NONE, 0, 2),
            EpochAnswer(),
            EpochAnswer(),
            EpochAnswer(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]

    run(scenario())


def test_deleting_records_moves_the_start_and_tells_the_readers() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.append([10, 11, 12])

        async def delete(log_id: LogId, offset: int) -> tuple[ErrorCode, int]:
            answers = await bench.service.delete_records({log_id: offset})
            return answers[log_id].error, answers[log_id].low_watermark

        assert await delete(LOG, 2) == (ErrorCode.NONE, 2)
        assert await delete(LOG, 1) == (ErrorCode.NONE, 2)
        assert await delete(LOG, 4) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
        assert await delete(LOG, -2) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
        assert await delete(GONE, 0) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
        assert await delete(LOG, -1) == (ErrorCode.NONE, 3)
        assert bench.started == [(LOG, 2), (LOG, 2), (LOG, 3)]
        assert await bench.ask(SpecialTimestamp.EARLIEST) == OffsetAnswer(offset=3)
        assert await bench.ask(10) == NOTHING

    run(scenario())

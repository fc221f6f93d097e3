"""Produce requests: each part is checked on its own, order is kept, and refused parts take no part."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.sim.loop import SimLoop
from tests.support.log import Bench, append, batch_bytes, errors, run_sim, target
from warp._crc32c import crc32c
from warp._records import iterate_records, needs_thread, parse_header, scan_batches
from warp.errors import ErrorCode
from warp.log.flush import FlushLimits
from warp.log.model import LOG_APPEND_TIME, Append, AppendOutcome, TopicRules
from warp.log.pacing import PacingLimits
from warp.log.produce import ProduceLimits, ProduceService
from warp.log.recompress import CODECS
from warp.log.segment import SegmentIndex, parse_index

NONE = ErrorCode.NONE
GZIP = 1


class ProduceBench(Bench):
    def __init__(self, loop: SimLoop, limits: FlushLimits | None = None) -> None:
        super().__init__(loop, limits=limits)
        self.service = ProduceService(
            self.flusher, self.clock, limits=ProduceLimits(decompressed_bytes_max=2**20)
        )

    async def produce(self, *appends: Append, timeout_ms: int = 30_000) -> list[AppendOutcome]:
        return await (await self.service.stage(appends, timeout_ms)).outcomes


def heavy(log: int, *, sequence: int = -1, producer: int = -1) -> Append:
    """A batch that a thread checks."""
    value = random.Random(log).randbytes(10_000)
    return append(log, records=9, value=value, codec=GZIP, producer=producer, sequence=sequence)


def test_parts_that_pass_are_stored_together_and_the_others_have_their_own_error() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        damaged = bytearray(batch_bytes())
        damaged[-1] ^= 1
        outcomes = await bench.produce(
            append(1, records=2),
            Append(target(2), damaged),
            Append(target(3), b""),
            append(4),
            append(1),
        )
        assert errors(outcomes) == [NONE, ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD, NONE, NONE]
        assert [outcome.base_offset for outcome in outcomes] == [0, -1, -1, 0, 2]
        assert outcomes[1].message
        assert bench.metadata.ends == {1: 3, 4: 1}
        assert len(bench.store.keys) == 1
        assert bench.service.refused_batches == 2

    run_sim(main)


def test_a_request_larger_than_a_segment_is_stored_in_one() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop, FlushLimits(pacing=PacingLimits(flush_bytes=10_000)))
        outcomes = await bench.produce(*(append(log, value=bytes(6_000)) for log in range(4)))
        assert errors(outcomes) == [NONE] * 4
        assert bench.metadata.attempts == [bench.store.keys]
        assert len(bench.store.keys) == 1

    run_sim(main)


def test_a_request_in_which_nothing_passes_is_answered_at_once_and_stores_nothing() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        staged = await bench.service.stage([Append(target(1), b"junk")], 30_000)
        assert staged.outcomes.done()
        assert await bench.produce() == []
        await asyncio.sleep(1)
        assert bench.store.keys == []

    run_sim(main)


@pytest.mark.parametrize(
    ("rules", "batch", "error"),
    [
        (TopicRules(max_message_bytes=50), {}, ErrorCode.MESSAGE_TOO_LARGE),
        (TopicRules(segment_bytes=50), {}, ErrorCode.RECORD_LIST_TOO_LARGE),
        (TopicRules(timestamp_before_max_ms=10), {}, ErrorCode.INVALID_TIMESTAMP),
        (TopicRules(), {"codec": GZIP, "value": bytes(2**20 + 1)}, ErrorCode.MESSAGE_TOO_LARGE),
    ],
)
def test_the_rules_of_the_topic_hold(rules: TopicRules, batch: dict[str, object], error: ErrorCode) -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        data = batch_bytes(**batch)  # type: ignore[arg-type]  # the names are batch_bytes' own
        (outcome,) = await bench.produce(Append(target(1, rules), data))
        assert outcome.error == error
        assert outcome.message

    run_sim(main)


def test_batches_that_grow_under_another_codec_are_bounded_together() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        limits = ProduceLimits(decompressed_bytes_max=2**20, recompressed_bytes_max=250_000)
        bench.service = ProduceService(bench.flusher, bench.clock, limits=limits)
        grows = TopicRules(compression="uncompressed", max_message_bytes=101_000)
        batch = batch_bytes(codec=GZIP, value=bytes(100_000))
        requests = [[Append(target(log, grows), batch) for log in range(5)] for _ in range(3)]
        answers = await asyncio.gather(*(bench.produce(*appends) for appends in requests))
        too_large = ErrorCode.MESSAGE_TOO_LARGE
        assert [errors(answer) for answer in answers] == [[NONE, NONE, too_large, too_large, too_large]] * 3
        assert max(len(image) for image in bench.store.images()) < 210_000

    run_sim(main)


def test_one_batch_may_grow_beyond_the_bound_of_all_together() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        limits = ProduceLimits(decompressed_bytes_max=2**20, recompressed_bytes_max=1_000)
        bench.service = ProduceService(bench.flusher, bench.clock, limits=limits)
        grows = TopicRules(compression="uncompressed")
        batch = batch_bytes(codec=GZIP, value=bytes(100_000))
        answers = await asyncio.gather(
            *(bench.produce(Append(target(log, grows), batch)) for log in range(5))
        )
        assert [errors(answer) for answer in answers] == [[NONE]] * 5

    run_sim(main)


def test_records_that_are_wrong_are_named() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        rules = TopicRules(timestamp_before_max_ms=10)
        (outcome,) = await bench.produce(Append(target(1, rules), batch_bytes(records=2)))
        assert [index for index, _ in outcome.record_errors] == [0, 1]

    run_sim(main)


def test_zstd_is_refused_where_the_request_is_too_old_for_it() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        data = batch_bytes(codec=4)
        (old,) = await bench.produce(Append(target(1), data, allow_zstd=False))
        assert old.error == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert errors(await bench.produce(Append(target(1), data))) == [NONE]

    run_sim(main)


def test_log_append_time_is_stamped_stored_and_answered() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        await asyncio.sleep(7)
        now_ms = bench.clock.time_ms()
        rules = TopicRules(timestamp_type=LOG_APPEND_TIME)
        outcomes = await bench.produce(append(1), Append(target(2, rules), batch_bytes()))
        assert [outcome.log_append_time_ms for outcome in outcomes] == [-1, now_ms]
        (image,) = bench.store.images()
        index = parse_index(image, len(image))
        assert isinstance(index, SegmentIndex)
        assert [extent.max_timestamp_ms for extent in index.extents] == [1_000, now_ms]
        stored = index.extents[1]
        assert image[stored.position + 22] & 8

    run_sim(main)


def test_whoever_stages_one_after_the_other_keeps_the_order_however_long_checks_take() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        assert needs_thread(heavy(1).records)
        waiting = []
        for number in range(6):
            sequence = 9 * number
            if number % 2:
                part = heavy(1, producer=5, sequence=sequence)
            else:
                part = append(1, producer=5, sequence=sequence, records=9)
            waiting.append((await bench.service.stage([part], 30_000)).outcomes)
        outcomes = [(await outcome)[0] for outcome in waiting]
        assert [outcome.base_offset for outcome in outcomes] == [9 * number for number in range(6)]
        assert bench.metadata.ends == {1: 54}

    run_sim(main)


def test_a_request_is_not_held_up_by_the_checks_of_another() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        slow = asyncio.ensure_future(bench.service.stage([heavy(1), heavy(2)], 30_000))
        await asyncio.sleep(0)
        fast = asyncio.ensure_future(bench.service.stage([append(1)], 30_000))
        await asyncio.sleep(0)
        assert [slow.done(), fast.done()] == [False, True]
        assert errors(await (await fast).outcomes) == [NONE]
        assert errors(await (await slow).outcomes) == [NONE, NONE]

    run_sim(main)


@pytest.mark.parametrize("timeout_ms", [-1, 0, 1_500])
def test_the_time_out_counts_from_the_start_of_the_checks(timeout_ms: int) -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        bench.store.put_delay_s = 10.0
        begin = loop.time()
        outcomes = await bench.produce(heavy(1), timeout_ms=timeout_ms)
        assert errors(outcomes) == [ErrorCode.REQUEST_TIMED_OUT]
        assert loop.time() - begin <= max(0, timeout_ms) / 1000 + 0.1
        await asyncio.sleep(60)
        assert bench.metadata.ends == {}

    run_sim(main)


def test_a_time_out_beyond_all_reason_is_shortened() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        bench.metadata.delay_s = 1e9
        assert errors(await bench.produce(append(1), timeout_ms=2**31 - 1)) == [ErrorCode.REQUEST_TIMED_OUT]
        assert loop.time() <= 600

    run_sim(main)


@pytest.mark.parametrize("size", [10, 9_000])
@pytest.mark.parametrize("sent", range(5))
@pytest.mark.parametrize("stored", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_a_topic_that_names_a_codec_stores_batches_under_it(stored: str, sent: int, size: int) -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        value = random.Random(1).randbytes(size)
        data = batch_bytes(records=3, value=value, codec=sent, producer=5, sequence=7)
        rules = TopicRules(compression=stored, timestamp_type=LOG_APPEND_TIME)
        assert errors(await bench.produce(Append(target(1, rules), data))) == [NONE]
        (image,) = bench.store.images()
        index = parse_index(image, len(image))
        assert isinstance(index, SegmentIndex)
        (extent,) = index.extents
        batch = image[extent.position : extent.position + extent.size_bytes]
        (span,) = scan_batches(batch)
        header = parse_header(batch)
        assert (header.codec, span.size_bytes, header.record_count) == (CODECS[stored], len(batch), 3)
        assert header.crc == crc32c(batch[21:])
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 0, 7)
        assert header.is_log_append_time
        assert [(r.key, r.value) for r in iterate_records(batch, 2**20)] == [(b"k", value)] * 3

    run_sim(main)


def test_a_batch_that_its_topics_codec_makes_too_large_is_refused() -> None:
    async def main(loop: SimLoop) -> None:
        bench = ProduceBench(loop)
        rules = TopicRules(compression="uncompressed", max_message_bytes=5_000)
        data = batch_bytes(value=bytes(10_000), codec=GZIP)
        (outcome,) = await bench.produce(Append(target(1, rules), data))
        assert outcome.error == ErrorCode.MESSAGE_TOO_LARGE
        assert "compression.type" in (outcome.message or "")

    run_sim(main)

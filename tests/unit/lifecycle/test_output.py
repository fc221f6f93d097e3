"""Segments that jobs write: what was added is read back, in extents that tile, with absolute offsets everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.support.batches import NOW_MS
from warp._crc32c import crc32c
from warp._records import build_batch, scan_batches, verify_batch
from warp.ids import LogId, TopicId
from warp.lifecycle.output import EXTENT_BYTES_MAX, SealedOutput, SegmentWriter
from warp.log.segment import SegmentIndex, parse_index

TOPIC = TopicId(b"topic of writing")
KEY = "segments/00/aa"


def batch(records: int, size: int, seed: int = 1, time_ms: int = NOW_MS) -> bytes:
    """A batch of `records` records, of about `size` bytes."""
    value = random.Random(seed).randbytes(max(1, size // records))
    return build_batch([(None, value, (), time_ms + index) for index in range(records)])


def add(writer: SegmentWriter, log: int, base: int, batches: Sequence[bytes], time_ms: int = NOW_MS) -> int:
    """Add batches as one run; the offset after them."""
    headers = [verify_batch(data) for data in batches]
    end = base + sum(header.last_offset_delta + 1 for header in headers)
    records = sum(header.record_count for header in headers)
    max_ms = max(header.max_timestamp for header in headers)
    writer.add(TOPIC, "t", log, LogId(log), base, end, b"".join(batches), records, time_ms, max_ms)
    return end


def image_of(sealed: SealedOutput) -> bytes:
    return b"".join(bytes(part) for part in sealed.parts)


def index_of(sealed: SealedOutput) -> SegmentIndex:
    image = image_of(sealed)
    found = parse_index(image, len(image))
    assert isinstance(found, SegmentIndex)
    return found


def check(sealed: SealedOutput) -> None:
    """The rows, the footer and the bytes say the same."""
    image, index = image_of(sealed), index_of(sealed)
    assert crc32c(image) == sealed.parts.crc32c
    assert len(image) == sealed.segment.size_bytes
    assert len(index.extents) == len(sealed.extents)
    for row, extent in zip(sealed.extents, index.extents, strict=True):
        data = image[extent.position : extent.position + extent.size_bytes]
        assert crc32c(data) == extent.crc
        assert (row.position, row.size_bytes) == (extent.position, extent.size_bytes)
        assert (row.base_offset, row.end_offset) == (extent.base_offset, extent.end_offset)
        assert row.max_timestamp_ms == extent.max_timestamp_ms
        spans = scan_batches(data)
        assert sum(span.size_bytes for span in spans) == len(data)
        assert sum(span.record_count for span in spans) == extent.record_count
        assert max(span.max_timestamp for span in spans) == extent.max_timestamp_ms
        offset = extent.base_offset
        for span in spans:
            assert verify_batch(data, span.position).leader_epoch == 0
            assert span.base_offset == offset
            offset += span.last_offset_delta + 1
        assert offset == extent.end_offset


def test_runs_that_go_on_become_one_extent_with_absolute_offsets() -> None:
    writer = SegmentWriter(1, size_max=2**20)
    end = add(writer, 3, 1000, [batch(5, 300), batch(2, 100)])
    end = add(writer, 3, end, [batch(4, 900, time_ms=NOW_MS - 50)], NOW_MS - 50)
    add(writer, 4, end, [batch(1, 10)])
    add(writer, 4, end + 7, [batch(1, 10)])
    sealed = writer.seal(KEY, NOW_MS, place=2)
    check(sealed)
    rows = [(row.log_id, row.base_offset, row.end_offset, row.segment) for row in sealed.extents]
    assert rows == [(3, 1000, 1011, 2), (4, 1011, 1012, 2), (4, 1018, 1019, 2)]
    index = index_of(sealed)
    assert index.level == sealed.segment.level == 1
    assert index.created_ms == sealed.segment.created_ms == NOW_MS
    assert index.extents[0].first_timestamp_ms == NOW_MS - 50
    assert sealed.segment.key == KEY


@pytest.mark.parametrize("pieces", [1, 7])
def test_long_runs_are_cut_between_batches(pieces: int) -> None:
    batches = [batch(3, size, seed) for seed, size in enumerate([300_000, 900_000, 40_000, 1_500_000] * 5)]
    writer = SegmentWriter(2, size_max=2**30)
    offset = 50
    step = -(-len(batches) // pieces)
    for start in range(0, len(batches), step):
        offset = add(writer, 9, offset, batches[start : start + step])
    sealed = writer.seal(KEY, NOW_MS)
    check(sealed)
    assert all(row.size_bytes <= EXTENT_BYTES_MAX for row in sealed.extents)
    assert sum(row.size_bytes for row in sealed.extents) == sum(map(len, batches))
    assert sealed.extents[0].base_offset == 50
    for before, after in zip(sealed.extents, sealed.extents[1:], strict=False):
        assert before.end_offset == after.base_offset
        assert before.size_bytes + 1_500_100 > EXTENT_BYTES_MAX
    assert sealed.extents[-1].end_offset == offset


@pytest.mark.parametrize("writable", [False, True])
def test_a_batch_larger_than_an_extent_has_one_to_itself(writable: bool) -> None:
    huge = batch(1, EXTENT_BYTES_MAX + 1000)
    writer = SegmentWriter(1, size_max=2**20)
    end = add(writer, 1, 0, [batch(1, 10)])
    writer.add(TOPIC, "t", 1, LogId(1), end, 2, bytearray(huge) if writable else huge, 1, NOW_MS, NOW_MS)
    add(writer, 1, 2, [batch(1, 10), huge, batch(1, 20)])
    sealed = writer.seal(KEY, NOW_MS)
    check(sealed)
    assert [row.end_offset for row in sealed.extents] == [1, 2, 3, 4, 5]


def test_batches_without_timestamps_have_the_time_that_they_came_with() -> None:
    untimed = build_batch([(None, bytes(1_500_000), (), -1)])
    timed = build_batch([(None, bytes(1_500_000), (), 1000)])
    writer = SegmentWriter(1, size_max=2**20)
    run = [timed, timed, untimed, timed]
    writer.add(TOPIC, "t", 0, LogId(1), 0, 4, b"".join(run), 4, 1000, NOW_MS)
    sealed = writer.seal(KEY, NOW_MS)
    assert [(row.end_offset, row.max_timestamp_ms) for row in sealed.extents] == [(2, 1000), (4, NOW_MS)]
    assert [extent.first_timestamp_ms for extent in index_of(sealed).extents] == [1000, 1000]


def test_random_runs_are_read_back_in_order() -> None:
    source = random.Random(5)
    writer = SegmentWriter(3, size_max=2**30)
    expected: list[tuple[int, int, bytes]] = []
    for log in range(20):
        offset = source.randrange(2**40)
        for _ in range(source.randrange(1, 6)):
            run = [batch(source.randrange(1, 9), source.randrange(9, 70_000), source.randrange(99))]
            run *= source.randrange(1, 4)
            for data in run:
                expected.append((log, offset, data[21:]))
                offset += verify_batch(data).last_offset_delta + 1
            base = offset - sum(verify_batch(data).last_offset_delta + 1 for data in run)
            assert add(writer, log, base, run) == offset
    sealed = writer.seal(KEY, NOW_MS)
    check(sealed)
    assert len(sealed.extents) == 20
    image = image_of(sealed)
    found = []
    for row in sealed.extents:
        data = image[row.position : row.position + row.size_bytes]
        for span in scan_batches(data):
            body = data[span.position + 21 : span.position + span.size_bytes]
            found.append((row.log_id, span.base_offset, body))
    assert found == expected


def test_a_writer_counts_what_it_holds() -> None:
    writer = SegmentWriter(1, size_max=3_000_000)
    seen = [(writer.is_empty, writer.is_full)]
    for log, size in ((1, 2_900_000), (2, 200_000)):
        add(writer, log, 0, [batch(1, size)])
        seen.append((writer.is_empty, writer.is_full))
    assert seen == [(True, False), (False, False), (False, True)]
    sealed = writer.seal(KEY, NOW_MS)
    assert abs(writer.size_bytes - sealed.segment.size_bytes) < 200


def _offsets(writer: SegmentWriter) -> None:
    writer.add(TOPIC, "t", 0, LogId(1), 5, 9, batch(3, 100), 3, NOW_MS, NOW_MS)
    writer.seal(KEY, NOW_MS)


def _offsets_of_many(writer: SegmentWriter) -> None:
    data = b"".join([batch(3, 1_000_000)] * 9)
    writer.add(TOPIC, "t", 0, LogId(1), 5, 5 + 26, data, 27, NOW_MS, NOW_MS)


def _cut_short(writer: SegmentWriter) -> None:
    writer.add(TOPIC, "t", 0, LogId(1), 5, 8, batch(3, 100)[:-1], 3, NOW_MS, NOW_MS)
    writer.seal(KEY, NOW_MS)


def _cut_short_of_many(writer: SegmentWriter) -> None:
    data = b"".join([batch(3, 1_000_000)] * 9)[:-1]
    writer.add(TOPIC, "t", 0, LogId(1), 5, 5 + 27, data, 27, NOW_MS, NOW_MS)


def _garbage(writer: SegmentWriter) -> None:
    writer.add(TOPIC, "t", 0, LogId(1), 5, 8, bytes(5_000_000), 3, NOW_MS, NOW_MS)


def _nothing(writer: SegmentWriter) -> None:
    writer.add(TOPIC, "t", 0, LogId(1), 5, 5, b"", 0, NOW_MS, NOW_MS)


def _empty(writer: SegmentWriter) -> None:
    writer.seal(KEY, NOW_MS)


@pytest.mark.parametrize(
    "mistake",
    [_offsets, _offsets_of_many, _cut_short, _cut_short_of_many, _garbage, _nothing, _empty],
)
def test_what_is_no_segment_is_refused(mistake: object) -> None:
    assert callable(mistake)
    with pytest.raises(ValueError, match=r"log 1:|nothing to write|without extents"):
        mistake(SegmentWriter(1, size_max=2**20))


def test_level_0_is_not_for_jobs() -> None:
    with pytest.raises(ValueError, match="flushes"):
        SegmentWriter(0, size_max=1)

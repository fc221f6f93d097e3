"""The segment format: what was built is read back, and hostile bytes give one clear error."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from tests.reference.crc32c import crc32c as reference_crc32c
from tests.support.batches import NOW_MS, rules
from warp._crc32c import crc32c
from warp._record_io import build_batch
from warp.clock import SystemClock
from warp.errors import ObjectNotFound
from warp.ids import LogId, TopicId
from warp.log.model import Append, AppendOutcome, LogTarget, TopicRules
from warp.log.produce import check
from warp.log.segment import (
    END_MAGIC,
    MAGIC,
    TRAILER_BYTES,
    VIEWED_BYTES_MIN,
    ExtentBatches,
    Receipt,
    ReceiptRun,
    SegmentFormatError,
    SegmentIndex,
    build_segment as build_pieces,
    check_magic,
    parse_index,
    read_index,
)
from warp.objectstore.memory import MemoryStore

INT64 = st.integers(-(2**63), 2**63 - 1)
OFFSETS = st.one_of(
    st.just((-1, -1)),
    st.tuples(st.integers(0, 2**62), st.integers(1, 2**40)).map(lambda pair: (pair[0], sum(pair))),
)
EXTENTS = st.builds(
    lambda offsets, **fields: ExtentBatches(base_offset=offsets[0], end_offset=offsets[1], **fields),
    offsets=OFFSETS,
    topic_id=st.binary(min_size=16, max_size=16).map(TopicId),
    topic=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    partition=st.integers(0, 2**31 - 1),
    batches=st.lists(st.binary(max_size=200), max_size=4),
    record_count=st.integers(0, 2**32 - 1),
    first_timestamp_ms=INT64,
    max_timestamp_ms=INT64,
)
RUNS = st.builds(
    ReceiptRun,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1),
)
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
RECEIPTS = st.builds(Receipt, KEYS, st.lists(RUNS, max_size=4))


def build_segment(
    extents: list[ExtentBatches], *, created_ms: int, level: int = 0, receipts: Sequence[Receipt] = ()
) -> bytes:
    return b"".join(build_pieces(extents, created_ms=created_ms, level=level, receipts=receipts))


def parsed(image: bytes) -> SegmentIndex:
    index = parse_index(image, len(image))
    assert isinstance(index, SegmentIndex)
    return index


def sample() -> bytes:
    extents = [
        ExtentBatches(TopicId(bytes([topic] * 16)), f"t{topic}", partition, [b"x" * 20, b"y" * 30], 7, 1, 2)
        for topic in range(2)
        for partition in range(2)
    ]
    return build_segment(
        extents, created_ms=5, receipts=[Receipt("segments/aa/key", [ReceiptRun(8, 50, 100, 7)])]
    )


@given(st.lists(EXTENTS, max_size=5), st.lists(RECEIPTS, max_size=3), st.integers(0, 255), INT64)
def test_what_was_built_is_read_back(
    extents: list[ExtentBatches], receipts: list[Receipt], level: int, created_ms: int
) -> None:
    image = build_segment(extents, created_ms=created_ms, level=level, receipts=receipts)
    check_magic(image)
    index = parsed(image)
    assert (index.level, index.created_ms) == (level, created_ms)
    assert index.receipts == receipts
    for found, built in zip(index.extents, extents, strict=True):
        data = b"".join(built.batches)
        assert image[found.position : found.position + found.size_bytes] == data
        assert found.crc == reference_crc32c(data)
        assert (found.topic_id, found.topic, found.partition) == (
            built.topic_id,
            built.topic,
            built.partition,
        )
        assert found.record_count == built.record_count
        assert (found.first_timestamp_ms, found.max_timestamp_ms) == (
            built.first_timestamp_ms,
            built.max_timestamp_ms,
        )
        assert (found.base_offset, found.end_offset) == (built.base_offset, built.end_offset)


def test_a_tail_that_is_too_short_says_how_much_is_needed() -> None:
    image = sample()
    needed = parse_index(image[-TRAILER_BYTES:], len(image))
    assert isinstance(needed, int)
    assert parse_index(image[-needed + 1 :], len(image)) == needed
    assert parse_index(image[-needed:], len(image)) == parsed(image)


def test_every_truncation_is_refused() -> None:
    image = sample()
    for length in range(len(image)):
        with pytest.raises(SegmentFormatError):
            parse_index(image[:length], length)


def test_every_flipped_bit_of_footer_and_trailer_is_refused() -> None:
    image = sample()
    needed = parse_index(image[-TRAILER_BYTES:], len(image))
    assert isinstance(needed, int)
    for position in range(len(image) - needed, len(image)):
        for bit in range(8):
            damaged = bytearray(image)
            damaged[position] ^= 1 << bit
            with pytest.raises(SegmentFormatError):
                parse_index(damaged, len(damaged))


def resealed(footer: bytes, body: bytes = MAGIC) -> bytes:
    """A segment around any footer, with a CRC that fits."""
    return body + footer + struct.pack(">II8s", len(footer), reference_crc32c(footer), END_MAGIC)


@given(st.binary(max_size=300))
def test_any_footer_with_a_fitting_crc_is_read_or_refused(footer: bytes) -> None:
    image = resealed(footer)
    try:
        index = parsed(image)
    except SegmentFormatError:
        return
    assert index.extents == [] or sum(extent.size_bytes for extent in index.extents) == 0


@given(st.data())
def test_a_footer_with_one_field_changed_is_read_within_bounds_or_refused(data: st.DataObject) -> None:
    image = sample()
    needed = parse_index(image[-TRAILER_BYTES:], len(image))
    assert isinstance(needed, int)
    footer = bytearray(image[-needed:-TRAILER_BYTES])
    position = data.draw(st.integers(0, len(footer) - 1))
    value = data.draw(st.binary(min_size=1, max_size=8))
    footer[position : position + len(value)] = value
    changed = resealed(bytes(footer), image[:-needed])
    try:
        index = parsed(changed)
    except SegmentFormatError:
        return
    end = len(changed) - len(footer) - TRAILER_BYTES
    assert all(len(MAGIC) <= e.position <= e.position + e.size_bytes <= end for e in index.extents)


@pytest.mark.parametrize("place", [12, 16, 20])
def test_a_giant_count_is_refused_before_anything_is_made_for_it(place: int) -> None:
    footer = bytearray(24)
    footer[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(SegmentFormatError, match="4294967295 entries don't fit"):
        parsed(resealed(bytes(footer)))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "too short"),
        (b"x" * 200, "does not end like a segment"),
        (sample()[:-1] + b"\x02", "newer than this release"),
        (resealed(b"\0\1" + bytes(22)), "features that this release does not know"),
        (resealed(bytes(24) + b"x"), "left over"),
        (MAGIC + bytes(24) + struct.pack(">II8s", 2**32 - 1, 0, END_MAGIC), "does not fit"),
    ],
)
def test_what_is_no_segment_is_refused_with_the_reason(image: bytes, reason: str) -> None:
    with pytest.raises(SegmentFormatError, match=reason):
        parse_index(image, len(image))


def test_an_extent_that_reaches_for_other_bytes_is_refused() -> None:
    image = sample()
    needed = parse_index(image[-TRAILER_BYTES:], len(image))
    assert isinstance(needed, int)
    body, footer = image[:-needed], image[-needed:-TRAILER_BYTES]
    with pytest.raises(SegmentFormatError, match="the extents end at"):
        parsed(resealed(footer, body + b"x"))
    second = footer.index(struct.pack(">Q", len(MAGIC) + 50))
    moved = footer[:second] + struct.pack(">Q", len(MAGIC)) + footer[second + 8 :]
    with pytest.raises(SegmentFormatError, match="an extent begins at 8 where 58 is next"):
        parsed(resealed(moved, body))


def test_the_bytes_are_as_the_documentation_says() -> None:
    image = build_segment(
        [ExtentBatches(TopicId(b"T" * 16), "orders", 3, [b"ab", b"c"], 2, 10, 20)],
        created_ms=0x0102030405060708,
        receipts=[Receipt("k", [ReceiptRun(8, 3, 5, 2)])],
    )
    footer = bytes.fromhex(
        "00 00 0000 0102030405060708"  # level, flags, reserved, created
        "00000001 00000001 00000001"  # topics, extents, receipts
        "54545454545454545454545454545454 0006 6f7264657273"  # a topic: id, length and bytes of its name
        "00000000 00000003 0000000000000008 00000003 00000002"  # an extent: topic, partition, position, size, records
        "000000000000000a 0000000000000014"  # timestamps
        f"{reference_crc32c(b'abc'):08x} ffffffffffffffff ffffffffffffffff"  # CRC, no offsets
        "0001 6b 00000001"  # a receipt: length and bytes of its key, runs
        "0000000000000008 00000003 0000000000000005 00000002"  # a run: position, size, base offset, offsets
    )
    trailer = struct.pack(">II", len(footer), reference_crc32c(footer)) + b"WARPEND\x01"
    assert image == b"WARPSEG\x01" + b"abc" + footer + trailer


@pytest.mark.parametrize("extents", [1, 2_000])
def test_an_index_is_read_from_a_store(extents: int) -> None:
    """Two thousand extents make a footer that the first read does not reach."""
    image = build_segment(
        [ExtentBatches(TopicId(bytes(16)), "t", p, [b"data"], 1, 1, 1) for p in range(extents)], created_ms=1
    )

    async def main() -> None:
        store = MemoryStore(SystemClock(), bytes_max=2**26)
        await store.put("whole", [image])
        assert len((await read_index(store, "whole")).extents) == extents
        await store.put("cut", [image[:-1]])
        await store.put("other", [b"WARPSEX\x01" + image[8:]])
        for key in ("cut", "other"):
            with pytest.raises(SegmentFormatError):
                await read_index(store, key)
        with pytest.raises(ObjectNotFound):
            await read_index(store, "none")

    asyncio.run(main())


@pytest.mark.parametrize("record_bytes", [100, VIEWED_BYTES_MIN - 1, VIEWED_BYTES_MIN, 900_000])
@pytest.mark.parametrize("timestamp_type", [0, 1])
@pytest.mark.parametrize("codec", ["producer", "lz4"])
def test_the_crcs_of_a_segment_are_those_of_its_bytes(
    record_bytes: int, timestamp_type: int, codec: str
) -> None:
    """Though those of large batches follow from the CRC in their headers; also when the agent has changed them."""
    value = random.Random(record_bytes).randbytes(record_bytes)
    topic = TopicRules(timestamp_type=timestamp_type, compression=codec)
    append = Append(
        LogTarget(LogId(1), TopicId(bytes(16)), 0, "t", topic),
        build_batch([(None, value, [], NOW_MS), (b"k", b"v", [], NOW_MS)]),
    )
    checked = check(append, rules(message_timestamp_type=timestamp_type), 2**26)
    assert not isinstance(checked, AppendOutcome)
    _, data = checked
    image = build_pieces(
        [ExtentBatches(TopicId(bytes(16)), "t", p, [data] * (p + 1), 2, 1, 1) for p in range(3)], created_ms=1
    )
    whole = b"".join(image)
    assert image.crc32c == crc32c(whole)
    for extent in parsed(whole).extents:
        assert extent.crc == crc32c(whole[extent.position : extent.position + extent.size_bytes])

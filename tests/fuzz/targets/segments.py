"""Objects of a bucket: whatever lies there under a segment's name, read by its footer, inspected, and rebuilt from.

The input is a script: what is to be put right, then the bytes of the footer, then those before it. The footer is held
against a reader of its own here, as docs/segment-format.md describes it; `warp inspect` and the readers of a rebuild
must come to an end with any object.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import run
from tests.support.batches import NOW_MS, plain_records, raw_batch
from warp._crc32c import crc32c
from warp.cli.inspect.examine import Wanted, examine
from warp.cli.inspect.segment import as_json, human, is_intact
from warp.errors import ShortObject
from warp.ids import TopicId
from warp.lifecycle.rebuild_plan import batches_in, tile
from warp.lifecycle.rebuild_read import BucketReader
from warp.log.segment import (
    END_MAGIC,
    MAGIC,
    NO_OFFSET,
    ExtentBatches,
    Receipt,
    ReceiptRun,
    SegmentFormatError,
    SegmentIndex,
    build_segment,
    parse_index,
)

KEY: Final = "segments/0f/018bcfe56800-00112233445566778899"
FIX_TRAILER, FIX_CRC, FIX_EXTENTS, LOOK_INSIDE = 1, 2, 4, 8
TRAILER_BYTES: Final = 16
HEAD: Final = struct.Struct(">BBHqIII")
TOPIC: Final = struct.Struct(">16sH")
EXTENT: Final = struct.Struct(">IIQIIqqIqq")


class OneObject:
    """A source for `warp inspect`, and an object store with a single object."""

    name = KEY

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._data = data

    async def read(self, start: int, length: int) -> bytes:
        """See Source."""
        found = self._data[start : start + length]
        if len(found) < length:
            raise ShortObject("cut short", found)
        return found

    async def get(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        return await self.read(start, length)

    async def head(self, key: str) -> Any:
        """See ObjectStore."""
        return Listed(key, self.size_bytes)

    async def list(self, prefix: str = "") -> Any:
        """See ObjectStore."""
        if KEY.startswith(prefix):
            yield Listed(KEY, self.size_bytes)


class Listed(NamedTuple):
    """An object as a store tells of it."""

    key: str
    size_bytes: int
    modified_ms: int = NOW_MS


def check(data: bytes) -> None:
    """Parse, inspect and rebuild."""
    script = Script(data)
    how = script.byte()
    whole = _object(script.take(script.number(2)), script.rest(), how)
    index = _parsed(whole)
    _check_inspection(whole, index, Wanted(bool(how & LOOK_INSIDE), bool(how & LOOK_INSIDE), 5))
    _check_bucket(whole, index)


def _object(footer: bytes, body: bytes, how: int) -> bytes:
    if how & FIX_EXTENTS:
        footer = _with_right_places(footer, body)
    crc = crc32c(footer) if how & FIX_CRC else 0
    trailer = struct.pack(">II8s", len(footer), crc, END_MAGIC) if how & FIX_TRAILER else b""
    return MAGIC + body + footer + trailer


def _with_right_places(footer: bytes, body: bytes) -> bytes:
    """The footer with its first extent over the whole body, if it has the shape of one with a single topic."""
    if len(footer) < HEAD.size + TOPIC.size:
        return footer
    (length,) = struct.unpack_from(">H", footer, HEAD.size + 16)
    at = HEAD.size + TOPIC.size + length
    changed = bytearray(footer)
    if at + EXTENT.size <= len(footer):
        struct.pack_into(">QI", changed, at + 8, len(MAGIC), len(body))
        struct.pack_into(">I", changed, at + 40, crc32c(body))
    return bytes(changed)


def _parsed(whole: bytes) -> SegmentIndex | None:
    try:
        found = parse_index(whole[-TRAILER_BYTES:], len(whole))
        if isinstance(found, int):
            assert TRAILER_BYTES < found <= len(whole) - len(MAGIC)
            found = parse_index(whole[-found:], len(whole))
        assert isinstance(found, SegmentIndex)
    except SegmentFormatError as error:
        mark(said(error))
        assert _reference(whole) is None, "refused what the reference reads"
        return None
    expected = _reference(whole)
    mark("parsed", len(found.extents), len(found.receipts), found.level > 0)
    assert expected is not None, "read what the reference refuses"
    extents, receipts = expected
    assert [tuple(one) for one in found.extents] == extents
    assert [(one.key, [tuple(run) for run in one.runs]) for one in found.receipts] == receipts
    return found


def _reference(whole: bytes) -> tuple[list[tuple[Any, ...]], list[tuple[str, list[tuple[int, ...]]]]] | None:
    """Extents and receipts, read one field after the other; None for what is no segment."""
    try:
        return _Slowly(whole).read()
    except (struct.error, UnicodeDecodeError, AssertionError):
        return None


class _Slowly:
    def __init__(self, whole: bytes) -> None:
        self.whole = whole
        size, crc, magic = struct.unpack(">II8s", whole[-16:])
        self.start = len(whole) - 16 - size
        assert magic == END_MAGIC
        assert self.start >= len(MAGIC)
        self.footer = whole[self.start : -16]
        assert crc32c(self.footer) == crc
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.footer, self.at)
        self.at += struct.calcsize(layout)
        return values

    def text(self, size: int) -> str:
        assert self.at + size <= len(self.footer)
        self.at += size
        return self.footer[self.at - size : self.at].decode()

    def read(self) -> tuple[list[tuple[Any, ...]], list[tuple[str, list[tuple[int, ...]]]]]:
        _, flags, reserved, _, topic_count, extent_count, receipt_count = self.take(">BBHqIII")
        assert flags == reserved == 0
        assert topic_count + extent_count + receipt_count <= len(self.footer)
        topics = []
        for _ in range(topic_count):
            topic_id, size = self.take(">16sH")
            topics.append((topic_id, self.text(size)))
        extents, position = [], len(MAGIC)
        for _ in range(extent_count):
            topic, *fields = self.take(">IIQIIqqIqq")
            assert topic < len(topics)
            base, end = fields[-2:]
            assert 0 <= base < end or base == end == NO_OFFSET
            assert fields[1] == position
            position += fields[2]
            extents.append((*topics[topic], *fields))
        assert position == self.start
        receipts = []
        for _ in range(receipt_count):
            key = self.text(*self.take(">H"))
            (count,) = self.take(">I")
            assert count <= len(self.footer)
            receipts.append((key, [self.take(">QIqI") for _ in range(count)]))
            assert all(run[2] >= 0 for run in receipts[-1][1])
        assert self.at == len(self.footer)
        return extents, receipts


def _check_inspection(whole: bytes, index: SegmentIndex | None, wanted: Wanted) -> None:
    found = run(examine(OneObject(whole), wanted))
    assert (found.index is None) == (index is None)
    shown = human(found, wanted.limit)
    assert shown.replace("\n", "").isprintable(), "control characters of strangers reach the terminal"
    json.dumps(as_json(found, wanted.limit))
    mark("inspected", is_intact(found), min(found.salvaged_batches, 2))


def _check_bucket(whole: bytes, index: SegmentIndex | None) -> None:
    bucket = run(BucketReader(OneObject(whole)).read())  # type: ignore[arg-type]  # what it asks of a store
    is_taken = index is not None and _is_plausible(index)
    mark("taken", is_taken)
    assert len(bucket.segments) == is_taken
    assert set(bucket.damaged) == (set() if is_taken else {KEY})
    assert all(partitions <= 1_000_000 for _, partitions, _ in bucket.topics().values())
    bucket.unplaced()
    for candidates in bucket.placed().values():
        for one in candidates:
            assert 0 <= one.base_offset < one.end_offset <= 2**48
            assert len(MAGIC) <= one.position
            assert one.position + one.size_bytes <= len(whole)
            list(
                batches_in(whole[one.position : one.position + one.size_bytes], one.position, one.base_offset)
            )
        _check_tiles(whole, candidates)


def _is_plausible(index: SegmentIndex) -> bool:
    """Whether no number in it would make a restore write without end."""
    ends = [one.end_offset for one in index.extents]
    ends += [run.base_offset + run.offset_count for receipt in index.receipts for run in receipt.runs]
    return max([0, *ends]) <= 2**48 and all(one.partition < 1_000_000 for one in index.extents)


def _check_tiles(whole: bytes, candidates: list[Any]) -> None:
    tiling = run(tile(OneObject(whole), candidates, None, 0))  # type: ignore[arg-type]  # see above
    covered = sorted(
        [(one.base_offset, one.end_offset) for one in tiling.extents]
        + [(one.base_offset, one.end_offset) for one in tiling.holes]
    )
    for (_, end), (start, _) in itertools.pairwise(covered):
        assert end == start, "extents and holes do not tile"


def written(whole: bytes, how: int) -> bytes:
    """A whole segment as the script has it."""
    (size,) = struct.unpack(">I", whole[-16:-12])
    footer = whole[len(whole) - 16 - size : -16]
    body: bytes = whole[len(MAGIC) : len(whole) - 16 - size]
    return bytes([how]) + len(footer).to_bytes(2, "big") + footer + body


def seeds() -> Iterable[bytes]:
    """Segments of both levels, with receipts, several topics, and without any extent."""
    every = FIX_TRAILER | FIX_CRC
    topic, other = TopicId(bytes(range(16))), TopicId(bytes(16))
    one = raw_batch(plain_records(3))
    flushed = ExtentBatches(topic, "orders", 0, [one, one], 6, NOW_MS, NOW_MS + 2)
    merged = ExtentBatches(topic, "orders", 1, [one], 3, NOW_MS, NOW_MS + 2, 0, 3)
    second = ExtentBatches(other, "other", 0, [one], 3, -1, -1, 7, 10)
    receipts = (Receipt(KEY, [ReceiptRun(8, 80, 5, 3)]), Receipt("segments/aa/b", []))
    for extents, level, told in (
        ([flushed], 0, ()),
        ([merged], 1, ()),
        ([merged, second], 2, ()),
        ([flushed], 0, receipts),
        ([], 0, receipts),
    ):
        parts = build_segment(extents, created_ms=NOW_MS, level=level, receipts=told)
        whole = b"".join(bytes(part) for part in parts)
        yield written(whole, every)
        yield written(whole, every | LOOK_INSIDE)
        yield written(whole, every | FIX_EXTENTS | LOOK_INSIDE)
        yield written(whole, 0) + whole[-16:]


TARGET = Target(
    check,
    seeds,
    words=(
        MAGIC,
        END_MAGIC,
        END_MAGIC[:-1] + b"\2",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xff" * 8,
        KEY.encode(),
    ),
)

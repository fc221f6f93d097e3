"""The format of segment objects: built in few pieces, and read without trusting a byte.

docs/segment-format.md describes it for people and other programs. In short, all integers big-endian:

    magic and version (8) | extents, back to back | footer | footer length (4), its CRC-32C (4), end magic (8)

A segment can be read with no database: its footer names topics, partitions and byte ranges. Offsets of level 0 are only
known after the object stands, so they follow as receipts in a later object of the same agent.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from warp._blocks import joined
from warp._crc32c import crc32c, crc32c_joined
from warp.errors import WarpError
from warp.ids import TopicId
from warp.objectstore.base import Buffer, ObjectStore, SummedParts

MAGIC = b"WARPSEG\x01"
END_MAGIC = b"WARPEND\x01"
NO_OFFSET = -1
FOOTER_BYTES_MAX = 64 * 2**20
"""More than a million extents: a longer footer is not read."""

RECEIPTS_PREFIX = "receipts/"
"""Segments that hold receipts alone have keys of their own kind: they are never committed, and no orphans either."""

VIEWED_BYTES_MIN = 64 * 1024
"""Batches of this size and more are taken as they are, smaller ones are copied together."""
JOB_VIEWED_BYTES_MIN = 4 * 1024
"""The same at level 1 and above, where all is ready at once: to copy it would hold the loop for 10 ms."""
JOINED_BYTES_MAX = 2**20
"""Up to which size; so that the memory is of a size that can be used again."""

_HEAD = struct.Struct(">BBHqIII")
_TOPIC = struct.Struct(">16sH")
_EXTENT = struct.Struct(">IIQIIqqIqq")
_RECEIPT_KEY = struct.Struct(">H")
_RECEIPT_RUNS = struct.Struct(">I")
_RUN = struct.Struct(">QIqI")
_TRAILER = struct.Struct(">II8s")

_BATCH_LENGTH = struct.Struct(">i")
_BATCH_LENGTH_AT = 8
_BATCH_CRC = struct.Struct(">I")
_BATCH_CRC_AT = 17
_BATCH_CRC_COVERS_FROM = 21
"""A record batch of magic 2 has there the CRC-32C of all that follows; see `warp._records` for the whole layout."""

TRAILER_BYTES = _TRAILER.size
_FIRST_READ_BYTES = 64 * 1024


class SegmentFormatError(WarpError):
    """The bytes are not a segment, or a damaged one, or one that a newer release has written."""


class ExtentBatches(NamedTuple):
    """What becomes one extent: batches of one partition, in order.

    `first_timestamp_ms` is the smallest base timestamp of the batches, `max_timestamp_ms` the largest of the records;
    -1 when there is none. Offsets are known at level 1 and above. `crc32c` is of all batches, if it is known already.
    """

    topic_id: TopicId
    topic: str
    partition: int
    batches: Sequence[Buffer]
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    base_offset: int = NO_OFFSET
    end_offset: int = NO_OFFSET
    crc32c: int | None = None


class SegmentExtent(NamedTuple):
    """One extent as the footer describes it."""

    topic_id: TopicId
    topic: str
    partition: int
    position: int
    size_bytes: int
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    crc: int
    """CRC-32C of its bytes."""
    base_offset: int
    end_offset: int


class ReceiptRun(NamedTuple):
    """Bytes of a segment whose batches have the offsets `[base_offset, base_offset + offset_count)` of their log."""

    position: int
    size_bytes: int
    base_offset: int
    offset_count: int


class Receipt(NamedTuple):
    """What a commit decided about the segment `key`: its accepted runs. Bytes in no run were not accepted."""

    key: str
    runs: Sequence[ReceiptRun]


class SegmentIndex(NamedTuple):
    """A segment's footer."""

    level: int
    created_ms: int
    extents: Sequence[SegmentExtent]
    receipts: Sequence[Receipt]


def build_segment(
    extents: Sequence[ExtentBatches], *, created_ms: int, level: int = 0, receipts: Sequence[Receipt] = ()
) -> SummedParts:
    """The whole object, in pieces of whole batches, with its CRC.

    Large batches are not copied: the pieces show the callers' memory, which must not change any more. Neither are they
    read for their CRC: it follows from the one in their headers, which was found right when they came in. What holds
    several batches is read.
    """
    pieces = _Pieces(JOB_VIEWED_BYTES_MIN if level else VIEWED_BYTES_MIN)
    pieces.add(MAGIC)
    object_crc = crc32c(MAGIC)
    topics: dict[tuple[TopicId, str], int] = {}
    rows = []
    position = len(MAGIC)
    for extent in extents:
        crc = size = 0
        for batch in extent.batches:
            if extent.crc32c is None:
                crc = batches_crc(batch, crc)
            size += len(batch)
            pieces.add(batch)
        crc = crc if extent.crc32c is None else extent.crc32c
        topic = topics.setdefault((extent.topic_id, extent.topic), len(topics))
        rows.append(
            _EXTENT.pack(
                topic,
                extent.partition,
                position,
                size,
                extent.record_count,
                extent.first_timestamp_ms,
                extent.max_timestamp_ms,
                crc,
                extent.base_offset,
                extent.end_offset,
            )
        )
        position += size
        object_crc = crc32c_joined(object_crc, crc, size)
    footer = b"".join(
        [
            _HEAD.pack(level, 0, 0, created_ms, len(topics), len(rows), len(receipts)),
            *(_topic_row(topic_id, name) for topic_id, name in topics),
            *rows,
            *map(_receipt_row, receipts),
        ]
    )
    footer += _TRAILER.pack(len(footer), crc32c(footer), END_MAGIC)
    pieces.add(footer)
    return SummedParts(pieces.take(), crc32c(footer, object_crc))


def batches_crc(batch: Buffer, before: int = 0) -> int:
    """The CRC-32C of what `before` is that of, followed by a record batch or several; see `build_segment`."""
    view = memoryview(batch)
    if len(batch) < VIEWED_BYTES_MIN or _batch_bytes(view) != len(batch):
        return crc32c(batch, before)
    (own,) = _BATCH_CRC.unpack_from(view, _BATCH_CRC_AT)
    return crc32c_joined(
        crc32c(view[:_BATCH_CRC_COVERS_FROM], before), own, len(batch) - _BATCH_CRC_COVERS_FROM
    )


def _batch_bytes(view: memoryview) -> int:
    """The size of the record batch that begins here, by its header."""
    (length,) = _BATCH_LENGTH.unpack_from(view, _BATCH_LENGTH_AT)
    return int(length) + _BATCH_LENGTH_AT + _BATCH_LENGTH.size


class _Pieces:
    """Parts of an object in order, small ones joined."""

    def __init__(self, viewed_bytes_min: int = VIEWED_BYTES_MIN) -> None:
        self._viewed_bytes_min = viewed_bytes_min
        self._pieces: list[Buffer] = []
        self._small: list[Buffer] = []
        self._small_bytes = 0

    def add(self, part: Buffer) -> None:
        size_bytes = len(part)
        # Readers stamp offsets into what they are shown.
        if size_bytes >= self._viewed_bytes_min and not memoryview(part).readonly:
            self._join()
            self._pieces.append(part)
            return
        if self._small_bytes + size_bytes > JOINED_BYTES_MAX:
            self._join()
        self._small.append(part)
        self._small_bytes += size_bytes

    def take(self) -> list[Buffer]:
        self._join()
        return self._pieces

    def _join(self) -> None:
        if self._small:
            self._pieces.append(joined(self._small))
            self._small, self._small_bytes = [], 0


def parse_index(tail: Buffer, object_bytes: int) -> SegmentIndex | int:
    """Read the footer from the last bytes of an object of `object_bytes`.

    When `tail` does not reach back to the start of the footer, the answer is how many bytes it has to have.
    Raises SegmentFormatError.
    """
    least_bytes = len(MAGIC) + _HEAD.size + TRAILER_BYTES
    if object_bytes < least_bytes or len(tail) < TRAILER_BYTES:
        _refuse(f"an object of {object_bytes} bytes is too short for a segment")
    footer_bytes, footer_crc, magic = _trailer(bytes(tail[-TRAILER_BYTES:]))
    if magic != END_MAGIC:
        if magic[:-1] == END_MAGIC[:-1]:
            _refuse(f"format version {magic[-1]} is newer than this release knows (1)")
        _refuse("the object does not end like a segment: cut short, or something else")
    if footer_bytes > FOOTER_BYTES_MAX or footer_bytes > object_bytes - len(MAGIC) - TRAILER_BYTES:
        _refuse(f"a footer of {footer_bytes} bytes does not fit into an object of {object_bytes}")
    needed_bytes = footer_bytes + TRAILER_BYTES
    if len(tail) < needed_bytes:
        return needed_bytes
    footer = bytes(tail[len(tail) - needed_bytes : len(tail) - TRAILER_BYTES])
    if crc32c(footer) != footer_crc:
        _refuse("the footer's CRC is wrong")
    return _Footer(footer).index(object_bytes - needed_bytes)


def check_magic(start: Buffer) -> None:
    """Raise SegmentFormatError unless an object that starts with these (at least 8) bytes can be a segment."""
    if bytes(start[: len(MAGIC)]) != MAGIC:
        _refuse("the object does not start like a segment")


async def read_index(store: ObjectStore, key: str) -> SegmentIndex:
    """Read and check a segment's magic and footer: one request for its size, two or three more for bytes.

    Raises SegmentFormatError, and ObjectStoreError as the store does.
    """
    object_bytes = (await store.head(key)).size_bytes
    check_magic(await store.get(key, 0, min(len(MAGIC), object_bytes)))
    tail_bytes = min(_FIRST_READ_BYTES, object_bytes)
    found = parse_index(await store.get(key, object_bytes - tail_bytes, tail_bytes), object_bytes)
    if isinstance(found, int):
        found = parse_index(await store.get(key, object_bytes - found, found), object_bytes)
    assert not isinstance(found, int), "the tail has as many bytes as were asked for"
    return found


def _trailer(data: bytes) -> tuple[int, int, bytes]:
    footer_bytes, footer_crc, magic = _TRAILER.unpack(data)
    return footer_bytes, footer_crc, magic


def _topic_row(topic_id: TopicId, name: str) -> bytes:
    encoded = name.encode()
    return _TOPIC.pack(topic_id, len(encoded)) + encoded


def _receipt_row(receipt: Receipt) -> bytes:
    key = receipt.key.encode("ascii")
    runs = [_RUN.pack(*run) for run in receipt.runs]
    return b"".join([_RECEIPT_KEY.pack(len(key)), key, _RECEIPT_RUNS.pack(len(runs)), *runs])


def _refuse(reason: str) -> NoReturn:
    raise SegmentFormatError(f"not a readable segment: {reason}")


class _Footer:
    """A cursor over a footer that never reads past its end, and never makes more objects than it has bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def index(self, extents_end: int) -> SegmentIndex:
        """The whole footer; the extents have to fill the object from the magic up to `extents_end`."""
        level, flags, reserved, created_ms, topic_count, extent_count, receipt_count = self._unpack(_HEAD)
        if flags or reserved:
            _refuse("it uses features that this release does not know")
        self._expect(topic_count, _TOPIC.size)
        topics = [self._topic() for _ in range(topic_count)]
        self._expect(extent_count, _EXTENT.size)
        extents = [self._extent(topics) for _ in range(extent_count)]
        _check_extents(extents, extents_end)
        self._expect(receipt_count, _RECEIPT_KEY.size + _RECEIPT_RUNS.size)
        receipts = [self._receipt() for _ in range(receipt_count)]
        if self._at != len(self._data):
            _refuse(f"{len(self._data) - self._at} bytes are left over in the footer")
        return SegmentIndex(level, created_ms, extents, receipts)

    def _topic(self) -> tuple[TopicId, str]:
        topic_id, length = self._unpack(_TOPIC)
        return TopicId(topic_id), self._text(length)

    def _extent(self, topics: Sequence[tuple[TopicId, str]]) -> SegmentExtent:
        topic, partition, position, size, records, first_ms, max_ms, crc, base, end = self._unpack(_EXTENT)
        if topic >= len(topics):
            _refuse(f"an extent belongs to topic {topic} of {len(topics)}")
        topic_id, name = topics[topic]
        return SegmentExtent(
            topic_id, name, partition, position, size, records, first_ms, max_ms, crc, base, end
        )

    def _receipt(self) -> Receipt:
        (length,) = self._unpack(_RECEIPT_KEY)
        key = self._text(length)
        (count,) = self._unpack(_RECEIPT_RUNS)
        self._expect(count, _RUN.size)
        runs = [ReceiptRun(*self._unpack(_RUN)) for _ in range(count)]
        if any(run.base_offset < 0 for run in runs):
            _refuse(f"a receipt for {key!r} has a negative offset")
        return Receipt(key, runs)

    def _text(self, length: int) -> str:
        raw = self._data[self._at : self._at + length]
        if len(raw) != length:
            _refuse("a name runs over the end of the footer")
        self._at += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            _refuse("a name is not UTF-8")

    def _expect(self, count: int, size_bytes: int) -> None:
        """Refuse a count that the bytes left can't hold, before anything is made for it."""
        if count * size_bytes > len(self._data) - self._at:
            _refuse(
                f"{count} entries don't fit into the {len(self._data) - self._at} bytes left of the footer"
            )

    def _unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        if layout.size > len(self._data) - self._at:
            _refuse("the footer ends inside an entry")
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values


def _check_extents(extents: Sequence[SegmentExtent], extents_end: int) -> None:
    """Extents stand back to back, so none can point at what is not its own."""
    position = len(MAGIC)
    for extent in extents:
        if extent.position != position:
            _refuse(f"an extent begins at {extent.position} where {position} is next")
        has_offsets = 0 <= extent.base_offset < extent.end_offset
        if not has_offsets and (extent.base_offset, extent.end_offset) != (NO_OFFSET, NO_OFFSET):
            _refuse(f"an extent has offsets {extent.base_offset} to {extent.end_offset}")
        position += extent.size_bytes
    if position != extents_end:
        _refuse(f"the extents end at {position}, the footer begins at {extents_end}")

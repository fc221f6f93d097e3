"""Writes segments of level 1 and above: the data of each log in one piece, in extents of at most 4 MiB.

Where records go by their age an extent holds those of one span of time; `warp.lifecycle.spans` says why.

What jobs write describes itself: absolute offsets stand in the footer and in the headers of the batches, so that a
segment of level 1 and above needs neither receipts nor a database to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from warp._blocks import joined
from warp._records import InvalidBatch, parse_header, stamp_batches, whole_batches
from warp.ids import LEADER_EPOCH, LogId, TopicId
from warp.lifecycle.spans import is_later
from warp.log.segment import MAGIC, ExtentBatches, batches_crc, build_segment
from warp.metadata.life_model import NewExtent, NewSegment
from warp.metadata.model import NO_TIMESTAMP
from warp.objectstore.base import Buffer, SummedParts

EXTENT_BYTES_MAX = 4 * 2**20
"""The largest extent of level 1 and above, but for a single batch that is larger: the size of the cache's chunks."""

FOOTER_ROW_BYTES = 60
"""What the footer has for an extent, but for the name of its topic."""

SPAN_CUTS_MAX = 1000
"""So often a segment's writer cuts in two what it is given in one piece because of its times, and no oftener: no client
can make a row of the index of each of its batches by the times that it gives them."""


class SealedOutput(NamedTuple):
    """A segment as it goes to the object store, and what a swap says of it."""

    parts: SummedParts
    segment: NewSegment
    extents: list[NewExtent]


@dataclass(slots=True)
class _OpenExtent:
    """Consecutive batches of one log, not yet in one piece of memory."""

    topic_id: TopicId
    topic: str
    partition: int
    log_id: LogId
    base_offset: int
    end_offset: int
    span_ms: int | None
    pieces: list[Buffer] = field(default_factory=list)
    size_bytes: int = 0
    record_count: int = 0
    first_timestamp_ms: int = NO_TIMESTAMP
    max_timestamp_ms: int = NO_TIMESTAMP

    def successor(self, base_offset: int) -> _OpenExtent:
        """An empty one of the same log."""
        return _OpenExtent(
            self.topic_id, self.topic, self.partition, self.log_id, base_offset, base_offset, self.span_ms
        )

    def has_room(self, run: _Run) -> bool:
        """Whether the whole of it may lie here. One that comes first may still be too large, or of several spans."""
        before_ms = self.max_timestamp_ms if self.pieces else run.first_timestamp_ms
        is_small = self.size_bytes + len(run.batches) <= EXTENT_BYTES_MAX
        return is_small and not is_later(before_ms, run.max_timestamp_ms, self.span_ms)

    def take(self, run: _Run) -> None:
        self.pieces.append(run.batches)
        self.size_bytes += len(run.batches)
        self.end_offset = run.end_offset
        self.record_count += run.record_count
        self.first_timestamp_ms = earlier(self.first_timestamp_ms, run.first_timestamp_ms)
        self.max_timestamp_ms = max(self.max_timestamp_ms, run.max_timestamp_ms)


class _Run(NamedTuple):
    """Whole batches, and what their headers say together."""

    batches: Buffer
    end_offset: int
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int


class SegmentWriter:
    """Collects what one segment will hold. Its memory is `size_bytes`, and the buffers that the last extent came in.

    `size_max` is where `is_full` begins to be true; the writer takes more, and it is for its user to stop. After an
    error it is of no use any more.
    """

    def __init__(self, level: int, *, size_max: int) -> None:
        if level < 1:
            raise ValueError("segments of level 0 come from flushes")
        self.level = level
        self.size_bytes = len(MAGIC)
        """About the size of the object so far."""
        self._size_max = size_max
        self._open: _OpenExtent | None = None
        self._extents: list[tuple[LogId, ExtentBatches]] = []
        self._span_cuts = 0

    @property
    def is_full(self) -> bool:
        """Whether the segment is as large as it should become."""
        return self.size_bytes >= self._size_max

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._open is None and not self._extents

    def add(
        self,
        topic_id: TopicId,
        topic: str,
        partition: int,
        log_id: LogId,
        base_offset: int,
        end_offset: int,
        batches: Buffer,
        record_count: int,
        first_timestamp_ms: int,
        max_timestamp_ms: int,
        span_ms: int | None = None,
    ) -> None:
        """Add whole batches that hold the offsets `[base_offset, end_offset)` of a log; they must not change any more.

        They become part of the last extent if they go on where it ends, and more than one extent if they are large, or
        of more than one span of `span_ms`.
        Base offsets and leader epochs are stamped here, into memory of the writer's own, or into the callers' if it is
        writable and holds a single large batch. `first_timestamp_ms` is the smallest base timestamp, -1 without any;
        `max_timestamp_ms` the largest of the records, or for batches without any the time of their commit. Raises
        ValueError when the batches do not hold these offsets.
        """
        if not len(batches) or not 0 <= base_offset < end_offset:
            raise ValueError(f"nothing to write as offsets {base_offset} to {end_offset}")
        extent = self._open
        if extent is None or extent.log_id != log_id or extent.end_offset != base_offset:
            self._close()
            extent = _OpenExtent(topic_id, topic, partition, log_id, base_offset, base_offset, span_ms)
        elif is_later(extent.max_timestamp_ms, min(first_timestamp_ms, max_timestamp_ms), span_ms):
            self._close()
            extent = extent.successor(base_offset)
        self._open = extent
        run = _Run(batches, end_offset, record_count, first_timestamp_ms, max_timestamp_ms)
        if extent.has_room(run):
            self._take(run)
        elif self._split(memoryview(batches), base_offset, max_timestamp_ms) != end_offset:
            raise ValueError(f"log {log_id}: the batches from {base_offset} on do not end at {end_offset}")

    def close_extent(self) -> None:
        """What comes next begins a new extent, and nothing that was added is needed any more. Raises ValueError."""
        self._close()

    def seal(self, key: str, created_ms: int, place: int = 0) -> SealedOutput:
        """The segment under this key. `place` is its place among the segments of the swap that it goes into.

        The writer is used up. Raises ValueError when nothing was added.
        """
        self._close()
        if not self._extents:
            raise ValueError("a segment without extents is of no use")
        rows: list[NewExtent] = []
        position = len(MAGIC)
        for log_id, extent in self._extents:
            size_bytes = len(extent.batches[0])
            rows.append(
                NewExtent(
                    log_id,
                    extent.base_offset,
                    extent.end_offset,
                    place,
                    position,
                    size_bytes,
                    extent.max_timestamp_ms,
                )
            )
            position += size_bytes
        extents, self._extents = [extent for _, extent in self._extents], []
        parts = build_segment(extents, created_ms=created_ms, level=self.level)
        size_bytes = sum(map(len, parts))
        return SealedOutput(parts, NewSegment(key, size_bytes, self.level, created_ms), rows)

    def _split(self, rest: memoryview, offset: int, untimed_ms: int) -> int:
        """Fill extents with batches, cutting between them; the offset after the last."""
        while True:
            extent = self._open
            assert extent is not None
            span_ms = extent.span_ms if self._span_cuts < SPAN_CUTS_MAX else None
            try:
                room_bytes = EXTENT_BYTES_MAX - extent.size_bytes
                fitting_bytes = whole_batches(rest, room_bytes, not extent.size_bytes)
                fitting = rest[:fitting_bytes]
                part = _measured(fitting, offset, untimed_ms, extent.max_timestamp_ms, span_ms)
            except InvalidBatch as error:
                raise ValueError(f"log {extent.log_id}: not whole batches: {error}") from error
            self._span_cuts += len(part.batches) < fitting_bytes
            if len(part.batches):
                self._take(part)
                offset, rest = part.end_offset, rest[len(part.batches) :]
                if not len(rest):
                    return offset
            elif not extent.size_bytes:
                raise ValueError(f"log {extent.log_id}: a batch is cut short")
            self._close()
            self._open = extent.successor(offset)

    def _take(self, run: _Run) -> None:
        assert self._open is not None
        self._open.take(run)
        self.size_bytes += len(run.batches)

    def _close(self) -> None:
        """Bring the last extent into one piece of memory, and its batches to their offsets."""
        extent, self._open = self._open, None
        if extent is None:
            return
        data = extent.pieces[0]
        if len(extent.pieces) > 1 or len(data) <= EXTENT_BYTES_MAX or memoryview(data).readonly:
            data = joined(extent.pieces)
        try:
            end_offset = stamp_batches(data, extent.base_offset, LEADER_EPOCH)
        except InvalidBatch as error:
            raise ValueError(f"log {extent.log_id}: not whole batches: {error}") from error
        if end_offset != extent.end_offset:
            raise ValueError(
                f"log {extent.log_id}: the batches from {extent.base_offset} on end at {end_offset}, "
                f"not at {extent.end_offset}"
            )
        self.size_bytes += FOOTER_ROW_BYTES
        self._extents.append(
            (
                extent.log_id,
                ExtentBatches(
                    extent.topic_id,
                    extent.topic,
                    extent.partition,
                    [data],
                    extent.record_count,
                    extent.first_timestamp_ms,
                    extent.max_timestamp_ms,
                    extent.base_offset,
                    extent.end_offset,
                    # Here, extent by extent, rather than of the whole segment at once: the loop waits for it.
                    batches_crc(data),
                ),
            )
        )


def earlier(first_ms: int, second_ms: int) -> int:
    """The smaller of two timestamps of which either may be none."""
    if NO_TIMESTAMP in (first_ms, second_ms):
        return max(first_ms, second_ms)
    return min(first_ms, second_ms)


def _measured(
    batches: memoryview, base_offset: int, untimed_ms: int, before_ms: int, span_ms: int | None
) -> _Run:
    """What the headers say of the batches up to the first of a later span than what has come before.

    A batch without timestamps has the time `untimed_ms`; one that only covers offsets has none.
    """
    position = records = 0
    first_ms = max_ms = NO_TIMESTAMP
    while position < len(batches):
        header = parse_header(batches, position)
        time_ms = header.max_timestamp
        if time_ms == NO_TIMESTAMP and header.record_count:
            time_ms = untimed_ms
        if is_later(max(before_ms, max_ms), time_ms, span_ms):
            break
        position += header.size_bytes
        base_offset += header.last_offset_delta + 1
        records += header.record_count
        first_ms = earlier(first_ms, header.base_timestamp)
        max_ms = max(max_ms, time_ms)
    if position and max(before_ms, max_ms) == NO_TIMESTAMP:
        max_ms = untimed_ms
    return _Run(batches[:position], base_offset, records, first_ms, max_ms)

"""Reads what a bucket says of itself: footers of its segments, and the receipts that tell offsets of level 0.

Nothing of this needs metadata. Segments that can't be read are told of and left where they are.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.ids import SEGMENT_PREFIX, TopicId, segment_key_time_ms
from warp.log.segment import (
    RECEIPTS_PREFIX,
    Receipt,
    ReceiptRun,
    SegmentExtent,
    SegmentFormatError,
    SegmentIndex,
    read_index,
)
from warp.objectstore.base import ObjectStore

READS_AT_ONCE_MAX = 16
ATTEMPTS_MAX = 3
RETRY_S = 1.0
PARTITION_MAX = 999_999
OFFSET_MAX = 2**48
"""No log comes that far: at a million records a second that takes nine years."""


class LogKey(NamedTuple):
    """A partition, as the bucket names it."""

    topic_id: TopicId
    partition: int


class FoundSegment(NamedTuple):
    """A segment that stands in the bucket and can be read."""

    key: str
    size_bytes: int
    level: int
    created_ms: int
    extents: Sequence[SegmentExtent]
    receipts_for: tuple[str, ...] = ()
    """The keys whose receipts it holds."""

    @property
    def print(self) -> tuple[object, ...]:
        """What copies of one segment share, and no two segments do: an attempt that was repeated has another key."""
        crcs = tuple((e.topic_id, e.partition, e.size_bytes, e.crc) for e in self.extents)
        return (self.created_ms, self.size_bytes, crcs, self.receipts_for)


class Candidate(NamedTuple):
    """Bytes of a segment that hold the offsets `[base_offset, end_offset)` of a log.

    What stands in the database counts as level `KNOWN_LEVEL`, above all others. `key` is "" for what lives in the
    index.
    """

    base_offset: int
    end_offset: int
    key: str
    position: int
    size_bytes: int
    max_timestamp_ms: int
    level: int
    created_ms: int
    is_sparse: bool = False
    """Whether compaction has taken records out, so that batches no longer are what they were."""


KNOWN_LEVEL = 1_000


@dataclass
class Bucket:
    """What was found. `damaged` says why per key; `vanished` counts objects that went while they were read."""

    segments: list[FoundSegment] = field(default_factory=list)
    receipts: dict[str, Sequence[ReceiptRun]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    """Of all objects under `segments/`, also those that were not read."""
    size_bytes: int = 0
    foreign: int = 0
    vanished: int = 0

    @property
    def newest_ms(self) -> int:
        """When the newest segment was sealed, -1 without any."""
        return max((segment.created_ms for segment in self.segments), default=-1)

    def topics(self) -> dict[TopicId, tuple[str, int, int]]:
        """Per topic its name, its partitions as far as they hold anything, and when it was written last."""
        found: dict[TopicId, tuple[str, int, int]] = {}
        for segment in self.segments:
            for extent in segment.extents:
                name, partitions, newest = found.get(extent.topic_id, (extent.topic, 0, -1))
                found[extent.topic_id] = (
                    name,
                    max(partitions, extent.partition + 1),
                    max(newest, segment.created_ms),
                )
        return found

    def placed(self) -> dict[LogKey, list[Candidate]]:
        """Everything whose offsets the bucket tells, by log."""
        found: dict[LogKey, list[Candidate]] = {}
        for segment in self.segments:
            if segment.level > 0:
                pairs: Iterable[tuple[SegmentExtent, Candidate]] = _of_footer(segment)
            else:
                pairs = _of_receipt(segment, self.receipts.get(segment.key, ()))
            for extent, candidate in pairs:
                found.setdefault(LogKey(extent.topic_id, extent.partition), []).append(candidate)
        return found

    def unplaced(self, known: Iterable[FoundSegment] = ()) -> list[FoundSegment]:
        """Level-0 segments of which no receipt is left, oldest first, one of each set of copies.

        A copy of a segment that has a receipt, or that the database knows, is left out.
        """
        seen = {s.print for s in self.segments if s.level == 0 and s.key in self.receipts}
        seen |= {s.print for s in known}
        unplaced = []
        for segment in sorted(self.segments, key=lambda s: (s.created_ms, _time(s.key), s.key)):
            if segment.level > 0 or segment.key in self.receipts or segment.print in seen:
                continue
            seen.add(segment.print)
            unplaced.append(segment)
        return unplaced


def _time(key: str) -> int:
    return segment_key_time_ms(key) or 0


def _of_footer(segment: FoundSegment) -> Iterable[tuple[SegmentExtent, Candidate]]:
    for extent in segment.extents:
        if extent.end_offset > extent.base_offset >= 0:
            yield (
                extent,
                Candidate(
                    extent.base_offset,
                    extent.end_offset,
                    segment.key,
                    extent.position,
                    extent.size_bytes,
                    _timestamp(extent, segment),
                    segment.level,
                    segment.created_ms,
                    extent.record_count < extent.end_offset - extent.base_offset,
                ),
            )


def _of_receipt(
    segment: FoundSegment, runs: Sequence[ReceiptRun]
) -> Iterable[tuple[SegmentExtent, Candidate]]:
    positions = [extent.position for extent in segment.extents]
    for run in runs:
        place = bisect_right(positions, run.position) - 1
        if place < 0:
            continue
        extent = segment.extents[place]
        # A receipt of anything that is not there is nobody's.
        if run.position + run.size_bytes <= extent.position + extent.size_bytes and run.offset_count > 0:
            yield (
                extent,
                Candidate(
                    run.base_offset,
                    run.base_offset + run.offset_count,
                    segment.key,
                    run.position,
                    run.size_bytes,
                    _timestamp(extent, segment),
                    0,
                    segment.created_ms,
                ),
            )


def _timestamp(extent: SegmentExtent, segment: FoundSegment) -> int:
    return segment.created_ms if extent.max_timestamp_ms < 0 else extent.max_timestamp_ms


def found_segment(key: str, size_bytes: int, index: SegmentIndex) -> FoundSegment:
    """A segment by its footer."""
    keys = tuple(receipt.key for receipt in index.receipts)
    return FoundSegment(key, size_bytes, index.level, index.created_ms, tuple(index.extents), keys)


class BucketReader:
    """Reads all segments but those whose keys `known` says yes to, and all receipts.

    `progress(done, total)` is called after each object.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        is_known: Callable[[str], bool] = lambda _: False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._objects = objects
        self._is_known = is_known
        self._progress = progress
        self._bucket = Bucket()
        self._done = 0

    async def read(self) -> Bucket:
        """Raises ObjectStoreError when the store can't be read; objects that are no segments are no reason for it."""
        wanted = await self._list()
        todo = iter(wanted)

        async def work() -> None:
            for key, size_bytes in todo:
                await self._read(key, size_bytes)
                self._done += 1
                self._progress(self._done, len(wanted))

        await at_once(work)
        self._bucket.segments.sort(key=lambda segment: segment.key)
        return self._bucket

    async def _list(self) -> list[tuple[str, int]]:
        bucket = self._bucket
        wanted = []
        async for found in self._objects.list(SEGMENT_PREFIX):
            if segment_key_time_ms(found.key) is None:
                bucket.foreign += 1
                continue
            bucket.keys.add(found.key)
            bucket.size_bytes += found.size_bytes
            if not self._is_known(found.key):
                wanted.append((found.key, found.size_bytes))
        wanted += [(found.key, found.size_bytes) async for found in self._objects.list(RECEIPTS_PREFIX)]
        return sorted(wanted)

    async def _read(self, key: str, size_bytes: int) -> None:
        bucket = self._bucket
        try:
            index = await self._index(key)
            check_plausible(index)
        except (SegmentFormatError, ShortObject) as error:
            bucket.damaged[key] = str(error)
        except ObjectNotFound:
            bucket.keys.discard(key)
            bucket.vanished += 1
        else:
            if key.startswith(SEGMENT_PREFIX):
                bucket.segments.append(found_segment(key, size_bytes, index))
            self._take_receipts(index.receipts)

    async def _index(self, key: str) -> SegmentIndex:
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return await read_index(self._objects, key)
            except (ObjectNotFound, ShortObject):
                raise
            except ObjectStoreError:
                await asyncio.sleep(RETRY_S)
        return await read_index(self._objects, key)

    def _take_receipts(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            self._bucket.receipts.setdefault(receipt.key, tuple(receipt.runs))


def check_plausible(index: SegmentIndex) -> None:
    """Raise SegmentFormatError for a footer by which a restore would fill the database with empty partitions or holes.

    Who can write into a bucket can write such a footer, under a CRC that is right.
    """
    for extent in index.extents:
        if extent.partition > PARTITION_MAX:
            raise SegmentFormatError(
                f"it names partition {extent.partition}, {PARTITION_MAX} is the last that is restored"
            )
        _check_offset(extent.end_offset)
    for receipt in index.receipts:
        for run in receipt.runs:
            _check_offset(run.base_offset + run.offset_count)


def _check_offset(end_offset: int) -> None:
    if end_offset > OFFSET_MAX:
        raise SegmentFormatError(f"it names offset {end_offset}, {OFFSET_MAX} is the last that is restored")


async def at_once(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run READS_AT_ONCE_MAX of the same side by side; the first error ends all of them."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(READS_AT_ONCE_MAX):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def partitions_of(candidates: Mapping[LogKey, object]) -> list[LogKey]:
    """Logs in an order that does not change from run to run."""
    return sorted(candidates, key=lambda log: (log.topic_id, log.partition))

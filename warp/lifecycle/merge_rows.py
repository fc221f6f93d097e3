"""The index rows of a merge, packed: there may be hundreds of thousands, and each is needed for a moment only."""

from __future__ import annotations

import asyncio
import heapq
from array import array
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from warp.ids import LogId
from warp.metadata.life_model import IndexRow, SegmentRow

ROWS_PER_READ = 250
"""About how many index rows are asked for at once: as many as one segment has, in any case. SQLite runs on the loop,
and takes about 3 µs for each."""

SEGMENTS_PER_READ = 64

_FIELDS = 7


class RowStore(Protocol):
    """The part of the metadata store that knows what lies in segments."""

    async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]: ...


async def rows_of(
    store: RowStore, segments: Sequence[SegmentRow]
) -> AsyncIterator[tuple[Sequence[SegmentRow], list[IndexRow]]]:
    """The extents of segments, some segments at a time; those of one turn by log and offset. Raises MetadataError.

    What some segments hold together may take several turns; only the last of them names the segments.
    """
    at, count = 0, 1
    while at < len(segments):
        part = segments[at : at + count]
        rows = await store.extents_in_segments([segment.segment_id for segment in part])
        at += len(part)
        # Neighbours are much alike, but the first flushes of an agent are small ones: so it grows by steps.
        fitting = ROWS_PER_READ * len(part) // max(1, len(rows))
        count = max(1, min(fitting, 2 * len(part), SEGMENTS_PER_READ))
        for start in range(0, len(rows) - ROWS_PER_READ, ROWS_PER_READ):
            yield (), rows[start : start + ROWS_PER_READ]
            await asyncio.sleep(0)
        yield part, rows[max(0, len(rows) - 1) // ROWS_PER_READ * ROWS_PER_READ :]
        await asyncio.sleep(0)


class MergeRows:
    """Rows of many segments, added some segments at a time, given back by log and offset. 56 bytes each."""

    def __init__(self, segments: Sequence[SegmentRow]) -> None:
        self._segments = {segment.segment_id: segment for segment in segments}
        self._sources: list[array[int]] = []
        self.count = 0
        self.log_bytes: dict[LogId, int] = {}
        """How much of each log there is."""

    def add(self, rows: Sequence[IndexRow], logs: Collection[LogId] | Mapping[LogId, object]) -> None:
        """Keep those of the rows, which come by log and offset, that belong to some logs and to the segments."""
        packed: array[int] = array("q")
        for row in rows:
            if row.log_id not in logs or row.segment_id not in self._segments:
                continue
            assert row.segment_id is not None
            packed.extend(
                (
                    row.log_id,
                    row.base_offset,
                    row.end_offset,
                    row.segment_id,
                    row.position,
                    row.size_bytes,
                    row.max_timestamp_ms,
                )
            )
            self.count += 1
            self.log_bytes[row.log_id] = self.log_bytes.get(row.log_id, 0) + row.size_bytes
        if packed:
            self._sources.append(packed)

    def __iter__(self) -> Iterator[IndexRow]:
        """All of them, by log and offset."""
        return heapq.merge(*map(self._unpacked, self._sources))

    def _unpacked(self, packed: array[int]) -> Iterator[IndexRow]:
        for at in range(0, len(packed), _FIELDS):
            log_id, base, end, segment_id, position, size_bytes, time_ms = packed[at : at + _FIELDS]
            segment = self._segments[segment_id]
            yield IndexRow(
                LogId(log_id),
                base,
                end,
                segment_id,
                position,
                size_bytes,
                time_ms,
                segment.key,
                segment.level,
            )

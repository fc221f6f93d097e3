"""The index rows of a merge, packed: there may be hundreds of thousands, and each is needed for a moment only."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence

from warp.ids import LogId
from warp.metadata.life_model import IndexRow, SegmentRow

_FIELDS = 7


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

"""Measures how far merging is behind, for those who hold producers back: what can't be merged is no debt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from warp.lifecycle.levels import MergeDebt, MergeLimits, debt
from warp.metadata.life_model import SegmentRow, SegmentTotals

PAGE_SEGMENTS = 1000
PAGES_MAX = 8


class DebtStore(Protocol):
    """The part of the metadata store that knows which segments can be merged."""

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]: ...


async def measured_debt(store: DebtStore, totals: Sequence[SegmentTotals], limits: MergeLimits) -> MergeDebt:
    """The debt by what totals say; where that would be too much, by the segments of level 0 that can be merged.

    Totals count segments too that are empty, or hold extents in quarantine: many of these must not hold producers back
    for ever. Looks at a bounded number of segments. Raises MetadataError.
    """
    by_level = {row.level: row for row in totals}
    found = debt(by_level, limits)
    if found.ratio <= 1 or 0 not in by_level:
        return found
    segments = size_bytes = after_id = 0
    for _ in range(PAGES_MAX):
        page = await store.oldest_segments(0, PAGE_SEGMENTS, after_id)
        segments += len(page)
        size_bytes += sum(row.size_bytes for row in page)
        if len(page) < PAGE_SEGMENTS:
            by_level[0] = SegmentTotals(0, segments, size_bytes)
            return debt(by_level, limits)
        after_id = page[-1].segment_id
    return found

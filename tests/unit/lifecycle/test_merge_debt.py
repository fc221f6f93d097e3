"""The debt of merging: what totals say, unless much of it can't be merged anyway."""

from __future__ import annotations

import asyncio

import pytest

from warp.lifecycle.levels import MergeDebt, MergeLimits
from warp.lifecycle.merge_debt import PAGE_SEGMENTS, PAGES_MAX, measured_debt
from warp.metadata.life_model import SegmentRow, SegmentTotals

LIMITS = MergeLimits()
TOO_MANY = 600


class Segments:
    """Segments of level 0 that can be merged."""

    def __init__(self, count: int) -> None:
        self.rows = [
            SegmentRow(number, f"segments/00/{number}", 2**20, 0, 1) for number in range(1, count + 1)
        ]
        self.pages = 0

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]:
        assert level == 0
        self.pages += 1
        return self.rows[after_id : after_id + limit]


def measure(store: Segments, *totals: SegmentTotals) -> MergeDebt:
    return asyncio.run(measured_debt(store, totals, LIMITS))


def test_little_is_believed_without_a_look() -> None:
    store = Segments(9)
    assert measure(store, SegmentTotals(0, 200, 2**20)) == MergeDebt(200, 2**20, 200 / 512)
    assert measure(store) == MergeDebt()
    assert store.pages == 0


@pytest.mark.parametrize("mergeable", [0, 9, 512, TOO_MANY, PAGE_SEGMENTS, 3 * PAGE_SEGMENTS + 5])
def test_much_is_counted(mergeable: int) -> None:
    store = Segments(mergeable)
    found = measure(store, SegmentTotals(0, 10**6, 10**13))
    assert found.segments == mergeable
    assert found.size_bytes == mergeable * 2**20
    assert found.ratio == pytest.approx(max(mergeable / 512, mergeable * 2**20 / LIMITS.backlog_bytes_max))


def test_what_is_too_much_to_count_is_believed() -> None:
    store = Segments(PAGES_MAX * PAGE_SEGMENTS)
    found = measure(store, SegmentTotals(0, 10**6, 10**13))
    assert found.segments == 10**6
    assert store.pages == PAGES_MAX


def test_upper_levels_count_as_they_are() -> None:
    upper = SegmentTotals(1, 100, 5 * 8 * LIMITS.due_bytes[1])
    store = Segments(3)
    assert measure(store, SegmentTotals(0, 10**6, 10**13), upper) == MergeDebt(3, 3 * 2**20, 5.0)
    assert measure(store, upper) == MergeDebt(0, 0, 5.0)

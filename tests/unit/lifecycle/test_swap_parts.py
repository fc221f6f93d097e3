"""A swap in parts: whole logs, few rows, and together exactly what the whole was."""

from __future__ import annotations

import random
from itertools import pairwise

from warp.ids import LogId
from warp.lifecycle.swap_parts import ROWS_PER_SWAP, swap_parts
from warp.metadata.life_model import IndexRow, NewExtent, NewSegment, Swap

NEW = NewSegment("new", 100, 1, 0)


def swap_of(rows_by_log: dict[int, int], segments: int = 1, clean: dict[LogId, int] | None = None) -> Swap:
    """One extent takes the place of so many rows of each log."""
    removed = [
        IndexRow(LogId(log), at, at + 1, 7, at, 10, 0, "old", 0)
        for log, n in rows_by_log.items()
        for at in range(n)
    ]
    added = [NewExtent(LogId(log), 0, n, 0, 0, 10 * n, 0) for log, n in rows_by_log.items()]
    news = [NEW._replace(key=f"new{number}") for number in range(segments)]
    return Swap(news, removed, added, clean or {})


def rows(part: Swap) -> int:
    return len(part.removed) + len(part.added)


def test_parts_are_whole_logs_of_few_rows_and_together_the_whole() -> None:
    source = random.Random(5)
    whole = swap_of({log: source.randrange(1, 40) for log in range(100)})
    parts = list(swap_parts(whole, 60))
    assert len(parts) > 1
    assert all(rows(part) <= 60 for part in parts)
    assert [row for part in parts for row in part.removed] == list(whole.removed)
    assert [extent for part in parts for extent in part.added] == list(whole.added)
    assert all(part.segments == whole.segments and not part.is_begun for part in parts)
    logs = [{row.log_id for row in part.removed} for part in parts]
    assert sum(map(len, logs)) == len(set().union(*logs)) == 100
    assert all(
        {extent.log_id for extent in part.added} == seen for part, seen in zip(parts, logs, strict=True)
    )
    assert all(rows(one) + rows(next_one) > 60 - 40 for one, next_one in pairwise(parts))


def test_a_log_is_never_parted_however_many_rows_it_has() -> None:
    parts = list(swap_parts(swap_of({1: 5, 2: 500, 3: 5}), 60))
    assert [{row.log_id for row in part.removed} for part in parts] == [{1}, {2}, {3}]


def test_a_small_swap_and_one_of_several_segments_stay_whole() -> None:
    small = swap_of(dict.fromkeys(range(ROWS_PER_SWAP // 2), 1))
    assert list(swap_parts(small)) == [small]
    several = swap_of(dict.fromkeys(range(100), 10), segments=2)
    assert list(swap_parts(several)) == [several]


def test_how_far_a_log_is_compacted_goes_with_its_extents() -> None:
    clean = {LogId(1): 5, LogId(2): 30, LogId(9): 8}
    parts = list(swap_parts(swap_of({1: 40, 2: 40}, clean=clean), 45))
    assert [part.clean_offsets for part in parts] == [{1: 5}, {2: 30, 9: 8}]

"""What merging decides from the index alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pytest

from warp.ids import LogId
from warp.lifecycle.levels import TOP_LEVEL, MergeDebt, MergeLimits, debt, is_due
from warp.lifecycle.merge_plan import ROWS_PER_STEP, Portion, climb, rewrite, settle, settled_logs
from warp.lifecycle.merge_rows import ROWS_PER_READ, SEGMENTS_PER_READ, MergeRows, rows_of
from warp.metadata.life_model import IndexRow, SegmentRow, SegmentTotals

MIB = 2**20
LIMITS = MergeLimits()


def row(log: int, base: int, size: int, segment: int = 1) -> IndexRow:
    return IndexRow(LogId(log), base, base + 10, segment, 8, size, 5, f"segments/00/{segment}", 0)


def made(portions: Iterator[Portion | None]) -> list[Portion]:
    return [portion for portion in portions if portion is not None]


def sizes(rows: Iterable[IndexRow]) -> list[tuple[int, int]]:
    return [(row.log_id, row.size_bytes) for row in rows]


@pytest.mark.parametrize(
    ("level", "segments", "size_bytes", "due"),
    [
        (0, 0, 0, False),
        (0, 63, MIB, False),
        (0, 64, MIB, True),
        (0, 15, 127 * MIB, False),
        (0, 15, 128 * MIB, True),
        (1, 31, 1000, False),
        (1, 32, 1000, True),
        (1, 32, 32 * MIB, False),
        (1, 127, 4095 * MIB, False),
        (1, 128, 4096 * MIB, True),
        (1, 2048, 2048 * MIB, True),
        (2, 4096, 4096 * 31 * MIB, False),
        (2, 4096, 4096 * 32 * MIB, True),
        (TOP_LEVEL, 10**6, 10**15, False),
        (TOP_LEVEL + 5, 10**6, 10**15, False),
    ],
)
def test_a_level_is_due_by_bytes_or_by_many_segments(
    level: int, segments: int, size_bytes: int, due: bool
) -> None:
    assert is_due(level, segments, size_bytes, LIMITS) is due


def test_debt_is_what_the_worst_level_holds_of_what_is_too_much() -> None:
    def debt_of(*totals: SegmentTotals) -> MergeDebt:
        return debt({row.level: row for row in totals}, LIMITS)

    assert debt_of() == MergeDebt(0, 0, 0.0)
    assert debt_of(SegmentTotals(0, 8, 512 * MIB)) == MergeDebt(8, 512 * MIB, 0.5)
    assert debt_of(SegmentTotals(0, 1024, 4 * MIB)) == MergeDebt(1024, 4 * MIB, 2.0)
    worse = debt_of(SegmentTotals(0, 8, 512 * MIB), SegmentTotals(1, 3000, 3 * 32 * 1024 * MIB))
    assert worse == MergeDebt(8, 512 * MIB, 3.0)
    assert debt_of(SegmentTotals(TOP_LEVEL, 10**9, 10**18)) == MergeDebt(0, 0, 0.0)


def test_a_level_that_has_just_fallen_due_is_no_debt() -> None:
    for level in range(TOP_LEVEL):
        totals = SegmentTotals(level, LIMITS.due_segments[level], LIMITS.due_bytes[level])
        assert debt({level: totals}, LIMITS).ratio <= 0.125


def test_logs_with_full_extents_settle_as_many_as_they_fill() -> None:
    found = settled_logs({LogId(1): 4 * MIB - 1, LogId(2): 4 * MIB, LogId(3): 11 * MIB}, LIMITS)
    assert found == {2: 4 * MIB, 3: 8 * MIB}


def test_settling_takes_the_front_of_a_log_and_leaves_its_tail() -> None:
    rows = [
        row(1, 0, MIB),
        *(row(2, 10 * number, 2 * MIB) for number in range(5)),
        row(3, 0, 5 * MIB),
        row(3, 10, 3 * MIB),
        row(3, 20, 1),
    ]
    settled = {LogId(2): 8 * MIB, LogId(3): 8 * MIB}
    [portion] = made(settle(rows, settled, LIMITS))
    assert portion.level == TOP_LEVEL
    assert sizes(portion.rows) == [(2, 2 * MIB)] * 4 + [(3, 5 * MIB), (3, 3 * MIB)]
    [rest] = made(climb(rows, 1, settled, LIMITS))
    assert rest.level == 2
    assert sizes(rest.rows) == [(1, MIB)]


def test_a_row_larger_than_what_settles_is_taken_all_the_same() -> None:
    rows = [row(1, 0, 5 * MIB), row(1, 10, 1)]
    [portion] = made(settle(rows, {LogId(1): 4 * MIB}, LIMITS))
    assert sizes(portion.rows) == [(1, 5 * MIB)]


def test_nothing_climbs_above_the_top_and_rewriting_stays_on_its_level() -> None:
    rows = [row(1, 0, 100)]
    assert [p.level for p in made(climb(rows, 0, {}, LIMITS))] == [1]
    assert [p.level for p in made(climb(rows, TOP_LEVEL - 1, {}, LIMITS))] == [TOP_LEVEL]
    assert [p.level for p in made(climb(rows, TOP_LEVEL, {}, LIMITS))] == [TOP_LEVEL]
    assert [p.level for p in made(rewrite(rows, 2, LIMITS))] == [2]
    assert made(rewrite([], 2, LIMITS)) == []


@pytest.mark.parametrize("seed", range(10))
def test_portions_hold_everything_in_order_and_stay_within_their_bounds(seed: int) -> None:
    source = random.Random(seed)
    limits = MergeLimits(memory_bytes=4000, swap_rows_max=7)
    rows = [
        row(log, 10 * number, source.choice([1, 50, 300, 900, 5000]))
        for log in range(source.randrange(1, 40))
        for number in range(source.randrange(1, 30))
    ]
    settled = {LogId(log): 1000 for log in range(0, 40, 3)}
    top = made(settle(rows, settled, limits))
    rest = made(climb(rows, 0, settled, limits))
    for portion in top + rest:
        assert len(portion.rows) <= 7
        assert portion.size_bytes == sum(row.size_bytes for row in portion.rows)
        assert portion.size_bytes <= 1000 or len(portion.rows) == 1
    taken = [row for portion in rest for row in portion.rows]
    assert taken == [row for row in rows if row.log_id not in settled]
    fronts = [row for portion in top for row in portion.rows]
    assert fronts == sorted(fronts)
    assert {row.log_id for row in fronts} == {row.log_id for row in rows if row.log_id in settled}
    for log_id in settled:
        of_log = [row for row in rows if row.log_id == log_id]
        front = [row for row in fronts if row.log_id == log_id]
        assert front == of_log[: len(front)]


def test_portions_are_cut_where_extents_are_full() -> None:
    limits = MergeLimits(memory_bytes=64 * MIB)
    rows = [row(log, 10 * number, MIB) for log in range(5) for number in range(7)]
    portions = made(climb(rows, 0, {}, limits))
    cuts = [[(log, count) for log, count in Counter(r.log_id for r in p.rows).items()] for p in portions]
    assert cuts == [[(0, 7), (1, 7)], [(2, 7), (3, 7)], [(4, 7)]]
    long = made(rewrite([row(1, 10 * number, MIB) for number in range(35)], 1, limits))
    assert [len(portion.rows) for portion in long] == [16, 16, 3]
    odd = made(rewrite([row(1, 0, MIB), *(row(2, 10 * number, MIB) for number in range(20))], 1, limits))
    assert [len(portion.rows) for portion in odd] == [13, 8]


def test_a_portion_forgets_the_logs_that_are_left_out() -> None:
    portion = Portion(1)
    for log in (1, 2, 2, 3):
        portion.take(row(log, 0, 10 * log))
    portion.leave_out({LogId(2)})
    assert sizes(portion.rows) == [(1, 10), (3, 30)]
    assert portion.size_bytes == 40


def test_long_walks_over_rows_let_others_have_their_turn() -> None:
    rows = [row(1, 10 * number, 1) for number in range(5000)]
    steps = list(settle(rows, {LogId(2): 1}, LIMITS))
    assert steps == [None] * (5000 // ROWS_PER_STEP)


def test_rows_come_back_by_log_and_offset_without_unknown_logs_and_segments() -> None:
    source = random.Random(3)
    segments = [SegmentRow(number, f"segments/00/{number}", 1, 0, 1) for number in range(1, 6)]
    rows = [row(log, 10 * number, 10, source.randrange(1, 7)) for log in range(9) for number in range(20)]
    packed = MergeRows(segments)
    for part in range(4):
        packed.add([row for at, row in enumerate(rows) if at % 4 == part], {LogId(log) for log in range(7)})
    expected = [row for row in rows if row.log_id < 7 and row.segment_id != 6]
    assert list(packed) == expected
    assert list(packed) == expected
    assert packed.count == len(expected)
    assert sum(packed.log_bytes.values()) == 10 * len(expected)


@pytest.mark.parametrize("per_segment", [0, 1, 30, 1000, 5000])
def test_index_rows_are_asked_for_in_bounded_pieces(per_segment: int) -> None:
    segments = [SegmentRow(number, f"segments/00/{number}", 1, 0, 1) for number in range(1, 151)]
    asked: list[int] = []

    class Rows:
        async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]:
            asked.append(len(segment_ids))
            return [row(number, 0, 1, segment) for segment in segment_ids for number in range(per_segment)]

    async def read() -> list[int]:
        return [segment.segment_id async for part, _ in rows_of(Rows(), segments) for segment in part]

    assert asyncio.run(read()) == [segment.segment_id for segment in segments]
    assert all(count <= SEGMENTS_PER_READ for count in asked)
    assert all(count == 1 or count * per_segment <= ROWS_PER_READ for count in asked)
    growing = SEGMENTS_PER_READ.bit_length()
    assert len(asked) <= growing + 150 * max(1, per_segment) / min(
        ROWS_PER_READ, SEGMENTS_PER_READ * max(1, per_segment)
    )


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_READ, ROWS_PER_READ + 1, 3 * ROWS_PER_READ])
def test_what_a_large_segment_holds_comes_in_turns_of_which_the_last_names_it(count: int) -> None:
    segment = SegmentRow(1, "segments/00/1", 1, 0, 1)
    held = [row(number, 0, 1, 1) for number in range(count)]

    class Rows:
        async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]:
            return held

    async def read() -> list[tuple[Sequence[SegmentRow], list[IndexRow]]]:
        return [turn async for turn in rows_of(Rows(), [segment])]

    turns = asyncio.run(read())
    assert [found for _, rows in turns for found in rows] == held
    assert max(len(rows) for _, rows in turns) <= ROWS_PER_READ
    assert [list(part) for part, _ in turns] == [[]] * (len(turns) - 1) + [[segment]]


def test_segments_that_grow_are_not_asked_for_by_what_the_first_ones_held() -> None:
    segments = [SegmentRow(number, f"segments/00/{number}", 1, 0, 1) for number in range(1, 151)]
    answered: list[int] = []

    class Rows:
        async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]:
            answered.append(sum(1 if segment == 1 else 1000 for segment in segment_ids))
            return [row(0, 0, 1, 1)] * answered[-1]

    async def read() -> int:
        return sum([len(part) async for part, _ in rows_of(Rows(), segments)])

    assert asyncio.run(read()) == 150
    assert max(answered) == 2000
    assert sorted(answered)[-2] == 1000


def test_memory_bounds_portions_and_rows() -> None:
    small = MergeLimits(memory_bytes=8 * MIB)
    assert small.output_bytes == 2 * MIB
    assert small.rows_max == MIB // 56
    assert LIMITS.output_bytes == 32 * MIB
    assert MergeLimits(memory_bytes=2**34).output_bytes == 32 * MIB
    assert MergeLimits(memory_bytes=1).output_bytes == MergeLimits(memory_bytes=1).rows_max == 1

"""The tail index: a run of extents without a gap, bounded, that never claims to know what it does not."""

from __future__ import annotations

import random

import pytest

from tests.unit.log.read_support import LOG, OTHER
from warp.ids import LogId
from warp.log.tail import TailIndex
from warp.metadata.model import CommitResult, Extent, LogRead, LogState


def extent(base: int, end: int, log_id: LogId = LOG, size: int = 100) -> Extent:
    return Extent(log_id, base, end, f"k{base}", 0, size, -1)


def state(next_offset: int, log_id: LogId = LOG, start: int = 0) -> LogState:
    return LogState(log_id, start, next_offset, next_offset, 0)


def commit(*extents: Extent, start: int = 0) -> CommitResult:
    ends = {item.log_id: item.end_offset for item in extents}
    return CommitResult([], extents, [state(end, log_id, start) for log_id, end in ends.items()])


def offsets(read: LogRead | None) -> list[tuple[int, int]] | None:
    return None if read is None else [(item.base_offset, item.end_offset) for item in read.extents]


def test_nothing_is_known_of_a_log_that_was_never_met() -> None:
    tail = TailIndex()
    assert tail.read(LOG, 0, 1) is None
    assert tail.state(LOG) is None
    assert tail.end_offset(LOG) is None


def test_commits_extend_the_run() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(5, 8), extent(8, 9)))
    tail.committed(commit(extent(9, 12)))
    assert offsets(tail.read(LOG, 5, 1000)) == [(5, 8), (8, 9), (9, 12)]
    assert offsets(tail.read(LOG, 7, 1000)) == [(5, 8), (8, 9), (9, 12)]
    assert offsets(tail.read(LOG, 8, 1000)) == [(8, 9), (9, 12)]
    assert offsets(tail.read(LOG, 12, 1000)) == []
    assert tail.read(LOG, 4, 1000) is None
    assert tail.read(LOG, 13, 1000) is None


def test_a_read_stops_when_the_bytes_are_reached() -> None:
    tail = TailIndex()
    tail.committed(commit(*(extent(n, n + 1) for n in range(10))))
    assert offsets(tail.read(LOG, 3, 1)) == [(3, 4)]
    assert offsets(tail.read(LOG, 3, 200)) == [(3, 4), (4, 5)]
    assert offsets(tail.read(LOG, 3, 201)) == [(3, 4), (4, 5), (5, 6)]


def test_an_extent_that_does_not_join_is_not_used_before_the_store_has_filled_the_gap() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(0, 5)))
    tail.committed(commit(extent(7, 9)))
    assert tail.gaps == 1
    assert offsets(tail.read(LOG, 0, 1000)) == [(0, 5)]
    assert tail.read(LOG, 5, 1000) is None
    assert tail.read(LOG, 7, 1000) is None
    known = tail.state(LOG)
    assert known is not None
    assert known.next_offset == 9
    tail.fill(LogRead(state(9), [extent(5, 7), extent(7, 9)]))
    assert offsets(tail.read(LOG, 0, 1000)) == [(0, 5), (5, 7), (7, 9)]
    assert offsets(tail.read(LOG, 9, 1000)) == []


def test_an_answer_older_than_a_commit_changes_nothing() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(0, 5), extent(5, 9), start=3))
    newest = tail.fill(LogRead(state(5, start=0), [extent(0, 5)]))
    assert newest == state(9, start=3)
    assert offsets(tail.read(LOG, 3, 1000)) == [(0, 5), (5, 9)]


def test_a_part_of_the_middle_of_a_log_is_not_kept() -> None:
    tail = TailIndex()
    tail.fill(LogRead(state(100), [extent(10, 20)]))
    assert tail.read(LOG, 10, 1) is None
    tail.fill(LogRead(state(100), [extent(90, 100)]))
    assert offsets(tail.read(LOG, 95, 1)) == [(90, 100)]


def test_the_end_of_an_empty_or_fully_read_log_is_known_without_extents() -> None:
    tail = TailIndex()
    tail.fill(LogRead(state(42), []))
    assert offsets(tail.read(LOG, 42, 1)) == []
    tail.committed(commit(extent(42, 43)))
    assert offsets(tail.read(LOG, 42, 1)) == [(42, 43)]


def test_extents_that_were_merged_replace_a_run_that_they_overlap() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(0, 5)))
    tail.fill(LogRead(state(9), [extent(3, 9)]))
    assert offsets(tail.read(LOG, 4, 1000)) == [(3, 9)]
    assert tail.read(LOG, 2, 1000) is None


def test_offsets_before_the_log_start_are_for_the_store_to_judge() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(0, 5)))
    tail.log_starts_at(LOG, 3)
    assert tail.read(LOG, 2, 1) is None
    assert offsets(tail.read(LOG, 3, 1)) == [(0, 5)]
    tail.log_starts_at(LOG, 1)
    assert tail.read(LOG, 2, 1) is None


def test_a_forgotten_log_is_unknown() -> None:
    tail = TailIndex()
    tail.committed(commit(extent(0, 5), extent(0, 5, OTHER)))
    tail.forget(LOG)
    tail.forget(LOG)
    assert tail.read(LOG, 0, 1) is None
    assert offsets(tail.read(OTHER, 0, 1)) == [(0, 5)]
    tail.forget(OTHER)
    assert tail.extent_count == 0


def test_memory_is_bounded_over_all_logs_and_per_log() -> None:
    tail = TailIndex(extents_max=50, extents_per_log_max=20)
    for number in range(30):
        for log in range(10):
            tail.committed(commit(extent(number, number + 1, LogId(log))))
            assert tail.extent_count <= 51
    assert offsets(tail.read(LogId(9), 29, 1)) == [(29, 30)]
    assert all(tail.read(LogId(log), 0, 1) is None for log in range(10))


def test_limits_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        TailIndex(extents_max=0)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_in_what_order_reads_tile_the_log(seed: int) -> None:
    """Commits are seen or missed, answers come late: what the index says is always a piece of the true log."""
    chance = random.Random(seed)
    tail = TailIndex(extents_max=40, extents_per_log_max=chance.choice((3, 16)))
    log: list[Extent] = []
    late: list[LogRead] = []
    highest = 0
    for _ in range(300):
        end = log[-1].end_offset if log else 0
        step = chance.random()
        if step < 0.5:
            log.append(extent(end, end + chance.randint(1, 5)))
            if chance.random() < 0.7:
                tail.committed(commit(log[-1]))
        elif step < 0.8 and log:
            first = chance.randrange(len(log))
            late.append(LogRead(state(end), log[first : first + chance.randint(1, len(log))]))
        elif late:
            tail.fill(late.pop(chance.randrange(len(late))))
        offset = chance.randint(0, (log[-1].end_offset if log else 0) + 1)
        read = tail.read(LOG, offset, chance.randint(1, 2000))
        if read is not None:
            assert read.state is not None
            assert read.state.next_offset >= highest
            highest = read.state.next_offset
            assert list(read.extents) == [e for e in log if e.end_offset > offset][: len(read.extents)]
            assert read.extents or offset == read.state.next_offset


class Now:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_what_was_learned_too_long_ago_is_for_the_store_to_tell_again() -> None:
    now = Now()
    tail = TailIndex(age_s_max=10, now=now)
    tail.committed(commit(extent(0, 5)))
    now.seconds = 106.0
    tail.committed(commit(extent(5, 9)))
    now.seconds = 110.0
    assert offsets(tail.read(LOG, 0, 1000)) == [(0, 5), (5, 9)]
    now.seconds = 110.1
    assert tail.read(LOG, 0, 1000) is None
    assert offsets(tail.read(LOG, 5, 1000)) == [(5, 9)]
    assert tail.extent_count == 2
    now.seconds = 200.0
    assert tail.read(LOG, 8, 1000) is None
    assert offsets(tail.read(LOG, 9, 1000)) == []
    tail.committed(commit(extent(9, 11)))
    assert offsets(tail.read(LOG, 9, 1000)) == [(9, 11)]
    assert tail.extent_count == 2


def test_what_the_store_said_anew_is_as_young_as_its_answer() -> None:
    now = Now()
    tail = TailIndex(age_s_max=10, now=now)
    tail.committed(commit(extent(0, 5)))
    now.seconds = 120.0
    assert tail.read(LOG, 2, 1000) is None
    tail.forget(LOG)
    tail.fill(LogRead(state(5), [extent(0, 5)]))
    now.seconds = 130.0
    assert offsets(tail.read(LOG, 2, 1000)) == [(0, 5)]


def test_extents_that_grew_too_many_leave_their_ages_behind() -> None:
    now = Now()
    tail = TailIndex(extents_per_log_max=4, age_s_max=10, now=now)
    for base in range(5):
        now.seconds = 100.0 + base
        tail.committed(commit(extent(base, base + 1)))
    assert offsets(tail.read(LOG, 3, 1000)) == [(3, 4), (4, 5)]
    now.seconds = 113.5
    assert tail.read(LOG, 3, 1000) is None
    assert offsets(tail.read(LOG, 4, 1000)) == [(4, 5)]

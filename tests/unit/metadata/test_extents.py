"""Reading the index of a log: from an offset, by time, and its ends."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.unit.metadata.support import Store, batch, sqlite_store
from warp.ids import LogId
from warp.metadata import extents
from warp.metadata.model import Extent, ExtentQuery, LogRead, LogState
from warp.metadata.sqlite import IN_MEMORY

GONE = LogId(999)


def bases(read: LogRead) -> list[int]:
    return [extent.base_offset for extent in read.extents]


def test_a_read_begins_with_the_extent_that_holds_the_offset(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1, 2, 3)
    for offset, expected in ((0, [0, 10, 20]), (9, [0, 10, 20]), (10, [10, 20]), (29, [20])):
        [read] = store.read_extents([ExtentQuery(log, offset, 1 << 30)])
        assert bases(read) == expected


@pytest.mark.parametrize(("bytes_max", "count"), [(0, 1), (1, 1), (100, 1), (101, 2), (200, 2), (10_000, 5)])
def test_a_read_stops_once_its_bytes_are_reached(store: Store, bytes_max: int, count: int) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1, 2, 3, 4, 5)
    [read] = store.read_extents([ExtentQuery(log, 0, bytes_max)])
    assert len(read.extents) == count


def test_a_read_stops_at_its_bound_on_extents(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "EXTENTS_PER_QUERY_MAX", 3)
    [log] = store.new_topic("t").logs
    store.append(log, 1, 2, 3, 4, 5)
    [read] = store.read_extents([ExtentQuery(log, 0, 1 << 30)])
    assert bases(read) == [0, 10, 20]


def test_a_read_stops_at_the_bound_of_its_query(store: Store) -> None:
    first, second = store.new_topic("t", 2).logs
    store.append(first, 1, 2, 3)
    store.append(second, 1, 2, 3)
    reads = store.read_extents([ExtentQuery(first, 0, 1 << 30, 2), ExtentQuery(second, 10, 1 << 30, 1)])
    assert [bases(read) for read in reads] == [[0, 10], [10]]


@pytest.mark.parametrize("offset", [-1, 10, 19, 30, 31, 2**62])
def test_an_offset_outside_the_log_gets_its_state_alone(store: Store, offset: int) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1, 2, 3)
    store.delete_records({log: 20})
    [read] = store.read_extents([ExtentQuery(log, offset, 1000)])
    assert read == LogRead(LogState(log, 20, 30, 30, 300), [])


def test_queries_are_answered_in_their_order_and_a_log_may_come_twice(store: Store) -> None:
    first, second = store.new_topic("t", 2).logs
    store.append(first, 1, 2)
    store.append(second, 1, count=3)
    reads = store.read_extents(
        [
            ExtentQuery(second, 0, 1),
            ExtentQuery(GONE, 0, 1),
            ExtentQuery(first, 10, 1000),
            ExtentQuery(first, 0, 1),
        ]
    )
    assert [bases(read) for read in reads] == [[0], [], [10], [0]]
    assert [read.state and read.state.next_offset for read in reads] == [3, None, 20, 20]
    assert store.read_extents([]) == []


def test_states_of_logs_that_are_gone_are_left_out(store: Store) -> None:
    [log] = store.new_topic("t").logs
    assert store.log_states([log, GONE, log]) == {log: LogState(log, 0, 0, 0, 0)}
    assert store.log_states([]) == {}


def times(found: list[Extent]) -> list[int]:
    return [extent.max_timestamp_ms for extent in found]


def test_extents_for_a_time_are_those_that_can_hold_it(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 10, 30, 20, 40, 5)
    assert times(store.extents_for_time(log, 0, 9)) == [10, 30, 20, 40, 5]
    assert times(store.extents_for_time(log, 11, 9)) == [30, 20, 40]
    assert times(store.extents_for_time(log, 25, 9)) == [30, 40]
    assert times(store.extents_for_time(log, 25, 1)) == [30]
    assert times(store.extents_for_time(log, 25, 1, 20)) == [40]
    assert times(store.extents_for_time(log, 11, 9, 19)) == [30, 20, 40]
    assert times(store.extents_for_time(log, 40, 9)) == [40]
    assert times(store.extents_for_time(log, 41, 9)) == []
    assert store.extents_for_time(GONE, 0, 9) == []


def test_times_are_looked_for_from_the_log_start_on(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 10, 30, 20)
    store.delete_records({log: 15})
    assert times(store.extents_for_time(log, 0, 9)) == [30, 20], "the start lies within the second extent"
    store.delete_records({log: 20})
    assert times(store.extents_for_time(log, 25, 9)) == []
    store.delete_records({log: 30})
    assert times(store.extents_for_time(log, 0, 9)) == []


def test_the_largest_timestamp_is_found_in_the_first_extent_that_holds_it(store: Store) -> None:
    [log] = store.new_topic("t").logs
    assert store.extent_of_max_timestamp(log) is None
    assert store.extent_of_max_timestamp(GONE) is None
    store.append(log, 10, 40, 20, 40)
    assert store.extent_of_max_timestamp(log).base_offset == 10
    store.delete_records({log: 20})
    assert store.extent_of_max_timestamp(log).base_offset == 30
    store.append(log, 5, 15, 15)
    store.delete_records({log: 40})
    assert store.extent_of_max_timestamp(log).base_offset == 50, "the largest of what is left"
    store.delete_records({log: 70})
    assert store.extent_of_max_timestamp(log) is None


@given(
    st.lists(st.integers(0, 20), max_size=30),
    st.integers(-1, 22),
    st.integers(0, 90),
    st.integers(1, 5),
)
def test_searches_by_time_agree_with_looking_at_every_extent(
    timestamps: list[int], wanted_ms: int, start: int, limit: int
) -> None:
    store = sqlite_store(IN_MEMORY)
    [log] = store.new_topic("t").logs
    if timestamps:
        entries = [
            batch(log, 200 * n, count=3, max_timestamp_ms=timestamp) for n, timestamp in enumerate(timestamps)
        ]
        store.commit_batches(*entries)
    start = min(start, 3 * len(timestamps))
    store.delete_records({log: start})
    left = [(3 * n, timestamp) for n, timestamp in enumerate(timestamps) if 3 * n + 3 > start]
    expected = [base for base, timestamp in left if timestamp >= wanted_ms][:limit]
    assert [e.base_offset for e in store.extents_for_time(log, wanted_ms, limit)] == expected
    largest = store.extent_of_max_timestamp(log)
    expected_largest = min(left, key=lambda item: (-item[1], item[0]))[0] if left else None
    assert (largest and largest.base_offset) == expected_largest
    store.close()

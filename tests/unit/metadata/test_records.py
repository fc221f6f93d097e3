"""DeleteRecords: the start of a log moves forward, never back, never past its end."""

from __future__ import annotations

from tests.unit.metadata.support import Store
from warp.errors import ErrorCode
from warp.ids import LogId
from warp.metadata.model import ExtentQuery


def test_the_log_start_moves_up_to_the_offset(store: Store) -> None:
    first, second = store.new_topic("t", 2).logs
    store.append(first, 1, 2)
    store.append(second, 1)
    assert store.delete_records({second: -1, first: 13}) == {second: 10, first: 13}
    states = store.log_states([first, second])
    assert (states[first].start_offset, states[second].start_offset) == (13, 10)
    [read] = store.read_extents([ExtentQuery(first, 13, 1000)])
    assert read.extents[0].base_offset == 10, "a batch that straddles the start is still there"


def test_an_offset_below_the_start_changes_nothing(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1)
    store.delete_records({log: 5})
    for offset in (5, 0, 3):
        assert store.delete_records({log: offset}) == {log: 5}
        assert store.log_states([log])[log].start_offset == 5


def test_offsets_out_of_range_and_logs_that_are_gone_fail_alone(store: Store) -> None:
    first, second, third = store.new_topic("t", 3).logs
    store.append(first, 1)
    gone = LogId(999)
    assert store.delete_records({first: 11, second: -2, gone: 0, third: 0}) == {
        first: ErrorCode.OFFSET_OUT_OF_RANGE,
        second: ErrorCode.OFFSET_OUT_OF_RANGE,
        gone: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        third: 0,
    }
    assert store.log_states([first])[first].start_offset == 0


def test_a_log_that_was_emptied_goes_on_at_its_next_offset(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1)
    store.delete_records({log: -1})
    store.append(log, 2)
    state = store.log_states([log])[log]
    assert (state.start_offset, state.next_offset) == (10, 20)

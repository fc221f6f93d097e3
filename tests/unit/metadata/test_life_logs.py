"""Logs under retention: starts that move, extents that go after, what is left of deleted topics and idle producers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.metadata.life_support import HOLDER, index_of, merged, rows_of, taken
from tests.unit.metadata.support import NOW_MS, Store, batch, sequenced
from warp.ids import LogId
from warp.metadata.group_model import LeaseLost
from warp.metadata.life_model import LogDirt, LogHead

GONE = LogId(999)


def test_extents_of_a_log_are_read_from_an_offset_on(store: Store) -> None:
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1, 2, 3)
    store.append(y, 4)
    [a, b, c] = store.extents_of_log(x, 0, 9)
    assert [(row.log_id, row.base_offset, row.end_offset, row.max_timestamp_ms) for row in (a, b, c)] == [
        (x, 0, 10, 1), (x, 10, 20, 2), (x, 20, 30, 3),
    ]  # fmt: skip
    assert store.extents_of_log(x, 9, 9) == [a, b, c]
    assert store.extents_of_log(x, 10, 9) == [b, c]
    assert store.extents_of_log(x, 10, 1) == [b]
    assert store.extents_of_log(x, 30, 9) == store.extents_of_log(GONE, 0, 9) == []


def test_an_extent_that_lives_in_the_index_has_no_segment(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 1)
    store.rows("update extents set segment_id = null where log_id = $1 returning 1", x)
    [row] = rows_of(store, x)
    assert (row.segment_id, row.key, row.level) == (None, "", 0)
    store.quarantine(taken(store), [row], "what can't be")
    assert store.quarantined(9) == []
    assert store.swap(None, merged("m", [row])).swapped == {x}


def test_the_head_of_a_log_is_its_first_extent_that_counts(store: Store) -> None:
    lease = taken(store)
    x, y, z = store.new_topic("t", 3).logs
    store.append(x, 7, 5, 6)
    store.append(y, 1)
    store.delete_records({x: 10, y: -1})
    expected = [LogHead(x, 10, 30, 300, 20, 5), LogHead(y, 10, 10, 100, -1, -1), LogHead(z, 0, 0, 0, -1, -1)]
    assert store.log_heads([z, x, GONE, y, x]) == expected
    store.trim_logs(lease, [x, y], 9)
    assert store.log_heads([x, y]) == [
        expected[0]._replace(size_bytes=200),
        expected[1]._replace(size_bytes=0),
    ]
    assert store.log_heads([]) == []


def test_dirt_is_what_lies_above_the_clean_offset(store: Store) -> None:
    lease = taken(store)
    x, y, z = store.new_topic("t", 3).logs
    store.append(x, 9, 8, 7, 6)
    assert store.log_dirt([x, y, GONE]) == [LogDirt(x, 0, 40, 0, 0, 400, 9), LogDirt(y, 0, 0, 0, 0, 0, -1)]
    store.swap(lease, merged("m", rows_of(store, x)[:2], shrunk_bytes=50, clean={x: 20}))
    assert store.log_dirt([x]) == [LogDirt(x, 0, 40, 20, 150, 200, 7)]
    store.swap(None, merged("n", rows_of(store, x)[1:], clean={x: 35}))
    assert store.log_dirt([x]) == [LogDirt(x, 0, 40, 35, 150, 200, 7)], "one that reaches across is dirty"
    # Extents that end before the start count as neither, removed or not.
    store.append(z, 3, 2, 1)
    store.delete_records({x: 20, z: 15})
    assert store.log_dirt([x, z]) == [LogDirt(x, 20, 40, 35, 0, 200, 7), LogDirt(z, 15, 30, 0, 0, 200, 2)]
    store.trim_logs(lease, [x, z], 9)
    assert store.log_dirt([x, z]) == [LogDirt(x, 20, 40, 35, 0, 200, 7), LogDirt(z, 15, 30, 0, 0, 200, 2)]
    store.swap(None, merged("o", [], clean={x: 40}))
    assert store.log_dirt([x]) == [LogDirt(x, 20, 40, 40, 200, 0, -1)]
    assert store.log_dirt([]) == []


def test_the_offset_of_a_time_is_where_the_prefix_reaches_it(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 10, 40, 20, 50)
    found = [store.offset_reaching_time(x, time_ms) for time_ms in (0, 10, 11, 40, 41, 50, 51)]
    assert found == [0, 0, 10, 10, 30, 30, 40]
    assert store.offset_reaching_time(GONE, 0) is None


def test_starts_move_on_and_never_back_nor_past_the_end(store: Store) -> None:
    lease = taken(store)
    x, y, z = store.new_topic("t", 3).logs
    for log in (x, y, z):
        store.append(log, 1, 2)
    store.delete_records({y: 15})
    assert store.advance_log_starts(lease, {x: 5, y: 12, z: 77, GONE: 1}) == {x: 5, y: 15, z: 20}
    assert {log: state.start_offset for log, state in store.log_states([x, y, z]).items()} == {
        x: 5,
        y: 15,
        z: 20,
    }
    assert store.advance_log_starts(lease, {}) == {}


def test_what_ends_before_the_start_is_trimmed_a_step_at_a_time(store: Store) -> None:
    lease = taken(store)
    w, x, y, z = store.new_topic("t", 4).logs
    for log in (w, x, y, z):
        store.append(log, 1, 2, 3)
    store.delete_records({w: 9, x: 20, y: -1})
    assert store.logs_to_trim(LogId(0), 100) == ([x, y], None)
    assert store.logs_to_trim(LogId(0), 2) == ([x], x)
    assert store.logs_to_trim(x, 2) == ([y], z)
    assert store.logs_to_trim(z, 2) == ([], None)
    assert [store.trim_logs(lease, [y, w, x, z, GONE], 3) for _ in range(3)] == [3, 2, 0]
    assert [[row[0] for row in index_of(store, log)] for log in (w, x, y, z)] == [
        [0, 10, 20],
        [20],
        [],
        [0, 10, 20],
    ]
    assert store.logs_to_trim(LogId(0), 100) == ([], None)
    assert store.trim_logs(lease, [], 9) == 0
    store.append(y, 4)
    assert [row[:2] for row in index_of(store, y)] == [(30, 40)]


def test_nothing_is_left_of_a_deleted_log(store: Store) -> None:
    lease = taken(store)
    kept, gone = store.new_topic("kept"), store.new_topic("gone", 2)
    for log in (*kept.logs, *gone.logs):
        store.commit_batches(sequenced(log, 0))
        store.append(log, 1, 2)
    store.quarantine(lease, rows_of(store, *kept.logs)[:1] + rows_of(store, *gone.logs)[:1], "damaged")
    store.delete_topics([gone.topic_id])
    counts = []
    while (count := store.clear_deleted_logs(lease, 4)) > 0:
        counts.append(count)
        assert len(counts) < 20
    assert (sum(counts), max(counts)) == (6 + 2 + 2, 4), "extents, producers, logs"
    assert rows_of(store, *gone.logs) == []
    assert store.rows("select count(*) from deleted_logs") == [(0,)]
    assert store.rows("select distinct log_id from producers") == [(kept.logs[0],)]
    assert [found.log_id for found in store.quarantined(9)] == [kept.logs[0]]
    assert len(index_of(store, kept.logs[0])) == 3


def test_idle_producers_are_forgotten(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    for time_ms, (producer, log) in enumerate([(1, x), (2, x), (3, y), (1, y), (4, y)]):
        store.commit_batches(sequenced(log, 0, producer=producer), now_ms=NOW_MS + time_ms)
    store.commit_batches(sequenced(x, 1, producer=2), now_ms=NOW_MS + 10)
    store.rows("update producers set open_offset = 0 where log_id = $1 and producer_id = 1 returning 1", y)
    walks = [store.expire_producers(lease, (0, -1), 3, NOW_MS + 4)]
    while (cursor := walks[-1][1]) is not None:
        walks.append(store.expire_producers(lease, cursor, 3, NOW_MS + 4))
    assert walks == [(1, (y, 1)), (1, None)], "(x, 1) and (y, 3)"
    left = store.rows("select log_id, producer_id from producers order by log_id, producer_id")
    assert left == [(x, 2), (y, 1), (y, 4)], (
        "one wrote since, one has an open transaction, one is not idle long enough"
    )
    assert store.expire_producers(lease, (0, -1), 10, NOW_MS + 4) == (0, None)


def test_whoever_has_lost_the_lease_changes_no_log(store: Store) -> None:
    gone = store.new_topic("gone")
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    store.append(gone.logs[0], 1)
    store.commit_batches(sequenced(x, 0))
    store.delete_topics([gone.topic_id])
    store.delete_records({x: 10})
    lease = taken(store)
    rows = rows_of(store, x)
    store.take_leases([lease.name], HOLDER)
    before = store.rows("select log_id, end_offset from extents order by 1, 2"), store.log_states([x])
    writes: list[Callable[[], object]] = [
        lambda: store.advance_log_starts(lease, {x: 20}),
        lambda: store.trim_logs(lease, [x], 9),
        lambda: store.clear_deleted_logs(lease, 9),
        lambda: store.expire_producers(lease, (LogId(0), -1), 9, 1 << 60),
        lambda: store.quarantine(lease, rows, "missing"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    after = store.rows("select log_id, end_offset from extents order by 1, 2"), store.log_states([x])
    assert (after, store.quarantined(9)) == (before, [])
    assert store.rows("select count(*) from producers") == [(1,)]


def test_only_extents_that_are_still_as_they_were_read_are_quarantined(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1, 2, 3)
    store.append(y, 1)
    stale = rows_of(store, x, y)
    store.swap(lease, merged("m", stale[:2]))
    store.clock.seconds += 5
    store.quarantine(lease, stale, "checksum differs\0" + "x" * 2000)
    found = store.quarantined(9)
    assert [(one.log_id, one.end_offset, one.segment_id, one.found_ms) for one in found] == [
        (x, 30, stale[2].segment_id, NOW_MS + 5000),
        (y, 10, stale[3].segment_id, NOW_MS + 5000),
    ]
    assert (found[0].reason[:17], len(found[0].reason)) == ("checksum differsx", 999)
    store.clock.seconds += 5
    store.quarantine(lease, stale, "again")
    store.quarantine(lease, [], "nothing")
    assert store.quarantined(9) == found, "the first finding stays"
    assert (store.quarantined(1), store.quarantined_of_log(y)) == (found[:1], found[1:])
    assert [row.end_offset for row in store.extents_of_log(x, 0, 9)] == [20, 30], "it stays in its log"
    assert store.release_quarantined([found[0], found[1]._replace(found_ms=1)]) == 1
    assert store.quarantined(9) == found[1:]
    assert store.release_quarantined([]) == 0


def test_a_quarantined_extent_goes_when_the_start_has_passed_it_and_its_segment_after(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    first = rows_of(store, x)[0]
    store.quarantine(lease, [first], "missing")
    store.delete_records({x: 10})
    assert store.mark_dead_among(lease, [first.segment_id]) == 0
    assert store.trim_logs(lease, [x], 9) == 1
    assert store.quarantined(9) == []
    assert store.mark_dead_among(lease, [first.segment_id]) == 1


def test_nothing_of_a_deleted_log_is_quarantined_any_more(store: Store) -> None:
    lease = taken(store)
    gone, kept = store.new_topic("gone"), store.new_topic("kept")
    for log in (*gone.logs, *kept.logs):
        store.append(log, 1)
    rows = rows_of(store, *gone.logs, *kept.logs)
    store.delete_topics([gone.topic_id])
    # Its extents are still there. Whoever clears them holds no lock on the log, and would not meet the note.
    store.quarantine(lease, rows, "missing")
    assert [found.log_id for found in store.quarantined(9)] == list(kept.logs)


def test_a_segment_with_a_quarantine_is_never_marked_dead(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.commit_batches(batch(x))
    [row] = rows_of(store, x)
    store.quarantine(lease, [row], "missing")
    # However its extents should have come away.
    store.rows("delete from extents where log_id = $1 returning 1", x)
    assert store.mark_dead(lease, 0, 9) == (0, None)

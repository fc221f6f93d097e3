"""Segments from their commit to the day their rows are forgotten, and the keys of objects that nobody committed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.metadata.life_support import HOLDER, merged, rows_of, states, taken
from tests.unit.metadata.support import NOW_MS, Store, batch, segment
from warp.metadata import life_segments
from warp.metadata.group_model import LeaseLost
from warp.metadata.life_model import DeadSegment, SegmentState, SegmentTotals

LIVE, DEAD, GONE = SegmentState


def test_live_segments_are_counted_and_listed_by_level(store: Store) -> None:
    lease = taken(store)
    assert store.segment_totals() == store.oldest_segments(0, 9) == []
    x, y = store.new_topic("t", 2).logs
    for key in "abcd":
        store.commit([segment(key, batch(x, size=100), batch(y, 100, size=50))], NOW_MS)
    assert store.segment_totals() == [SegmentTotals(0, 4, 600)]
    oldest = store.oldest_segments(0, 3)
    assert [row.key for row in oldest] == ["a", "b", "c"]
    assert [row.key for row in store.oldest_segments(0, 3, oldest[1].segment_id)] == ["c", "d"]
    ids = [row.segment_id for row in oldest]
    read = store.extents_in_segments(ids)
    assert [(row.log_id, row.base_offset, row.end_offset, row.key, row.level) for row in read] == [
        (x, 0, 1, "a", 0), (x, 1, 2, "b", 0), (x, 2, 3, "c", 0),
        (y, 0, 1, "a", 0), (y, 1, 2, "b", 0), (y, 2, 3, "c", 0),
    ]  # fmt: skip
    assert [(row.segment_id, row.position, row.size_bytes) for row in read] == [
        *((number, 0, 100) for number in ids),
        *((number, 100, 50) for number in ids),
    ]
    assert store.extents_in_segments([]) == []
    store.swap(lease, merged("m", read))
    # Empty ones are no longer of use to a merge, whether or not they are marked yet.
    assert [row.key for row in store.oldest_segments(0, 9)] == ["d"]
    assert store.segment_totals() == [SegmentTotals(0, 4, 600), SegmentTotals(1, 1, 450)]
    assert store.mark_dead_among(lease, ids) == 3
    assert store.segment_totals() == [SegmentTotals(0, 1, 150), SegmentTotals(1, 1, 450)]


def test_segments_with_a_quarantined_extent_are_left_out(store: Store) -> None:
    x, y = store.new_topic("t", 2).logs
    for key in "ab":
        store.commit([segment(key, batch(x), batch(y, 100))], NOW_MS)
    [first, _, _, last] = store.extents_in_segments([row.segment_id for row in store.oldest_segments(0, 9)])
    store.quarantine(taken(store), [first], "missing")
    assert [row.key for row in store.oldest_segments(0, 9)] == ["b"]
    found = store.extents_in_segments([first.segment_id, last.segment_id])
    assert [(row.log_id, row.key) for row in found] == [(x, "b"), (y, "a"), (y, "b")]


def test_many_segments_that_are_of_no_use_to_a_merge_are_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life_segments, "SEGMENTS_PER_LOOK", 2)
    [x] = store.new_topic("t").logs
    for key in "abcdefgh":
        store.commit([segment(key, batch(x))], NOW_MS)
    rows = rows_of(store, x)
    store.swap(None, merged("m", [row for row in rows if row.key in "abcdg"]))
    for limit, expected in ((1, ["e"]), (2, ["e", "f"]), (3, ["e", "f", "h"]), (4, ["e", "f", "h"])):
        assert [row.key for row in store.oldest_segments(0, limit)] == expected


def test_segments_without_extents_die_and_others_do_not(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    for key in "abcde":
        store.commit([segment(key, batch(x, max_timestamp_ms=5), batch(y, 100))], NOW_MS)
    store.swap(lease, merged("m", [row for row in rows_of(store, x, y) if row.key in "bd"]))
    store.swap(lease, merged("n", [row for row in rows_of(store, x) if row.key in "ac"]))
    store.clock.seconds += 3
    cursor: int | None = 0
    died, steps = 0, 0
    while cursor is not None:
        count, cursor = store.mark_dead(lease, cursor, 2)
        died, steps = died + count, steps + 1
    assert (died, steps) == (2, 4), "seven segments, two a step"
    assert {key for key, state in states(store).items() if state == DEAD} == {"b", "d"}
    assert [(dead.key, dead.died_ms) for dead in store.dead_segments(9)] == [
        ("b", NOW_MS + 3000),
        ("d", NOW_MS + 3000),
    ]
    assert store.mark_dead(lease, 0, 100) == (0, None)
    live = [row.segment_id for level in (0, 1) for row in store.oldest_segments(level, 9)]
    assert store.mark_dead_among(None, live) == store.mark_dead_among(None, []) == 0


def test_death_is_final_and_comes_once(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.append(x, 1)
    store.swap(lease, merged("m", rows_of(store, x)))
    assert store.mark_dead(lease, 0, 10) == (1, None)
    [dead] = store.dead_segments(9)
    store.clock.seconds += 10
    assert store.mark_dead_among(lease, [dead.segment_id, 999]) == 0
    assert store.dead_segments(9) == [dead]


def test_dead_segments_go_and_are_forgotten_in_this_order(store: Store) -> None:
    lease = taken(store)
    assert store.claim_keys(lease, [("b", 2), ("a", 1)]) == ["a", "b"]
    store.clock.seconds += 1
    assert store.claim_keys(lease, [("c", 3), ("a", 1), ("c", 3)]) == ["c"]
    dead: list[DeadSegment] = store.dead_segments(9)
    assert [(one.key, one.size_bytes, one.died_ms) for one in dead] == [
        ("a", 1, NOW_MS), ("b", 2, NOW_MS), ("c", 3, NOW_MS + 1000),
    ]  # fmt: skip
    assert store.dead_segments(2) == dead[:2]
    assert store.dead_segments(9, dead[1]) == dead[2:]
    ids = {one.key: one.segment_id for one in dead}
    assert store.forget_segments(lease, list(ids.values())) == 0, "their objects are still there"
    store.mark_gone(lease, [ids["c"], ids["a"], 999])
    store.mark_gone(lease, [])
    assert states(store) == {"a": GONE, "b": DEAD, "c": GONE}
    assert store.dead_segments(9) == [dead[1]]
    assert store.gone_segments(9) == [dead[0], dead[2]]
    assert store.gone_segments(9, dead[0]) == [dead[2]]
    store.mark_gone(lease, [ids["c"]])
    assert store.forget_segments(lease, list(ids.values())) == 2
    assert store.forget_segments(lease, []) == 0
    assert states(store) == {"b": DEAD}


def test_no_live_segment_goes(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.commit([segment("live", batch(x))], NOW_MS)
    [live] = store.oldest_segments(0, 9)
    store.mark_gone(lease, [live.segment_id])
    assert store.forget_segments(lease, [live.segment_id]) == 0
    assert states(store) == {"live": LIVE}


def test_a_key_is_known_until_its_row_is_forgotten(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.commit([segment("live", batch(x))], NOW_MS)
    assert store.claim_keys(lease, [("dead", 1), ("live", 1), ("gone", 1)]) == ["dead", "gone"]
    assert store.claim_keys(lease, []) == []
    ids = {one.key: one.segment_id for one in store.dead_segments(9)}
    store.mark_gone(lease, [ids["gone"]])
    keys = ["live", "dead", "gone", "never", "dead"]
    assert store.known_keys(keys) == {"live", "dead", "gone"}
    for key in ("dead", "gone"):
        assert list(store.commit([segment(key, batch(x))], NOW_MS).refused) == [0]
    store.forget_segments(lease, list(ids.values()))
    assert store.known_keys(keys) == {"live", "dead"}
    assert store.known_keys([]) == set()


def test_whoever_has_lost_the_lease_changes_no_segment(store: Store) -> None:
    [x] = store.new_topic("t").logs
    first = taken(store)
    store.claim_keys(first, [("dead", 1), ("gone", 1)])
    ids = {one.key: one.segment_id for one in store.dead_segments(9)}
    store.mark_gone(first, [ids["gone"]])
    store.append(x, 1)
    store.swap(first, merged("m", rows_of(store, x)))
    store.take_leases([first.name], HOLDER)
    before = states(store)
    writes: list[Callable[[], object]] = [
        lambda: store.mark_dead(first, 0, 10),
        lambda: store.mark_dead_among(first, [1, 2, 3]),
        lambda: store.mark_gone(first, [ids["dead"]]),
        lambda: store.forget_segments(first, [ids["gone"]]),
        lambda: store.claim_keys(first, [("new", 1)]),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert states(store) == before

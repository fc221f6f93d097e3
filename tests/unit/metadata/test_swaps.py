"""Swaps: exactly what was read is replaced, log by log, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.unit.metadata.life_support import HOLDER, index_of, merged, rows_of, spans, states, taken
from tests.unit.metadata.support import (
    NOW_MS,
    Store,
    Stores,
    WatchedDatabase,
    batch,
    errors,
    offsets,
    segment,
    sqlite_store,
)
from warp.errors import ErrorCode, MetadataContention, OutcomeUnknown
from warp.ids import LogId
from warp.metadata import swaps
from warp.metadata.group_model import LeaseLost
from warp.metadata.life_model import (
    IndexRow,
    NewExtent,
    NewSegment,
    SegmentState,
    Swap,
    SwapRefused,
    SwapResult,
)
from warp.metadata.sqlite import IN_MEMORY
from warp.metadata.swaps import check_swap

X, Y = LogId(1), LogId(2)
LIVE, DEAD = SegmentState.LIVE, SegmentState.DEAD


def result(swapped: set[LogId], dropped: set[LogId] = frozenset()) -> SwapResult:  # type: ignore[assignment]
    return SwapResult(frozenset(swapped), frozenset(dropped))


def test_new_extents_take_the_place_of_those_that_were_read(store: Store) -> None:
    x, y = store.new_topic("t", 2).logs
    store.append(x, 10, 40, 20)
    store.append(y, 7)
    lease = taken(store)
    kept = rows_of(store, x)[2]
    assert store.swap(lease, merged("new", [*rows_of(store, x)[:2], *rows_of(store, y)])) == result({x, y})
    assert index_of(store, x) == [(0, 20, "new", 0, 200, 40, 40), (20, 30, kept.key, 0, 100, 20, 40)]
    assert index_of(store, y) == [(0, 10, "new", 200, 100, 7, 7)]
    assert states(store)["new"] == LIVE
    [new] = store.oldest_segments(1, 9)
    assert (new.key, new.size_bytes, new.level, new.created_ms) == ("new", 300, 1, NOW_MS)


def test_a_log_goes_on_growing_after_a_swap(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 50, 20)
    store.swap(None, merged("new", rows_of(store, x), shrunk_bytes=150))
    grown = store.commit_batches(batch(x, count=3, size=7, max_timestamp_ms=30))
    assert (errors(grown), offsets(grown), grown.logs[0].size_bytes) == ([ErrorCode.NONE], [20], 57)
    assert [row[-1] for row in index_of(store, x)] == [50, 50]


def test_each_new_extent_takes_the_prefix_maximum_of_the_one_it_ends_in(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 10, 40, 20, 60)
    added = [
        NewExtent(x, 0, 5, 0, 0, 30, 10),
        NewExtent(x, 5, 12, 0, 30, 30, 5),
        NewExtent(x, 12, 30, 0, 60, 30, 20),
        NewExtent(x, 30, 40, 0, 90, 30, 60),
    ]
    store.swap(None, Swap([NewSegment("new", 120, 1, NOW_MS)], rows_of(store, x), added))
    assert [row[-1] for row in index_of(store, x)] == [10, 40, 40, 60]
    assert store.offset_reaching_time(x, 15) == 5


def test_a_log_of_which_a_row_has_changed_is_left_as_it_is(store: Store) -> None:
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1, 2, 3)
    store.append(y, 1, 2)
    stale = merged("late", [*rows_of(store, x), *rows_of(store, y)])
    assert store.swap(None, merged("early", rows_of(store, x)[1:])).swapped == {x}
    before = index_of(store, x)
    assert store.swap(None, stale) == result({y}, {x})
    assert index_of(store, x) == before
    assert spans(store, y) == [(0, 20, "late")]


def test_a_row_that_differs_in_anything_is_another_row(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    [_, last] = rows_of(store, x)
    wanted = merged("new", [last])
    for field in ("base_offset", "segment_id", "position", "size_bytes", "max_timestamp_ms"):
        other = last._replace(**{field: getattr(last, field) - 1})
        added = [wanted.added[0]._replace(base_offset=other.base_offset)]
        assert store.swap(None, replace(wanted, removed=[other], added=added)) == result(set(), {x}), field
    assert "new" not in states(store), "nothing is inserted for nothing"


def test_a_swap_whose_logs_are_all_dropped_inserts_nothing(store: Store) -> None:
    x, y = (topic := store.new_topic("t", 2)).logs
    store.append(x, 1)
    store.append(y, 1)
    stale = merged("new", [*rows_of(store, x), *rows_of(store, y)], clean={x: 10})
    store.delete_topics([topic.topic_id])
    assert store.swap(None, stale) == result(set(), {x, y})
    assert "new" not in states(store)


def test_extents_that_were_trimmed_stay_away(store: Store) -> None:
    lease = taken(store)
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2, 3)
    stale = merged("new", rows_of(store, x))
    store.delete_records({x: 15})
    assert store.trim_logs(lease, [x], 100) == 1
    assert store.swap(lease, stale) == result(set(), {x})
    assert [row[:2] for row in index_of(store, x)] == [(10, 20), (20, 30)]


def test_a_moved_start_alone_changes_no_extent(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2, 3)
    wanted = merged("new", rows_of(store, x))
    store.delete_records({x: 15})
    assert store.swap(None, wanted) == result({x})
    assert spans(store, x) == [(0, 30, "new")]
    assert store.log_states([x])[x].start_offset == 15


def test_a_repeated_swap_is_answered_by_what_has_come_of_it(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1, 2)
    store.append(y, 1)
    wanted = merged("new", [*rows_of(store, x), *rows_of(store, y)], clean={x: 20})
    store.swap(None, merged("other", rows_of(store, y)))
    assert store.swap(lease, wanted) == store.swap(lease, wanted) == result({x}, {y})
    # What lies in its place by now is not touched, and the answer says that nothing is left.
    store.swap(lease, merged("later", rows_of(store, x), level=2))
    assert store.swap(lease, wanted) == result(set(), {x, y})
    assert spans(store, x) == [(0, 20, "later")]
    store.mark_dead(lease, 0, 100)
    assert store.swap(lease, wanted) == result(set(), {x, y})
    assert states(store)["new"] == DEAD


def test_a_claimed_key_refuses_the_swap_as_a_whole(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1)
    store.append(y, 1)
    store.claim_keys(lease, [("b", 100)])
    before = (index_of(store, x), index_of(store, y), states(store))
    both = Swap(
        [NewSegment("a", 100, 1, NOW_MS), NewSegment("b", 100, 1, NOW_MS)],
        rows_of(store, x, y),
        [NewExtent(x, 0, 10, 0, 0, 100, 1), NewExtent(y, 0, 10, 1, 0, 100, 1)],
    )
    with pytest.raises(SwapRefused, match="taken: b"):
        store.swap(lease, both)
    assert (index_of(store, x), index_of(store, y), states(store)) == before
    store.mark_gone(lease, [dead.segment_id for dead in store.dead_segments(9)])
    with pytest.raises(SwapRefused):
        store.swap(lease, both)


def test_the_key_of_a_commit_is_no_swaps(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.commit([segment("flushed", batch(x))], NOW_MS)
    with pytest.raises(SwapRefused):
        store.swap(None, merged("flushed", rows_of(store, x)))
    store.swap(None, merged("new", rows_of(store, x)))
    refused = store.commit([segment("new", batch(x))], NOW_MS)
    assert list(refused.refused) == [0], "nor is the key of a swap a commit's"


def test_quarantined_extents_are_never_swapped(store: Store) -> None:
    lease = taken(store)
    x, y = store.new_topic("t", 2).logs
    store.append(x, 1, 2)
    store.append(y, 1)
    wanted = merged("new", rows_of(store, x, y))
    store.quarantine(lease, rows_of(store, x)[1:], "unreadable")
    assert store.swap(lease, wanted) == result({y}, {x})
    [found] = store.quarantined(9)
    assert store.release_quarantined([found]) == 1
    assert store.swap(lease, merged("again", rows_of(store, x))) == result({x})


def test_how_far_a_log_is_compacted_goes_with_its_extents_and_never_back(store: Store) -> None:
    x, y, z = store.new_topic("t", 3).logs
    for log in (x, y, z):
        store.append(log, 1, 2)
    stale = merged("b", rows_of(store, y), clean={y: 20})
    swap = merged("a", rows_of(store, x, y), clean={x: 20, y: 10, z: 5})
    assert store.swap(None, swap) == result({x, y, z}), "a log may have been clean as it was"
    assert clean_offsets(store) == {x: 20, y: 10, z: 5}
    assert store.swap(None, stale) == result(set(), {y})
    assert store.swap(None, merged("c", rows_of(store, x), clean={x: 10, LogId(999): 4})) == result(
        {x}, {LogId(999)}
    )
    assert clean_offsets(store) == {x: 20, y: 10, z: 5}
    assert store.swap(None, Swap([], [], [], {z: 20})) == result({z})
    assert clean_offsets(store)[z] == 20


def clean_offsets(store: Store) -> dict[LogId, int]:
    return dict(store.rows("select log_id, clean_offset from logs"))


def test_a_swap_under_a_lost_lease_changes_nothing(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 1)
    old = taken(store)
    store.take_leases([old.name], HOLDER)
    with pytest.raises(LeaseLost):
        store.swap(old, merged("new", rows_of(store, x)))
    assert "new" not in states(store)


def test_a_large_swap_is_written_in_several_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "ROWS_PER_STATEMENT", 3)
    logs = store.new_topic("t", 8).logs
    for log in logs:
        store.append(log, 1, 2)
    assert store.swap(None, merged("new", rows_of(store, *logs))) == result(set(logs))
    assert [spans(store, log) for log in logs] == [[(0, 20, "new")]] * 8


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([], "does not tile"),
        ([(0, 20)], "does not tile"),
        ([(0, 31)], "does not tile"),
        ([(0, 10), (20, 30)], "does not tile"),
        ([(0, 20), (19, 30)], "hold offset 19"),
        ([(0, 10), (10, 10), (10, 30)], "ends where it begins"),
    ],
)
def test_what_does_not_tile_is_refused(added: list[tuple[int, int]], message: str) -> None:
    extents = [NewExtent(X, base, end, 0, 0, 100, 1) for base, end in added]
    with pytest.raises(ValueError, match=message):
        check_swap(Swap([NewSegment("new", 100, 1, NOW_MS)], rows((0, 10), (10, 20), (20, 30)), extents))


def test_runs_are_tiled_one_by_one() -> None:
    swap = merged("new", rows((0, 10), (20, 30)))
    check_swap(swap)
    for wrong, message in (
        (replace(swap, added=[extent._replace(log_id=Y) for extent in swap.added]), "in the logs"),
        (replace(swap, added=merged("new", rows((0, 10), (10, 20), (20, 30))).added), "in the logs"),
        (replace(swap, added=[extent._replace(segment=1) for extent in swap.added]), "none of the swap's"),
        (replace(swap, added=[extent._replace(segment=-1) for extent in swap.added]), "none of the swap's"),
        (replace(swap, segments=[*swap.segments, *swap.segments]), "twice"),
        (replace(swap, segments=[swap.segments[0]._replace(level=0)]), "level 0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_swap(wrong)


def test_a_swap_that_does_not_tile_changes_nothing(store: Store) -> None:
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    wanted = merged("new", rows_of(store, x))
    with pytest.raises(ValueError, match="does not tile"):
        store.swap(None, replace(wanted, added=[]))
    assert len(index_of(store, x)) == 2


def rows(*spans: tuple[int, int]) -> list[IndexRow]:
    return [IndexRow(X, base, end, 7, 0, 100, 1, "old", 0) for base, end in spans]


def test_a_swap_that_met_contention_is_tried_again(stores: Stores) -> None:
    faults = [MetadataContention("somebody was in the way")]

    def before(name: str) -> None:
        if name == "change_logs" and faults:
            raise faults.pop()

    store = stores.open(lambda database: WatchedDatabase(database, before))
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    assert store.swap(None, merged("new", rows_of(store, x))) == result({x})
    assert not faults
    assert spans(store, x) == [(0, 20, "new")]
    store.close()


def test_an_error_at_any_statement_changes_nothing(stores: Stores) -> None:
    countdown = [0]

    def before(name: str) -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise OutcomeUnknown(name)

    store = stores.open(lambda database: WatchedDatabase(database, before))
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    rows = rows_of(store, x)
    wanted = merged("new", rows, shrunk_bytes=50)
    lease = taken(store)
    failed: list[str] = []
    answer = None
    while answer is None:
        countdown[0] = len(failed) + 1
        try:
            answer = store.swap(lease, wanted)
        except OutcomeUnknown as error:
            failed.append(str(error))
            assert rows_of(store, x) == rows
    countdown[0] = 0
    assert failed == [
        "share_leases", "lock_logs", "segments_of_keys", "extents_as_they_are", "insert_segments", "delete_extents",
        "insert_extents", "change_logs", "commit",
    ]  # fmt: skip
    assert answer == store.swap(lease, wanted) == result({x})
    assert spans(store, x) == [(0, 20, "new")]
    store.close()


def test_a_swap_that_is_cancelled_on_the_way_changes_nothing() -> None:
    store = sqlite_store(IN_MEMORY)
    [x] = store.new_topic("t").logs
    store.append(x, 1, 2)
    before = rows_of(store, x)
    wanted = merged("new", before)

    async def swap_for(turns: int) -> bool:
        task = asyncio.create_task(store.metadata.swap(None, wanted))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return not task.cancelled()

    cancelled = 0
    while not store.run(swap_for(cancelled)):
        cancelled += 1
        assert rows_of(store, x) == before
    assert cancelled > 4, "it stops now and then"
    assert spans(store, x) == [(0, 20, "new")]
    store.close()


# Parts of one swap


def parted(store: Store) -> tuple[LogId, LogId, Swap, Swap]:
    """Two logs, and the swap of both into one segment: the part of the first, and that of the second."""
    x, y = store.new_topic("t", 2).logs
    store.append(x, 10, 20)
    store.append(y, 30, 40)
    whole = merged("new", [*rows_of(store, x), *rows_of(store, y)])

    def part(log: LogId) -> Swap:
        removed = [row for row in whole.removed if row.log_id == log]
        added = [extent for extent in whole.added if extent.log_id == log]
        return replace(whole, removed=removed, added=added, is_begun=log == y)

    return x, y, part(x), part(y)


def test_a_later_part_goes_into_the_segment_of_the_first(store: Store) -> None:
    x, y, first, later = parted(store)
    assert store.swap(None, first) == result({x})
    assert [row[2] for row in index_of(store, y)] == [row.key for row in later.removed], "not before its part"
    assert store.swap(None, later) == result({y})
    assert [row[2] for row in index_of(store, x) + index_of(store, y)] == ["new", "new"]
    assert states(store)["new"] == LIVE


def test_a_later_part_that_is_asked_for_again_changes_nothing(store: Store) -> None:
    x, y, first, later = parted(store)
    store.swap(None, first)
    store.swap(None, later)
    before = index_of(store, x), index_of(store, y)
    assert store.swap(None, later) == result({y})
    assert (index_of(store, x), index_of(store, y)) == before


def test_a_later_part_adds_nothing_to_a_segment_that_has_died(store: Store) -> None:
    x, y, first, later = parted(store)
    store.swap(None, first)
    store.swap(None, merged("newer", rows_of(store, x), level=2))
    assert store.mark_dead_among(None, [row.segment_id for row in store.oldest_segments(1, 9)]) == 0
    [segment_id] = [row[0] for row in store.rows("select segment_id from segments where key = 'new'")]
    assert store.mark_dead_among(None, [segment_id]) == 1
    before = index_of(store, y)
    assert store.swap(None, later) == result(set(), {y})
    assert index_of(store, y) == before
    assert states(store)["new"] == DEAD


def test_a_later_part_brings_no_segment_back_that_is_forgotten(store: Store) -> None:
    _, y, _, later = parted(store)
    before = index_of(store, y)
    assert store.swap(None, later) == result(set(), {y})
    assert index_of(store, y) == before
    assert "new" not in states(store)


def test_a_later_part_leaves_a_log_alone_that_has_changed(store: Store) -> None:
    _, y, first, later = parted(store)
    store.swap(None, first)
    store.swap(None, merged("other", rows_of(store, y)))
    before = index_of(store, y)
    assert store.swap(None, later) == result(set(), {y})
    assert index_of(store, y) == before

"""Commits through the store: atomic, in order, once however often they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.metadata.support import (
    NOW_MS,
    Store,
    Stores,
    WatchedDatabase,
    batch,
    contents,
    errors,
    offsets,
    segment,
    sequenced,
)
from warp.errors import ErrorCode, MetadataUnavailable
from warp.ids import LogId
from warp.metadata.commit import GAP_GRACE_S
from warp.metadata.model import BatchEntry, BatchOutcome, ExtentQuery, LogState, SegmentCommit

NONE = ErrorCode.NONE
GONE = LogId(999)


def test_a_commit_answers_offsets_extents_and_the_ends_of_its_logs(store: Store) -> None:
    first, second = store.new_topic("t", 2).logs
    one = segment("k1", batch(first, 0, count=3), batch(first, 100, count=2), batch(second, 200, count=5))
    two = segment("k2", batch(second, 0, count=1, max_timestamp_ms=5))
    result = store.commit([one, two], NOW_MS)
    assert offsets(result) == [0, 3, 0, 5]
    assert errors(result) == [NONE] * 4
    assert result.refused == {}
    assert [(e.log_id, e.base_offset, e.end_offset, e.key, e.position) for e in result.extents] == [
        (first, 0, 5, "k1", 0),
        (second, 0, 5, "k1", 200),
        (second, 5, 6, "k2", 0),
    ]
    assert list(result.logs) == [LogState(first, 0, 5, 5, 200), LogState(second, 0, 6, 6, 200)]
    assert store.log_states([first, second]) == {log.log_id: log for log in result.logs}
    read_first, read_second = store.read_extents([ExtentQuery(first, 0, 1000), ExtentQuery(second, 0, 1000)])
    assert [*read_first.extents, *read_second.extents] == list(result.extents)


def test_offsets_go_on_where_the_last_commit_ended(store: Store) -> None:
    [log] = store.new_topic("t").logs
    taken = [offsets(store.commit_batches(batch(log, count=n)))[0] for n in (1, 2, 3, 4)]
    assert taken == [0, 1, 3, 6]


def test_the_same_key_is_answered_as_it_was_the_first_time(store: Store) -> None:
    first, second = store.new_topic("t", 2).logs
    store.commit_batches(sequenced(first, 0))
    again = segment(
        "k",
        sequenced(first, 0, 0, max_timestamp_ms=8),
        sequenced(first, 5, 100),
        batch(GONE, 200),
        batch(second, 300, count=4),
    )
    before = store.commit([again], NOW_MS)
    assert errors(before) == [
        NONE,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        NONE,
    ]
    # Whatever has happened since makes no difference: another decision would be a different one by now.
    store.commit_batches(batch(second, count=10))
    store.clock.seconds += GAP_GRACE_S + 1
    held = contents(store, [first, second])
    after = store.commit([again], NOW_MS)
    assert after.outcomes == before.outcomes
    assert after.extents == before.extents
    assert contents(store, [first, second]) == held


def test_the_same_key_again_gives_no_extents_of_logs_that_were_deleted_since(store: Store) -> None:
    """Simulator, seed 6021: the answer was lost, the topic deleted, and the agent stumbled over what it was told."""
    gone = store.new_topic("gone")
    [there] = store.new_topic("there").logs
    again = segment("k", batch(gone.logs[0], 0), batch(there, 100))
    before = store.commit([again], NOW_MS)
    store.delete_topics([gone.topic_id])
    after = store.commit([again], NOW_MS)
    assert errors(after) == errors(before) == [NONE, NONE]
    assert [extent.log_id for extent in after.extents] == [there]
    assert [state.log_id for state in after.logs] == [there]


def test_a_commit_of_known_and_new_segments_takes_each_for_what_it_is(store: Store) -> None:
    [log] = store.new_topic("t").logs
    one, two, three = (segment(f"k{n}", batch(log, count=n)) for n in (1, 2, 3))
    store.commit([two], NOW_MS)
    result = store.commit([one, two, three], NOW_MS)
    assert offsets(result) == [2, 0, 3]
    assert [state.next_offset for state in result.logs] == [6]
    assert sorted((e.key, e.base_offset) for e in result.extents) == [("k1", 2), ("k2", 0), ("k3", 3)]


def test_duplicates_across_commits_get_their_first_offset(store: Store) -> None:
    [log] = store.new_topic("t").logs
    for n in range(7):
        assert offsets(store.commit_batches(sequenced(log, n, max_timestamp_ms=100 + n))) == [n]
    for n in range(2, 7):
        [[outcome]] = store.commit_batches(sequenced(log, n)).outcomes
        assert outcome == BatchOutcome(NONE, n, True, 0, 100 + n)
    assert errors(store.commit_batches(sequenced(log, 1))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]
    assert store.log_states([log])[log].next_offset == 7


def test_a_gap_is_answered_softly_until_its_grace_is_over(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.commit_batches(sequenced(log, 0))
    assert errors(store.commit_batches(sequenced(log, 2))) == [ErrorCode.NOT_ENOUGH_REPLICAS]
    store.clock.seconds += GAP_GRACE_S - 0.1
    assert errors(store.commit_batches(sequenced(log, 2))) == [ErrorCode.NOT_ENOUGH_REPLICAS]
    store.clock.seconds += 0.1
    assert errors(store.commit_batches(sequenced(log, 2))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]
    assert errors(store.commit_batches(sequenced(log, 1), sequenced(log, 2, 100))) == [NONE, NONE]


def test_a_producer_is_known_per_log_and_survives_the_store(stores: Stores) -> None:
    store = stores.open()
    first, second = store.new_topic("t", 2).logs
    store.commit_batches(sequenced(first, 0, count=5), sequenced(second, 0, 100, count=3))
    store.close()
    store = stores.open()
    result = store.commit_batches(
        sequenced(first, 0, count=5), sequenced(first, 5, 100), sequenced(second, 3, 200)
    )
    assert offsets(result) == [0, 5, 3]
    store.close()


def test_a_batch_for_a_deleted_topic_is_refused_and_the_rest_committed(store: Store) -> None:
    old = store.new_topic("old")
    [log] = store.new_topic("t").logs
    store.delete_topics([old.topic_id])
    result = store.commit_batches(batch(old.logs[0]), batch(log, 100))
    assert errors(result) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NONE]
    assert [state.log_id for state in result.logs] == [log]


def test_a_segment_whose_key_was_claimed_is_refused_as_a_whole(store: Store) -> None:
    [log] = store.new_topic("t").logs
    assert store.claim_key("orphan", 10)
    assert not store.claim_key("orphan", 10)
    result = store.commit(
        [segment("orphan", batch(log), batch(log, 100)), segment("good", batch(log))], NOW_MS
    )
    assert errors(result) == [ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.KAFKA_STORAGE_ERROR, NONE]
    assert offsets(result) == [-1, -1, 0]
    assert list(result.refused) == [0]
    assert [extent.key for extent in result.extents] == ["good"]


def test_a_committed_key_can_not_be_claimed(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.commit([segment("k", batch(log))], NOW_MS)
    assert not store.claim_key("k", 10)
    assert store.commit([segment("k", batch(log))], NOW_MS).refused == {}


def test_outcomes_tell_the_start_of_the_log(store: Store) -> None:
    [log] = store.new_topic("t").logs
    store.append(log, 1, 2)
    store.delete_records({log: 15})
    [[outcome]] = store.commit_batches(batch(log)).outcomes
    assert (outcome.base_offset, outcome.log_start_offset) == (20, 15)


def test_a_segment_with_nothing_accepted_is_remembered_all_the_same(store: Store) -> None:
    empty = segment("k", batch(GONE))
    result = store.commit([empty], NOW_MS)
    assert errors(result) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert (list(result.extents), list(result.logs)) == ([], [])
    assert errors(store.commit([empty], NOW_MS)) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert not store.claim_key("k", 1)


def test_a_commit_of_nothing_does_nothing(store: Store) -> None:
    assert store.commit([], NOW_MS).outcomes == []


def test_a_key_twice_in_one_commit_is_a_mistake_of_the_caller(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        store.commit([segment("k"), segment("k")], NOW_MS)


def test_a_commit_takes_as_many_statements_for_many_logs_as_for_one(stores: Stores) -> None:
    seen: list[str] = []
    store = stores.open(lambda inner: WatchedDatabase(inner, seen.append))
    logs = store.new_topic("t", 500).logs
    counts = []
    for chosen in (logs[:1], logs):
        seen.clear()
        store.commit([segment(f"k{len(chosen)}", *_side_by_side(chosen))], NOW_MS)
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 10
    store.close()


def _side_by_side(logs: tuple[LogId, ...]) -> list[BatchEntry]:
    return [sequenced(log_id, 0, 100 * place) for place, log_id in enumerate(logs)]


def _scenario(store: Store, first: LogId, second: LogId) -> list[SegmentCommit]:
    """A commit that runs every statement: a known segment, new ones, producers old and new, a gone log."""
    store.commit_batches(sequenced(first, 0), batch(second, 100))
    known = segment("known", batch(first, 0, count=2))
    store.commit([known], NOW_MS)
    return [
        segment("k1", sequenced(first, 1, 0), sequenced(second, 0, 100, producer=8), batch(GONE, 200)),
        known,
        segment("k2", batch(second, 0, count=4)),
    ]


def test_a_commit_that_fails_at_any_statement_leaves_nothing_behind(stores: Stores) -> None:
    fails_at = _Countdown()
    store = stores.open(lambda inner: WatchedDatabase(inner, fails_at))
    first, second = store.new_topic("t", 2).logs
    commits = _scenario(store, first, second)
    before = contents(store, [first, second])
    failed = 0
    result = None
    while result is None:
        fails_at.left = failed + 1
        try:
            result = store.commit(commits, NOW_MS)
        except MetadataUnavailable:
            failed += 1
            assert contents(store, [first, second]) == before, f"statement {failed} left something behind"
    fails_at.left = 0
    assert failed == fails_at.seen, "every statement has failed once"
    assert failed >= 9
    assert errors(result) == [NONE, NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NONE, NONE]
    assert offsets(result) == [3, 1, -1, 1, 2]
    # And none of the failed attempts has used up anything: a resend of the same is a duplicate of the one that worked.
    assert offsets(store.commit_batches(sequenced(first, 1))) == [3]
    store.close()


class _Countdown:
    """Raises at the n-th statement from now; 0 never."""

    def __init__(self) -> None:
        self._left = 0
        self.seen = 0

    @property
    def left(self) -> int:
        return self._left

    @left.setter
    def left(self, value: int) -> None:
        self._left = value
        if value:
            self.seen = 0

    def __call__(self, _name: str) -> None:
        if self._left:
            self.seen += 1
            if self.seen == self._left:
                self._left = 0
                raise MetadataUnavailable("as told")


@pytest.mark.parametrize("make", [lambda log: batch(log, count=2), lambda log: sequenced(log, 0, count=2)])
def test_large_commits_keep_every_offset(store: Store, make: Callable[[LogId], BatchEntry]) -> None:
    logs = store.new_topic("t", 300).logs
    result = store.commit_batches(*(make(log) for log in logs))
    assert offsets(result) == [0] * 300
    assert {state.next_offset for state in store.log_states(logs).values()} == {2}

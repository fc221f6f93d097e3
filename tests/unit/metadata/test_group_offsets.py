"""Committed offsets: set-based commits, what belongs to whom, and what goes when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.metadata.group_support import Coordinator, group, member, offset_row
from tests.unit.metadata.support import NOW_MS, Store, Stores, WatchedDatabase, sqlite_store
from warp.errors import ErrorCode
from warp.metadata import group_offsets
from warp.metadata.group_model import (
    OffsetDeletion,
    OffsetExpiry,
    OffsetKey,
    OffsetLag,
    OffsetQuery,
    OrphanCursor,
)

NONE, UNKNOWN = ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.fixture
def coordinator(store: Store) -> Coordinator:
    store.new_topic("t", 3)
    store.new_topic("u")
    return Coordinator(store)


def stored_rows(store: Store) -> int:
    [[count]] = store.rows("select count(*) from group_offsets")
    return int(count)


def sweep(store: Store, rows_max: int = 1000) -> int:
    """Run the search for ownerless offsets to its end; how many it has removed."""
    cursor: OrphanCursor | None = OrphanCursor()
    removed = 0
    while cursor is not None:
        step = store.remove_orphan_offsets(cursor, rows_max)
        assert step.removed <= 2 * rows_max
        removed += step.removed
        cursor = step.cursor
    return removed


def test_offsets_are_fetched_as_they_were_committed(store: Store, coordinator: Coordinator) -> None:
    errors = coordinator.commit("g", ("u", 0, 2**62, 5, "mine ü\0"), ("t", 2, 0), ("t", 0, -1, 2**31 - 1))
    assert errors == [NONE] * 3
    [rows] = store.fetch_offsets([OffsetQuery("g", None)])
    assert rows == [
        offset_row("g", "t", 0, -1, 2**31 - 1),
        offset_row("g", "t", 2, 0),
        offset_row("g", "u", 0, 2**62, 5, "mine ü\0"),
    ]


def test_a_later_commit_replaces_all_of_an_earlier_one_also_going_back(
    store: Store, coordinator: Coordinator
) -> None:
    coordinator.commit("g", ("t", 0, 10, 3, "x", NOW_MS + 5))
    coordinator.commit("g", ("t", 0, 4), now_ms=NOW_MS + 1)
    [rows] = store.fetch_offsets([OffsetQuery("g", None)])
    assert rows == [offset_row("g", "t", 0, 4, now_ms=NOW_MS + 1)]


def test_the_last_of_several_commits_of_a_key_in_one_batch_counts(
    store: Store, coordinator: Coordinator
) -> None:
    commits = [
        coordinator.commit_of("g", ("t", 0, 9), ("t", 0, 5), ("t", 1, 1)),
        coordinator.commit_of("h", ("t", 0, 7)),
        coordinator.commit_of("g", ("t", 0, 3)),
    ]
    assert store.commit_offsets(commits) == [[NONE] * 3, [NONE], [NONE]]
    assert coordinator.committed("g") == {("t", 0): 3, ("t", 1): 1}
    assert coordinator.committed("h") == {("t", 0): 7}


def test_unknown_topics_and_partitions_are_refused_one_by_one(coordinator: Coordinator) -> None:
    rows = [("t", 3, 1), ("t", 1, 1), ("nope", 0, 1), ("t", -1, 1), ("u", 0, 1), ("t\0", 0, 1), ("T", 0, 1)]
    assert coordinator.commit("g", *rows) == [UNKNOWN, NONE, UNKNOWN, UNKNOWN, NONE, UNKNOWN, UNKNOWN]
    assert coordinator.committed("g") == {("t", 1): 1, ("u", 0): 1}


def test_a_commit_of_nothing_known_stores_no_group(store: Store, coordinator: Coordinator) -> None:
    assert coordinator.commit("g", ("nope", 0, 1)) == [UNKNOWN]
    assert coordinator.commit("g") == []
    assert store.commit_offsets([]) == []
    assert store.load_groups(range(64)) == []


def test_a_group_that_only_commits_becomes_an_empty_one(store: Store, coordinator: Coordinator) -> None:
    coordinator.commit("simple", ("t", 0, 1), now_ms=NOW_MS + 1)
    coordinator.commit("", ("t", 0, 2))
    empty, simple = store.load_groups(range(64))
    assert (empty.group_id, simple.group_id) == ("", "simple")
    assert (simple.protocol_type, simple.generation, simple.members, simple.changed_ms) == (
        "",
        0,
        (),
        NOW_MS + 1,
    )
    assert coordinator.committed("") == {("t", 0): 2}


def test_committing_leaves_a_stored_group_alone_and_saving_leaves_offsets_alone(
    store: Store, coordinator: Coordinator
) -> None:
    saved = group("g", [member("a")], generation=5)
    coordinator.save(saved)
    coordinator.commit("g", ("t", 0, 1), now_ms=NOW_MS + 9)
    assert store.load_groups(range(64)) == [saved]
    coordinator.save(group("g", generation=6))
    assert coordinator.committed("g") == {("t", 0): 1}


def test_a_group_id_that_cannot_be_stored_is_refused_and_hurts_nobody(
    store: Store, coordinator: Coordinator
) -> None:
    coordinator.commit("g", ("t", 0, 1))
    commits = [
        coordinator.commit_of("g\0h", ("t", 0, 2), ("t", 1, 2)),
        coordinator.commit_of("h", ("t", 0, 3)),
    ]
    assert store.commit_offsets(commits) == [[ErrorCode.INVALID_GROUP_ID] * 2, [NONE]]
    assert coordinator.committed("g") == {("t", 0): 1}
    assert coordinator.committed("g\0h") == {}


def test_a_commit_is_three_statements_once_its_keys_are_there(stores: Stores) -> None:
    seen: list[str] = []
    store = stores.open(lambda inner: WatchedDatabase(inner, seen.append))
    store.new_topic("t", 100)
    coordinator = Coordinator(store)
    commits = [
        coordinator.commit_of(f"g-{n}", *(("t", partition, n) for partition in range(100))) for n in range(20)
    ]
    seen.clear()
    store.commit_offsets(commits)
    first = ["share_leases", "resolve_offsets", "insert_simple_groups", "upsert_offsets", "commit"]
    assert seen == first
    seen.clear()
    store.commit_offsets(commits)
    assert seen == ["share_leases", "resolve_offsets", "upsert_offsets", "commit"]
    seen.clear()
    found = store.fetch_offsets([OffsetQuery(f"g-{n}", None) for n in range(20)])
    assert [len(rows) for rows in found] == [100] * 20
    assert seen == ["fetch_offsets_of_groups", "commit"]
    store.close()


def test_a_group_has_as_many_offsets_as_it_may_and_those_can_be_committed_again(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_many = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    monkeypatch.setattr(group_offsets, "OFFSETS_PER_GROUP_MAX", 2)
    assert coordinator.commit("new", ("t", 0, 1), ("t", 1, 1), ("t", 2, 1)) == [NONE, NONE, too_many]
    assert coordinator.commit("new", ("t", 2, 2), ("t", 1, 2), ("t", 0, 2)) == [too_many, NONE, NONE]
    assert coordinator.commit("other", ("t", 2, 1)) == [NONE]
    assert coordinator.committed("new") == {("t", 0): 2, ("t", 1): 2}
    coordinator.store.delete_offsets([OffsetDeletion(coordinator.lease("new"), "new", [("t", 1)])])
    assert coordinator.commit("new", ("t", 2, 3)) == [NONE]


def test_chosen_partitions_of_many_groups_are_fetched_at_once(store: Store, coordinator: Coordinator) -> None:
    coordinator.commit("g", ("t", 0, 1), ("t", 1, 2))
    coordinator.commit("h", ("t", 0, 3), ("u", 0, 4))
    found = store.fetch_offsets(
        [
            OffsetQuery("g", [("t", 1), ("t", 2), ("nope", 0), ("u", 0), ("t\0", 0)]),
            OffsetQuery("never", None),
            OffsetQuery("h", None),
            OffsetQuery("h", [("u", 0)]),
            OffsetQuery("h", []),
            OffsetQuery("h\0", None),
        ]
    )
    assert [[(row.topic, row.partition, row.offset) for row in rows] for rows in found] == [
        [("t", 1, 2)],
        [],
        [("t", 0, 3), ("u", 0, 4)],
        [("u", 0, 4)],
        [],
        [],
    ]
    assert store.fetch_offsets([]) == []


def test_offsets_are_deleted_one_by_one(store: Store, coordinator: Coordinator) -> None:
    coordinator.commit("g", ("t", 0, 1), ("t", 1, 2))
    coordinator.commit("h", ("t", 0, 3))
    errors = store.delete_offsets(
        [
            OffsetDeletion(
                coordinator.lease("g"), "g", [("t", 0), ("t", 2), ("t", 9), ("nope", 0), ("t\0", 1)]
            ),
            OffsetDeletion(coordinator.lease("x"), "x", [("t", 0)]),
        ]
    )
    assert errors == [[NONE, NONE, UNKNOWN, UNKNOWN, UNKNOWN], [NONE]]
    assert coordinator.committed("g") == {("t", 1): 2}
    assert coordinator.committed("h") == {("t", 0): 3}
    assert store.delete_offsets([]) == []


def test_lags_are_read_beside_the_ends_of_the_logs(store: Store, coordinator: Coordinator) -> None:
    [topic] = [found for found in store.catalogue(None).topics if found.name == "t"]
    store.append(topic.logs[0], 1, 2)
    store.append(topic.logs[1], 1)
    store.delete_records({topic.logs[0]: 15})
    coordinator.commit("g", ("t", 0, 5), ("t", 1, 4), ("t", 2, 3))
    coordinator.commit("h", ("t", 0, 18))
    lags = store.offset_lags(["h", "g", "never", "g", "g\0"], 100)
    assert lags == [
        OffsetLag("g", "t", 0, 5, 15, 20),
        OffsetLag("g", "t", 1, 4, 0, 10),
        OffsetLag("g", "t", 2, 3, 0, 0),
        OffsetLag("h", "t", 0, 18, 15, 20),
    ]
    assert [found.lag for found in lags] == [5, 6, 0, 2]
    assert len(store.offset_lags(["g", "h"], 3)) == 3
    assert store.offset_lags([], 3) == []


# Topics and groups that go


def test_offsets_are_locked_in_the_order_of_commits_before_they_are_deleted(stores: Stores) -> None:
    seen: list[str] = []
    store = stores.open(lambda inner: WatchedDatabase(inner, seen.append))
    store.new_topic("t", 2)
    coordinator = Coordinator(store)
    coordinator.commit("g", ("t", 0, 5), ("t", 1, 6))
    seen.clear()
    [errors] = store.delete_offsets([OffsetDeletion(coordinator.lease("g"), "g", [("t", 1), ("t", 0)])])
    assert errors == [NONE, NONE]
    assert seen[-3:] == ["lock_offsets", "delete_offsets", "commit"]
    assert stored_rows(store) == 0
    store.close()


def test_deleting_a_topic_takes_its_offsets_away_and_one_created_anew_has_none(
    store: Store, coordinator: Coordinator
) -> None:
    [u] = [topic for topic in store.catalogue(None).topics if topic.name == "u"]
    coordinator.commit("g", ("t", 0, 1), ("u", 0, 2))
    store.delete_topics([u.topic_id])
    assert coordinator.committed("g") == {("t", 0): 1}
    assert coordinator.commit("g", ("u", 0, 3)) == [UNKNOWN]
    store.new_topic("u")
    assert coordinator.committed("g") == {("t", 0): 1}
    assert store.fetch_offsets([OffsetQuery("g", [("u", 0)])]) == [[]]
    coordinator.commit("g", ("u", 0, 4))
    assert sweep(store) == 1
    assert coordinator.committed("g") == {("t", 0): 1, ("u", 0): 4}
    assert sweep(store) == 0


def test_offsets_of_deleted_topics_do_not_count_against_the_limit(
    store: Store, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    [u] = [topic for topic in store.catalogue(None).topics if topic.name == "u"]
    monkeypatch.setattr(group_offsets, "OFFSETS_PER_GROUP_MAX", 1)
    coordinator.commit("g", ("u", 0, 2))
    store.delete_topics([u.topic_id])
    assert coordinator.commit("g", ("t", 0, 2)) == [NONE]


def test_a_commit_whose_topic_goes_between_its_statements_leaves_nothing_that_anybody_sees(
    store: Store, coordinator: Coordinator
) -> None:
    """PostgreSQL could run them so; here the row is written by hand."""
    [u] = [topic for topic in store.catalogue(None).topics if topic.name == "u"]
    coordinator.commit("g", ("t", 0, 1))
    store.delete_topics([u.topic_id])
    store.rows(
        "insert into group_offsets (group_number, log_id, committed_offset, leader_epoch, committed_ms)"
        " select group_number, $1, 5, -1, 0 from groups",
        u.logs[0],
    )
    store.new_topic("u")
    assert coordinator.committed("g") == {("t", 0): 1}
    assert sweep(store) == 1
    assert stored_rows(store) == 1


@pytest.mark.parametrize(("rows_max", "steps_max"), [(1, 1), (2, 3), (3, 2), (1000, 1000)])
def test_what_belongs_to_nobody_is_removed_in_bounded_steps(
    store: Store, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, rows_max: int, steps_max: int
) -> None:
    monkeypatch.setattr(group_offsets.remove_orphan_offsets, "__defaults__", (steps_max,))
    gone = store.new_topic("gone", 4)
    for name in ("a", "b", "c", "d"):
        coordinator.commit(name, ("t", 0, 1), ("t", 1, 1), *(("gone", n, 1) for n in range(4)))
    assert sweep(store, rows_max) == 0
    coordinator.delete("b", "d")
    store.delete_topics([gone.topic_id])
    assert stored_rows(store) == 24
    assert sweep(store, rows_max) == 20
    assert stored_rows(store) == 4
    assert coordinator.committed("a") == coordinator.committed("c") == {("t", 0): 1, ("t", 1): 1}


# Expiry


def expire(coordinator: Coordinator, *expiries: tuple[Any, ...], now_ms: int = 0, rows_max: int = 100) -> Any:
    wanted = [OffsetExpiry(coordinator.lease(expiry[0]), *expiry) for expiry in expiries]
    return coordinator.store.expire_offsets(wanted, now_ms, rows_max)


def test_offsets_go_by_the_time_of_their_commit(coordinator: Coordinator) -> None:
    coordinator.commit("g", ("t", 0, 1), now_ms=100)
    coordinator.commit("g", ("t", 1, 1), now_ms=101)
    coordinator.commit("h", ("t", 0, 1), now_ms=50)
    assert expire(coordinator, ("g", 99)) == []
    assert expire(coordinator, ("g", 100), ("never", 1000)) == [OffsetKey("g", "t", 0)]
    assert coordinator.committed("g") == {("t", 1): 1}
    assert coordinator.committed("h") == {("t", 0): 1}
    assert expire(coordinator) == []


def test_offsets_of_topics_that_are_kept_stay(coordinator: Coordinator) -> None:
    for name in ("g", "h"):
        coordinator.commit(name, ("t", 0, 1), ("t", 1, 1), ("u", 0, 1), now_ms=100)
    expired = expire(coordinator, ("g", 200, frozenset({"t", "other"})), ("h", 200, frozenset({"u"})))
    assert sorted(expired) == [OffsetKey("g", "u", 0), OffsetKey("h", "t", 0), OffsetKey("h", "t", 1)]
    assert coordinator.committed("g") == {("t", 0): 1, ("t", 1): 1}
    assert coordinator.committed("h") == {("u", 0): 1}


def test_a_time_that_the_client_has_set_counts_instead(coordinator: Coordinator) -> None:
    coordinator.commit("g", ("t", 0, 1, -1, "", 500), ("t", 1, 1, -1, "", 501), ("t", 2, 1), now_ms=100)
    assert expire(coordinator, ("g", 50), now_ms=500) == [OffsetKey("g", "t", 0)]
    assert expire(coordinator, ("g", 100), now_ms=500) == [OffsetKey("g", "t", 2)]
    assert coordinator.committed("g") == {("t", 1): 1}


def test_at_most_so_many_expire_at_once(coordinator: Coordinator) -> None:
    for name in ("g", "h"):
        coordinator.commit(name, ("t", 0, 1), ("t", 1, 1), ("t", 2, 1), now_ms=100)
    counts: list[int] = []
    while (found := expire(coordinator, ("g", 100), ("h", 100), rows_max=4)) or not counts:
        counts.append(len(found))
    assert counts == [4, 2]
    assert coordinator.committed("g") == coordinator.committed("h") == {}


def test_committed_offsets_outlive_a_restart(stores: Stores) -> None:
    store = stores.open()
    store.new_topic("t", 3)
    Coordinator(store).commit("g", ("t", 0, 1), ("t", 2, 7))
    store.close()
    store = stores.open()
    assert Coordinator(store).committed("g") == {("t", 0): 1, ("t", 2): 7}
    store.close()


def test_a_process_killed_at_any_statement_of_a_commit_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    copies: list[tuple[str, bytes, bytes]] = []
    path = tmp_path / "db"
    watching = [False]

    def copy(name: str) -> None:
        if watching[0]:
            copies.append((name, path.read_bytes(), Path(f"{path}-wal").read_bytes()))

    store = sqlite_store(path, lambda inner: WatchedDatabase(inner, copy))
    store.new_topic("t", 3)
    coordinator = Coordinator(store)
    coordinator.commit("g", ("t", 0, 1))
    watching[0] = True
    rows = [("t", partition, 2) for partition in range(3)]
    store.commit_offsets([coordinator.commit_of("g", *rows), coordinator.commit_of("new", *rows)])
    copy("after")
    store.close()
    assert [name for name, *_ in copies] == [
        "share_leases",
        "resolve_offsets",
        "insert_simple_groups",
        "count_offsets",
        "upsert_offsets",
        "commit",
        "after",
    ]
    for number, (name, file, log) in enumerate(copies):
        found = tmp_path / f"copy-{number}"
        found.write_bytes(file)
        Path(f"{found}-wal").write_bytes(log)
        store = sqlite_store(found)
        coordinator = Coordinator(store)
        every = {("t", partition): 2 for partition in range(3)}
        if name == "after":
            assert (coordinator.committed("g"), coordinator.committed("new")) == (every, every)
        else:
            assert (coordinator.committed("g"), coordinator.committed("new")) == ({("t", 0): 1}, {})
            assert [found.group_id for found in store.load_groups(range(64))] == ["g"]
        store.close()

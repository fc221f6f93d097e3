"""Writes of leases, groups and offsets that fail at their n-th statement, for n = 1, 2, …: nothing of them is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.metadata.group_support import Coordinator, group, member
from tests.unit.metadata.support import Store, Stores, WatchedDatabase
from warp.errors import MetadataUnavailable
from warp.ids import BrokerId
from warp.metadata.group_model import OffsetDeletion, OffsetExpiry, OrphanCursor

TABLES = ("leases", "groups", "group_members", "group_offsets")


class Faults:
    """Fails the n-th statement from `arm(n)` on."""

    def __init__(self) -> None:
        self._left = -1

    def arm(self, number: int) -> None:
        self._left = number

    def disarm(self) -> bool:
        """Whether nothing has failed."""
        did_pass, self._left = self._left > 0, -1
        return did_pass

    def before(self, name: str) -> None:
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                raise MetadataUnavailable(f"{name} failed")


def contents(store: Store) -> list[Any]:
    return [store.rows(f"select * from {table} order by 1, 2") for table in TABLES]


WRITES: dict[str, Callable[[Store, Coordinator], Any]] = {
    "take": lambda store, c: store.take_leases([c.lease("g").name, "new"], BrokerId(2)),
    "renew": lambda store, c: store.renew_leases([c.lease("g"), c.lease("h")]),
    "release": lambda store, c: store.release_leases([c.lease("g"), c.lease("h")]),
    "save": lambda store, c: c.save(group("g", [member("b"), member("x")], generation=9), group("new")),
    "delete": lambda store, c: c.delete("g", "h"),
    "delete without offsets": lambda store, c: c.delete("g", "idle", without_offsets=True),
    "commit": lambda store, c: store.commit_offsets(
        [c.commit_of("g", ("t", 0, 7), ("t", 2, 7)), c.commit_of("new", ("t", 0, 7))]
    ),
    "delete offsets": lambda store, c: store.delete_offsets(
        [OffsetDeletion(c.lease("g"), "g", [("t", 0), ("t", 1)])]
    ),
    "expire": lambda store, c: store.expire_offsets([OffsetExpiry(c.lease("g"), "g", 1 << 50)], 0, 10),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_fails_at_any_statement_changes_nothing_and_can_be_repeated(
    stores: Stores, name: str
) -> None:
    faults = Faults()
    store = stores.open(lambda inner: WatchedDatabase(inner, faults.before))
    store.new_topic("t", 3)
    coordinator = Coordinator(store)
    coordinator.save(group("g", [member("a"), member("b")]), group("h", [member("c")]), group("idle"))
    coordinator.commit("g", ("t", 0, 1), ("t", 1, 1))
    before = contents(store)
    failures = 0
    while True:
        faults.arm(failures + 1)
        try:
            WRITES[name](store, coordinator)
        except MetadataUnavailable:
            failures += 1
            faults.disarm()
            assert contents(store) == before
            continue
        assert faults.disarm()
        break
    assert failures >= 2, "a statement and the commit at least"
    assert contents(store) != before
    store.close()


def test_a_sweep_for_orphans_that_fails_goes_on_where_it_was(stores: Stores) -> None:
    faults = Faults()
    store = stores.open(lambda inner: WatchedDatabase(inner, faults.before))
    topic = store.new_topic("t", 3)
    coordinator = Coordinator(store)
    for name in ("a", "b"):
        coordinator.commit(name, ("t", 0, 1), ("t", 1, 1))
    coordinator.delete("a")
    store.delete_topics([topic.topic_id])
    for number in range(1, 10):
        faults.arm(number)
        try:
            step = store.remove_orphan_offsets(OrphanCursor(), 10)
        except MetadataUnavailable:
            faults.disarm()
            continue
        assert faults.disarm()
        assert step.cursor is None
        break
    assert contents(store)[3] == []
    store.close()

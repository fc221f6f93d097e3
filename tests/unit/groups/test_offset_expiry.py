"""When committed offsets go, and when they stay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.metadata.group_support import Coordinator, group
from tests.unit.metadata.support import NOW_MS, Store, TestClock, sqlite_store
from warp.groups.offset_expiry import (
    ExpiryLimits,
    OffsetExpirer,
    OffsetHolder,
    expiry_of,
)
from warp.ids import BrokerId
from warp.metadata.group_model import Lease, LeaseLost, OffsetExpiry, OffsetKey, OrphanCursor, OrphanSweep

LEASE = Lease("coordinator/1", BrokerId(1), 1)
DAY_MS = 24 * 3600 * 1000
RETENTION_MS = 7 * DAY_MS


def holder(
    group_id: str = "g",
    protocol_type: str = "consumer",
    *,
    is_empty: bool = False,
    is_stable: bool = False,
    changed_ms: int = NOW_MS,
    subscribed: frozenset[str] | None = frozenset({"t"}),
    lease: Lease = LEASE,
) -> OffsetHolder:
    return OffsetHolder(lease, group_id, protocol_type, is_empty, is_stable, changed_ms, subscribed)


UNTIL_MS = NOW_MS - RETENTION_MS


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        # Simple consumers: from the commit, whenever the group was stored.
        (holder("g", "", is_empty=True), OffsetExpiry(LEASE, "g", UNTIL_MS)),
        # Without members: from when the last one left.
        (holder(is_empty=True, changed_ms=UNTIL_MS), OffsetExpiry(LEASE, "g", UNTIL_MS)),
        (holder(is_empty=True, changed_ms=UNTIL_MS + 1), OffsetExpiry(LEASE, "g", -1)),
        (holder("g", "connect", is_empty=True, changed_ms=0), OffsetExpiry(LEASE, "g", UNTIL_MS)),
        # Consumers at work: what they have no subscription to.
        (holder(is_stable=True), OffsetExpiry(LEASE, "g", UNTIL_MS, frozenset({"t"}))),
        (holder(is_stable=True, subscribed=None), None),
        (holder("g", "connect", is_stable=True), None),
        # In a rebalance: nothing.
        (holder(), None),
        (holder("g", "connect"), None),
    ],
)
def test_what_may_go_depends_on_the_state_of_the_group(
    group: OffsetHolder, expected: OffsetExpiry | None
) -> None:
    assert expiry_of(group, NOW_MS, RETENTION_MS) == expected


class Database:
    """A store with a topic of three partitions, its coordinator, and an expirer on its clock."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.new_topic("t", 3)
        store.new_topic("u", 3)
        self.coordinator = Coordinator(store)
        self.expirer = OffsetExpirer(store.metadata, store.clock, ExpiryLimits(groups_max=2, rows_max=2))

    def holder(self, group_id: str, protocol_type: str = "consumer", **fields: Any) -> OffsetHolder:
        return holder(group_id, protocol_type, lease=self.coordinator.lease(group_id), **fields)

    def expire(self, *groups: OffsetHolder) -> list[OffsetKey]:
        return self.store.run(self.expirer.expire(groups, RETENTION_MS))


@pytest.fixture
def database() -> Iterator[Database]:
    store = sqlite_store(":memory:")
    yield Database(store)
    store.close()


def test_everything_due_is_removed_in_bounded_steps(database: Database) -> None:
    names = [f"g-{number}" for number in range(5)]
    for name in names:
        database.coordinator.commit(name, *(("t", partition, 1) for partition in range(3)))
    database.store.clock.seconds += RETENTION_MS / 1000
    expired = database.expire(*(database.holder(name, "", is_empty=True) for name in names))
    assert sorted(expired) == [OffsetKey(name, "t", partition) for name in names for partition in range(3)]
    assert all(database.coordinator.committed(name) == {} for name in names)


def test_a_group_keeps_its_offsets_until_it_has_been_empty_for_so_long(database: Database) -> None:
    database.coordinator.save(group("g"))
    database.coordinator.commit("g", ("t", 0, 1))
    left_ms = NOW_MS + DAY_MS
    database.store.clock.seconds += (RETENTION_MS + DAY_MS - 1) / 1000
    empty = database.holder("g", is_empty=True, changed_ms=left_ms)
    assert database.expire(empty) == []
    database.store.clock.seconds += 1
    assert database.expire(empty) == [OffsetKey("g", "t", 0)]


def test_an_offset_that_was_set_while_the_group_was_empty_is_kept(database: Database) -> None:
    database.coordinator.save(group("g"))
    later_ms = NOW_MS + RETENTION_MS
    database.coordinator.commit("g", ("t", 0, 1))
    database.coordinator.commit("g", ("t", 1, 1), now_ms=later_ms)
    database.store.clock.seconds += RETENTION_MS / 1000 + 1
    assert database.expire(database.holder("g", is_empty=True, changed_ms=NOW_MS)) == [OffsetKey("g", "t", 0)]


def test_consumers_at_work_keep_the_offsets_of_their_topics(database: Database) -> None:
    database.coordinator.commit("g", ("t", 0, 1), ("u", 0, 1), ("u", 1, 1))
    database.store.clock.seconds += 10 * RETENTION_MS / 1000
    stable = database.holder("g", is_stable=True)
    assert database.expire(stable._replace(is_stable=False)) == []
    assert sorted(database.expire(stable)) == [OffsetKey("g", "u", 0), OffsetKey("g", "u", 1)]
    assert database.coordinator.committed("g") == {("t", 0): 1}


def test_a_client_s_own_time_counts_before_the_retention_has_passed(database: Database) -> None:
    expires_ms = NOW_MS + DAY_MS
    database.coordinator.commit("g", ("t", 0, 1, -1, "", expires_ms), ("t", 1, 1))
    empty = database.holder("g", is_empty=True)
    database.store.clock.seconds += DAY_MS / 1000 - 1
    assert database.expire(empty) == []
    database.store.clock.seconds += 1
    assert database.expire(empty) == [OffsetKey("g", "t", 0)]


def test_a_former_coordinator_expires_nothing(database: Database) -> None:
    database.coordinator.commit("g", ("t", 0, 1))
    database.store.clock.seconds += 2 * RETENTION_MS / 1000
    old = database.holder("g", "", is_empty=True)
    new = Coordinator(database.store, BrokerId(2))
    with pytest.raises(LeaseLost):
        database.expire(old)
    assert new.committed("g") == {("t", 0): 1}


def test_orphans_are_removed_to_the_last(database: Database) -> None:
    for name in ("a", "b", "c"):
        database.coordinator.commit(name, *(("t", partition, 1) for partition in range(3)), ("u", 0, 1))
    database.coordinator.delete("b")
    [topic] = [found for found in database.store.catalogue(None).topics if found.name == "t"]
    database.store.delete_topics([topic.topic_id])
    assert database.store.run(database.expirer.remove_orphans()) == 10
    assert database.store.run(database.expirer.remove_orphans()) == 0
    assert database.coordinator.committed("a") == {("u", 0): 1}


def test_groups_are_looked_at_shortly_before_their_offsets() -> None:
    seen: list[list[str]] = []

    class Recorder:
        async def expire_offsets(
            self, expiries: Sequence[OffsetExpiry], now_ms: int, rows_max: int
        ) -> list[OffsetKey]:
            seen.append([expiry.group_id for expiry in expiries])
            return []

        async def remove_orphan_offsets(
            self, cursor: OrphanCursor, rows_max: int, lease: Lease | None = None
        ) -> OrphanSweep:
            raise NotImplementedError

    async def test() -> None:
        asked: list[int] = []

        def groups() -> Iterator[OffsetHolder]:
            for number in range(5):
                asked.append(len(seen))
                yield holder(f"g-{number}", is_empty=True)

        expirer = OffsetExpirer(Recorder(), TestClock(), ExpiryLimits(groups_max=2))
        assert await expirer.expire(groups(), RETENTION_MS) == []
        assert asked == [0, 0, 1, 1, 2]
        assert seen == [["g-0", "g-1"], ["g-2", "g-3"], ["g-4"]]

    asyncio.run(test())

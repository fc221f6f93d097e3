"""Leases: epochs that only rise, and writes that fail once they are another's."""

from __future__ import annotations

import pytest

from tests.unit.metadata.group_support import Coordinator, group
from tests.unit.metadata.support import Store
from warp.ids import BrokerId
from warp.metadata.group_model import (
    Lease,
    LeaseLost,
    LeaseState,
    OffsetDeletion,
    OffsetExpiry,
)

A, B = BrokerId(1), BrokerId(2)


def test_every_taking_raises_the_epoch_whoever_takes(store: Store) -> None:
    assert store.take_leases(["y", "x", "y"], A) == [Lease("x", A, 1), Lease("y", A, 1)]
    assert store.take_leases(["x"], A) == [Lease("x", A, 2)]
    assert store.take_leases(["x"], B) == [Lease("x", B, 3)]
    assert (store.leases_held(A), store.leases_held(B)) == ([Lease("y", A, 1)], [Lease("x", B, 3)])
    assert store.take_leases([], A) == []


def test_a_lease_is_taken_as_it_was_seen_or_not_at_all(store: Store) -> None:
    assert store.take_leases_as_seen({"y": None, "x": None}, A) == [Lease("x", A, 1), Lease("y", A, 1)]
    # Of two that have seen nobody there, one comes too late.
    assert store.take_leases_as_seen({"x": None, "z": None}, B) == [Lease("z", B, 1)]
    seen = store.read_leases("xyz")
    assert store.take_leases_as_seen({"x": seen["x"]}, B) == [Lease("x", B, 2)]
    # Taken, renewed, released, taken back by the same holder: it is not what it was.
    store.renew_leases([Lease("y", A, 1)])
    store.release_leases([Lease("z", B, 1)])
    assert store.take_leases_as_seen(seen, A) == []
    assert {name: state.holder for name, state in store.read_leases("xyz").items()} == {
        "x": B,
        "y": A,
        "z": None,
    }
    seen = store.read_leases("xyz")
    taken = store.take_leases_as_seen(seen, A)
    assert taken == [Lease("x", A, 3), Lease("y", A, 2), Lease("z", A, 2)]
    assert store.take_leases_as_seen(seen, A) == store.take_leases_as_seen({}, A) == []
    assert store.leases_held(A) == taken


def test_only_held_leases_are_renewed(store: Store) -> None:
    [x, y] = store.take_leases(["x", "y"], A)
    [taken] = store.take_leases(["y"], B)
    before = store.read_leases(["x", "y", "never"])
    assert store.renew_leases([y, x, x]) == [x]
    after = store.read_leases(["x", "y"])
    assert before.keys() == {"x", "y"}
    assert after["x"] == LeaseState("x", A, x.epoch, before["x"].counter + 1)
    assert after["y"] == before["y"] == LeaseState("y", B, taken.epoch, before["y"].counter)
    assert (store.renew_leases([]), store.read_leases([])) == ([], {})


def test_a_released_lease_is_nobodys_and_its_epoch_is_not_used_again(store: Store) -> None:
    [x, y] = store.take_leases(["x", "y"], A)
    store.take_leases(["y"], B)
    assert store.release_leases([x, y]) == [x]
    assert store.read_leases(["x"])["x"].holder is None
    assert store.leases_held(A) == []
    assert (store.renew_leases([x]), store.release_leases([x])) == ([], [])
    assert store.take_leases(["x"], A) == [Lease("x", A, 2)]


def test_no_write_of_a_former_holder_lands(store: Store) -> None:
    topic = store.new_topic("t")
    assert topic.name == "t"
    old = Coordinator(store, A)
    old.save(group("g"))
    old.commit("g", ("t", 0, 1))
    lease = old.lease("g")
    new = Coordinator(store, B)
    new.commit("g", ("t", 0, 2))
    held = store.load_groups(range(64)), new.committed("g")
    for write in (
        lambda: old.save(group("g", generation=7)),
        lambda: old.commit("g", ("t", 0, 3)),
        lambda: old.delete("g"),
        lambda: old.delete("g", without_offsets=True),
        lambda: store.delete_offsets([OffsetDeletion(lease, "g", [("t", 0)])]),
        lambda: store.expire_offsets([OffsetExpiry(lease, "g", 1 << 60)], 0, 100),
    ):
        with pytest.raises(LeaseLost) as lost:
            write()
        assert lost.value.leases == {lease}
        assert (store.load_groups(range(64)), new.committed("g")) == held


def test_a_write_under_several_leases_names_those_that_are_lost_and_changes_nothing(store: Store) -> None:
    store.new_topic("t")
    old = Coordinator(store, A)
    first, second = "g", "h"
    assert old.lease(first) != old.lease(second)
    store.take_leases([old.lease(second).name], B)
    commits = [old.commit_of(first, ("t", 0, 1)), old.commit_of(second, ("t", 0, 1))]
    with pytest.raises(LeaseLost, match=old.lease(second).name) as lost:
        store.commit_offsets(commits)
    assert lost.value.leases == {old.lease(second)}
    assert old.committed(first) == {}


def test_nothing_is_written_under_a_lease_that_was_never_taken_or_is_another_slots(store: Store) -> None:
    coordinator = Coordinator(store)
    lease = coordinator.lease("g")
    with pytest.raises(LeaseLost):
        store.save_groups({Lease(lease.name, B, lease.epoch): [group("g")]})
    with pytest.raises(ValueError, match="not that of group g"):
        store.save_groups({coordinator.lease("h"): [group("g")]})
    store.release_leases([lease])
    with pytest.raises(LeaseLost):
        coordinator.save(group("g"))
    assert store.load_groups(range(64)) == []

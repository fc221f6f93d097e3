"""Stored groups: what a coordinator finds when it takes over, and how little is written to keep it so."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.unit.metadata.group_support import Coordinator, group, member, names_in_slot
from tests.unit.metadata.support import (
    Store,
    Stores,
    WatchedDatabase,
    connection_of,
    postgres_stores,
    sqlite_store,
)
from warp.errors import ErrorCode, KafkaError, MetadataCorrupt
from warp.metadata import group_model, groups
from warp.metadata.group_model import (
    GROUP_ID_BYTES_MAX,
    SLOTS,
    GroupTooLarge,
    StoredMember,
    group_id_error,
    slot_of,
    stored_bytes,
)
from warp.metadata.groups import pack_fields, unpack_member

ALL = range(SLOTS)


def test_slots_are_stable() -> None:
    assert slot_of("group") == zlib.crc32(b"group") % 64
    assert [slot_of(name) for name in ("", "a", "ü", "my-group")] == [0, 3, 21, 11]
    counts = [0] * SLOTS
    for number in range(6400):
        counts[slot_of(f"group-{number}")] += 1
    assert min(counts) > 50


def test_groups_are_loaded_as_they_were_saved(store: Store) -> None:
    coordinator = Coordinator(store)
    static = member("c-1", instance_id="i", assignment=b"\x00\xff")
    saved = [
        group("empty", generation=3),
        group("full", [static, member("a"), member("b", instance_id="")]),
        replace(group("simple", generation=0), protocol_type=""),
    ]
    coordinator.save(*saved)
    assert store.load_groups(ALL) == saved
    assert store.load_groups([slot_of("full")]) == [saved[1]]
    assert store.load_groups([]) == []


def test_only_groups_of_the_slots_that_were_asked_for_are_loaded(store: Store) -> None:
    coordinator = Coordinator(store)
    mine, others = names_in_slot(5, 3), names_in_slot(6, 2)
    coordinator.save(*(group(name, [member("m")]) for name in (*mine, *others)))
    assert [found.group_id for found in store.load_groups([5])] == sorted(mine)
    assert len(store.load_groups([5, 6, 6])) == 5


def test_saving_replaces_the_members(store: Store) -> None:
    coordinator = Coordinator(store)
    a, b, c = (member(name) for name in "abc")
    coordinator.save(group("g", [a, b, c]), group("other", [a]))
    later = group("g", [c, replace(a, assignment=b"more"), member("d")], generation=2)
    coordinator.save(later)
    assert store.load_groups(ALL) == [later, group("other", [a])]
    empty = group("g", generation=3)
    coordinator.save(empty)
    assert store.load_groups(ALL) == [empty, group("other", [a])]


def test_members_that_have_not_changed_are_not_written_again(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "db")
    coordinator = Coordinator(store)
    members = [member(f"m-{number}") for number in range(100)]
    coordinator.save(group("g", members))
    connection = connection_of(store)
    before = connection.total_changes
    members[40] = replace(members[40], assignment=b"another")
    coordinator.save(group("g", members, generation=2))
    assert connection.total_changes - before == 2, "the group and one member"
    assert store.load_groups(ALL) == [group("g", members, generation=2)]
    store.close()


@pytest.mark.postgres
def test_members_that_have_not_changed_are_not_written_again_to_postgresql(postgres_url: str) -> None:
    store = postgres_stores(postgres_url).open()
    coordinator = Coordinator(store)
    members = [member(f"m-{number}") for number in range(100)]
    coordinator.save(group("g", members))
    before = set(store.rows("select member_id, xmin::text from group_members"))
    members[40] = replace(members[40], assignment=b"another")
    coordinator.save(group("g", members, generation=2))
    assert len(before - set(store.rows("select member_id, xmin::text from group_members"))) == 1
    store.close()


def test_a_group_of_a_thousand_members_is_saved_and_loaded_in_a_handful_of_statements(
    stores: Stores,
) -> None:
    seen: list[str] = []
    store = stores.open(lambda inner: WatchedDatabase(inner, seen.append))
    coordinator = Coordinator(store)
    large = group("g", [member(f"m-{number}") for number in range(1000)])
    seen.clear()
    coordinator.save(large, group("h", [member("m")]))
    assert seen == ["share_leases", "upsert_groups", "delete_other_members", "upsert_members", "commit"]
    seen.clear()
    assert store.load_groups(ALL)[0] == large
    assert seen == ["load_groups", "load_members", "commit"]
    store.close()


def test_a_group_that_is_too_large_is_refused_and_nothing_of_it_is_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(store)
    found = group("g", [member("a", assignment=bytes(1000)), member("b")])
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", stored_bytes(found) - 1)
    with pytest.raises(GroupTooLarge, match="members of group g take more than"):
        coordinator.save(found)
    assert store.load_groups(ALL) == []
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", stored_bytes(found))
    coordinator.save(found)
    assert store.load_groups(ALL) == [found]


def test_names_that_cannot_be_stored_are_refused(store: Store) -> None:
    coordinator = Coordinator(store)
    coordinator.save(group("a"))
    for name in ("a\0", "\0", "x" * (GROUP_ID_BYTES_MAX + 1), "ü" * (GROUP_ID_BYTES_MAX // 2 + 1), "\ud800"):
        assert group_id_error(name) == ErrorCode.INVALID_GROUP_ID
        with pytest.raises(KafkaError) as refused:
            coordinator.save(group(name))
        assert refused.value.code == ErrorCode.INVALID_GROUP_ID
    assert coordinator.delete("a\0b") == set()
    assert store.load_groups(ALL) == [group("a")]
    for name in ("", "x" * GROUP_ID_BYTES_MAX, "a b", "ü"):
        assert group_id_error(name) == ErrorCode.NONE
        coordinator.save(group(name))
    assert len(store.load_groups(ALL)) == 5


def test_a_deleted_group_is_gone_with_its_members_and_offsets(store: Store) -> None:
    store.new_topic("t")
    coordinator = Coordinator(store)
    kept = group("h", [member("a")])
    coordinator.save(group("g", [member("a")]), kept)
    coordinator.commit("g", ("t", 0, 5))
    assert coordinator.delete("g", "never") == {"g"}
    assert (store.load_groups(ALL), coordinator.committed("g")) == ([kept], {})
    assert store.rows("select count(*) from group_members") == [(1,)]
    # A group that is created anew has nothing of the old one.
    coordinator.save(group("g"))
    assert coordinator.committed("g") == {}
    assert coordinator.delete("g") == {"g"}
    assert coordinator.delete("g") == set()


def test_groups_without_offsets_can_be_told_from_others(store: Store) -> None:
    store.new_topic("t")
    gone = store.new_topic("gone")
    coordinator = Coordinator(store)
    coordinator.save(group("empty"), group("members", [member("a")]), group("offsets"), group("orphans"))
    coordinator.commit("offsets", ("t", 0, 1))
    coordinator.commit("orphans", ("gone", 0, 1))
    store.delete_topics([gone.topic_id])
    names = ["empty", "members", "offsets", "orphans", "never"]
    assert coordinator.delete(*names, without_offsets=True) == {"empty", "orphans"}
    assert [found.group_id for found in store.load_groups(ALL)] == ["members", "offsets"]


def test_groups_outlive_a_restart(stores: Stores) -> None:
    store = stores.open()
    saved = group("g", [member("a", instance_id="i"), member("b")], generation=12)
    Coordinator(store).save(saved)
    store.close()
    store = stores.open()
    assert store.load_groups(ALL) == [saved]
    store.close()


@given(
    st.builds(
        StoredMember,
        member_id=st.text(st.characters(exclude_categories=["Cs"])),
        instance_id=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        client_id=st.text(st.characters(exclude_categories=["Cs"])),
        client_host=st.text(st.characters(exclude_categories=["Cs"])),
        session_timeout_ms=st.integers(-(2**31), 2**31 - 1),
        rebalance_timeout_ms=st.integers(-(2**31), 2**31 - 1),
        protocols=st.lists(
            st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary()), max_size=3
        ).map(tuple),
        assignment=st.binary(),
    )
)
def test_a_member_is_read_as_it_was_packed(packed: StoredMember) -> None:
    assert unpack_member(packed.member_id.encode(), pack_fields(packed)) == packed


def test_damaged_members_are_noticed() -> None:
    packed = pack_fields(member("m", instance_id="i"))
    readable = []
    for length in range(len(packed)):
        try:
            readable.append(len(unpack_member(b"m", packed[:length]).protocols))
        except MetadataCorrupt:
            continue
    assert readable == [0, 1], "cut between two protocols alone"
    for damaged in (b"\x02" + packed[1:], packed[:9] + b"\xff\xff\xff\xfe" + packed[13:]):
        with pytest.raises(MetadataCorrupt, match="can't be read"):
            unpack_member(b"m", damaged)
    with pytest.raises(MetadataCorrupt):
        unpack_member(b"\xff", packed)


def test_the_bytes_of_a_group_are_those_of_its_members() -> None:
    one = member("m", assignment=bytes(500))
    overhead = group_model.MEMBER_OVERHEAD_BYTES
    assert stored_bytes(group("g", [one])) >= overhead + 500 + len("range") + 2
    assert stored_bytes(group("g", [one, one])) == 2 * stored_bytes(group("g", [one]))
    assert stored_bytes(group("g")) == 0

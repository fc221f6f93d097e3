"""Entries of the catalogue: set and deleted if nobody was faster, and read by what has changed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.metadata.support import Store
from warp.metadata import entry_rows
from warp.metadata.entries import KEY_CHARACTERS_MAX, VALUE_CHARACTERS_MAX, EntryChange, EntryKind

ACL, QUOTA, CREDENTIAL = EntryKind.ACL, EntryKind.QUOTA, EntryKind.CREDENTIAL


def version(store: Store) -> int:
    return int(store.catalogue_version())


def change(store: Store, kind: EntryKind, *changes: tuple[str, str | None]) -> int:
    """Change entries by the newest version; the version afterwards."""
    answer = store.change_entries(kind, [EntryChange(*each) for each in changes], version(store))
    assert isinstance(answer, int)
    assert answer == version(store)
    return answer


def read(store: Store, known_version: int = 0) -> dict[EntryKind, list[EntryChange]]:
    changes = store.catalogue_changes(known_version)
    if changes is None:
        return {}
    return {kind: sorted(found) for kind, found in changes.entries.items()}


def after(*changes: Sequence[EntryChange]) -> dict[str, str]:
    entries = {key: value for each in changes for key, value in each}
    return {key: value for key, value in entries.items() if value is not None}


def test_entries_are_set_changed_and_deleted(store: Store) -> None:
    before = version(store)
    assert change(store, QUOTA, ("a", "1"), ("b", "2")) == before + 1
    assert change(store, QUOTA, ("a", "3"), ("b", None), ("c", "")) == before + 2
    assert after(read(store)[QUOTA]) == {"a": "3", "c": ""}
    assert read(store, before + 1) == {QUOTA: [("a", "3"), ("b", None), ("c", "")]}


def test_what_is_deleted_is_told_to_those_who_knew_it(store: Store) -> None:
    change(store, ACL, ("a", ""), ("b", ""))
    known = version(store)
    change(store, ACL, ("a", None))
    assert read(store, known) == {ACL: [("a", None)]}
    assert read(store, version(store)) == {}
    change(store, ACL, ("a", ""))
    assert read(store, known) == {ACL: [("a", "")]}, "it came back, so nobody has to hear of its deletion"


def test_kinds_do_not_know_of_each_other(store: Store) -> None:
    change(store, ACL, ("a", "1"))
    known = version(store)
    change(store, QUOTA, ("a", "2"))
    assert read(store) == {ACL: [("a", "1")], QUOTA: [("a", "2")]}
    assert read(store, known) == {QUOTA: [("a", "2")]}
    change(store, ACL, ("a", None))
    assert after(read(store)[QUOTA]) == {"a": "2"}


def test_a_change_decided_by_old_entries_of_the_kind_is_refused_and_changes_nothing(store: Store) -> None:
    known = version(store)
    change(store, ACL, ("a", "1"))
    now = version(store)
    assert store.change_entries(ACL, [EntryChange("b", "2")], known) is None
    assert version(store) == now
    assert read(store) == {ACL: [("a", "1")]}
    assert store.change_entries(ACL, [EntryChange("b", "2")], now) == now + 1


def test_a_deletion_makes_decisions_old_as_well(store: Store) -> None:
    change(store, ACL, ("a", "1"))
    known = version(store)
    change(store, ACL, ("a", None))
    assert store.change_entries(ACL, [EntryChange("b", "2")], known) is None


def test_changes_of_other_kinds_and_of_topics_refuse_nothing(store: Store) -> None:
    known = version(store)
    change(store, QUOTA, ("a", "1"))
    store.new_topic("t")
    assert store.change_entries(ACL, [EntryChange("a", "1")], known) == version(store)


def test_deleting_what_is_not_there_changes_nothing(store: Store) -> None:
    change(store, ACL, ("gone", ""))
    change(store, ACL, ("gone", None))
    now = version(store)
    assert change(store, ACL, ("gone", None), ("never", None)) == now
    assert store.catalogue_changes(now) is None


def test_deletions_are_forgotten_and_who_may_have_missed_some_is_told_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_rows, "DELETED_VERSIONS", 3)

    def rows() -> list[str]:
        return [row[0] for row in store.rows("select key from catalogue_entries order by 1")]

    change(store, ACL, ("a", ""), ("b", ""), ("c", ""), ("kept", ""))
    known = version(store)
    change(store, ACL, ("a", None))
    change(store, ACL, ("b", None))
    change(store, ACL, ("d", ""))
    assert rows() == ["a", "b", "c", "d", "kept"]
    changes = store.catalogue_changes(known)
    assert (sorted(changes.entries[ACL]), changes.are_all) == (
        [("a", None), ("b", None), ("d", "")],
        False,
    )
    change(store, ACL, ("c", None))
    assert rows() == ["b", "c", "d", "kept"]
    changes = store.catalogue_changes(known)
    assert (sorted(changes.entries[ACL]), changes.are_all) == ([("d", ""), ("kept", "")], True)
    assert read(store, known + 1) == {ACL: [("b", None), ("c", None), ("d", "")]}


def test_keys_and_values_are_any_text_as_long_as_they_may_be(store: Store) -> None:
    texts = {
        "\U0001f600" * KEY_CHARACTERS_MAX: "\U0001f600" * VALUE_CHARACTERS_MAX,
        "é'\"\\\n{}": "null",
        "E": "e",
        "e": "E",
    }
    change(store, CREDENTIAL, *texts.items())
    assert after(read(store)[CREDENTIAL]) == texts


def test_kinds_of_a_newer_release_are_left_alone(store: Store) -> None:
    change(store, ACL, ("a", ""))
    store.rows("insert into catalogue_entries values ($1, 'of a newer release', 'k', 'v', 1)", b"digest")
    assert read(store) == {ACL: [("a", "")]}


def test_topics_and_entries_come_together(store: Store) -> None:
    known = version(store)
    topic = store.new_topic("t")
    change(store, ACL, ("a", ""))
    changes = store.catalogue_changes(known)
    assert (list(changes.topics), dict(changes.entries)) == ([topic], {ACL: [("a", "")]})
    assert changes.version == version(store)

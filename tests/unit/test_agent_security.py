"""Those who live by entries of the catalogue are given them all at first, and then whatever changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.unit.metadata.support import Store, sqlite_store
from warp.agent_security import EntryFeed
from warp.cluster.catalogue import CatalogueService
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.sqlite import IN_MEMORY

ACL, QUOTA = EntryKind.ACL, EntryKind.QUOTA
Given = tuple[dict[str, str], list[EntryChange]]


@pytest.fixture
def store() -> Iterator[Store]:
    opened = sqlite_store(IN_MEMORY)
    yield opened
    opened.close()


class Taker:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[Given] = []

    def __call__(self, entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        self.given.append((dict(entries), list(changes)))


def agent(store: Store) -> tuple[CatalogueService, EntryFeed]:
    catalogue = CatalogueService(store.metadata, store.clock, store.ids)
    store.run(catalogue.refresh())
    return catalogue, EntryFeed(catalogue)


def change(store: Store, catalogue: CatalogueService, kind: EntryKind, key: str, value: str | None) -> None:
    store.run(catalogue.change_entries(kind, lambda entries: [EntryChange(key, value)]))


def test_who_comes_late_is_given_all_entries_of_the_kind_and_then_what_changes(store: Store) -> None:
    catalogue, feed = agent(store)
    change(store, catalogue, ACL, "a", "")
    change(store, catalogue, QUOTA, "q", "1")
    taker = Taker()
    feed.feed(ACL, taker)
    change(store, catalogue, ACL, "b", "")
    change(store, catalogue, QUOTA, "q", None)
    change(store, catalogue, ACL, "a", None)
    assert taker.given == [
        ({"a": ""}, [("a", "")]),
        ({"a": "", "b": ""}, [("b", "")]),
        ({"b": ""}, [("a", None)]),
    ]


def test_one_who_fails_keeps_nothing_from_the_others(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    catalogue, feed = agent(store)
    taker = Taker()

    def broken(entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        if entries:
            raise ZeroDivisionError("a bug")

    feed.feed(ACL, broken)
    feed.feed(ACL, taker)
    change(store, catalogue, ACL, "a", "")
    assert taker.given == [({}, []), ({"a": ""}, [("a", "")])]
    assert catalogue.entries(ACL) == {"a": ""}
    [line] = caplog.records
    assert (line.getMessage(), line.exc_info is not None) == ("entries of kind acl were not taken over", True)

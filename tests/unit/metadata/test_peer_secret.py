"""The secret by which the agents of a cluster know each other."""

from __future__ import annotations

import random

import pytest

from tests.unit.metadata.support import Store
from warp.errors import StartError
from warp.ids import IdSource
from warp.metadata.store import MetadataStore


def test_the_secret_is_made_once(store: Store) -> None:
    first = store.peer_secret()
    assert len(first) == 32
    assert store.peer_secret() == first


def test_a_second_agent_takes_over_the_secret_that_is_there(store: Store) -> None:
    other_ids = IdSource(store.clock, random.Random("another").randbytes)
    other = MetadataStore(store.database, store.clock, other_ids)
    assert store.run(other.peer_secret()) == store.peer_secret() != other_ids.secret()


def test_what_is_no_secret_is_said_to_be_none(store: Store) -> None:
    for text in ("not base64!", "", "c2hvcnQ="):
        store.set_setting("cluster.peer_secret", text)
        with pytest.raises(StartError, match=r"cluster\.peer_secret") as raised:
            store.peer_secret()
        assert not text or text not in str(raised.value)

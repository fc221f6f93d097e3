"""Settings, agents and producer ids: what is given out once is never given out again."""

from __future__ import annotations

import pytest

from tests.unit.metadata.support import Store, Stores
from warp.errors import MetadataUnavailable, StartError
from warp.metadata.store import FORMAT_LEVEL


def test_settings_are_kept_and_replaced(store: Store) -> None:
    assert store.setting("x") is None
    store.set_setting("x", "1")
    store.set_setting("x", "2")
    assert store.setting("x") == "2"


def test_the_cluster_id_is_made_once(store: Store) -> None:
    made = store.cluster_id(None)
    assert len(made) == 22
    assert store.cluster_id(None) == made
    assert store.cluster_id(made) == made
    with pytest.raises(StartError, match=f"belongs to cluster {made}, not other"):
        store.cluster_id("other")
    assert store.cluster_id(None) == made


def test_a_wanted_cluster_id_is_taken_while_there_is_none(store: Store) -> None:
    assert store.cluster_id("mine") == "mine"
    assert store.cluster_id(None) == "mine"


def test_an_agent_keeps_its_broker_id_and_shares_it_with_nobody(store: Store) -> None:
    a, b = store.register_agent("a"), store.register_agent("b")
    assert a != b
    assert (store.register_agent("a"), store.register_agent("b")) == (a, b)
    assert a >= 0


def test_producer_ids_come_in_blocks_that_do_not_overlap(store: Store) -> None:
    assert [store.allocate_producer_ids(n) for n in (1000, 1, 5)] == [0, 1000, 1001]
    with pytest.raises(ValueError, match="0"):
        store.allocate_producer_ids(0)


def test_everything_is_there_again_after_a_restart(stores: Stores) -> None:
    store = stores.open()
    cluster_id, broker_id = store.cluster_id(None), store.register_agent("a")
    store.allocate_producer_ids(10)
    topic = store.new_topic("t", 2, **{"retention.ms": "5"})
    store.append(topic.logs[0], 1, 2)
    held = store.read_extents([]), store.log_states(topic.logs), store.catalogue(None)
    store.close()
    store = stores.open(seed=2)
    assert (store.cluster_id(None), store.register_agent("a")) == (cluster_id, broker_id)
    assert store.allocate_producer_ids(1) == 10
    assert (store.read_extents([]), store.log_states(topic.logs), store.catalogue(None)) == held
    assert store.new_topic("u").logs[0] > max(topic.logs)
    store.close()


def test_a_cluster_that_writes_a_newer_format_is_refused(stores: Stores) -> None:
    store = stores.open()
    store.set_setting(FORMAT_LEVEL, "2")
    store.close()
    with pytest.raises(StartError, match="format level 2, this release knows 1"):
        stores.open()


def test_a_closed_store_says_so(stores: Stores) -> None:
    store = stores.open()
    store.run(store.metadata.close())
    with pytest.raises(MetadataUnavailable, match="closed"):
        store.check()
    store.close()

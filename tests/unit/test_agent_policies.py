"""The jobs live by the configs that hold at the moment, and keep everything where these make no sense."""

from __future__ import annotations

import pytest

from tests.unit.metadata.support import Store, sqlite_store
from warp.agent_policies import LIFE_CONFIGS, Policies, topic_life
from warp.cluster.catalogue import CatalogueService
from warp.cluster.topic_config import BY_NAME
from warp.ids import LogId, TopicId
from warp.lifecycle.model import TopicLife
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.model import Topic
from warp.metadata.sqlite import IN_MEMORY

ID = TopicId(bytes(16))


def life(broker: dict[str, str] | None = None, **configs: str) -> TopicLife:
    named = {name.replace("_", "."): value for name, value in configs.items()}
    return topic_life(Topic("t", ID, (LogId(3), LogId(4)), named), broker or {})


def test_a_topic_without_configs_lives_by_kafkas_defaults() -> None:
    assert life() == TopicLife(ID, "t", (LogId(3), LogId(4)), retention_ms=604_800_000)
    assert all(name in BY_NAME for name in LIFE_CONFIGS)


@pytest.mark.parametrize(
    ("policy", "deletes", "compacts"),
    [
        ("delete", True, False),
        ("compact", False, True),
        ("compact,delete", True, True),
        ("delete, compact", True, True),
        ("", False, False),
    ],
)
def test_the_policy_says_what_is_done(policy: str, deletes: bool, compacts: bool) -> None:
    found = life(cleanup_policy=policy)
    assert (found.deletes, found.compacts) == (deletes, compacts)


def test_numbers_are_those_of_the_topic_or_else_of_the_cluster() -> None:
    broker = {"log.retention.ms": "5", "log.retention.bytes": "6", "log.cleaner.delete.retention.ms": "7"}
    found = life(broker, retention_ms="-1", min_cleanable_dirty_ratio="0.25", max_compaction_lag_ms="9")
    assert (found.retention_ms, found.retention_bytes, found.delete_retention_ms) == (None, 6, 7)
    assert (found.min_cleanable_dirty_ratio, found.max_compaction_lag_ms) == (0.25, 9)
    assert life(broker, retention_bytes="-1").retention_bytes is None
    assert life(broker).retention_ms == 5
    assert life(max_message_bytes="77").max_message_bytes == 77


@pytest.mark.parametrize(
    ("broker", "configs"),
    [
        ({}, {"cleanup_policy": "archive"}),
        ({}, {"retention_ms": "a week"}),
        ({"log.retention.ms": "-7"}, {}),
        ({"log.cleanup.policy": "delete,shrink"}, {}),
    ],
)
def test_what_this_release_would_not_take_makes_a_topic_keep_everything(
    broker: dict[str, str], configs: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    found = life(broker, **configs)
    assert (found.deletes, found.compacts) == (False, False)
    assert "keeps all its records" in caplog.text


def test_the_rules_follow_the_catalogue_and_are_made_anew_where_they_changed_alone() -> None:
    store = sqlite_store(IN_MEMORY)
    store.new_topic("a", 1, **{"retention.ms": "1"})
    store.new_topic("b", partitions=2)
    store.run(_follows(store))
    store.close()


async def _follows(store: Store) -> None:
    catalogue = CatalogueService(store.metadata, store.clock, store.ids)
    policies = Policies(catalogue)
    assert list(policies()) == []
    await catalogue.refresh()
    first = policies()
    assert [(found.name, found.retention_ms, len(found.logs)) for found in first] == [
        ("a", 1, 1),
        ("b", 604_800_000, 2),
    ]
    assert policies() is first
    await catalogue.change_entries(EntryKind.QUOTA, lambda _: [EntryChange("q", "1")])
    assert policies() is first, "no topic has changed"
    await catalogue.set_topic_configs("a", lambda _: {"retention.ms": "2"})
    second = policies()
    assert [found.retention_ms for found in second] == [2, 604_800_000]
    assert second[1] is first[1]
    await catalogue.change_entries(EntryKind.CONFIG, lambda _: [EntryChange("log.retention.ms", "9")])
    assert [found.retention_ms for found in policies()] == [2, 9]
    await catalogue.delete([second[0].topic_id])
    assert [found.name for found in policies()] == ["b"]

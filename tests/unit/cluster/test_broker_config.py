"""Broker configs as DescribeConfigs shows them."""

from __future__ import annotations

from warp.cluster.broker_config import BROKER_CONFIGS, describe_broker
from warp.cluster.config_definition import ConfigSource, Synonym
from warp.cluster.topic_config import TOPIC_CONFIGS


def test_broker_configs_are_listed_once_each_by_name() -> None:
    names = [definition.name for definition in BROKER_CONFIGS]
    assert names == sorted(set(names))
    assert {"auto.create.topics.enable", "num.partitions", "node.id", "log.retention.ms"} <= set(names)


def test_every_topic_config_with_a_synonym_has_its_default_among_them() -> None:
    described = {entry.name: entry.value for entry in describe_broker({})}
    for definition in TOPIC_CONFIGS:
        for name in definition.synonyms[:1]:
            assert described[name] == definition.default


def test_settings_of_the_agent_come_before_defaults() -> None:
    described = {entry.name: entry for entry in describe_broker({"num.partitions": "6"})}
    entry = described["num.partitions"]
    assert (entry.value, entry.source, entry.is_read_only) == ("6", ConfigSource.STATIC_BROKER, False)
    assert entry.synonyms == (
        Synonym("num.partitions", "6", ConfigSource.STATIC_BROKER),
        Synonym("num.partitions", "1", ConfigSource.DEFAULT),
    )
    assert described["delete.topic.enable"].source == ConfigSource.DEFAULT
    assert described["listeners"].is_read_only

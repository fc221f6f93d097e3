"""Configs of the whole cluster: which there are, what they take, and what holds at an agent."""

from __future__ import annotations

import logging

import pytest

from warp.cluster.broker_config import BROKER_CONFIGS, describe_broker, describe_dynamic
from warp.cluster.cluster_config import (
    BrokerDefaults,
    dynamic_definition,
    dynamic_value,
    entry_changes,
    why_not_of_one_agent,
)
from warp.cluster.config_definition import ConfigSource, Synonym
from warp.cluster.topic_config import TOPIC_CONFIGS, topic_rules
from warp.config_options import OPTIONS
from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import EntryChange

OTHERS = {
    "auto.create.topics.enable",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "num.partitions",
}


def refusal(wanted: dict[str, str], current: dict[str, str] | None = None) -> str:
    with pytest.raises(KafkaError) as refused:
        entry_changes(current or {}, wanted)
    assert refused.value.code == ErrorCode.INVALID_CONFIG
    return refused.value.message


def test_the_defaults_of_all_topic_configs_and_a_few_more_are_dynamic() -> None:
    defaults = {definition.synonyms[0] for definition in TOPIC_CONFIGS if definition.synonyms}
    assert {definition.name for definition in BROKER_CONFIGS if definition.is_dynamic} == defaults | OTHERS


def test_every_option_that_is_named_exists() -> None:
    flags = {option.flag for option in OPTIONS}
    named = {definition.flag for definition in BROKER_CONFIGS if definition.flag}
    assert named
    assert named <= flags


@pytest.mark.parametrize(
    "definition", [each for each in BROKER_CONFIGS if each.is_dynamic], ids=lambda each: each.name
)
def test_every_default_can_be_set(definition: object) -> None:
    name, default = definition.name, definition.default  # type: ignore[attr-defined]
    assert entry_changes({}, {name: default}) == [EntryChange(name, default)]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num.partitions", "0", "be at least 1"),
        ("num.partitions", "10001", "be at most 10000"),
        ("num.partitions", "", "be a whole number"),
        ("default.replication.factor", "32768", "be at most 32767"),
        ("auto.create.topics.enable", "yes", "be true or false"),
        ("fetch.max.bytes", "1023", "be at least 1024"),
        ("log.retention.ms", "-2", "be at least -1"),
        ("log.cleanup.policy", "shred", "be a list of delete, compact"),
        ("compression.type", "lzma", "be one of"),
        ("message.max.bytes", "9" * 40_000, "longer than 32767 characters"),
    ],
)
def test_values_that_can_not_be_taken_are_refused_with_the_name(name: str, value: str, words: str) -> None:
    message = refusal({name: value})
    assert name in message
    assert words in message
    assert len(message) < 300


def test_a_wrong_config_beside_good_ones_is_refused() -> None:
    good = {"num.partitions": "3", "compression.type": "lz4"}
    assert "log.retention.ms" in refusal({**good, "log.retention.ms": "soon"})
    assert "--listen" in refusal({**good, "listeners": "x"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("listeners", "give each agent the option --listen"),
        ("max.connections", "give each agent the option --connections-max"),
        ("broker.id", "it is fixed"),
        ("log.retention.hours", "set log.retention.ms, in milliseconds"),
        ("log.retention.minutes", "set log.retention.ms, in milliseconds"),
        ("log.roll.hours", "set log.roll.ms, in milliseconds"),
        ("log.message.timestamp.difference.max.ms", "Kafka 4 removed it"),
        ("log.retentoin.ms", "Unknown broker config name: log.retentoin.ms; did you mean log.retention.ms?"),
        ("x" * 30_000, "Unknown broker config name: xxx"),
    ],
)
def test_what_can_not_be_set_for_the_cluster_says_what_to_do(name: str, words: str) -> None:
    message = refusal({name: "1"})
    assert words in message
    assert len(message) < 300
    with pytest.raises(KafkaError, match=r"Unknown|not supported|be set"):
        dynamic_definition(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("listeners", "start the agent with --listen"),
        ("num.partitions", r"the whole cluster \(.*\) or start the agent with --num-partitions"),
        ("log.retention.ms", r"set it for the whole cluster \(the broker with the empty name\)$"),
        ("node.id", ": it is fixed"),
        ("log.retention.hours", "set log.retention.ms"),
        ("nonsense", "Unknown broker config name"),
    ],
)
def test_what_can_not_be_set_for_one_agent_says_what_to_do(name: str, words: str) -> None:
    error = why_not_of_one_agent(name)
    assert error.code == ErrorCode.INVALID_CONFIG
    with pytest.raises(KafkaError, match=words):
        raise error


def test_changes_are_what_differs() -> None:
    current = {"num.partitions": "3", "log.retention.ms": "5"}
    assert entry_changes(current, current) == []
    assert entry_changes(current, {"num.partitions": "3", "compression.type": "lz4"}) == [
        EntryChange("compression.type", "lz4"),
        EntryChange("log.retention.ms", None),
    ]


def test_configs_of_a_later_release_are_left_alone_but_by_a_replacement() -> None:
    current = {"later.config": "1"}
    assert entry_changes(current, {**current, "num.partitions": "3"}) == [EntryChange("num.partitions", "3")]
    assert entry_changes(current, {}) == [EntryChange("later.config", None)]


def test_compaction_lags_are_compared_with_those_that_stay() -> None:
    least, most = "log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"
    assert refusal({most: "4", least: "5"}, {most: "4"}) == f"{least} (5) must not be above {most} (4)"
    assert entry_changes({most: "4"}, {most: "4", least: "4"}) == [EntryChange(least, "4")]


def test_the_cluster_goes_before_the_agent_and_the_agent_before_kafka() -> None:
    static = {"num.partitions": "7", "message.max.bytes": "1048588", "auto.create.topics.enable": "true"}
    own = BrokerDefaults(static)
    assert (own.partitions, own.replication_factor, own.fetch_bytes_max) == (7, 1, 57_671_680)
    assert (own.auto_create_topics, own.delete_topics) == (True, True)
    assert dict(own.values) == {"num.partitions": "7"}, "what is Kafka's default anyway is not set"
    dynamic = {
        "num.partitions": " 3 ",
        "default.replication.factor": "2",
        "auto.create.topics.enable": "FALSE",
        "delete.topic.enable": "false",
        "fetch.max.bytes": "2048",
    }
    both = BrokerDefaults(static, dynamic)
    assert (both.partitions, both.replication_factor, both.fetch_bytes_max) == (3, 2, 2048)
    assert (both.auto_create_topics, both.delete_topics) == (False, False)
    assert dynamic_value(both.static, "num.partitions") == "7"
    assert dynamic_value(both.static, "log.cleanup.policy") == "delete"


def test_what_this_release_can_not_take_is_not_heeded_but_told(caplog: pytest.LogCaptureFixture) -> None:
    stored = {"num.partitions": "many", "later.config": "1", "listeners": "x", "log.retention.ms": "5"}
    with caplog.at_level(logging.WARNING):
        defaults = BrokerDefaults({}, stored)
    assert dict(defaults.dynamic) == {"log.retention.ms": "5"}
    assert defaults.partitions == 1
    assert len(caplog.records) == 3


def test_rules_of_topics_follow_the_cluster() -> None:
    defaults = BrokerDefaults({"message.max.bytes": "5000"}, {"message.max.bytes": "6000"})
    assert topic_rules({}, defaults.values).max_message_bytes == 6000
    assert topic_rules({"max.message.bytes": "7000"}, defaults.values).max_message_bytes == 7000


def test_the_whole_cluster_is_described_by_what_was_set() -> None:
    assert describe_dynamic({}) == []
    [entry] = describe_dynamic({"num.partitions": "3"})
    assert (entry.value, entry.source, entry.is_read_only) == (
        "3",
        ConfigSource.DYNAMIC_DEFAULT_BROKER,
        False,
    )
    assert entry.synonyms == (
        Synonym("num.partitions", "3", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        Synonym("num.partitions", "1", ConfigSource.DEFAULT),
    )


def test_a_broker_is_described_with_all_places_of_a_value() -> None:
    described = {
        entry.name: entry for entry in describe_broker({"num.partitions": "7"}, {"num.partitions": "3"})
    }
    assert [(value, source) for _, value, source in described["num.partitions"].synonyms] == [
        ("3", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        ("7", ConfigSource.STATIC_BROKER),
        ("1", ConfigSource.DEFAULT),
    ]


def test_secrets_are_described_without_their_values() -> None:
    described = {entry.name: entry for entry in describe_broker({"ssl.key.password": "hunter2"})}
    secret = described["ssl.key.password"]
    assert secret.is_sensitive
    assert secret.value is None
    assert secret.synonyms
    assert all(synonym.value is None for synonym in secret.synonyms)
    assert "hunter2" not in repr(described)


def test_a_lag_that_a_later_release_has_set_is_not_compared() -> None:
    current = {"log.cleaner.min.compaction.lag.ms": "short"}
    changes = entry_changes(current, current | {"num.partitions": "3"})
    assert changes == [EntryChange("num.partitions", "3")]

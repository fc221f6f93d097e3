"""Topic configs: Kafka's names, defaults and checks."""

from __future__ import annotations

import pytest

from warp.cluster.config_definition import ConfigSource, ConfigType, Synonym
from warp.cluster.topic_config import (
    BY_NAME,
    REMOVED_CONFIGS,
    TOPIC_CONFIGS,
    check_topic_configs,
    describe_topic,
    topic_rules,
)
from warp.errors import ErrorCode, KafkaError
from warp.log.model import CREATE_TIME, LOG_APPEND_TIME, TopicRules

LONG_MAX = str(2**63 - 1)

# Kafka's own defaults, for tools compare with them.
KAFKA_DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "file.delete.delay.ms": "60000",
    "flush.messages": LONG_MAX,
    "flush.ms": LONG_MAX,
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": LONG_MAX,
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": LONG_MAX,
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}


def test_every_config_of_kafka_is_there_with_its_default() -> None:
    assert {definition.name: definition.default for definition in TOPIC_CONFIGS} == KAFKA_DEFAULTS
    assert [definition.name for definition in TOPIC_CONFIGS] == sorted(KAFKA_DEFAULTS)


@pytest.mark.parametrize("definition", TOPIC_CONFIGS, ids=lambda definition: definition.name)
def test_every_default_can_be_set(definition: object) -> None:
    name = definition.name  # type: ignore[attr-defined]
    assert check_topic_configs({name: KAFKA_DEFAULTS[name]}) == {name: KAFKA_DEFAULTS[name]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact, delete"),
        ("cleanup.policy", ""),
        ("compression.gzip.level", "9"),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "-131072"),
        ("flush.ms", "0"),
        ("leader.replication.throttled.replicas", "*"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("max.message.bytes", "0"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "1"),
        ("min.cleanable.dirty.ratio", "1e-3"),
        ("preallocate", "TRUE"),
        ("retention.ms", "-1"),
        ("retention.ms", " 5 "),
        ("segment.bytes", "1048576"),
    ],
)
def test_values_that_kafka_takes_are_taken(name: str, value: str) -> None:
    assert check_topic_configs({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cleanup.policy", "compress", "be a list of delete, compact"),
        ("cleanup.policy", "delete,delete", "name nothing twice"),
        ("cleanup.policy", "delete,", "be a list"),
        ("compression.gzip.level", "0", "be -1 or be at least 1"),
        ("compression.gzip.level", "ten", "be -1 or be a whole number"),
        ("compression.lz4.level", "18", "be at most 17"),
        ("compression.type", "ZSTD", "be one of producer, uncompressed"),
        ("flush.messages", "0", "be at least 1"),
        ("leader.replication.throttled.replicas", "0:1,", "PARTITION:BROKER"),
        ("max.message.bytes", "2147483648", "be at most 2147483647"),
        ("max.message.bytes", "-1", "be at least 0"),
        ("message.timestamp.type", "createtime", "CreateTime, LogAppendTime"),
        ("min.cleanable.dirty.ratio", "1.01", "be from 0 to 1"),
        ("min.cleanable.dirty.ratio", "nan", "be a number"),
        ("min.cleanable.dirty.ratio", "1e999", "be a number"),
        ("preallocate", "yes", "be true or false"),
        ("retention.ms", "-2", "be at least -1"),
        ("retention.ms", "1.5", "be a whole number"),
        ("retention.ms", "", "be a whole number"),
        ("retention.ms", "9223372036854775808", "be at most 9223372036854775807"),
        ("retention.ms", "\uff19", "be a whole number"),
        ("segment.bytes", "1048575", "be at least 1048576"),
    ],
)
def test_values_that_kafka_refuses_are_refused_with_the_name(name: str, value: str, words: str) -> None:
    with pytest.raises(KafkaError) as refused:
        check_topic_configs({name: value})
    assert refused.value.code == ErrorCode.INVALID_CONFIG
    assert name in refused.value.message
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("retention.msec", "; did you mean retention.ms?"),
        ("cleanup-policy", "; did you mean cleanup.policy?"),
        ("max.message.size", "; did you mean max.message.bytes?"),
        ("zzzzzz", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(KafkaError) as refused:
        check_topic_configs({"retention.ms": "1", name: "1"})
    assert refused.value.code == ErrorCode.INVALID_CONFIG
    assert refused.value.message == f"Unknown topic config name: {name}{nearest}"


def test_no_value_and_a_giant_one_are_refused() -> None:
    with pytest.raises(KafkaError, match=r"Null value not supported for topic config: retention\.ms"):
        check_topic_configs({"retention.ms": None})
    with pytest.raises(KafkaError, match="longer than 32767 characters"):
        check_topic_configs({"leader.replication.throttled.replicas": "0:1," * 10_000})


def test_messages_do_not_grow_with_what_they_quote() -> None:
    for configs in ({"x" * 30_000: "1"}, {"retention.ms": "9" * 30_000}):
        with pytest.raises(KafkaError) as refused:
            check_topic_configs(configs)
        assert len(refused.value.message) < 300


def test_compaction_lags_are_compared() -> None:
    with pytest.raises(KafkaError, match=r"min.compaction.lag.ms \(5\) must not be above"):
        check_topic_configs({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "4"})
    assert check_topic_configs({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"})


def test_rules_without_configs_are_kafkas_defaults() -> None:
    assert topic_rules({}, {}) == TopicRules()


def test_rules_follow_the_topic_then_the_broker_then_the_default() -> None:
    overrides = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact,delete",
        "message.timestamp.after.max.ms": " 7 ",
        "message.timestamp.before.max.ms": "8",
        "segment.bytes": "2000000",
        "compression.type": "lz4",
    }
    broker = {"message.max.bytes": "5000", "log.message.timestamp.type": "CreateTime", "num.partitions": "3"}
    assert topic_rules(overrides, broker) == TopicRules(
        max_message_bytes=5000,
        timestamp_type=LOG_APPEND_TIME,
        timestamp_before_max_ms=8,
        timestamp_after_max_ms=7,
        is_compacted=True,
        segment_bytes=2_000_000,
        compression="lz4",
    )
    assert topic_rules({"max.message.bytes": "6"}, broker).max_message_bytes == 6
    assert topic_rules({}, broker).timestamp_type == CREATE_TIME


def test_every_config_is_described_with_its_source() -> None:
    described = {
        entry.name: entry for entry in describe_topic({"retention.ms": "5"}, {"message.max.bytes": "7"})
    }
    assert list(described) == sorted(BY_NAME)
    retention = described["retention.ms"]
    assert (retention.value, retention.source, retention.type) == ("5", ConfigSource.TOPIC, ConfigType.LONG)
    assert retention.synonyms == (
        Synonym("retention.ms", "5", ConfigSource.TOPIC),
        Synonym("log.retention.ms", "604800000", ConfigSource.DEFAULT),
    )
    largest = described["max.message.bytes"]
    assert (largest.value, largest.source) == ("7", ConfigSource.STATIC_BROKER)
    assert largest.synonyms == (
        Synonym("message.max.bytes", "7", ConfigSource.STATIC_BROKER),
        Synonym("message.max.bytes", "1048588", ConfigSource.DEFAULT),
    )
    untouched = described["cleanup.policy"]
    assert (untouched.value, untouched.source) == ("delete", ConfigSource.DEFAULT)
    assert all(entry.documentation and not entry.is_read_only for entry in described.values())


def test_configs_that_kafka_has_removed_are_refused_with_the_reason() -> None:
    for name, reason in REMOVED_CONFIGS.items():
        with pytest.raises(KafkaError) as refused:
            check_topic_configs({name: "1"})
        assert refused.value.code == ErrorCode.INVALID_CONFIG
        assert refused.value.message == f"Topic config {name} is not supported: {reason}"


def test_compaction_lags_are_compared_with_what_the_cluster_says() -> None:
    broker = {"log.cleaner.max.compaction.lag.ms": "4"}
    with pytest.raises(KafkaError, match=r"min.compaction.lag.ms \(5\) must not be above"):
        check_topic_configs({"min.compaction.lag.ms": "5"}, broker)
    assert check_topic_configs({"min.compaction.lag.ms": "4"}, broker)


@pytest.mark.parametrize(
    ("overrides", "level"),
    [
        ({"compression.gzip.level": "1"}, None),
        ({"compression.type": "snappy", "compression.gzip.level": "1"}, None),
        ({"compression.type": "gzip"}, None),
        ({"compression.type": "gzip", "compression.gzip.level": "1"}, 1),
        ({"compression.type": "lz4", "compression.lz4.level": "9"}, None),
        ({"compression.type": "lz4", "compression.lz4.level": "17"}, 12),
        ({"compression.type": "zstd", "compression.zstd.level": "3"}, None),
        ({"compression.type": "zstd", "compression.zstd.level": "22"}, 19),
        ({"compression.type": "zstd", "compression.zstd.level": "-5"}, -5),
    ],
)
def test_the_level_of_compression_is_that_of_the_codec_in_bounds(
    overrides: dict[str, str], level: int | None
) -> None:
    assert topic_rules(overrides, {}).compression_level == level


def test_the_cluster_stands_between_the_topic_and_the_agent() -> None:
    name = "message.max.bytes"
    described = describe_topic({"max.message.bytes": "5"}, {name: "7"}, {name: "6"})
    assert [
        (synonym.value, synonym.source)
        for entry in described
        if entry.name == "max.message.bytes"
        for synonym in entry.synonyms
    ] == [
        ("5", ConfigSource.TOPIC),
        ("6", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        ("7", ConfigSource.STATIC_BROKER),
        ("1048588", ConfigSource.DEFAULT),
    ]


OF_A_LATER_RELEASE = {
    "max.message.bytes": "1 MiB",
    "compression.type": "zstd",
    "compression.zstd.level": "best",
    "x": "",
}


def test_what_this_release_can_not_take_is_not_heeded_but_told(caplog: pytest.LogCaptureFixture) -> None:
    rules = topic_rules(OF_A_LATER_RELEASE, {"message.max.bytes": "5000"})
    assert (rules.max_message_bytes, rules.compression, rules.compression_level) == (5000, "zstd", None)
    assert len(caplog.records) == 3


def test_what_a_later_release_has_set_may_stay_and_nothing_else() -> None:
    current = OF_A_LATER_RELEASE | {"min.compaction.lag.ms": "short"}
    changed = current | {"retention.ms": "5"}
    assert check_topic_configs(changed, {}, current) == changed
    for name in ("x", "max.message.bytes", "min.compaction.lag.ms"):
        with pytest.raises(KafkaError, match=name):
            check_topic_configs(current | {name: "y"}, {}, current)

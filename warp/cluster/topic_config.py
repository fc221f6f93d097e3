"""Topic configs: every one that Kafka knows, what it takes, and what it means here.

All of Kafka's are accepted, with its checks, because tools set many of them by habit; those that describe local files
and replicas have no effect in a system that has neither, and say so. A name that Kafka does not know is refused, with
the nearest one that it does.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from warp.cluster.config_definition import (
    INT_MAX,
    LONG_MAX,
    ConfigDefinition,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Synonym,
    boolean,
    double,
    either,
    integer,
    list_of,
    one_of,
    shown,
    split_list,
    throttled_replicas,
)
from warp.errors import ErrorCode, KafkaError
from warp.log.model import CREATE_TIME, LOG_APPEND_TIME, TopicRules

CONFIG_VALUE_CHARACTERS_MAX = 32_767
"""What Kafka's own records can hold."""

_NO_EFFECT = "Accepted for compatibility; has no effect here, "
_NO_LOCAL_FILES = _NO_EFFECT + "because there are no local log files."
_NO_REPLICAS = _NO_EFFECT + "because the object store keeps the data safe, not replicas."
_NO_TIERS = _NO_EFFECT + "because all data is in the object store from the start."

TOPIC_CONFIGS: tuple[ConfigDefinition, ...] = (
    ConfigDefinition(
        "cleanup.policy", ConfigType.LIST, "delete", list_of("delete", "compact"),
        "What happens to old records: delete them by time and size, compact them to the last one per key, or both; "
        "empty keeps everything.",
        ("log.cleanup.policy",),
    ),
    ConfigDefinition(
        "compression.gzip.level", ConfigType.INT, "-1", either(-1, integer(1, 9)),
        "Level for gzip, should the broker compress; not used yet, the library's own default is.",
        ("compression.gzip.level",),
    ),
    ConfigDefinition(
        "compression.lz4.level", ConfigType.INT, "9", integer(1, 17),
        "Level for lz4, should the broker compress; not used yet, the library's own default is.",
        ("compression.lz4.level",),
    ),
    ConfigDefinition(
        "compression.type", ConfigType.STRING, "producer",
        one_of("producer", "uncompressed", "zstd", "lz4", "snappy", "gzip"),
        "How records are stored: producer keeps what the producer chose.",
        ("compression.type",),
    ),
    ConfigDefinition(
        "compression.zstd.level", ConfigType.INT, "3", integer(-131_072, 22),
        "Level for zstd, should the broker compress; not used yet, the library's own default is.",
        ("compression.zstd.level",),
    ),
    ConfigDefinition(
        "delete.retention.ms", ConfigType.LONG, "86400000", integer(0, LONG_MAX),
        "How long a compacted topic keeps the markers of deleted keys, in milliseconds.",
        ("log.cleaner.delete.retention.ms",),
    ),
    ConfigDefinition(
        "file.delete.delay.ms", ConfigType.LONG, "60000", integer(0, LONG_MAX),
        _NO_LOCAL_FILES,
        ("log.segment.delete.delay.ms",),
    ),
    ConfigDefinition(
        "flush.messages", ConfigType.LONG, str(LONG_MAX), integer(1, LONG_MAX),
        _NO_EFFECT + "because everything is durable before it is acknowledged.",
        ("log.flush.interval.messages",),
    ),
    ConfigDefinition(
        "flush.ms", ConfigType.LONG, str(LONG_MAX), integer(0, LONG_MAX),
        _NO_EFFECT + "because everything is durable before it is acknowledged.",
        ("log.flush.interval.ms",),
    ),
    ConfigDefinition(
        "follower.replication.throttled.replicas", ConfigType.LIST, "", throttled_replicas,
        _NO_REPLICAS,
    ),
    ConfigDefinition(
        "index.interval.bytes", ConfigType.INT, "4096", integer(0, INT_MAX),
        _NO_LOCAL_FILES,
        ("log.index.interval.bytes",),
    ),
    ConfigDefinition(
        "leader.replication.throttled.replicas", ConfigType.LIST, "", throttled_replicas,
        _NO_REPLICAS,
    ),
    ConfigDefinition(
        "local.retention.bytes", ConfigType.LONG, "-2", integer(-2, LONG_MAX),
        _NO_TIERS,
        ("log.local.retention.bytes",),
    ),
    ConfigDefinition(
        "local.retention.ms", ConfigType.LONG, "-2", integer(-2, LONG_MAX),
        _NO_TIERS,
        ("log.local.retention.ms",),
    ),
    ConfigDefinition(
        "max.compaction.lag.ms", ConfigType.LONG, str(LONG_MAX), integer(1, LONG_MAX),
        "The longest that a record of a compacted topic stays uncompacted, in milliseconds.",
        ("log.cleaner.max.compaction.lag.ms",),
    ),
    ConfigDefinition(
        "max.message.bytes", ConfigType.INT, "1048588", integer(0, INT_MAX),
        "The largest record batch that is accepted, in bytes, compressed as it comes.",
        ("message.max.bytes",),
    ),
    ConfigDefinition(
        "message.timestamp.after.max.ms", ConfigType.LONG, "3600000", integer(0, LONG_MAX),
        "How far a record's timestamp may lie in the future, in milliseconds.",
        ("log.message.timestamp.after.max.ms",),
    ),
    ConfigDefinition(
        "message.timestamp.before.max.ms", ConfigType.LONG, str(LONG_MAX), integer(0, LONG_MAX),
        "How far a record's timestamp may lie in the past, in milliseconds.",
        ("log.message.timestamp.before.max.ms",),
    ),
    ConfigDefinition(
        "message.timestamp.type", ConfigType.STRING, "CreateTime", one_of("CreateTime", "LogAppendTime"),
        "Whose clock gives records their timestamps: the producer's or the broker's.",
        ("log.message.timestamp.type",),
    ),
    ConfigDefinition(
        "min.cleanable.dirty.ratio", ConfigType.DOUBLE, "0.5", double(0, 1),
        "How large a part of a compacted log has to be uncompacted before it is compacted again.",
        ("log.cleaner.min.cleanable.ratio",),
    ),
    ConfigDefinition(
        "min.compaction.lag.ms", ConfigType.LONG, "0", integer(0, LONG_MAX),
        "The least time that a record of a compacted topic stays uncompacted, in milliseconds.",
        ("log.cleaner.min.compaction.lag.ms",),
    ),
    ConfigDefinition(
        "min.insync.replicas", ConfigType.INT, "1", integer(1, INT_MAX),
        _NO_REPLICAS,
        ("min.insync.replicas",),
    ),
    ConfigDefinition(
        "preallocate", ConfigType.BOOLEAN, "false", boolean,
        _NO_LOCAL_FILES,
        ("log.preallocate",),
    ),
    ConfigDefinition(
        "remote.log.copy.disable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
    ),
    ConfigDefinition(
        "remote.log.delete.on.disable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
    ),
    ConfigDefinition(
        "remote.storage.enable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
    ),
    ConfigDefinition(
        "retention.bytes", ConfigType.LONG, "-1", integer(-1, LONG_MAX),
        "How many bytes a partition keeps before the oldest records are deleted; -1 is no limit.",
        ("log.retention.bytes",),
    ),
    ConfigDefinition(
        "retention.ms", ConfigType.LONG, "604800000", integer(-1, LONG_MAX),
        "How long records are kept before they are deleted, in milliseconds; -1 is for ever.",
        ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
    ),
    ConfigDefinition(
        "segment.bytes", ConfigType.INT, "1073741824", integer(1024 * 1024, INT_MAX),
        "An upper bound on the size of a record batch; segments are shared by all partitions here.",
        ("log.segment.bytes",),
    ),
    ConfigDefinition(
        "segment.index.bytes", ConfigType.INT, "10485760", integer(4, INT_MAX),
        _NO_LOCAL_FILES,
        ("log.index.size.max.bytes",),
    ),
    ConfigDefinition(
        "segment.jitter.ms", ConfigType.LONG, "0", integer(0, LONG_MAX),
        _NO_LOCAL_FILES,
        ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    ),
    ConfigDefinition(
        "segment.ms", ConfigType.LONG, "604800000", integer(1, LONG_MAX),
        _NO_LOCAL_FILES,
        ("log.roll.ms", "log.roll.hours"),
    ),
    ConfigDefinition(
        "unclean.leader.election.enable", ConfigType.BOOLEAN, "false", boolean,
        _NO_REPLICAS,
        ("unclean.leader.election.enable",),
    ),
)  # fmt: skip

BY_NAME: Mapping[str, ConfigDefinition] = {definition.name: definition for definition in TOPIC_CONFIGS}


def check_topic_configs(configs: Mapping[str, str | None]) -> dict[str, str]:
    """The configs, once all are known and each value can be taken, also beside the others.

    Raises KafkaError (INVALID_CONFIG) that names the first wrong one.
    """
    checked: dict[str, str] = {}
    for name, value in configs.items():
        definition = BY_NAME.get(name)
        if definition is None:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {shown(name)}{_nearest(name)}"
            )
        if value is None:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic config: {name}")
        if len(value) > CONFIG_VALUE_CHARACTERS_MAX:
            problem = f"Value of {name} is longer than {CONFIG_VALUE_CHARACTERS_MAX} characters"
            raise KafkaError(ErrorCode.INVALID_CONFIG, problem)
        problem_found = definition.problem(value)
        if problem_found is not None:
            raise KafkaError(ErrorCode.INVALID_CONFIG, problem_found)
        checked[name] = value
    least_lag_ms = int(effective(checked, {}, "min.compaction.lag.ms"))
    most_lag_ms = int(effective(checked, {}, "max.compaction.lag.ms"))
    if least_lag_ms > most_lag_ms:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"min.compaction.lag.ms ({least_lag_ms}) must not be above max.compaction.lag.ms ({most_lag_ms})",
        )
    return checked


def effective(overrides: Mapping[str, str], broker: Mapping[str, str], name: str) -> str:
    """The value that holds: the topic's own, else the broker's (by the broker's name for it), else the default."""
    return _sources(BY_NAME[name], overrides, broker)[0].value.strip()


def topic_rules(overrides: Mapping[str, str], broker: Mapping[str, str]) -> TopicRules:
    """What an append has to know of the topic's configs. `broker` holds the agent's own settings by Kafka's names."""

    def number(name: str) -> int:
        return int(effective(overrides, broker, name))

    append_time = effective(overrides, broker, "message.timestamp.type") == "LogAppendTime"
    return TopicRules(
        max_message_bytes=number("max.message.bytes"),
        timestamp_type=LOG_APPEND_TIME if append_time else CREATE_TIME,
        timestamp_before_max_ms=number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms=number("message.timestamp.after.max.ms"),
        is_compacted="compact" in split_list(effective(overrides, broker, "cleanup.policy")),
        segment_bytes=number("segment.bytes"),
        compression=effective(overrides, broker, "compression.type"),
    )


def describe_topic(overrides: Mapping[str, str], broker: Mapping[str, str]) -> list[ConfigEntry]:
    """Every topic config with its value and where it comes from, by name."""
    entries = []
    for definition in TOPIC_CONFIGS:
        synonyms = _sources(definition, overrides, broker)
        entries.append(
            ConfigEntry(
                name=definition.name,
                value=synonyms[0].value,
                source=synonyms[0].source,
                type=definition.type,
                is_read_only=False,
                documentation=definition.documentation,
                synonyms=synonyms,
            )
        )
    return entries


def _sources(
    definition: ConfigDefinition, overrides: Mapping[str, str], broker: Mapping[str, str]
) -> tuple[Synonym, ...]:
    """All places that give the config a value, the one that holds first."""
    found = []
    if definition.name in overrides:
        found.append(Synonym(definition.name, overrides[definition.name], ConfigSource.TOPIC))
    # The broker's other names for a time are in minutes or hours: the agent is set in milliseconds alone.
    name = definition.synonyms[0] if definition.synonyms else definition.name
    if name in broker:
        found.append(Synonym(name, broker[name], ConfigSource.STATIC_BROKER))
    found.append(Synonym(name, definition.default, ConfigSource.DEFAULT))
    return tuple(found)


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, list(BY_NAME), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""

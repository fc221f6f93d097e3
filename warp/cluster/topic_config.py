"""Topic configs: every one that Kafka knows, what it takes, and what it means here.

All of Kafka's are accepted, with its checks, because tools set many of them by habit; those that describe local files
and replicas have no effect in a system that has neither, and say so. A name that Kafka does not know is refused, with
the nearest one that it does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from warp.cluster.config_definition import (
    INT_MAX,
    LONG_MAX,
    ConfigDefinition,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Effect,
    Synonym,
    boolean,
    double,
    either,
    integer,
    list_of,
    nearest,
    one_of,
    shown,
    split_list,
    throttled_replicas,
)
from warp.errors import ErrorCode, KafkaError
from warp.log.model import CREATE_TIME, LOG_APPEND_TIME, TopicRules

logger = logging.getLogger(__name__)

CONFIG_VALUE_CHARACTERS_MAX = 32_767
"""What Kafka's own records can hold."""

LEAST_LAG = "min.compaction.lag.ms"
MOST_LAG = "max.compaction.lag.ms"

_NO_EFFECT = "Accepted for compatibility; has no effect here, "
_NO_LOCAL_FILES = _NO_EFFECT + "because there are no local log files."
_NO_LOG_SEGMENTS = (
    _NO_EFFECT + "because records are deleted by extents of at most 4 MiB, not by log segments."
)
_NO_REPLICAS = _NO_EFFECT + "because the object store keeps the data safe, not replicas."
_NO_TIERS = _NO_EFFECT + "because all data is in the object store from the start."

COMPRESSION_LEVEL_MAX = {"gzip": 9, "lz4": 12, "zstd": 19}
"""The highest levels that are used, whatever is set: those of zstd above cost memory beyond any bound of an agent's."""

REMOVED_CONFIGS: Mapping[str, str] = {
    "message.downconversion.enable": "Kafka 4 removed it: records are stored and sent in their newest format alone",
    "message.format.version": "Kafka 4 removed it: records are stored and sent in their newest format alone",
    "message.timestamp.difference.max.ms": "Kafka 4 removed it; use message.timestamp.before.max.ms and "
    "message.timestamp.after.max.ms",
}
"""Topic configs of older Kafka releases, each with why it is refused."""

TOPIC_CONFIGS: tuple[ConfigDefinition, ...] = (
    ConfigDefinition(
        "cleanup.policy", ConfigType.LIST, "delete", list_of("delete", "compact"),
        "What happens to old records: delete them by time and size, compact them to the last one per key, or both; "
        "empty keeps everything. With compact records need keys, and without delete DeleteRecords is refused. It may "
        "be changed at any time; records without key that are there already go when the log is compacted.",
        ("log.cleanup.policy",),
    ),
    ConfigDefinition(
        "compression.gzip.level", ConfigType.INT, "-1", either(-1, integer(1, 9)),
        "Level for gzip, where compression.type makes the broker compress; -1 is zlib's default.",
        ("compression.gzip.level",),
    ),
    ConfigDefinition(
        "compression.lz4.level", ConfigType.INT, "9", integer(1, 17),
        "Level for lz4, where compression.type makes the broker compress; 9 is the fast compressor, as in Kafka, and "
        "levels above 12 count as 12.",
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
        "Level for zstd, where compression.type makes the broker compress; levels above 19, which take hundreds of "
        "megabytes for a batch, count as 19.",
        ("compression.zstd.level",),
    ),
    ConfigDefinition(
        "delete.retention.ms", ConfigType.LONG, "86400000", integer(0, LONG_MAX),
        "How long the markers of deleted keys stay in a compacted topic, in milliseconds, counted from the first time "
        "that they were compacted; the first compaction after that drops them.",
        ("log.cleaner.delete.retention.ms",),
    ),
    ConfigDefinition(
        "file.delete.delay.ms", ConfigType.LONG, "60000", integer(0, LONG_MAX),
        _NO_LOCAL_FILES,
        ("log.segment.delete.delay.ms",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "flush.messages", ConfigType.LONG, str(LONG_MAX), integer(1, LONG_MAX),
        _NO_EFFECT + "because everything is durable before it is acknowledged.",
        ("log.flush.interval.messages",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "flush.ms", ConfigType.LONG, str(LONG_MAX), integer(0, LONG_MAX),
        _NO_EFFECT + "because everything is durable before it is acknowledged.",
        ("log.flush.interval.ms",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "follower.replication.throttled.replicas", ConfigType.LIST, "", throttled_replicas,
        _NO_REPLICAS,
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "index.interval.bytes", ConfigType.INT, "4096", integer(0, INT_MAX),
        _NO_LOCAL_FILES,
        ("log.index.interval.bytes",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "leader.replication.throttled.replicas", ConfigType.LIST, "", throttled_replicas,
        _NO_REPLICAS,
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "local.retention.bytes", ConfigType.LONG, "-2", integer(-2, LONG_MAX),
        _NO_TIERS,
        ("log.local.retention.bytes",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "local.retention.ms", ConfigType.LONG, "-2", integer(-2, LONG_MAX),
        _NO_TIERS,
        ("log.local.retention.ms",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "max.compaction.lag.ms", ConfigType.LONG, str(LONG_MAX), integer(1, LONG_MAX),
        "How long a record of a compacted topic waits for compaction at most, in milliseconds: with an older one a "
        "log is compacted whatever min.cleanable.dirty.ratio says.",
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
        "How large a part of a compacted log's bytes has to be new before it is compacted again. Lower values keep "
        "logs smaller, and read and write them more often.",
        ("log.cleaner.min.cleanable.ratio",),
    ),
    ConfigDefinition(
        "min.compaction.lag.ms", ConfigType.LONG, "0", integer(0, LONG_MAX),
        "How long a record of a compacted topic stays as it is at least, in milliseconds. Counted by extents, which "
        "are at most 4 MiB: one stays as long as its newest record does, and what comes after it too.",
        ("log.cleaner.min.compaction.lag.ms",),
    ),
    ConfigDefinition(
        "min.insync.replicas", ConfigType.INT, "1", integer(1, INT_MAX),
        _NO_REPLICAS,
        ("min.insync.replicas",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "preallocate", ConfigType.BOOLEAN, "false", boolean,
        _NO_LOCAL_FILES,
        ("log.preallocate",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "remote.log.copy.disable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "remote.log.delete.on.disable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "remote.storage.enable", ConfigType.BOOLEAN, "false", boolean,
        _NO_TIERS,
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "retention.bytes", ConfigType.LONG, "-1", integer(-1, LONG_MAX),
        "How many bytes a partition keeps at least, before its oldest records are deleted; -1 is no limit. Holds where "
        "cleanup.policy names delete.",
        ("log.retention.bytes",),
    ),
    ConfigDefinition(
        "retention.ms", ConfigType.LONG, "604800000", integer(-1, LONG_MAX),
        "How long records are kept at least, by their timestamps, before they are deleted, in milliseconds; -1 is for "
        "ever. Holds where cleanup.policy names delete.",
        ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
    ),
    ConfigDefinition(
        "segment.bytes", ConfigType.INT, "1073741824", integer(1024 * 1024, INT_MAX),
        "An upper bound on the size of a record batch; segments are shared by all partitions here, and records are "
        "deleted by extents of at most 4 MiB.",
        ("log.segment.bytes",),
    ),
    ConfigDefinition(
        "segment.index.bytes", ConfigType.INT, "10485760", integer(4, INT_MAX),
        _NO_LOCAL_FILES,
        ("log.index.size.max.bytes",),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "segment.jitter.ms", ConfigType.LONG, "0", integer(0, LONG_MAX),
        _NO_LOG_SEGMENTS,
        ("log.roll.jitter.ms", "log.roll.jitter.hours"),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "segment.ms", ConfigType.LONG, "604800000", integer(1, LONG_MAX),
        _NO_LOG_SEGMENTS,
        ("log.roll.ms", "log.roll.hours"),
        effect=Effect.NONE,
    ),
    ConfigDefinition(
        "unclean.leader.election.enable", ConfigType.BOOLEAN, "false", boolean,
        _NO_REPLICAS,
        ("unclean.leader.election.enable",),
        effect=Effect.NONE,
    ),
)  # fmt: skip

BY_NAME: Mapping[str, ConfigDefinition] = {definition.name: definition for definition in TOPIC_CONFIGS}


def check_topic_configs(
    configs: Mapping[str, str | None],
    broker: Mapping[str, str] = MappingProxyType({}),
    current: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The configs, once all are known and each value can be taken, also beside the others.

    `broker` holds the values that apply to what the topic leaves open, by the broker's names. What is as the topic has
    it in `current` may stay, though this release does not know it: a later one has set it. Raises KafkaError
    (INVALID_CONFIG) that names the first wrong one.
    """
    checked: dict[str, str] = {}
    for name, value in configs.items():
        if value is not None and current.get(name) == value:
            checked[name] = value
            continue
        definition = topic_definition(name)
        if value is None:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic config: {name}")
        checked[name] = check_value(definition, value)
    sound = _sound(checked)
    check_lags(effective(sound, broker, LEAST_LAG), effective(sound, broker, MOST_LAG))
    return checked


def _sound(overrides: Mapping[str, str]) -> Mapping[str, str]:
    """A topic's configs without those that this release does not know or would not take: a later one has set them."""
    sound = {}
    for name, value in overrides.items():
        try:
            check_value(topic_definition(name), value)
        except KafkaError as error:
            logger.warning("a config of a topic is not heeded: %s", error.message)
        else:
            sound[name] = value
    return sound


def topic_definition(name: str) -> ConfigDefinition:
    """A topic config. Raises KafkaError (INVALID_CONFIG) for a name that is not known any more, or never was."""
    definition = BY_NAME.get(name)
    if definition is not None:
        return definition
    if name in REMOVED_CONFIGS:
        problem = f"Topic config {name} is not supported: {REMOVED_CONFIGS[name]}"
    else:
        problem = f"Unknown topic config name: {shown(name)}{nearest(name, BY_NAME)}"
    raise KafkaError(ErrorCode.INVALID_CONFIG, problem)


def check_value(definition: ConfigDefinition, value: str) -> str:
    """The value, if it can be taken. Raises KafkaError (INVALID_CONFIG)."""
    if len(value) > CONFIG_VALUE_CHARACTERS_MAX:
        problem = f"Value of {definition.name} is longer than {CONFIG_VALUE_CHARACTERS_MAX} characters"
        raise KafkaError(ErrorCode.INVALID_CONFIG, problem)
    problem_found = definition.problem(value)
    if problem_found is not None:
        raise KafkaError(ErrorCode.INVALID_CONFIG, problem_found)
    return value


def check_lags(least_ms: str, most_ms: str, names: tuple[str, str] = (LEAST_LAG, MOST_LAG)) -> None:
    """Raises KafkaError (INVALID_CONFIG) where records would have to be compacted before they may be."""
    if int(least_ms) > int(most_ms):
        problem = f"{names[0]} ({int(least_ms)}) must not be above {names[1]} ({int(most_ms)})"
        raise KafkaError(ErrorCode.INVALID_CONFIG, problem)


def effective(overrides: Mapping[str, str], broker: Mapping[str, str], name: str) -> str:
    """The value that holds: the topic's own, else the broker's (by the broker's name for it), else the default."""
    definition = BY_NAME[name]
    value = overrides.get(name)
    if value is None:
        value = broker.get(definition.broker_name, definition.default)
    return value.strip()


def topic_rules(overrides: Mapping[str, str], broker: Mapping[str, str]) -> TopicRules:
    """What an append has to know of the topic's configs. `broker` holds the values that apply by the broker's names.

    What this release would not take is not heeded.
    """
    overrides = _sound(overrides)

    def number(name: str) -> int:
        return int(effective(overrides, broker, name))

    append_time = effective(overrides, broker, "message.timestamp.type") == "LogAppendTime"
    compression = effective(overrides, broker, "compression.type")
    return TopicRules(
        max_message_bytes=number("max.message.bytes"),
        timestamp_type=LOG_APPEND_TIME if append_time else CREATE_TIME,
        timestamp_before_max_ms=number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms=number("message.timestamp.after.max.ms"),
        is_compacted="compact" in split_list(effective(overrides, broker, "cleanup.policy")),
        segment_bytes=number("segment.bytes"),
        compression=compression,
        compression_level=_compression_level(overrides, broker, compression),
    )


def _compression_level(overrides: Mapping[str, str], broker: Mapping[str, str], codec: str) -> int | None:
    """The level that batches are compressed with; None for the library's own, which Kafka's defaults are."""
    if codec not in COMPRESSION_LEVEL_MAX:
        return None
    name = f"compression.{codec}.level"
    level = int(effective(overrides, broker, name))
    return None if level == int(BY_NAME[name].default) else min(level, COMPRESSION_LEVEL_MAX[codec])


def describe_topic(
    overrides: Mapping[str, str],
    static: Mapping[str, str],
    dynamic: Mapping[str, str] = MappingProxyType({}),
) -> list[ConfigEntry]:
    """Every topic config with its value and where it comes from, by name.

    `static` holds the agent's own settings and `dynamic` the cluster's, both by the broker's names.
    """
    entries = []
    for definition in TOPIC_CONFIGS:
        synonyms = _sources(definition, overrides, static, dynamic)
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
    definition: ConfigDefinition,
    overrides: Mapping[str, str],
    static: Mapping[str, str],
    dynamic: Mapping[str, str],
) -> tuple[Synonym, ...]:
    """All places that give the config a value, the one that holds first."""
    found = []
    if definition.name in overrides:
        found.append(Synonym(definition.name, overrides[definition.name], ConfigSource.TOPIC))
    name = definition.broker_name
    if name in dynamic:
        found.append(Synonym(name, dynamic[name], ConfigSource.DYNAMIC_DEFAULT_BROKER))
    if name in static:
        found.append(Synonym(name, static[name], ConfigSource.STATIC_BROKER))
    found.append(Synonym(name, definition.default, ConfigSource.DEFAULT))
    return tuple(found)

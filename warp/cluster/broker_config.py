"""Broker configs, as DescribeConfigs shows them: Kafka's names for what an agent does.

Tools read a handful of them by name, and some look for the broker's defaults of topic configs. Where the agent has a
setting of its own, its value is shown; the rest say what holds here, which is mostly Kafka's default. None can be
altered through the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping

from warp.cluster.config_definition import (
    ConfigDefinition,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Synonym,
    anything,
)
from warp.cluster.topic_config import TOPIC_CONFIGS


def _broker_config(name: str, kind: ConfigType, default: str, documentation: str) -> ConfigDefinition:
    # The agent checks its own settings when it starts; what stands here is only shown.
    return ConfigDefinition(name, kind, default, anything, documentation)


_OWN: tuple[ConfigDefinition, ...] = (
    _broker_config("advertised.listeners", ConfigType.LIST, "", "Addresses that clients are told to connect to."),
    _broker_config(
        "auto.create.topics.enable", ConfigType.BOOLEAN, "true",
        "Whether a topic that a client asks for comes into being when it does not exist.",
    ),
    _broker_config("broker.id", ConfigType.INT, "-1", "This agent's number."),
    _broker_config("broker.rack", ConfigType.STRING, "", "The availability zone of this agent."),
    _broker_config(
        "connections.max.idle.ms", ConfigType.LONG, "600000",
        "Time without a request after which a connection is closed.",
    ),
    _broker_config(
        "default.replication.factor", ConfigType.INT, "1",
        "Replication factor that is shown for topics whose creator does not give one.",
    ),
    _broker_config("delete.topic.enable", ConfigType.BOOLEAN, "true", "Whether topics can be deleted."),
    _broker_config("fetch.max.bytes", ConfigType.INT, "57671680", "The most that one Fetch returns."),
    _broker_config(
        "group.initial.rebalance.delay.ms", ConfigType.INT, "3000",
        "How long the first member of an empty consumer group waits for others.",
    ),
    _broker_config(
        "group.max.session.timeout.ms", ConfigType.INT, "1800000",
        "Longest session timeout that a member of a consumer group may ask for.",
    ),
    _broker_config("group.max.size", ConfigType.INT, "10000", "Members of one consumer group."),
    _broker_config(
        "group.min.session.timeout.ms", ConfigType.INT, "6000",
        "Shortest session timeout that a member of a consumer group may ask for.",
    ),
    _broker_config("listeners", ConfigType.LIST, "", "Addresses that this agent listens on."),
    _broker_config("log.dirs", ConfigType.STRING, "/", "Record data is in the object store; one made-up directory."),
    _broker_config(
        "max.connections", ConfigType.INT, "2147483647", "Connections that this agent keeps open at once."
    ),
    _broker_config("node.id", ConfigType.INT, "-1", "This agent's number."),
    _broker_config(
        "num.partitions", ConfigType.INT, "1", "Partitions of a new topic whose creator does not say how many."
    ),
    _broker_config(
        "offset.metadata.max.bytes", ConfigType.INT, "4096", "Characters of metadata beside a committed offset."
    ),
    _broker_config(
        "offsets.commit.timeout.ms", ConfigType.INT, "5000",
        "How long a commit of offsets may wait for the metadata store.",
    ),
    _broker_config(
        "offsets.retention.check.interval.ms", ConfigType.LONG, "600000",
        "How often offsets are looked for that have had their time.",
    ),
    _broker_config(
        "offsets.retention.minutes", ConfigType.INT, "10080",
        "How long committed offsets are kept after their consumer group has become empty.",
    ),
    _broker_config("process.roles", ConfigType.LIST, "broker,controller", "Every agent is both."),
    _broker_config(
        "producer.id.expiration.ms", ConfigType.INT, "86400000",
        "How long a producer's sequence numbers are remembered after its last write.",
    ),
    _broker_config("socket.request.max.bytes", ConfigType.INT, "104857600", "The largest request that is read."),
)  # fmt: skip


def _topic_defaults() -> tuple[ConfigDefinition, ...]:
    """The broker's names for the defaults of topic configs."""
    own = {definition.name for definition in _OWN}
    found: dict[str, ConfigDefinition] = {}
    for definition in TOPIC_CONFIGS:
        for name in definition.synonyms[:1]:
            if name not in own:
                words = f"Default of the topic config {definition.name}. {definition.documentation}"
                found[name] = _broker_config(name, definition.type, definition.default, words)
    return tuple(found.values())


BROKER_CONFIGS: tuple[ConfigDefinition, ...] = tuple(
    sorted((*_OWN, *_topic_defaults()), key=lambda definition: definition.name)
)


def describe_broker(settings: Mapping[str, str]) -> list[ConfigEntry]:
    """Every broker config, by name; `settings` holds the values that this agent was given, as texts."""
    entries = []
    for definition in BROKER_CONFIGS:
        synonyms = [Synonym(definition.name, definition.default, ConfigSource.DEFAULT)]
        if definition.name in settings:
            synonyms.insert(
                0, Synonym(definition.name, settings[definition.name], ConfigSource.STATIC_BROKER)
            )
        entries.append(
            ConfigEntry(
                name=definition.name,
                value=synonyms[0].value,
                source=synonyms[0].source,
                type=definition.type,
                is_read_only=True,
                documentation=definition.documentation,
                synonyms=tuple(synonyms),
            )
        )
    return entries

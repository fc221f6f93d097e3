"""Broker configs: Kafka's names for what an agent does.

Tools read a handful of them by name, and some look for the broker's defaults of topic configs. Where the agent has a
setting of its own, its value is shown; the rest say what holds here, which is mostly Kafka's default.

Those that Kafka lets an operator change for the whole cluster while it runs, and that every agent can follow at once,
are dynamic; `warp.cluster.cluster_config` changes them. The others belong to an agent's own options.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from warp.cluster.config_definition import (
    INT_MAX,
    Check,
    ConfigDefinition,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Synonym,
    anything,
    boolean,
    integer,
)
from warp.cluster.topic_config import TOPIC_CONFIGS

FETCH_BYTES_MIN = 1_024
"""The least that fetch.max.bytes may be, as in Kafka."""
PARTITIONS_DEFAULT_MAX = 10_000
REPLICATION_FACTOR_MAX = 2**15 - 1


def _static(
    name: str, kind: ConfigType, default: str, documentation: str, flag: str | None = None
) -> ConfigDefinition:
    # The agent checks its own settings when it starts; what stands here is only shown.
    return ConfigDefinition(name, kind, default, anything, documentation, flag=flag)


def _dynamic(
    name: str, kind: ConfigType, default: str, check: Check, documentation: str, flag: str | None = None
) -> ConfigDefinition:
    return ConfigDefinition(name, kind, default, check, documentation, is_dynamic=True, flag=flag)


_OWN: tuple[ConfigDefinition, ...] = (
    _static(
        "advertised.listeners", ConfigType.LIST, "", "Addresses that clients are told to connect to.",
        "--advertise",
    ),
    _static(
        "authorizer.class.name", ConfigType.STRING, "", "What decides what clients may do; empty for nothing.",
        "--authorization",
    ),
    _dynamic(
        "auto.create.topics.enable", ConfigType.BOOLEAN, "true", boolean,
        "Whether a topic that a client asks for comes into being when it does not exist.",
        "--auto-create-topics",
    ),
    _static("broker.id", ConfigType.INT, "-1", "This agent's number."),
    _static("broker.rack", ConfigType.STRING, "", "The availability zone of this agent.", "--zone"),
    _static(
        "connections.max.idle.ms", ConfigType.LONG, "600000",
        "Time without a request after which a connection is closed.",
        "--connection-idle",
    ),
    _static(
        "connections.max.reauth.ms", ConfigType.LONG, "0",
        "Time after which clients have to authenticate again; 0 is never.",
        "--sasl-session-max",
    ),
    _dynamic(
        "default.replication.factor", ConfigType.INT, "1", integer(1, REPLICATION_FACTOR_MAX),
        "Replication factor that is shown for topics whose creator does not give one.",
    ),
    _dynamic(
        "delete.topic.enable", ConfigType.BOOLEAN, "true", boolean, "Whether topics can be deleted.",
    ),
    _dynamic(
        "fetch.max.bytes", ConfigType.INT, "57671680", integer(FETCH_BYTES_MIN, INT_MAX),
        "The most that one Fetch returns.",
    ),
    _static(
        "group.initial.rebalance.delay.ms", ConfigType.INT, "3000",
        "How long the first member of an empty consumer group waits for others.",
        "--group-rebalance-delay",
    ),
    _static(
        "group.max.session.timeout.ms", ConfigType.INT, "1800000",
        "Longest session timeout that a member of a consumer group may ask for.",
        "--group-session-max",
    ),
    _static("group.max.size", ConfigType.INT, "10000", "Members of one consumer group.", "--group-members-max"),
    _static(
        "group.min.session.timeout.ms", ConfigType.INT, "6000",
        "Shortest session timeout that a member of a consumer group may ask for.",
        "--group-session-min",
    ),
    _static("listeners", ConfigType.LIST, "", "Addresses that this agent listens on.", "--listen"),
    _static(
        "log.cleaner.backoff.ms", ConfigType.LONG, "15000",
        "Time between two looks for logs that are to be compacted by key.",
        "--compaction-interval",
    ),
    _static("log.dirs", ConfigType.STRING, "/", "Record data is in the object store; one made-up directory."),
    _static(
        "log.retention.check.interval.ms", ConfigType.LONG, "300000",
        "Time between two looks for records that have had their time, or are more than their log may hold.",
        "--retention-check-interval",
    ),
    _static(
        "max.connection.creation.rate", ConfigType.INT, "2147483647",
        "New connections per second over all listeners.",
        "--connection-rate-max",
    ),
    _static(
        "max.connections", ConfigType.INT, "2147483647", "Connections that this agent keeps open at once.",
        "--connections-max",
    ),
    _static(
        "max.connections.per.ip", ConfigType.INT, "2147483647",
        "Connections of one client address that this agent keeps open at once.",
        "--connections-per-address-max",
    ),
    _static("node.id", ConfigType.INT, "-1", "This agent's number."),
    _dynamic(
        "num.partitions", ConfigType.INT, "1", integer(1, PARTITIONS_DEFAULT_MAX),
        "Partitions of a new topic whose creator does not say how many.",
        "--num-partitions",
    ),
    _static(
        "offset.metadata.max.bytes", ConfigType.INT, "4096", "Characters of metadata beside a committed offset."
    ),
    _static(
        "offsets.commit.timeout.ms", ConfigType.INT, "5000",
        "How long a commit of offsets may wait for the metadata store.",
    ),
    _static(
        "offsets.retention.check.interval.ms", ConfigType.LONG, "600000",
        "How often offsets are looked for that have had their time.",
    ),
    _static(
        "offsets.retention.minutes", ConfigType.INT, "10080",
        "How long committed offsets are kept after their consumer group has become empty.",
        "--offsets-retention",
    ),
    _static("process.roles", ConfigType.LIST, "broker,controller", "Every agent is both."),
    _static(
        "producer.id.expiration.ms", ConfigType.INT, "86400000",
        "How long a producer's sequence numbers are remembered after its last write.",
        "--producer-expiry",
    ),
    _static(
        "sasl.enabled.mechanisms", ConfigType.LIST, "",
        "Mechanisms by which clients of SASL listeners may authenticate.",
        "--sasl-mechanisms",
    ),
    _static(
        "socket.request.max.bytes", ConfigType.INT, "104857600", "The largest request that is read.",
        "--request-bytes-max",
    ),
    _static(
        "ssl.client.auth", ConfigType.STRING, "none",
        "Whether clients of listeners with TLS have to present a certificate.",
        "--tls-client-auth",
    ),
    _static(
        "ssl.key.password", ConfigType.PASSWORD, "", "The password that the private key is encrypted with.",
        "--tls-key-password-file",
    ),
    _static(
        "ssl.keystore.location", ConfigType.STRING, "", "The file with the certificate of this agent.",
        "--tls-certificate",
    ),
    _static(
        "ssl.principal.mapping.rules", ConfigType.STRING, "DEFAULT",
        "How the subject of a client's certificate becomes the name of its principal.",
        "--tls-principal-rules",
    ),
    _static(
        "ssl.truststore.location", ConfigType.STRING, "",
        "The file with the authorities whose certificates clients may present.",
        "--tls-client-ca",
    ),
    _static(
        "super.users", ConfigType.STRING, "", "Principals that may do everything.", "--super-users"
    ),
)  # fmt: skip

_DEFAULT_FLAGS = {"message.max.bytes": "--message-bytes-max"}
"""The agent's options for defaults of topic configs."""


def _topic_defaults() -> tuple[ConfigDefinition, ...]:
    """The broker's names for the defaults of topic configs; all of them are dynamic, as in Kafka."""
    return tuple(
        ConfigDefinition(
            definition.broker_name,
            definition.type,
            definition.default,
            definition.check,
            f"Default of the topic config {definition.name}. {definition.documentation}",
            effect=definition.effect,
            is_dynamic=True,
            flag=_DEFAULT_FLAGS.get(definition.broker_name),
        )
        for definition in TOPIC_CONFIGS
        if definition.synonyms
    )


BROKER_CONFIGS: tuple[ConfigDefinition, ...] = tuple(
    sorted((*_OWN, *_topic_defaults()), key=lambda definition: definition.name)
)
BY_NAME: Mapping[str, ConfigDefinition] = {definition.name: definition for definition in BROKER_CONFIGS}

OTHER_UNITS: Mapping[str, str] = {
    name: definition.broker_name for definition in TOPIC_CONFIGS for name in definition.synonyms[1:]
}
"""Kafka's names for times in minutes or hours, and those for the same in milliseconds."""


def describe_broker(
    static: Mapping[str, str], dynamic: Mapping[str, str] = MappingProxyType({})
) -> list[ConfigEntry]:
    """Every broker config, by name.

    `static` holds the values that this agent was given, `dynamic` those that were set for the whole cluster.
    """
    return [_entry(definition, static, dynamic) for definition in BROKER_CONFIGS]


def describe_dynamic(dynamic: Mapping[str, str]) -> list[ConfigEntry]:
    """What was set for the whole cluster, by name: no config of an agent's own is among it."""
    return [_entry(BY_NAME[name], {}, dynamic) for name in sorted(dynamic)]


def _entry(
    definition: ConfigDefinition, static: Mapping[str, str], dynamic: Mapping[str, str]
) -> ConfigEntry:
    name = definition.name
    synonyms = [Synonym(name, definition.default, ConfigSource.DEFAULT)]
    if name in static:
        synonyms.insert(0, Synonym(name, static[name], ConfigSource.STATIC_BROKER))
    if name in dynamic:
        synonyms.insert(0, Synonym(name, dynamic[name], ConfigSource.DYNAMIC_DEFAULT_BROKER))
    if definition.is_sensitive:
        synonyms = [Synonym(name, None, source) for _, _, source in synonyms]
    return ConfigEntry(
        name=name,
        value=synonyms[0].value,
        source=synonyms[0].source,
        type=definition.type,
        is_read_only=not definition.is_dynamic,
        documentation=definition.documentation,
        synonyms=tuple(synonyms),
        is_sensitive=definition.is_sensitive,
    )

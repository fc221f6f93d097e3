"""Configs of the whole cluster: broker configs that are set once, for every agent, while they run.

Kafka calls them dynamic defaults (KIP-226). They are entries of the catalogue, keyed by Kafka's names, and every agent
follows them as soon as it knows them. What Kafka sets for a single broker, agents have options for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from warp.cluster.broker_config import BY_NAME, OTHER_UNITS
from warp.cluster.config_definition import ConfigDefinition, nearest, shown
from warp.cluster.topic_config import REMOVED_CONFIGS, check_lags, check_value
from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import EntryChange

logger = logging.getLogger(__name__)

LEAST_LAG = "log.cleaner.min.compaction.lag.ms"
MOST_LAG = "log.cleaner.max.compaction.lag.ms"


class BrokerDefaults:
    """The broker configs that hold at an agent: the cluster's over its own over Kafka's. Never changes.

    `static` holds the agent's settings by Kafka's names; those that are Kafka's defaults anyway are not counted as set.
    Of `dynamic`, what this release does not know or would not take is left out: a later one has set it.
    """

    __slots__ = (
        "auto_create_topics",
        "delete_topics",
        "dynamic",
        "fetch_bytes_max",
        "partitions",
        "replication_factor",
        "static",
        "values",
    )

    def __init__(self, static: Mapping[str, str], dynamic: Mapping[str, str] = MappingProxyType({})) -> None:
        self.static = MappingProxyType(
            {name: value for name, value in static.items() if value != _default(name)}
        )
        """What this agent was given."""
        self.dynamic = MappingProxyType(
            {name: value for name, value in sorted(dynamic.items()) if _is_sound(name, value)}
        )
        """What was set for the whole cluster."""
        self.values: Mapping[str, str] = MappingProxyType({**self.static, **self.dynamic})
        """What holds, where that is not Kafka's default."""
        self.partitions = int(self._value("num.partitions"))
        self.replication_factor = int(self._value("default.replication.factor"))
        self.auto_create_topics = self._value("auto.create.topics.enable").lower() == "true"
        """Metadata creates the unknown topics that it is asked for."""
        self.delete_topics = self._value("delete.topic.enable").lower() == "true"
        """DeleteTopics deletes."""
        self.fetch_bytes_max = int(self._value("fetch.max.bytes"))
        """The most that one Fetch returns, whatever it asks for."""

    def _value(self, name: str) -> str:
        value = self.values.get(name)
        return (BY_NAME[name].default if value is None else value).strip()


def dynamic_definition(name: str) -> ConfigDefinition:
    """A config that can be set for the whole cluster. Raises KafkaError (INVALID_CONFIG) for any other."""
    definition = BY_NAME.get(name)
    if definition is None:
        raise KafkaError(ErrorCode.INVALID_CONFIG, _why_unknown(name))
    if not definition.is_dynamic:
        what = f"{name} can't be set for the whole cluster while it runs"
        how = f": give each agent the option {definition.flag}" if definition.flag else ": it is fixed"
        raise KafkaError(ErrorCode.INVALID_CONFIG, what + how)
    return definition


def dynamic_value(static: Mapping[str, str], name: str) -> str:
    """The value of a config while none is set for the whole cluster. Raises KafkaError (INVALID_CONFIG)."""
    return static.get(name, dynamic_definition(name).default)


def entry_changes(current: Mapping[str, str], wanted: Mapping[str, str]) -> list[EntryChange]:
    """What turns the cluster's configs into those that are wanted, once these can be taken, also beside each other.

    Raises KafkaError (INVALID_CONFIG) that names the first wrong one.
    """
    changed = {name: value for name, value in wanted.items() if current.get(name) != value}
    for name, value in changed.items():
        check_value(dynamic_definition(name), value)
    sound = {
        name: wanted[name]
        for name in (LEAST_LAG, MOST_LAG)
        if name in wanted and _is_sound(name, wanted[name])
    }
    least_ms, most_ms = (sound.get(name, BY_NAME[name].default) for name in (LEAST_LAG, MOST_LAG))
    check_lags(least_ms, most_ms, (LEAST_LAG, MOST_LAG))
    gone = [EntryChange(name, None) for name in current if name not in wanted]
    return [*(EntryChange(name, value) for name, value in changed.items()), *gone]


def why_not_of_one_agent(name: str) -> KafkaError:
    """Why a config can't be set for a single broker id: what to do instead."""
    definition = BY_NAME.get(name)
    if definition is None:
        return KafkaError(ErrorCode.INVALID_CONFIG, _why_unknown(name))
    ways = []
    if definition.is_dynamic:
        ways.append("set it for the whole cluster (the broker with the empty name)")
    if definition.flag:
        ways.append(f"start the agent with {definition.flag}")
    how = " or ".join(ways) or "it is fixed"
    return KafkaError(
        ErrorCode.INVALID_CONFIG, f"{name} can't be set for a single broker while it runs: {how}"
    )


def _why_unknown(name: str) -> str:
    if name in OTHER_UNITS:
        return f"{name} is not supported: set {OTHER_UNITS[name]}, in milliseconds"
    if name in REMOVED_CONFIGS or name.removeprefix("log.") in REMOVED_CONFIGS:
        return f"{name} is not supported: Kafka 4 removed it"
    return f"Unknown broker config name: {shown(name)}{nearest(name, BY_NAME)}"


def _default(name: str) -> str | None:
    definition = BY_NAME.get(name)
    return None if definition is None else definition.default


def _is_sound(name: str, value: str) -> bool:
    try:
        check_value(dynamic_definition(name), value)
    except KafkaError as error:
        logger.warning("a config of the cluster is not heeded: %s", error.message)
        return False
    return True

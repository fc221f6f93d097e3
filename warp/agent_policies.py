"""What the jobs that look after data have to know of topics, made of the catalogue that the agent has at hand.

A value that this release would not take, because a later one has set it, makes a topic keep everything: deleting by a
default that nobody chose can't be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from warp.cluster.catalogue import CatalogueService, TopicInfo
from warp.cluster.cluster_config import BrokerDefaults
from warp.cluster.config_definition import split_list
from warp.cluster.topic_config import BY_NAME, effective
from warp.ids import TopicId
from warp.lifecycle.model import TopicLife
from warp.metadata.entries import EntryKind
from warp.metadata.model import Topic

_log = logging.getLogger("warp.jobs")

LIFE_CONFIGS: Final = (
    "cleanup.policy",
    "delete.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "retention.bytes",
    "retention.ms",
)
"""The topic configs by which data lives."""


class Policies:
    """The rules of all topics by the catalogue at hand, made anew where they have changed alone."""

    def __init__(self, catalogue: CatalogueService) -> None:
        self._catalogue = catalogue
        self._topics: Mapping[TopicId, TopicInfo] | None = None
        self._defaults: BrokerDefaults | None = None
        self._made: dict[TopicId, tuple[TopicInfo, TopicLife]] = {}
        self._lives: Sequence[TopicLife] = ()

    def __call__(self) -> Sequence[TopicLife]:
        """One for each topic, in the order of names."""
        current, defaults = self._catalogue.current, self._catalogue.defaults
        if current.by_id is not self._topics or defaults is not self._defaults:
            before = self._made if defaults is self._defaults else {}
            broker = {**defaults.static, **current.entries[EntryKind.CONFIG]}
            self._made = {
                info.topic_id: _life(info, before.get(info.topic_id), broker)
                for info in current.by_name.values()
            }
            self._lives = tuple(life for _, life in self._made.values())
            self._topics, self._defaults = current.by_id, defaults
        return self._lives


def _life(
    info: TopicInfo, before: tuple[TopicInfo, TopicLife] | None, broker: Mapping[str, str]
) -> tuple[TopicInfo, TopicLife]:
    if before is not None and before[0] is info:
        return before
    return info, topic_life(info.topic, broker)


def topic_life(topic: Topic, broker: Mapping[str, str]) -> TopicLife:
    """How the data of a topic lives. `broker` holds the broker's configs that were set, by its own names."""
    values = {name: effective(topic.configs, broker, name) for name in LIFE_CONFIGS}
    problems = [found for name in LIFE_CONFIGS if (found := BY_NAME[name].problem(values[name])) is not None]
    if problems:
        _log.warning("topic %s keeps all its records, for %s", topic.name, "; ".join(problems))
        return TopicLife(topic.topic_id, topic.name, topic.logs, deletes=False)
    policies = split_list(values["cleanup.policy"])
    return TopicLife(
        topic.topic_id,
        topic.name,
        topic.logs,
        deletes="delete" in policies,
        compacts="compact" in policies,
        retention_ms=_limit(values["retention.ms"]),
        retention_bytes=_limit(values["retention.bytes"]),
        delete_retention_ms=int(values["delete.retention.ms"]),
        min_compaction_lag_ms=int(values["min.compaction.lag.ms"]),
        max_compaction_lag_ms=int(values["max.compaction.lag.ms"]),
        min_cleanable_dirty_ratio=float(values["min.cleanable.dirty.ratio"]),
        max_message_bytes=int(values["max.message.bytes"]),
    )


def _limit(text: str) -> int | None:
    """A number of which those below 0 mean that there is no limit."""
    number = int(text)
    return None if number < 0 else number

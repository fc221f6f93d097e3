"""One state of the catalogue: all topics and entries at one version, and how the next state is made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType

from warp.cluster.catalogue_entries import NO_ENTRIES, EntriesByKind
from warp.cluster.topic_config import topic_rules
from warp.ids import TopicId
from warp.log.model import LogTarget, TopicRules
from warp.metadata.model import CatalogueChanges, Topic
from warp.metadata.topics import collision_name


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic, and its configs as an append needs them: parsed once."""

    topic: Topic
    rules: TopicRules

    @property
    def name(self) -> str:
        """Its name."""
        return self.topic.name

    @property
    def topic_id(self) -> TopicId:
        """Its id."""
        return self.topic.topic_id

    @property
    def partitions(self) -> int:
        """How many partitions it has."""
        return len(self.topic.logs)

    def target(self, partition: int) -> LogTarget | None:
        """A partition as the log's services want it; None when the topic has no such partition."""
        if not 0 <= partition < len(self.topic.logs):
            return None
        topic = self.topic
        return LogTarget(topic.logs[partition], topic.topic_id, partition, topic.name, self.rules)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All topics and entries at one version. `by_name` is in the order of names; `entries` has every kind."""

    version: int
    by_name: Mapping[str, TopicInfo]
    by_id: Mapping[TopicId, TopicInfo]
    entries: EntriesByKind = field(default_factory=lambda: NO_ENTRIES)

    def colliding(self, name: str) -> str | None:
        """The topic whose name differs from `name` in '.' and '_' alone, if there is one."""
        wanted = collision_name(name)
        return next(
            (other for other in self.by_name if other != name and collision_name(other) == wanted), None
        )


EMPTY_CATALOGUE = Catalogue(0, MappingProxyType({}), MappingProxyType({}))


def newer_catalogue(
    before: Catalogue,
    changes: CatalogueChanges,
    entries: EntriesByKind,
    defaults: Mapping[str, str],
    *,
    all_rules: bool,
) -> Catalogue:
    """The catalogue after changes, with these entries. Topics stay the same mappings where none has changed.

    `defaults` is what topic configs fall back to, by the broker's names. With `all_rules` it is not what it was.
    """
    topics = list(changes.topics)
    if all_rules:
        changed = {topic.topic_id for topic in topics}.union(changes.removed)
        topics += [info.topic for info in before.by_id.values() if info.topic_id not in changed]
    if not topics and not changes.removed:
        return Catalogue(changes.version, before.by_name, before.by_id, entries)
    by_id = dict(before.by_id)
    by_name = dict(before.by_name)
    for topic_id in changes.removed:
        gone = by_id.pop(topic_id, None)
        if gone is not None:
            del by_name[gone.name]
    # Thousands of topics share a few sets of configs.
    rules: dict[tuple[tuple[str, str], ...], TopicRules] = {}
    for topic in topics:
        configs = tuple(sorted(topic.configs.items()))
        if configs not in rules:
            rules[configs] = topic_rules(topic.configs, defaults)
        by_id[topic.topic_id] = by_name[topic.name] = TopicInfo(topic, rules[configs])
    in_order = dict(sorted(by_name.items(), key=itemgetter(0)))
    return Catalogue(changes.version, MappingProxyType(in_order), MappingProxyType(by_id), entries)

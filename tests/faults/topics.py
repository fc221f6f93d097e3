"""The topics of a run, what is written to them, and what may go missing of it by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.verifier import Partition, Rules, TopicRules

RETENTION_MS = 8_000
LINGER_MS = 45_000
"""Retention takes whole extents, which merging makes larger, and may have to wait for an agent that can."""
TOMBSTONE_MS = 4_000
CLOCK_SKEW_MS = 310_000


KEEPS_ALL = TopicRules()


@dataclass(frozen=True, slots=True)
class Topic:
    """One of them. `keys`: how many there are; 0: records have none."""

    name: str
    partitions: int
    keys: int = 0
    configs: Mapping[str, str] = field(default_factory=dict)
    rules: TopicRules = KEEPS_ALL

    @property
    def places(self) -> list[Partition]:
        return [Partition(self.name, number) for number in range(self.partitions)]


ORDERS = Topic("orders", 4)
"""Raw writers share it, with requests over many partitions."""
AUDIT = Topic("audit", 2)
"""The second topic of those requests."""
EVENTS = Topic("events", 4)
"""librdkafka's producers share it, and a group of its consumers reads it."""
COPIES = Topic("copies", 2)
"""Of producers without idempotence."""
TRIMMED = Topic("trimmed", 2)
"""DeleteRecords takes from it."""
LATEST = Topic(
    "latest", 2, 60,
    {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": str(TOMBSTONE_MS)},
    TopicRules(is_compacted=True, tombstone_ms=TOMBSTONE_MS),
)  # fmt: skip
BRIEF = Topic(
    "brief", 2, 0, {"retention.ms": str(RETENTION_MS)}, TopicRules(retention_ms=RETENTION_MS, linger_ms=LINGER_MS)
)  # fmt: skip
TOPICS = (ORDERS, AUDIT, EVENTS, COPIES, TRIMMED, LATEST, BRIEF)

GROUP = "readers"
MEMBERS_GROUP = "members"


def rules(are_clocks_wrong: bool, committers: Iterable[str]) -> Rules:
    """What the verifier may let go. `committers` are groups that are committed for without members."""
    skew_ms = CLOCK_SKEW_MS if are_clocks_wrong else 1000
    topics = {topic.name: dataclasses.replace(topic.rules, clock_skew_ms=skew_ms) for topic in TOPICS}
    rising = frozenset([MEMBERS_GROUP, *committers])
    return Rules(topics, groups_that_finish={GROUP: EVENTS.places}, rising_groups=rising)

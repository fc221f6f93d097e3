"""What may be missing: topics' configs, as far as they let records go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.verifier.operations import Partition


@dataclass(frozen=True, slots=True)
class TopicRules:
    """One topic's. The defaults let nothing go but what DeleteRecords and DeleteTopic took.

    `is_compacted`: cleanup.policy has, or has had, `compact`. `retention_ms` and `retention_bytes` hold where it has
    `delete`; None: without limit. Retention takes whole extents, so older records may be left; `linger_ms` says how
    long at most, None that nobody looks.
    """

    is_compacted: bool = False
    retention_ms: int | None = None
    retention_bytes: int | None = None
    linger_ms: int | None = None
    tombstone_ms: int = 0
    """delete.retention.ms: no tombstone goes sooner."""
    compaction_lag_ms: int = 0
    """min.compaction.lag.ms: no record goes sooner."""
    clock_skew_ms: int = 0
    """How far the clocks of agents, of clients and of whoever reads may be apart."""

    @property
    def is_dense(self) -> bool:
        """From the log's start on nothing may be missing."""
        return not self.is_compacted


@dataclass(frozen=True, slots=True)
class Rules:
    """Of a run.

    `is_quiet`: when it was read back nothing was on its way any more, so all agents tell of the same ends.
    `agents_lack_memory`: they have so little that a Fetch may get nothing of what is there, for want of it.
    `groups_that_finish` have processed every record of these partitions in the end. Of `rising_groups` no committed
    offset ever goes back: each of their commits is higher than those before it, and one whose answer was lost comes
    before the next or never. Of others a late commit may take the place of one that was acknowledged since.
    """

    topics: Mapping[str, TopicRules] = field(default_factory=dict)
    default: TopicRules = TopicRules()
    is_quiet: bool = True
    agents_lack_memory: bool = False
    groups_that_finish: Mapping[str, Sequence[Partition]] = field(default_factory=dict)
    rising_groups: frozenset[str] = frozenset()

    def of(self, topic: str) -> TopicRules:
        """The rules of a topic."""
        return self.topics.get(topic, self.default)

"""What the jobs have to know of topics: the rules by which their data lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warp.ids import LogId, TopicId


@dataclass(frozen=True, slots=True)
class TopicLife:
    """How long the data of a topic lives; Kafka's topic configs of the same names.

    `logs[p]` is the log of partition p. `retention_ms` and `retention_bytes` are None without a limit, and count only
    with `deletes`.
    """

    topic_id: TopicId
    name: str
    logs: Sequence[LogId]
    deletes: bool = True
    """cleanup.policy names delete."""
    compacts: bool = False
    """cleanup.policy names compact."""
    retention_ms: int | None = None
    retention_bytes: int | None = None
    delete_retention_ms: int = 86_400_000
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = 2**63 - 1
    min_cleanable_dirty_ratio: float = 0.5
    max_message_bytes: int = 1_048_588

"""Which logs are compacted, and how much of them, decided from the index alone: pure.

Kafka's rules, with extents in the place of log segments. A log is compacted when the part that was never compacted is
larger than `min.cleanable.dirty.ratio` of all that could be, or when it holds a record older than
`max.compaction.lag.ms` (KIP-354). Nothing from the first extent on that holds a record younger than
`min.compaction.lag.ms` (KIP-58) is touched, nor what lies above the last stable offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from warp.ids import LogId
from warp.lifecycle.model import TopicLife
from warp.lifecycle.output import EXTENT_BYTES_MAX
from warp.lifecycle.spans import is_later
from warp.metadata.life_model import IndexRow, LogDirt
from warp.metadata.model import NO_TIMESTAMP

NO_LAG_MS = 2**63 - 1
"""max.compaction.lag.ms of a topic that has none."""
SMALL_EXTENT_BYTES = EXTENT_BYTES_MAX // 4
"""Extents below this are joined with their neighbours when they are read anyway."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """What bounds a pass."""

    memory_bytes: int = 128 * MIB
    """Of the map of keys, of bytes read and of bytes to be written together; beside it stands one batch, decompressed
    and written anew."""
    decompressed_bytes_max: int = 64 * MIB
    """Of one batch; as in Produce, so that nothing larger was ever accepted."""
    segment_bytes_max: int = 32 * MIB
    """Outputs; less with little memory."""
    rows_max: int = 1000
    """Extents that are read from the index, and that one transaction replaces, at a time."""
    logs_max: int = 500
    """Logs that are looked at together."""
    tries_max: int = 4
    """How often in a row the same part of a log is compacted in vain, because others changed it meanwhile."""

    @property
    def map_bytes(self) -> int:
        """Of the map of keys: 24 bytes hold a key, at three quarters full."""
        return max(self.memory_bytes // 2, 1024)

    @property
    def output_bytes(self) -> int:
        """Of an output, which is in memory until it is stored."""
        return max(1, min(self.segment_bytes_max, self.memory_bytes // 4))

    @property
    def window_bytes(self) -> int:
        """How much of an extent is read, and compacted, at a time; unless a single batch is larger."""
        return max(1, min(8 * MIB, self.memory_bytes // 16))


class CompactedLog(NamedTuple):
    """A log of a topic whose policy names compact."""

    log_id: LogId
    partition: int
    topic: TopicLife


@dataclass(slots=True)
class Memory:
    """What this process knows of a log since it last compacted it. Forgotten, it costs one pass more.

    `reached` is how far that pass came, `clean_offset` what the store says of it: less, where extents could not be
    read, because what they hold is not compacted should they be readable one day. `unread` names these by their end
    offsets. `clean_bytes` is how large the log was up to `reached`.
    """

    clean_offset: int
    reached: int
    unread: frozenset[int]
    clean_bytes: int


class Dirt(NamedTuple):
    """How much of a log waits to be compacted, as far as can be told without reading its index."""

    clean_offset: int
    dirty_bytes: int
    total_bytes: int

    @property
    def ratio(self) -> float:
        """The part that waits; 0 for an empty log."""
        return self.dirty_bytes / self.total_bytes if self.total_bytes > 0 else 0.0


def dirt_of(found: LogDirt, memory: Memory | None) -> Dirt:
    """What to make of the store's figures.

    An extent across the clean offset counts as dirty there. A merge makes such extents all the time, so the size that
    the clean part had tells better, as long as it is known.
    """
    total_bytes = found.clean_bytes + found.dirty_bytes
    if memory is None or memory.clean_offset != found.clean_offset:
        return Dirt(found.clean_offset, found.dirty_bytes, total_bytes)
    if memory.reached >= found.next_offset:
        return Dirt(memory.reached, 0, total_bytes)
    # Retention may have removed clean extents since. But no more than one extent lies across.
    least_bytes = 1 if memory.unread else max(1, found.dirty_bytes - EXTENT_BYTES_MAX)
    dirty_bytes = min(found.dirty_bytes, max(least_bytes, total_bytes - memory.clean_bytes))
    return Dirt(memory.reached, dirty_bytes, total_bytes)


def is_dirty_enough(dirt: Dirt, topic: TopicLife) -> bool:
    """Whether the ratio calls for a pass."""
    return dirt.ratio > topic.min_cleanable_dirty_ratio


def may_lag_too_long(found: LogDirt, dirt: Dirt, topic: TopicLife) -> bool:
    """Whether it has to be looked at how old the first dirty record is."""
    return topic.max_compaction_lag_ms < NO_LAG_MS and dirt.dirty_bytes > 0 and found.dirty_bytes > 0


def lags_too_long(first_ms: int, topic: TopicLife, now_ms: int) -> bool:
    """Whether a record of that time has waited for longer than max.compaction.lag.ms."""
    return first_ms != NO_TIMESTAMP and now_ms - first_ms > topic.max_compaction_lag_ms


def youngest_ms(topic: TopicLife, now_ms: int) -> int | None:
    """Records with a later timestamp than this stay uncompacted for now; None when the topic has no such lag."""
    return now_ms - topic.min_compaction_lag_ms if topic.min_compaction_lag_ms > 0 else None


def first_too_young(rows: Sequence[IndexRow], bound_ms: int | None) -> IndexRow | None:
    """The first extent that holds a record of after the bound."""
    if bound_ms is None:
        return None
    return next((row for row in rows if row.max_timestamp_ms > bound_ms), None)


def joinable(rows: Sequence[IndexRow], unread: frozenset[int], span_ms: int | None = None) -> set[int]:
    """Of consecutive extents those, by end offset, that are written anew even if nothing in them changes.

    They are small and stand beside another small one, of no later span of `span_ms`: what was written apart because of
    its time is left like that. Without this compaction would leave ever more extents behind, each with ever less in it.
    """

    def is_small(row: IndexRow) -> bool:
        is_readable = row.segment_id is not None and row.end_offset not in unread
        return is_readable and row.size_bytes < SMALL_EXTENT_BYTES

    found: set[int] = set()
    for row, following in pairwise(rows):
        is_apart = is_later(row.max_timestamp_ms, following.max_timestamp_ms, span_ms)
        if is_small(row) and is_small(following) and not is_apart:
            found |= {row.end_offset, following.end_offset}
    return found


def clean_until(reached: int, clean_offset: int, unread: Sequence[IndexRow]) -> int:
    """How far a log counts as compacted after a pass that came to `reached` and could not read some extents."""
    first = min((row.base_offset for row in unread), default=reached)
    return max(clean_offset, min(first, reached))


def output_level(rows: Sequence[IndexRow], size_bytes: int, settled_bytes: int) -> int:
    """Small outputs begin at the bottom, where they are merged with others; the rest stays as high as it was."""
    if size_bytes < settled_bytes:
        return 1
    return max([1, *(row.level for row in rows)])

"""How segments climb: what each level may hold before it is merged, and how far merging is behind.

Level 0 is what flushes write. A merge takes the oldest segments of a level and writes their data anew, log by log: as
settled extents of 4 MiB straight into the top level where a log has enough of it, the rest one level up, where it will
meet more. docs/adr/0013-merge-levels.md has the reasons, and what it costs to write and read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from warp.lifecycle.output import EXTENT_BYTES_MAX
from warp.lifecycle.swap_parts import ROWS_PER_SWAP
from warp.metadata.life_model import SegmentTotals

MIB = 2**20
TOP_LEVEL = 3
"""Nothing climbs higher. What lies here is written anew only when most of its segment is dead."""


@dataclass(frozen=True, slots=True)
class MergeLimits:
    """What bounds merging. `due_bytes[n]` and `due_segments[n]` belong to level n."""

    memory_bytes: int = 128 * MIB
    """Of all that a merge holds: index rows, bytes read, bytes to be written."""
    due_bytes: Sequence[int] = (128 * MIB, 4096 * MIB, 128 * 1024 * MIB)
    """A level that holds as much is merged."""
    due_segments: Sequence[int] = (64, 2048, 8192)
    """One that has as many segments is merged however small they are."""
    due_small_segments: int = 32
    small_segment_bytes: int = MIB // 2
    """So few segments are enough from level 1 on where they are smaller than this on average."""
    settled_bytes: int = EXTENT_BYTES_MAX
    """A log with as much in one merge need not climb level by level."""
    segment_bytes_max: int = 32 * MIB
    """Outputs, unless a single batch is larger; less with little memory."""
    swap_rows_max: int = 1500
    """Index rows that one swap replaces."""
    swap_part_rows_max: int = ROWS_PER_SWAP
    """A swap of many logs comes in parts of so many rows, removed and added together: each is a transaction."""
    swap_pause_s: float = 0.2
    """Before asking again what has become of a swap; it doubles."""
    backlog_bytes_max: int = 1024 * MIB
    """How much unmerged data on level 0 is too much. Other levels may hold more in proportion to what they hold when
    they are due."""
    sparse_ratio: float = 0.5
    """A segment of level 1 and above of which less is alive is written anew."""
    pass_s: float = 30.0
    """How long a pass may take before the agent's runner of jobs gets its turn."""
    look_s: float = 1.0
    """How often a merge of an upper level is interrupted to see whether a lower one is due."""
    sparse_segments_max: int = 64
    """So many segments are looked at in one step."""

    @property
    def output_bytes(self) -> int:
        """How much is read, and written, at a time: one such read, one being built, one on its way out."""
        return max(1, min(self.segment_bytes_max, self.memory_bytes // 4))

    @property
    def gaps_bytes(self) -> int:
        """How much of what lies between is read along with it, so that fewer requests are needed."""
        return self.output_bytes // 2

    @property
    def rows_max(self) -> int:
        """Index rows that one merge keeps in mind."""
        return max(1, self.memory_bytes // 8 // ROW_BYTES)


ROW_BYTES = 56
"""What one index row takes while it waits for its turn; see merge_rows.py."""


@dataclass(frozen=True, slots=True)
class MergeDebt:
    """How far merging is behind.

    `segments` and `size_bytes` lie unmerged on level 0. `ratio` is how much the level that is worst off holds, of what
    is too much: above 1 producers have to be held back.
    """

    segments: int = 0
    size_bytes: int = 0
    ratio: float = 0.0


def is_due(level: int, segments: int, size_bytes: int, limits: MergeLimits) -> bool:
    """Whether a level with so much in it is to be merged. The top never is."""
    if level >= TOP_LEVEL or segments == 0:
        return False
    if size_bytes >= limits.due_bytes[level] or segments >= limits.due_segments[level]:
        return True
    is_small = size_bytes < segments * limits.small_segment_bytes
    return level > 0 and is_small and segments >= limits.due_small_segments


def debt(totals: Mapping[int, SegmentTotals], limits: MergeLimits) -> MergeDebt:
    """How far merging is behind, with so much on each level."""
    ratio = 0.0
    for level, due_bytes in enumerate(limits.due_bytes):
        row = totals.get(level)
        if row is not None:
            segments_max = limits.due_segments[level] * limits.backlog_bytes_max / limits.due_bytes[0]
            bytes_max = due_bytes * limits.backlog_bytes_max / limits.due_bytes[0]
            ratio = max(ratio, row.segments / segments_max, row.size_bytes / bytes_max)
    flushed = totals.get(0)
    if flushed is None:
        return MergeDebt(0, 0, ratio)
    return MergeDebt(flushed.segments, flushed.size_bytes, ratio)

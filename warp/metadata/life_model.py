"""What goes in and out of the metadata store on behalf of the jobs that merge, compact and delete: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from warp.errors import MetadataError
from warp.ids import LogId


class SegmentState(IntEnum):
    """What becomes of a segment, in this order alone."""

    LIVE = 0
    DEAD = 1
    """No extent lies in it, and none ever will: its object may be deleted once no read can be under way."""
    GONE = 2
    """Its object was deleted; the row makes a late commit of its key find that it is known."""


class SegmentRow(NamedTuple):
    """A segment as it is stored."""

    segment_id: int
    key: str
    size_bytes: int
    level: int
    created_ms: int


class SegmentTotals(NamedTuple):
    """All live segments of one level."""

    level: int
    segments: int
    size_bytes: int


class IndexRow(NamedTuple):
    """An extent as jobs read it, and as a swap names what it has read.

    `key` and `level` are those of its segment. One that lives in the index (a control batch) has none: None and "".
    """

    log_id: LogId
    base_offset: int
    end_offset: int
    segment_id: int | None
    position: int
    size_bytes: int
    max_timestamp_ms: int
    key: str
    level: int


class NewSegment(NamedTuple):
    """A segment that stands in the object store and holds what others held; level 1 and above."""

    key: str
    size_bytes: int
    level: int
    created_ms: int


class NewExtent(NamedTuple):
    """A row that a swap adds. `segment` is its place among the swap's segments."""

    log_id: LogId
    base_offset: int
    end_offset: int
    segment: int
    position: int
    size_bytes: int
    max_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Swap:
    """Put new segments in the place of extents.

    Of each log, what is added tiles exactly the offsets of what is removed, run by run. `clean_offsets` moves how far a
    log is compacted, together with its extents. `is_begun` says that a part of the same work has inserted the segments:
    they must be live still, or every log is left as it is.
    """

    segments: Sequence[NewSegment]
    removed: Sequence[IndexRow]
    added: Sequence[NewExtent]
    clean_offsets: Mapping[LogId, int] = field(default_factory=dict)
    is_begun: bool = False


class SwapResult(NamedTuple):
    """Which logs were swapped, and which were left as they are because one of their extents had changed."""

    swapped: frozenset[LogId]
    dropped: frozenset[LogId]


class LogHead(NamedTuple):
    """How a log begins. `first_*` are of its first extent, -1 without any."""

    log_id: LogId
    start_offset: int
    next_offset: int
    size_bytes: int
    first_end_offset: int
    first_max_timestamp_ms: int


class LogDirt(NamedTuple):
    """How much of a log is compacted: bytes of extents below and above its clean offset (an extent across it is dirty).

    `first_dirty_ms` is the largest timestamp of the first dirty extent, -1 without any.
    """

    log_id: LogId
    start_offset: int
    next_offset: int
    clean_offset: int
    clean_bytes: int
    dirty_bytes: int
    first_dirty_ms: int


class DeadSegment(NamedTuple):
    """A segment whose object is to be deleted."""

    segment_id: int
    key: str
    size_bytes: int
    died_ms: int


class Quarantined(NamedTuple):
    """An extent that a job could not read, and why."""

    log_id: LogId
    end_offset: int
    segment_id: int
    reason: str
    found_ms: int


class SwapRefused(MetadataError):
    """A key of a swap's segments is taken (the sweep has claimed it, say). Nothing was changed, and never will be."""

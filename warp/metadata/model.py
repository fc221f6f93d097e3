"""The values that go in and out of the metadata store: plain data, no SQL, no wire types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, NO_SEQUENCE, LogId, ProducerId, TopicId
from warp.metadata.entries import EntryChange, EntryKind

NO_TIMESTAMP = -1


@dataclass(frozen=True, slots=True)
class Topic:
    """One live topic. `logs[p]` is the log of partition p; `configs` holds its overrides alone."""

    name: str
    topic_id: TopicId
    logs: tuple[LogId, ...]
    configs: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = 1
    """What its creator asked for. It has no meaning of its own: the object store keeps the data safe."""


@dataclass(frozen=True, slots=True)
class CatalogueRows:
    """All topics at one version of the catalogue. The version rises in the transaction that changes anything in it."""

    version: int
    topics: Sequence[Topic]


@dataclass(frozen=True, slots=True)
class CatalogueChanges:
    """What makes a newer catalogue out of an older one.

    Topics that are new or changed, ids of topics that are gone, and per kind the entries that are new, changed or gone;
    or, when the older catalogue is a very old one, all topics and entries that there are (`are_all`).
    """

    version: int
    topics: Sequence[Topic]
    removed: Sequence[TopicId]
    entries: Mapping[EntryKind, Sequence[EntryChange]] = field(default_factory=dict)
    are_all: bool = False

    def since(self, known: Iterable[TopicId]) -> CatalogueChanges:
        """The same changes, with `removed` as it is for who knows these topics, where they are all that there are."""
        if not self.are_all:
            return self
        there = {topic.topic_id for topic in self.topics}
        return replace(self, removed=[topic_id for topic_id in known if topic_id not in there])


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create; validated by the caller."""

    name: str
    topic_id: TopicId
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = 1


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One accepted record batch inside a sealed segment, which asks for offsets."""

    log_id: LogId
    position: int
    """Where its bytes begin in the segment object."""
    size_bytes: int
    offset_count: int
    """How many offsets it takes: last offset delta + 1."""
    max_timestamp_ms: int = NO_TIMESTAMP
    producer_id: ProducerId = NO_PRODUCER_ID
    producer_epoch: int = -1
    base_sequence: int = NO_SEQUENCE
    is_transactional: bool = False


@dataclass(frozen=True, slots=True)
class SegmentCommit:
    """A segment that stands in the object store and asks to be committed. `key` is unique: it makes retries safe."""

    key: str
    size_bytes: int
    created_ms: int
    batches: Sequence[BatchEntry]
    """In segment order: contiguous per log."""


class BatchOutcome(NamedTuple):
    """What the commit decided for one batch.

    NONE with `is_duplicate` means that the batch was committed before; `base_offset` is then the original one.
    `base_offset` is -1 with any error. `max_timestamp_ms` is the original batch's, given for duplicates alone: it is
    their log append time where the topic uses that.
    """

    error: ErrorCode
    base_offset: int
    is_duplicate: bool = False
    log_start_offset: int = -1
    max_timestamp_ms: int = NO_TIMESTAMP


@dataclass(frozen=True, slots=True)
class Extent:
    """A byte range of a segment that holds consecutive batches of one log.

    Offsets `[base_offset, end_offset)`. `inline` holds the bytes themselves for batches that live in the index
    (control batches); then key is "".
    """

    log_id: LogId
    base_offset: int
    end_offset: int
    key: str
    position: int
    size_bytes: int
    max_timestamp_ms: int
    level: int = 0
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """A log's ends. Without open transactions `last_stable_offset` equals `next_offset`."""

    log_id: LogId
    start_offset: int
    next_offset: int
    last_stable_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What one metadata transaction did for several segments.

    `outcomes[i][j]` belongs to batch j of segment i. `extents` are the new ones, per log in offset order; `logs` the
    states after the commit of every log that it touched. `refused` names the segments that were refused as a whole,
    by their place in the commit.
    """

    outcomes: Sequence[Sequence[BatchOutcome]]
    extents: Sequence[Extent]
    logs: Sequence[LogState]
    refused: Mapping[int, CommitRefused] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExtentQuery:
    """Extents of one log from the one that holds `offset` on, until their sizes reach `bytes_max` (at least one).

    Fewer, where that would be more than `extents_max`, or than the store gives at once: to be read on from there.
    """

    log_id: LogId
    offset: int
    bytes_max: int
    extents_max: int = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LogRead:
    """Answer to an ExtentQuery, all from one snapshot. `state` is None when the log is gone."""

    state: LogState | None
    extents: Sequence[Extent]


class CommitRefused(NamedTuple):
    """Why a whole segment can't be committed (its key was claimed by the sweep, say)."""

    error: ErrorCode
    message: str

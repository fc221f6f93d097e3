"""What goes in and out of the metadata while a database is put right: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.ids import LogId, TopicId


class StoredSegment(NamedTuple):
    """A segment as the database knows it, in any state."""

    segment_id: int
    key: str
    size_bytes: int
    level: int
    state: int
    created_ms: int


class StoredLog(NamedTuple):
    """A log as the database knows it."""

    log_id: LogId
    topic_id: TopicId
    partition: int
    start_offset: int
    next_offset: int


class StoredExtent(NamedTuple):
    """An extent as the database knows it. `segment_id` is None for one that lives in the index."""

    log_id: LogId
    base_offset: int
    end_offset: int
    segment_id: int | None
    position: int
    size_bytes: int
    max_timestamp_ms: int


class StoredTopic(NamedTuple):
    """A topic as the database knows it."""

    topic_id: TopicId
    name: str
    collision_name: str
    partitions: int


class StoredProducer(NamedTuple):
    """A producer's state in a log; `batches` packed."""

    log_id: LogId
    producer_id: int
    epoch: int
    batches: bytes


class RestoredSegment(NamedTuple):
    """A segment to be made known."""

    key: str
    size_bytes: int
    level: int
    created_ms: int


class RestoredExtent(NamedTuple):
    """An extent to be put into the index: bytes of a segment that is known or made so, or its own payload (key "")."""

    base_offset: int
    end_offset: int
    key: str
    position: int
    size_bytes: int
    max_timestamp_ms: int
    payload: bytes | None = None


@dataclass
class RestoredLog:
    """How a log is to be: its ends, and what goes out of the index (by end offset), in, and into producers' states."""

    topic_id: TopicId
    partition: int
    start_offset: int
    next_offset: int
    stored_next_offset: int = 0
    """As it was when this was decided."""
    removed: Sequence[int] = ()
    added: Sequence[RestoredExtent] = ()
    producers: Sequence[tuple[int, int, bytes]] = ()
    """Producer id, epoch, packed batches."""


@dataclass(frozen=True)
class Raises:
    """By how much ids rise, past all that may have been given out by a later state of the database."""

    producer_ids: int = 2**32
    """Above the larger of the stored one and the largest that was seen in the bucket."""
    log_ids: int = 1_000_000
    group_numbers: int = 1_000_000
    broker_ids: int = 1_000
    segment_ids: int = 10_000_000
    lease_epochs: int = 100_000
    group_generations: int = 10_000
    catalogue_version: int = 1_000_000


@dataclass
class Restoration:
    """All that one transaction changes."""

    segments: list[RestoredSegment] = field(default_factory=list)
    logs: list[RestoredLog] = field(default_factory=list)
    gone_segments: list[int] = field(default_factory=list)
    """Ids of segments whose objects are gone: no extent lies in them afterwards."""
    lost_extents: list[tuple[LogId, int]] = field(default_factory=list)
    """Log and end offset of extents of deleted topics that lay in them."""
    new_topics: list[StoredTopic] = field(default_factory=list)
    grown_topics: Mapping[TopicId, int] = field(default_factory=dict)
    """How many partitions a topic has that the database knows with fewer."""
    largest_producer_id: int = -1
    raises: Raises = field(default_factory=Raises)
    settings: Mapping[str, str] = field(default_factory=dict)

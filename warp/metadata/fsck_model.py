"""Rows as fsck reads them: what stands in the tables, beside what it refers to, if that is there."""

from __future__ import annotations

from typing import NamedTuple

from warp.ids import LogId, ProducerId, TopicId


class LogFacts(NamedTuple):
    """A log and its topic. `topic` and `partitions` are None when there is no such topic."""

    log_id: LogId
    topic_id: TopicId
    partition: int
    start_offset: int
    next_offset: int
    size_bytes: int
    max_timestamp_ms: int
    clean_offset: int
    topic: str | None
    partitions: int | None


class DeletedLog(NamedTuple):
    """A log of a deleted topic, whose extents are yet to go."""

    log_id: LogId
    topic_id: TopicId
    partition: int


class ExtentFacts(NamedTuple):
    """An extent and its segment. `payload_bytes` is -1 without a payload, `key` None where there is no such segment."""

    log_id: LogId
    base_offset: int
    end_offset: int
    segment_id: int | None
    position: int
    size_bytes: int
    max_timestamp_ms: int
    prefix_max_timestamp_ms: int
    payload_bytes: int
    key: str | None
    segment_bytes: int | None
    level: int | None
    state: int | None
    created_ms: int | None


class Payload(NamedTuple):
    """An extent that lives in the index."""

    log_id: LogId
    base_offset: int
    end_offset: int
    data: bytes


class TopicFacts(NamedTuple):
    """A topic, and how many logs it has."""

    topic_id: TopicId
    name: str
    partitions: int
    logs: int


class SegmentFacts(NamedTuple):
    """A segment as it is stored."""

    segment_id: int
    key: str
    size_bytes: int
    level: int
    state: int
    created_ms: int
    died_ms: int | None


class PlacedExtent(NamedTuple):
    """An extent as seen from its segment. `topic_id` is None when its log is nowhere."""

    segment_id: int
    log_id: LogId
    base_offset: int
    end_offset: int
    position: int
    size_bytes: int
    max_timestamp_ms: int
    topic_id: TopicId | None
    partition: int | None
    is_deleted: bool
    """Its topic was deleted."""
    quarantined: str | None
    """Why a job has quarantined it; None when none has."""


class QuarantinedFacts(NamedTuple):
    """A quarantined extent. `extent_segment_id` and `base_offset` are those of the extent, None when it is gone."""

    log_id: LogId
    end_offset: int
    segment_id: int
    reason: str
    found_ms: int
    extent_segment_id: int | None
    base_offset: int | None
    key: str | None


class ProducerFacts(NamedTuple):
    """A producer's state. `next_offset` is its log's, None when there is no such log."""

    log_id: LogId
    producer_id: ProducerId
    batches: bytes
    open_offset: int | None
    next_offset: int | None
    is_log_deleted: bool


class OffsetFacts(NamedTuple):
    """A committed offset. `group_id` is None when there is no such group, `found_log_id` when there is no such log."""

    group_number: int
    log_id: LogId
    committed_offset: int
    group_id: str | None
    found_log_id: LogId | None

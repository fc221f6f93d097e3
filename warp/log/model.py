"""The values that go in and out of the log's services: plain data, no wire types, no SQL.

Handlers resolve names against the catalogue and hand over `LogTarget`s; what comes back are Kafka's error codes and
offsets, one per part of a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from warp.errors import ErrorCode
from warp.ids import LogId, TopicId
from warp.objectstore.base import Buffer

CREATE_TIME = 0
LOG_APPEND_TIME = 1


@dataclass(frozen=True, slots=True)
class TopicRules:
    """The configs of a topic that decide about an append; Kafka's defaults."""

    max_message_bytes: int = 1_048_588
    """Largest batch, as sent (compressed), with its 12-byte prefix."""
    timestamp_type: int = CREATE_TIME
    timestamp_before_max_ms: int = 2**63 - 1
    timestamp_after_max_ms: int = 3_600_000
    is_compacted: bool = False
    """Every record needs a key."""
    segment_bytes: int = 1_073_741_824
    compression: str = "producer"
    """`producer` keeps batches as they come."""
    compression_level: int | None = None
    """Of that codec, where the topic wants another one than the library's own."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """One partition that exists, as the catalogue knows it."""

    log_id: LogId
    topic_id: TopicId
    partition: int
    topic: str
    rules: TopicRules


class Append(NamedTuple):
    """One part of a Produce request.

    `records` is one record batch as it came. It must not change until the request's outcomes are there, or its stage()
    has been refused. `allow_zstd` is False for requests older than Produce v7 (KIP-110).
    """

    target: LogTarget
    records: Buffer
    allow_zstd: bool = True


class AppendOutcome(NamedTuple):
    """What became of one part of a Produce request. With an error, offsets and times are -1."""

    error: ErrorCode
    base_offset: int = -1
    log_append_time_ms: int = -1
    """The time that was stamped on the batch; -1 on topics with CreateTime."""
    log_start_offset: int = -1
    message: str | None = None
    record_errors: Sequence[tuple[int, str]] = ()
    """(index of the record in the batch, what is wrong with it)"""

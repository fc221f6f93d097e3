"""Which records may lie in one extent where records go by their age: those of one span of time.

An extent goes as a whole, when its newest record has had its time. Whatever joins extents would therefore keep old
records for as long as new ones come to lie beside them: for ever, in a small log that is compacted while it is written
to. So time is cut into spans of a quarter of `retention.ms`, and an extent ends where a record comes from a later span
than all before it in the extent. No record outlives its retention by more than a span for the company that it is in.

The spans begin at multiples of their length, so that the index alone tells what may be joined: what was cut once is
found to be apart for good, by whichever job. Times that go back cut nothing, since retention takes a log from its front
and nothing goes before what lies in front of it: however mixed they are, a log has no more cuts than it has spans.

Source: Kafka's `segment.ms`, which ends log segments for the same reason.
"""

from __future__ import annotations

from typing import Final

from warp.lifecycle.model import TopicLife
from warp.metadata.model import NO_TIMESTAMP

SPANS_OF_RETENTION: Final = 4
"""More of them would be nearer to what is configured, and cost rows of the index where a log has little data."""
SPAN_MS_MIN: Final = 10_000
"""Retention is looked at no oftener than every few seconds or minutes."""


def span_ms_of(topic: TopicLife) -> int | None:
    """How long the spans of a topic's logs are; None where nothing goes by its age."""
    if not topic.deletes or topic.retention_ms is None:
        return None
    return max(topic.retention_ms // SPANS_OF_RETENTION, SPAN_MS_MIN)


def is_later(before_ms: int, next_ms: int, span_ms: int | None) -> bool:
    """Whether a record is of a later span than the newest before it. Never, where either has no time (-1)."""
    if span_ms is None or NO_TIMESTAMP in (before_ms, next_ms):
        return False
    return next_ms // span_ms > before_ms // span_ms

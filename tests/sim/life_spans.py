"""Spans of time: what jobs write anew of logs whose records go by their age is cut where a later span begins.

Extents of all commits are noted, and held against the times of the records once it is known where they all stand. In
the end nothing may be left in front of a log that has had its time. Both together let no record outlive its retention
by more than a span.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from tests.sim.history import History
from tests.sim.life_starts import Placed
from tests.sim.life_topics import LifeTopic
from tests.verifier import Partition
from warp.lifecycle.spans import SPAN_MS_MIN, SPANS_OF_RETENTION

SLACK_MS = 5_000
"""Retention looks at logs every second, unless stores are slow or a lease has changed hands."""


class Spans:
    """Of the topics whose records go by their age alone."""

    def __init__(self, topics: Sequence[LifeTopic], history: History) -> None:
        self.cuts = 0
        """How often something written anew ends where the next batch is of a later span."""
        self._retention_ms = {
            topic.name: retention_ms for topic in topics if (retention_ms := topic.retention_ms) is not None
        }
        names = ", ".join(f"'{name}'" for name in self._retention_ms)
        logs = (
            f"extents e join logs l using (log_id) join topics t using (topic_id) where t.name in ({names})"
        )
        self._written_anew = (
            "select t.name, l.partition, e.base_offset, e.end_offset from segments s join extents e using (segment_id)"
            f" join logs l using (log_id) join topics t using (topic_id) where s.level > 0 and t.name in ({names})"
        )
        self._fronts = (
            "select t.name, l.partition, e.base_offset, min(e.end_offset), e.prefix_max_timestamp_ms"
            f" from {logs} group by t.name, l.partition"
        )
        self._history = history
        self._extents: dict[Partition, dict[tuple[int, int], None]] = defaultdict(dict)
        self._placed: dict[Partition, list[Placed]] = defaultdict(list)

    def placed(self, place: Partition, offset: int, count: int, timestamp_ms: int) -> None:
        """A batch was acknowledged."""
        self._placed[place].append(Placed(offset, offset + count, timestamp_ms))

    def see(self, connection: sqlite3.Connection) -> None:
        """After a commit."""
        if self._retention_ms:
            for name, number, base, end in connection.execute(self._written_anew):
                self._extents[Partition(name, number)][base, end] = None

    def see_end(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """When the last jobs have done what there was to do, by clocks that are right."""
        if not self._retention_ms:
            return
        for name, number, base, _, newest_ms in connection.execute(self._fronts):
            age_ms = now_ms - newest_ms
            if age_ms > self._retention_ms[name] + SLACK_MS:
                self._history.violate(
                    "P9", f"{name}-{number} begins at {base} with what has been {age_ms} ms old at least"
                )

    def judge(self) -> None:
        """When everything is acknowledged that was ever sent."""
        for place, extents in self._extents.items():
            span_ms = max(self._retention_ms[place.topic] // SPANS_OF_RETENTION, SPAN_MS_MIN)
            placed = sorted(self._placed[place])
            for base, end in extents:
                self._judge_extent(place, [at for at in placed if base <= at.offset < end], span_ms)
            spans = {at.offset: at.timestamp_ms // span_ms for at in placed}
            last = {at.end: at.timestamp_ms // span_ms for at in placed}
            self.cuts += sum(end in spans and spans[end] > last[end] for _, end in extents if end in last)

    def _judge_extent(self, place: Partition, batches: Sequence[Placed], span_ms: int) -> None:
        newest_ms = batches[0].timestamp_ms if batches else 0
        for batch in batches:
            if batch.timestamp_ms // span_ms > newest_ms // span_ms:
                self._history.violate(
                    "P9",
                    f"an extent of {place} holds offset {batch.offset} beside what is of an earlier {span_ms} ms",
                )
                return
            newest_ms = max(newest_ms, batch.timestamp_ms)

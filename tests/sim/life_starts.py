"""Starts of logs, as they move in the database: retention by time takes nothing early, at the moment it takes it.

When everything is read back in the end, all records are old. So each move of a start is noted with its time, and held
against the times of the records that it has passed, once it is known where they all stand.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tests.sim.history import History
from tests.sim.life_topics import LifeTopic
from tests.verifier import Partition

SHOWN_MAX = 3
ROUNDING_MS = 2
"""Clocks tell whole milliseconds."""


class Placed(NamedTuple):
    """A batch that was acknowledged."""

    offset: int
    end: int
    timestamp_ms: int


class Move(NamedTuple):
    """A start was seen to have moved."""

    now_ms: int
    start: int
    end: int


class Starts:
    """Of the topics that retention bounds by time, and nothing else takes records from.

    Where records are compacted too, those that are gone no longer hold back the ones before them.
    """

    def __init__(self, topics: Sequence[LifeTopic], history: History) -> None:
        bounded = {topic.name: topic.rules(0) for topic in topics}
        self._retention_ms = {
            name: rules.retention_ms
            for name, rules in bounded.items()
            if rules.retention_ms is not None and not rules.is_compacted
        }
        names = ", ".join(f"'{name}'" for name in self._retention_ms)
        self._query = (
            "select t.name, l.partition, l.start_offset from logs l join topics t on t.topic_id = l.topic_id"
            f" where t.name in ({names}) and l.start_offset > 0 order by l.log_id"
        )
        self._history = history
        self._starts: dict[Partition, int] = defaultdict(int)
        self._moves: dict[Partition, list[Move]] = defaultdict(list)
        self._placed: dict[Partition, list[Placed]] = defaultdict(list)

    def see(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """After a commit."""
        if not self._retention_ms:
            return
        for name, number, start in connection.execute(self._query):
            place = Partition(name, number)
            before = self._starts[place]
            if start < before:
                self._history.violate("P3", f"the stored start of {place} went from {before} to {start}")
            elif start > before:
                self._moves[place].append(Move(now_ms, before, start))
                self._starts[place] = start

    def placed(self, place: Partition, offset: int, count: int, timestamp_ms: int) -> None:
        """A batch was acknowledged."""
        self._placed[place].append(Placed(offset, offset + count, timestamp_ms))

    def judge(self, clock_skew_ms: int) -> None:
        """When everything is acknowledged that was ever sent."""
        for place, moves in self._moves.items():
            retention_ms = self._retention_ms[place.topic]
            early = [
                (move, batch)
                for move in moves
                for batch in self._placed[place]
                if batch.offset < move.end and batch.end > move.start
                if batch.timestamp_ms > move.now_ms - retention_ms + clock_skew_ms + ROUNDING_MS
            ]
            for move, batch in early[:SHOWN_MAX]:
                age_ms = move.now_ms - batch.timestamp_ms
                self._history.violate(
                    "P9",
                    f"{place} offset {batch.offset} was taken early: it was {age_ms} ms old, of {retention_ms}",
                )

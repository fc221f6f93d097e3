"""What one agent hears from others about logs, as the read path uses it.

A hint is never an answer: it may be lost, late, or there twice. It makes those who read a log look into the store, and
lets the ends that are shown to clients lag less behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from warp.ids import LogId

MARKED_LOGS_MAX = 10_000


class LogHint(NamedTuple):
    """Ends that a log has reached, as another agent saw them; 0 where it says nothing."""

    log_id: LogId
    next_offset: int = 0
    start_offset: int = 0
    last_stable_offset: int = 0


class HintMarks:
    """Which logs something was heard of, and when, counted in hints.

    A fetch that has asked the store and begins to wait must not miss what it was told in between: the answer may be
    older than the hint. So it takes down `number` before it asks, and looks at `since` before it waits. Of the logs
    marked longest ago nothing is remembered but when that was at the latest; so `since` says yes too often rather than
    too seldom.
    """

    def __init__(self, *, logs_max: int = MARKED_LOGS_MAX) -> None:
        self.number = 0
        """How many hints there were so far."""
        self._logs_max = logs_max
        self._by_log: dict[LogId, int] = {}
        """The last hint of each log, oldest first."""
        self._others = 0
        """The last hint that any other log can have had."""

    def mark(self, log_ids: Iterable[LogId]) -> None:
        """Something was heard of these logs."""
        self.number += 1
        for log_id in log_ids:
            self._by_log.pop(log_id, None)
            self._by_log[log_id] = self.number
        while len(self._by_log) > self._logs_max:
            self._others = self._by_log.pop(next(iter(self._by_log)))

    def mark_all(self) -> None:
        """Something may have happened to any log."""
        self.number += 1
        self._others = self.number
        self._by_log.clear()

    def since(self, number: int, log_id: LogId) -> bool:
        """May something have been heard of the log after so many hints?"""
        return self._by_log.get(log_id, self._others) > number

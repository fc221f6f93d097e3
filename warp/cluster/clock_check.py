"""Compares this machine's wall clock with the database's, which all agents share.

Records get their times from agents, and retention goes by them: so an agent whose clock is a little off is told so, and
one whose clock is far off keeps out of the way until somebody has set it.
"""

from __future__ import annotations

from enum import IntEnum

WARN_MS = 1_000
DISTRUST_MS = 60_000
PRECISE_S = 1.0
"""A look that took longer says nothing."""


class ClockState(IntEnum):
    """How far off the clock is."""

    RIGHT = 0
    OFF = 1
    DISTRUSTED = 2


class ClockCheck:
    """How this machine's wall clock stands to the database's."""

    def __init__(self) -> None:
        self.skew_ms: int | None = None
        """By how much it is ahead; 0 when no difference can be told; None before the first precise look."""
        self.state = ClockState.RIGHT

    def see(self, time_ms: int, database_ms: int, took_s: float) -> bool:
        """Compare: `time_ms` when the database was asked, what it answered, and how long that took.

        Has the state changed? It falls back once the skew is half of what raised it, so as not to flutter.
        """
        if not 0 <= took_s <= PRECISE_S:
            return False
        latest_ms = time_ms + int(took_s * 1000) + 1
        self.skew_ms = max(time_ms - database_ms, 0) + min(latest_ms - database_ms, 0)
        before, size = self.state, abs(self.skew_ms)
        rise = ClockState((size > WARN_MS) + (size > DISTRUST_MS))
        fall = ClockState((size > WARN_MS // 2) + (size > DISTRUST_MS // 2))
        self.state = max(rise, min(fall, before))
        return self.state is not before

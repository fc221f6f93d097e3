"""When to leave a peer alone that fails: pure decisions. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """How long a peer is left alone, and after what."""

    pause_min_s: float = 1.0
    pause_max_s: float = 30.0
    """Each failure after a pause doubles the next one, up to this."""
    slow_answers_max: int = 3
    """So many in a row count as a failure: a few may be the store's, which the peer waits for."""


class Circuit:
    """Of one peer, in one life of its process."""

    def __init__(self, limits: CircuitLimits) -> None:
        self._limits = limits
        self._pause_s = limits.pause_min_s
        self._slow_answers = 0
        self._open_until: float | None = None

    def is_open(self, now: float) -> bool:
        """Is the peer to be left alone?"""
        return self._open_until is not None and now < self._open_until

    def succeeded(self) -> None:
        """It answered as it should."""
        self._pause_s = self._limits.pause_min_s
        self._slow_answers = 0
        self._open_until = None

    def was_slow(self, now: float) -> None:
        """It did not answer in time."""
        self._slow_answers += 1
        if self._slow_answers >= self._limits.slow_answers_max:
            self.failed(now)

    def failed(self, now: float) -> None:
        """It answered as it should not, or could not be reached."""
        # Requests that were under way when the first of them failed tell nothing new.
        if self.is_open(now):
            return
        self._open_until = now + self._pause_s
        self._pause_s = min(self._limits.pause_max_s, 2 * self._pause_s)
        self._slow_answers = self._limits.slow_answers_max - 1

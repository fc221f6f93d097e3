"""Clocks, always passed in, so that a simulation can own time.

Three clocks, because they answer different questions: wall time goes into records and tables, monotonic time measures
waits, boot time goes on while a machine sleeps and so tells how old something really is.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the product asks the time of."""

    def time_ms(self) -> int:
        """Wall-clock time, milliseconds since 1970-01-01 UTC. May jump."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back; may stand still while the machine sleeps."""

    def boottime(self) -> float:
        """Seconds from an arbitrary start; never goes back; goes on while the machine sleeps."""


class SystemClock:
    """The machine's own clocks."""

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

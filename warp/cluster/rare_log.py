"""Warnings about things that clients name, written once per name and never in a flood.

What clients can name has no end, so what was written is remembered for a bounded number of names, and there is at most
one line per second.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from warp.clock import Clock

NAMES_MAX = 256
"""Names that are remembered; then the one that was written longest ago is forgotten."""
REPEAT_S = 3_600.0
"""How long after a line about a name there may be another one about it."""
INTERVAL_S = 1.0
"""Between two lines at least; what comes in between is told another time, if it comes again."""


class RareLog:
    """Writes warnings to `log`, each at most once per hour and name."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._written: OrderedDict[str, float] = OrderedDict()
        self._open_at_s = clock.monotonic()

    def warning(self, name: str, message: str, *args: object) -> None:
        """Write the message, if it has not been written about this name lately."""
        now_s = self._clock.monotonic()
        if now_s < self._open_at_s or now_s - self._written.get(name, float("-inf")) < REPEAT_S:
            return
        self._open_at_s = now_s + INTERVAL_S
        self._written[name] = now_s
        self._written.move_to_end(name)
        if len(self._written) > NAMES_MAX:
            self._written.popitem(last=False)
        self._log.warning(message, *args)

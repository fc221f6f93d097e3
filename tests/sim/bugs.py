"""What the product logs while it is simulated: part of the history, and a bug where it comes with a traceback."""

from __future__ import annotations

import logging

from tests.sim.history import History


class BugWatch(logging.Handler):
    """Takes what the product logs: errors with a traceback are bugs."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.WARNING)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        """One line of the product."""
        text = record.getMessage()
        if record.exc_info:
            self._history.violate("P7", f"{record.name} logged {text}: {record.exc_info[1]!r}")
        else:
            self._history.add("log", text)

"""What the product logs while it is simulated: part of the history, and a bug where it comes with a traceback."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

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


def failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    """How a task that is done has failed; nobody cancels one of these but by mistake."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()

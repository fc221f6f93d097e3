"""Ctrl-C as a flag.

An exception that strikes inside a callback of the client library is lost, or ends the call with an error of its own. So
while the library is at work an interrupt is only noted; where a command waits for something else, it raises.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupt:
    """Notes SIGINT from entry to exit. To be used on the main thread."""

    def __init__(self) -> None:
        self.is_set = False
        self._raises = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, an interrupt raises KeyboardInterrupt; one that came before does so at once."""
        self._raises = True
        try:
            if self.is_set:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True
        if self._raises:
            raise KeyboardInterrupt

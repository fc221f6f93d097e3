"""A bar on a terminal that shows how far a long look has come; nothing anywhere else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Final, TextIO

_CLEAR_LINE: Final = "\r\x1b[K"
_WIDTH: Final = 24
EVERY_S: Final = 0.1


class ProgressBar:
    """One line that is rewritten, at most every EVERY_S."""

    def __init__(self, stream: TextIO, monotonic: Callable[[], float]) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._is_terminal = stream.isatty()
        self._shown: tuple[str, float] | None = None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show how far it is."""
        now = self._monotonic()
        if not self._is_terminal or (
            self._shown and self._shown[0] == what and now < self._shown[1] + EVERY_S
        ):
            return
        line = bar(what, done, total)[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"{_CLEAR_LINE}{line}")
        self._stream.flush()
        self._shown = (what, now)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
            self._shown = None


def bar(what: str, done: int, total: int | None) -> str:
    """`segments  [=====     ]  50 %  1,000 of 2,000`."""
    if not total:
        return f"{what}  {done:,}"
    share = min(1.0, done / total)
    filled = round(share * _WIDTH)
    return f"{what:<12} [{'=' * filled:<{_WIDTH}}] {share:4.0%}  {done:,} of {total:,}"

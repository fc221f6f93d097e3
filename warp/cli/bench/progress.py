"""Shows how a run is going: one line that is rewritten on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import shutil
from typing import Final, TextIO

from warp.cli.bench.report import MB, milliseconds
from warp.cli.bench.results import Second, Side

QUIET_SECONDS: Final = 5


class Progress:
    """Lines for the seconds of a run. It writes to standard error, so that results can go elsewhere."""

    def __init__(self, stream: TextIO, producers: Side | None, consumers: Side | None) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._sides = [
            (name, side) for name, side in (("produced", producers), ("consumed", consumers)) if side
        ]
        self._shown: tuple[bool, int] | None = None
        self._is_open = False

    def update(self) -> None:
        """Show the last second that all workers have told, if it was not shown."""
        whole = [
            {
                (is_drain, number)
                for (number, is_drain), second in side.seconds.items()
                if second.reports >= side.workers
            }
            for _, side in self._sides
        ]
        keys = set.intersection(*whole)
        if not keys:
            return
        is_drain, number = key = max(keys)
        if key == self._shown or is_drain:
            return
        self._shown = key
        if self._is_terminal or number % QUIET_SECONDS == 0 or number == 1:
            seconds = [(name, side.seconds[number, is_drain]) for name, side in self._sides]
            self._write(progress_line(number, seconds))

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self.close()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line that is rewritten."""
        if self._is_open:
            self._stream.write("\n")
            self._stream.flush()
            self._is_open = False

    def _write(self, line: str) -> None:
        # A line that wraps could not be rewritten.
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[2K{line[:width]}" if self._is_terminal else f"{line}\n")
        self._stream.flush()
        self._is_open = self._is_terminal


def progress_line(number: int, seconds: list[tuple[str, Second]]) -> str:
    """One second, in words."""
    phase = seconds[0][1].phase
    words = [f"warm-up, {-number} s to go" if phase == "warm-up" else f"{number:>4} s"]
    for name, second in seconds:
        text = f"{name} {second.records_per_s:,.0f}/s ({second.bytes_per_s / MB:,.3g} MB/s)"
        if second.latency.count:
            p50, p99 = (milliseconds(second.latency.percentile_us(percent)) for percent in (50, 99))
            text += f" p50 {p50} p99 {p99}"
        if second.backlog:
            text += f" waiting {second.backlog:,}"
        if second.errors:
            text += f" errors {second.errors:,}"
        words.append(text)
    return "  ".join(words)

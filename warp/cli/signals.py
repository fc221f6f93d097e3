"""Signals on a thread of their own, so that they work whatever the event loop is stuck in.

The main thread may hang in a system call (a disk that does not answer, say), where no Python signal handler runs. This
thread waits for the signals itself: the first SIGTERM or SIGINT asks the loop to stop and starts the clock; when the
time is over, or at a second SIGINT, it ends the process. SIGUSR1 writes what every task and thread does to the log.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Final

from warp.logs import TEXT_CHARACTERS_MAX

log = logging.getLogger("warp.agent")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DUMPED_TASKS_MAX: Final = 1_000
DUMP_CHARACTERS_MAX: Final = 200_000
PART_CHARACTERS_MAX: Final = TEXT_CHARACTERS_MAX // 2


def block_signals() -> None:
    """Keep the signals from this thread and all that it will start. To be called while there is only one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class SignalThread(threading.Thread):
    """Waits for signals, which `block_signals` must have kept from every thread.

    `stop()` is called on this thread at the first signal to stop; `last_words()` before the process is ended.
    """

    def __init__(self, timeout_s: float, stop: Callable[[], None], last_words: Callable[[], object]) -> None:
        super().__init__(name="warp-signals", daemon=True)
        self._timeout_s = timeout_s
        self._stop = stop
        self._last_words = last_words
        self._deadline: float | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """Whose tasks SIGUSR1 shows; set by the main thread."""

    def run(self) -> None:
        """Wait for signals until the process ends."""
        while True:
            number = self._wait()
            if number is None:
                log.error("not everything ended within %.0f s; exiting all the same", self._timeout_s)
                self._end(0)
            elif number == signal.SIGUSR1:
                for part in _parts(dump(self.loop)):
                    log.warning("what the agent is doing, as SIGUSR1 asks:\n%s", part)
            elif self._deadline is None:
                log.info("stopping, because of %s", signal.Signals(number).name)
                self._deadline = monotonic() + self._timeout_s
                self._stop()
            elif number == signal.SIGINT:
                log.error("exiting at once, at the second interrupt")
                self._end(1)

    def _wait(self) -> int | None:
        """The next signal; None when the time to stop is over."""
        if self._deadline is None:
            return signal.sigwait(SIGNALS)
        found = signal.sigtimedwait(SIGNALS, max(0.0, self._deadline - monotonic()))
        return None if found is None else found.si_signo

    def _end(self, code: int) -> None:
        self._last_words()
        os._exit(code)


def dump(loop: asyncio.AbstractEventLoop | None) -> str:
    """The stacks of all threads, and of the tasks of a loop, as text. Called from any thread."""
    out = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sorted(sys._current_frames().items()):
        out.write(f"thread {names.get(ident, ident)}\n")
        traceback.print_stack(frame, file=out)
    for task in _tasks(loop):
        out.write(f"task {task.get_name()} {task.get_coro()!r}\n")
        for frame in task.get_stack(limit=8):
            out.write(f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}\n")
        if out.tell() > DUMP_CHARACTERS_MAX:
            out.write("and more\n")
            break
    return out.getvalue()


def _parts(text: str) -> list[str]:
    """A text in pieces of whole lines, each short enough for one log line."""
    parts = [""]
    for line in text.splitlines(keepends=True):
        if len(parts[-1]) + len(line) > PART_CHARACTERS_MAX:
            parts.append("")
        parts[-1] += line
    return parts


def _tasks(loop: asyncio.AbstractEventLoop | None) -> list[asyncio.Task[object]]:
    if loop is None:
        return []
    found = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return found[:DUMPED_TASKS_MAX]

"""Lets a schedule happen: each misfortune in a thread of its own, which begins it and puts it right in time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.faults.schedule import Kind, Misfortune, Schedule

JOIN_S = 90.0
"""What a misfortune may take to be put right: an agent may have to wait until the database is back."""


class Conductor:
    """Use as a context manager: on exit whatever is in force is put right, also when the run has failed.

    `begin` gives what happens while it is entered; `left_out` are kinds that can't be had here.
    """

    def __init__(
        self,
        schedule: Schedule,
        begin: Callable[[Misfortune], AbstractContextManager[object]],
        left_out: set[Kind],
        say: Callable[[str], None],
    ) -> None:
        self.happened: Counter[Kind] = Counter()
        self.problems: list[str] = []
        """Misfortunes that could not be begun, or put right."""
        self._begin = begin
        self._say = say
        self._ending = threading.Event()
        self._start_s = 0.0
        wanted = [each for each in schedule.misfortunes if each.kind not in left_out]
        self._threads = [
            threading.Thread(target=self._happen, args=(each,), name=each.kind.name, daemon=True)
            for each in wanted
        ]

    def __enter__(self) -> Conductor:
        self._start_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def join(self) -> None:
        """Wait until all is over and put right."""
        for thread in self._threads:
            thread.join(JOIN_S)
            if thread.is_alive():
                self.problems.append(f"{thread.name} does not end")

    def _happen(self, misfortune: Misfortune) -> None:
        if self._ending.wait(max(0.0, self._start_s + misfortune.start_s - time.monotonic())):
            return
        self._say(f"{misfortune}")
        try:
            with self._begin(misfortune):
                self.happened[misfortune.kind] += 1
                # Of what begins late, because it had to wait for another one, the rest.
                end_s = self._start_s + misfortune.start_s + misfortune.duration_s
                self._ending.wait(max(0.0, end_s - time.monotonic()))
        except Exception as error:  # noqa: BLE001  whatever it is, the run has failed and says so in the end
            self.problems.append(f"{misfortune}: {error!r}")

"""Cuts a worker's counts into intervals of a second, aligned to the begin of the measured time.

It runs on the thread that counts, so nothing is lost or counted twice between one interval and the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from warp.cli.bench.histogram import Histogram
from warp.cli.bench.schedule import NS_PER_S
from warp.cli.bench.tasks import Interval, Phase

INTERVAL_NS: Final = NS_PER_S


class Tally:
    """Counts of the interval that is open, and when it ends.

    `begin_ns` is the begin of the measured time, `end_ns` its end, which may be moved to earlier; `emit` gets every
    interval that has ended. `cpu_s` tells the CPU time that the process has used so far.
    """

    def __init__(
        self,
        begin_ns: int,
        end_ns: int,
        start_ns: int,
        cpu_s: Callable[[], float],
        emit: Callable[[Interval], None],
    ) -> None:
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self.records = 0
        self.bytes = 0
        self.errors: Counter[str] = Counter()
        self.latency = Histogram()
        self.early_latency = Histogram()
        self.backlog: Callable[[], int] = lambda: 0
        self._emit = emit
        self._cpu = cpu_s
        self._cpu_before = cpu_s()
        self._opened_ns = start_ns
        # The measured time begins at the border of an interval, so the first one of the warm-up may be shorter.
        self._number = -((begin_ns - start_ns - 1) // INTERVAL_NS) if begin_ns > start_ns else 1
        self._phase: Phase = "warm-up" if begin_ns > start_ns else "measured"

    def due_ns(self) -> int:
        """When the open interval ends."""
        border_ns = self.begin_ns + self._number * INTERVAL_NS
        return border_ns if self._phase == "drain" else min(border_ns, max(self.end_ns, self._opened_ns))

    def seen(self, latency_ns: int, due_ns: int) -> None:
        """Count the latency of a record; it counts for the result when the record was due in the measured time."""
        (self.latency if due_ns >= self.begin_ns else self.early_latency).record(latency_ns // 1000)

    def advance(self, now_ns: int) -> None:
        """End the open interval if it is time to. After long waits one interval is longer than the others."""
        if now_ns < self.due_ns():
            return
        self._cut(now_ns)
        if now_ns >= self.end_ns:
            self._phase = "drain"
        elif self._phase == "warm-up" and now_ns >= self.begin_ns:
            self._phase = "measured"

    def finish(self, now_ns: int) -> None:
        """End the last interval, unless nothing has happened in it and it took no time."""
        if now_ns > self._opened_ns or self.records or self.errors:
            self._cut(max(now_ns, self._opened_ns))

    def _cut(self, now_ns: int) -> None:
        cpu_s = self._cpu()
        self._emit(
            Interval(
                number=self._number,
                phase=self._phase,
                seconds=(now_ns - self._opened_ns) / NS_PER_S,
                records=self.records,
                bytes=self.bytes,
                cpu_s=cpu_s - self._cpu_before,
                backlog=self.backlog(),
                errors=dict(self.errors),
                latency=self.latency,
                early_latency=self.early_latency,
            )
        )
        self.records = self.bytes = 0
        self.errors = Counter()
        self.latency, self.early_latency = Histogram(), Histogram()
        self._cpu_before = cpu_s
        self._opened_ns = now_ns
        self._number = max(self._number, (now_ns - self.begin_ns) // INTERVAL_NS) + 1

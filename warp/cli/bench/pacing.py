"""Sends records when they are due, or as soon after as it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from warp.cli.bench.schedule import NS_PER_S, ClientLag, Schedule

TICK_S: Final = 0.0005
"""The shortest sleep: with more than 2,000 records/s a few are sent at a time."""
SLEEP_S_MAX: Final = 0.05
BURST: Final = 64
"""Records sent between two looks at what is due."""
LAST_MOMENTS_NS: Final = NS_PER_S
"""After the end so long is left for sending what was due before it."""
QUEUE_FULL_WAIT_S: Final = 0.001


class PacedSender:
    """Keeps to a schedule. `hand_over` takes the time at which a record is due; False means that the queue is full.

    `end_ns` tells the end, which may be moved to earlier. Lag counts from `begin_ns`, the end of the warm-up, on.
    `between` is called between bursts of records.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        begin_ns: int,
        end_ns: Callable[[], int],
        hand_over: Callable[[int], bool],
        clock_ns: Callable[[], int],
        sleep_s: Callable[[float], None],
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self._schedule = schedule
        self._begin_ns = begin_ns
        self._end_ns = end_ns
        self._hand_over = hand_over
        self._clock = clock_ns
        self._sleep = sleep_s
        self._between = between
        self.lag = ClientLag()
        self.sent = 0

    def run(self) -> None:
        """Send until the end."""
        schedule, clock = self._schedule, self._clock
        while True:
            self._between()
            now_ns, end_ns = clock(), self._end_ns()
            is_over = now_ns >= end_ns
            waiting = schedule.due_count(end_ns - 1 if is_over else now_ns) - self.sent
            if waiting <= 0:
                if is_over:
                    return
                wait_ns = min(schedule.due_ns(self.sent), end_ns) - now_ns
                self._sleep(min(SLEEP_S_MAX, max(TICK_S, wait_ns / NS_PER_S)))
                continue
            if now_ns >= end_ns + LAST_MOMENTS_NS:
                return
            for _ in range(min(waiting, BURST)):
                if not self._send(schedule.due_ns(self.sent)):
                    break

    def unsent(self) -> tuple[int, int]:
        """How many records were due and not sent when the time was over, and for how many ns the first of them was."""
        end_ns = self._end_ns()
        count = self._schedule.due_count(end_ns - 1) - self.sent
        return (count, end_ns - self._schedule.due_ns(self.sent)) if count > 0 else (0, 0)

    def _send(self, due_ns: int) -> bool:
        if self._hand_over(due_ns):
            self.sent += 1
            self.lag.sent(self._clock() - due_ns, counts=due_ns >= self._begin_ns)
            return True
        began_ns = self._clock()
        self._sleep(QUEUE_FULL_WAIT_S)
        self.lag.waited(self._clock() - began_ns)
        return False

"""When each record is to be sent, and whose fault it is when it is sent later.

Open loop: the schedule is fixed before the first record, and a latency counts from the time at which a record was due.
A broker that stalls for a second therefore shows a second's worth of slow records, not one slow record and a pause
("coordinated omission"). What this can't tell apart is a slow broker from a slow load generator; `ClientLag` does.
"""

from __future__ import annotations

from typing import Final

from warp.cli.bench.histogram import Histogram

NS_PER_S: Final = 1_000_000_000


class Schedule:
    """Evenly spaced records from `begin_ns` on: number n is due at `begin_ns + (n + phase) / records_per_s`.

    `phase` (0 to 1) shifts the records of one producer between those of others.
    """

    __slots__ = ("_first_ns", "_interval_ns")

    def __init__(self, begin_ns: int, records_per_s: float, phase: float = 0.0) -> None:
        self._interval_ns = NS_PER_S / records_per_s
        self._first_ns = begin_ns + int(phase * self._interval_ns)

    def due_ns(self, number: int) -> int:
        """When a record is to be sent."""
        return self._first_ns + int(number * self._interval_ns)

    def due_count(self, now_ns: int) -> int:
        """How many records are due by now, that of this very moment included."""
        if now_ns < self._first_ns:
            return 0
        count = int((now_ns - self._first_ns) / self._interval_ns)
        # The division may round across the border.
        while self.due_ns(count) <= now_ns:
            count += 1
        while count and self.due_ns(count - 1) > now_ns:
            count -= 1
        return count


class ClientLag:
    """How late records were handed to the client library, less the time in which its queue was full.

    A full queue is the broker's doing: it lets the sender wait. That wait, and the catching up after it, is excused
    until the schedule is met again; what is left is the load generator's own: too little CPU, or a sleep too long.
    """

    CAUGHT_UP_NS: Final = 1_000_000
    """A record that is sent at most this late meets the schedule."""

    def __init__(self) -> None:
        self.own = Histogram()
        self.queue_full_ns = 0
        """Time in which the sender waited because the queue was full."""
        self._excused_ns = 0

    def sent(self, late_ns: int, *, counts: bool = True) -> None:
        """A record was handed over so long after it was due; those of the warm-up do not count."""
        if late_ns <= self.CAUGHT_UP_NS:
            self._excused_ns = 0
        if counts:
            self.own.record((late_ns - self._excused_ns) // 1000)

    def waited(self, waited_ns: int) -> None:
        """The queue was full for so long."""
        self.queue_full_ns += waited_ns
        self._excused_ns += waited_ns

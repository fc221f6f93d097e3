"""How fast the jobs of one agent may read and write together: a token bucket of bytes.

A job says what it is about to move and waits until that much has been gained. The bucket may go into debt by one move,
however large: otherwise what is larger than a second's worth could never be moved. Waiters are let through in the order
in which they came, so that the small moves of one job don't keep a large one of another waiting for ever.

Beside producers jobs are considerate: they share the disk, the processor and SQLite with them, and have time as long as
little waits to be merged. The more waits, the faster they go, so that they keep up with whatever is written.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from warp.clock import Clock

BURST_S = 0.25
"""What a quiet time saves up, as a time of the full rate: pauses stay short and still are worth a timer."""


CONSIDERATE_BYTES_PER_S = 60_000_000
"""Read and written together, beside producers while nothing waits. On 2 processors and one disk, a merge at full speed
made the slowest of 100 small writes ten times as slow; fsync alone, beside a program that does nothing but write, takes
5 ms instead of 0.5 once in 100 times at 150 MB/s, and 1.5 to 2.5 at 50 to 75."""
RESTS = 4.0
"""Beside producers, for so many times as long as a step of work has held the loop it is left to others afterwards: a
small write needs it, and the interpreter's lock, some six times, and waits for one step rather than for them all."""
REST_S_MAX = 0.05
FULL_SPEED_DEBT = 0.5
"""From here on jobs are considerate no longer. At 1 producers would be held back."""
ACTIVE_S = 1.0
"""For so long after the last commit of records others may count on their agent's producers to go on."""


class Considerate:
    """The rate that spares producers, as long as there are any. `debt` is what waits to be merged, of what may wait.

    `written_bytes` counts what producers have written here.
    """

    def __init__(self, clock: Clock, written_bytes: Callable[[], int], debt: Callable[[], float]) -> None:
        self._clock = clock
        self._written_bytes = written_bytes
        self._debt = debt
        self._seen_bytes = written_bytes()
        self._active_until_s = -math.inf

    def bytes_per_s(self) -> float:
        """How fast jobs should go at present; infinite when nobody is to be spared."""
        share = self.share()
        return CONSIDERATE_BYTES_PER_S / share if share else math.inf

    def share(self) -> float:
        """How much producers are to be spared: from 1, as much as can be, to 0."""
        now_s = self._clock.monotonic()
        written_bytes = self._written_bytes()
        if written_bytes != self._seen_bytes:
            self._seen_bytes = written_bytes
            self._active_until_s = now_s + ACTIVE_S
        room = 1.0 - self._debt() / FULL_SPEED_DEBT
        return 0.0 if now_s >= self._active_until_s else max(0.0, min(1.0, room))


class Pace:
    """The bound of all jobs together. `bytes_per_s` of None is none; `considerate` is what jobs keep to of themselves.

    `moved_bytes` counts what was let through.
    """

    def __init__(
        self,
        clock: Clock,
        bytes_per_s: int | None = None,
        considerate: Considerate | None = None,
    ) -> None:
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError(f"a rate of {bytes_per_s} bytes per second lets nothing through")
        self.moved_bytes = 0
        self.waited_s = 0.0
        """How long jobs have been held back by it, in all."""
        self._clock = clock
        self._bytes_per_s = math.inf if bytes_per_s is None else float(bytes_per_s)
        self._considerate = considerate
        self._free_at_s = clock.monotonic()
        """When what was let through has been gained again."""

    @property
    def bytes_per_s(self) -> float:
        """How fast jobs may go at present."""
        wish = math.inf if self._considerate is None else self._considerate.bytes_per_s()
        return min(self._bytes_per_s, wish)

    def now_s(self) -> float:
        """When a step begins, for `turn`."""
        return self._clock.monotonic()

    async def turn(self, began_s: float) -> None:
        """Leave the loop to others after a step of work that began then; the longer, the more they are spared."""
        share = 0.0 if self._considerate is None else self._considerate.share()
        worked_s = self._clock.monotonic() - began_s
        await asyncio.sleep(min(REST_S_MAX, share * RESTS * worked_s))

    async def spend(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read or written. Never waits when nothing bounds the rate.

        Who is cancelled while he waits has had his bytes all the same: the next ones wait for them.
        """
        if size_bytes < 0:
            raise ValueError(f"{size_bytes} bytes can't be moved")
        self.moved_bytes += size_bytes
        rate = self.bytes_per_s
        now_s = self._clock.monotonic()
        begins_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = begins_s + size_bytes / rate
        wait_s = begins_s - now_s
        if wait_s > 0:
            self.waited_s += wait_s
            await asyncio.sleep(wait_s)

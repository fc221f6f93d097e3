"""How fast the jobs of one agent may read and write together: a token bucket of bytes.

A job says what it is about to move and waits until that much has been gained. The bucket may go into debt by one move,
however large: otherwise what is larger than a second's worth could never be moved. Waiters are let through in the order
in which they came, so that the small moves of one job don't keep a large one of another waiting for ever.
"""

from __future__ import annotations

import asyncio

from warp.clock import Clock

BURST_S = 0.25
"""What a quiet time saves up, as a time of the full rate: pauses stay short and still are worth a timer."""


class Pace:
    """The bound of all jobs together. `bytes_per_s` of None is none.

    `moved_bytes` counts what was let through.
    """

    def __init__(self, clock: Clock, bytes_per_s: int | None = None) -> None:
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError(f"a rate of {bytes_per_s} bytes per second lets nothing through")
        self.moved_bytes = 0
        self.waited_s = 0.0
        """How long jobs have been held back by it, in all."""
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._free_at_s = clock.monotonic()
        """When what was let through has been gained again."""

    async def spend(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read or written. Never waits without a bound on the rate.

        Who is cancelled while he waits has had his bytes all the same: the next ones wait for them.
        """
        if size_bytes < 0:
            raise ValueError(f"{size_bytes} bytes can't be moved")
        self.moved_bytes += size_bytes
        if self._bytes_per_s is None:
            return
        now_s = self._clock.monotonic()
        begins_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = begins_s + size_bytes / self._bytes_per_s
        wait_s = begins_s - now_s
        if wait_s > 0:
            self.waited_s += wait_s
            await asyncio.sleep(wait_s)

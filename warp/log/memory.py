"""One bound for bytes that many parties hold, because each of them alone would stay in its bounds and all not.

Whoever is about to take memory at a client's word reserves it here first: frames before their bodies are read, batches
before they are decompressed. Waiters are served strictly in order, so a large one is not overtaken for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque


class MemoryBudget:
    """A number of bytes shared out among reservations.

    One reservation may be larger than the whole budget: it is granted when nothing else is held. The alternative would
    be to wait for ever; sizes that can never be right are refused before they come here.
    """

    def __init__(self, bytes_max: int) -> None:
        if bytes_max <= 0:
            raise ValueError("a memory budget needs at least one byte")
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many reservations wait."""
        return len(self._waiters)

    def try_reserve(self, size_bytes: int) -> bool:
        """Take `size_bytes` now, or nothing at all: also False while others wait."""
        if self._waiters or not self._fits(size_bytes):
            return False
        self.used_bytes += size_bytes
        return True

    def charge(self, size_bytes: int) -> None:
        """Take `size_bytes` in any case, for what comes with something that has been reserved; to be released alike."""
        self.used_bytes += size_bytes

    async def reserve(self, size_bytes: int) -> None:
        """Wait in line until `size_bytes` can be had. Cancelled, it holds nothing."""
        if self.try_reserve(size_bytes):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, granted)
        self._waiters.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(size_bytes)
            elif entry in self._waiters:
                self._waiters.remove(entry)
                self._grant()
            raise

    def release(self, size_bytes: int) -> None:
        """Give back what was reserved."""
        if not 0 <= size_bytes <= self.used_bytes:
            raise ValueError(f"released {size_bytes} bytes of {self.used_bytes} that are held")
        self.used_bytes -= size_bytes
        self._grant()

    def _fits(self, size_bytes: int) -> bool:
        return self.used_bytes + size_bytes <= self.bytes_max or self.used_bytes == 0

    def _grant(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            size_bytes, granted = self._waiters.popleft()
            if not granted.done():
                self.used_bytes += size_bytes
                granted.set_result(None)

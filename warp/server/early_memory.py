"""Memory for the requests of a connection that has not authenticated, apart from that of all others.

Each such connection has a small allowance, which holds an ordinary token and can't be taken by anybody else. Only what
is above that comes out of a budget that all of them share. So whoever fills that budget keeps nobody else from
authenticating, and takes nothing from those who have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp.log.memory import MemoryBudget


class EarlyMemory:
    """Of one connection; to be used like a MemoryBudget."""

    __slots__ = ("_allowance_bytes", "_drawn_bytes", "_shared", "used_bytes")

    def __init__(self, shared: MemoryBudget, allowance_bytes: int) -> None:
        self._shared = shared
        self._allowance_bytes = allowance_bytes
        self._drawn_bytes = 0
        self.used_bytes = 0

    def try_reserve(self, size_bytes: int) -> bool:
        """Take `size_bytes` now, or nothing at all."""
        missing_bytes = self._missing(size_bytes)
        if missing_bytes > 0:
            if not self._shared.try_reserve(missing_bytes):
                return False
            self._drawn_bytes += missing_bytes
        self.used_bytes += size_bytes
        return True

    def charge(self, size_bytes: int) -> None:
        """Take `size_bytes` in any case."""
        missing_bytes = self._missing(size_bytes)
        if missing_bytes > 0:
            self._shared.charge(missing_bytes)
            self._drawn_bytes += missing_bytes
        self.used_bytes += size_bytes

    async def reserve(self, size_bytes: int) -> None:
        """Wait until `size_bytes` can be had. Cancelled, it holds nothing of them."""
        missing_bytes = self._missing(size_bytes)
        if missing_bytes > 0:
            await self._shared.reserve(missing_bytes)
            self._drawn_bytes += missing_bytes
        self.used_bytes += size_bytes
        self._give_back()  # what was released meanwhile

    def release(self, size_bytes: int) -> None:
        """Give back what was taken."""
        if not 0 <= size_bytes <= self.used_bytes:
            raise ValueError(f"released {size_bytes} bytes of {self.used_bytes} that are held")
        self.used_bytes -= size_bytes
        self._give_back()

    def _missing(self, size_bytes: int) -> int:
        return self.used_bytes + size_bytes - self._allowance_bytes - self._drawn_bytes

    def _give_back(self) -> None:
        surplus_bytes = self._drawn_bytes - max(0, self.used_bytes - self._allowance_bytes)
        if surplus_bytes > 0:
            self._drawn_bytes -= surplus_bytes
            self._shared.release(surplus_bytes)

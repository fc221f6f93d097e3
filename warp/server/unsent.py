"""The memory of answers between `write` and the moment when the transport has sent them.

A transport keeps what the socket does not take at once, and with it the memory that the bytes are a view of. So memory
is given back by count: when as many bytes have left as were written up to the end of the answer that it belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class UnsentMemory:
    """What to give back, in order, and after how many bytes of the connection."""

    def __init__(self) -> None:
        self.written_bytes = 0
        """Bytes given to the transport so far."""
        self._releases: deque[tuple[int, Callable[[], None]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._releases)

    def add(self, release: Callable[[], None], end: int) -> None:
        """Call `release` when the connection's first `end` bytes have been sent."""
        self._releases.append((end, release))

    def left(self, unsent_bytes: int) -> None:
        """All but the last `unsent_bytes` of what was written have been sent."""
        sent_bytes = self.written_bytes - unsent_bytes
        while self._releases and self._releases[0][0] <= sent_bytes:
            self._releases.popleft()[1]()

    def release_all(self) -> None:
        """Nothing will be sent any more."""
        while self._releases:
            self._releases.popleft()[1]()

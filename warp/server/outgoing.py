"""The parts of answers on their way into a connection's transport: small ones joined, large ones by reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from warp.server.unsent import UnsentMemory

if TYPE_CHECKING:
    import asyncio

    from warp.protocol import Buffer

_SMALL_BYTES_MAX = 8_192
"""Parts of answers up to this size are joined for one write; a larger one is written by itself, without a copy."""


class Outgoing:
    """What one connection writes; `wrote` is told the size of each write."""

    __slots__ = ("_memory", "_small", "_transport", "_wrote")

    def __init__(self, wrote: Callable[[int], None]) -> None:
        self._transport: asyncio.Transport
        self._wrote = wrote
        self._small: list[Buffer] = []
        self._memory = UnsentMemory()

    def open(self, transport: asyncio.Transport) -> None:
        """There is a transport to write to."""
        self._transport = transport

    @property
    def holds_memory(self) -> bool:
        """Whether memory of answers waits for their bytes to leave."""
        return bool(self._memory)

    def put(self, parts: Sequence[Buffer], release: Callable[[], None] | None) -> None:
        """Write an answer; what is small stays until `flush`. `release` is called when it has left, or never will."""
        for part in parts:
            if len(part) <= _SMALL_BYTES_MAX:
                self._small.append(part)
            else:
                self.flush()
                self._write(part)
        if release is not None:
            self._memory.add(release, self._memory.written_bytes + sum(map(len, self._small)))

    def flush(self) -> None:
        """Write the small parts together, each too small for a write of its own."""
        if self._small:
            # Taken first: a transport may have the connection go on in the middle of a write.
            parts, self._small = self._small, []
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))

    def release_sent(self) -> None:
        """Give back the memory of what has left."""
        if self._memory:
            self._memory.left(self._transport.get_write_buffer_size())

    def release_all(self) -> None:
        """Give back all memory: nothing leaves any more."""
        self._memory.release_all()

    def _write(self, part: Buffer) -> None:
        self._wrote(len(part))
        self._memory.written_bytes += len(part)
        self._transport.write(part)

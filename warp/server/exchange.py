"""One request between its start and the moment when its answer has been written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from warp.protocol import Buffer
    from warp.server.dispatch import Call

REQUEST_BYTES = 2_048
"""What a request costs beside its frame until it is answered, measured with small Produces that wait for a commit."""

PART_BYTES = 1_024
"""The same of each further batch of a Produce: what is read of it, checked and decided takes many times the bytes of a
small one."""


def request_bytes(call: Call) -> int:
    """What a request costs beside its frame."""
    if call.entry.parts is None:
        return REQUEST_BYTES
    return REQUEST_BYTES + PART_BYTES * max(0, call.entry.parts(call.request) - 1)


class Exchange:
    """One request that has been started, and what becomes of it."""

    __slots__ = ("answered", "call", "closes", "for_peer", "order", "parts", "release", "size_bytes", "task")

    def __init__(self, call: Call, size_bytes: int) -> None:
        self.call = call
        self.order = call.entry.order
        self.size_bytes = size_bytes
        """Memory that is charged for its frame until it is answered."""
        self.task: asyncio.Task[Any] | None = None
        self.for_peer: asyncio.Future[Any] | None = None
        """What is waited for only as long as the peer is there."""
        self.answered = False
        self.parts: Sequence[Buffer] = ()
        self.release: Callable[[], None] | None = None
        """Gives back the memory of the answer."""
        self.closes: str | None = None
        """Why the connection ends in place of an answer."""

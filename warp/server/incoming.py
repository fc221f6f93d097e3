"""What a connection reads, on whose memory, and who may send it: little of an unknown peer, more once it is known.

A connection on a listener that does not ask who its clients are is open from the start. On the others it has a small
memory of its own and small frames until its peer has shown a certificate or has authenticated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp.protocol import FrameSplitter
from warp.server.authentication import ConnectionAuthentication
from warp.server.early_memory import EarlyMemory

if TYPE_CHECKING:
    from warp.handlers.context import Client
    from warp.log.memory import MemoryBudget
    from warp.security.principal import Principal
    from warp.server.pool import ConnectionPool


class Incoming(FrameSplitter):
    """The reading half of a connection."""

    def __init__(self, pool: ConnectionPool, client: Client) -> None:
        FrameSplitter.__init__(self, pool.receive_buffer, pool.frame_bytes_max, pool.memory.try_reserve)
        self._pool = pool
        self._memory: MemoryBudget | EarlyMemory = pool.memory
        self._gate: ConnectionAuthentication | None = None
        self._open_request = pool.dispatcher.open
        self._early_requests = 0
        self.client = client
        if not client.is_authenticated:
            self._start_early()

    def secured(self, principal: Principal) -> None:
        """TLS is up. The principal is that of its certificate; on a SASL listener another one is to be told."""
        if self._gate is None:
            self.client.principal = principal
            self.client.is_authenticated = True
            self._open_up()

    def _asks_too_much(self, count: int) -> bool:
        """Whether so many more frames are too many of a peer that has not authenticated."""
        self._early_requests += count
        return self._early_requests > self._pool.limits.early_requests_max

    def _start_early(self) -> None:
        pool = self._pool
        self._memory = EarlyMemory(pool.early_memory, pool.limits.early_allowance_bytes)
        self.reserve = self._memory.try_reserve
        self.frame_bytes_max = pool.early_frame_bytes_max
        if self.client.protocol.startswith("SASL_"):
            assert pool.mechanisms is not None, "a SASL listener has mechanisms"
            self._gate = ConnectionAuthentication(pool, self.client, pool.mechanisms, self._open_up)
            self._open_request = self._gate.open
            self.client.authentication = self._gate

    def _open_up(self) -> None:
        """It is known who it is: what it holds is charged to the memory of all, and its frames may be large."""
        early, self._memory = self._memory, self._pool.memory
        self._memory.charge(early.used_bytes)
        early.release(early.used_bytes)
        self.reserve = self._memory.try_reserve
        self.frame_bytes_max = self._pool.frame_bytes_max
        self._pool.authenticated(self)

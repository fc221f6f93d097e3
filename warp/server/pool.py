"""All connections of one agent: how many there may be, the limits in time that they share, and their common end.

One timer looks after every connection, in the order in which they came, instead of several timers for each.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from warp.handlers.context import Client
from warp.protocol import SharedReceiveBuffer
from warp.server.connection import Connection
from warp.server.limits import LogLimit, ServerLimits

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.handlers.context import Endpoint
    from warp.log.memory import MemoryBudget
    from warp.server.dispatch import Dispatcher

log = logging.getLogger("warp.server")


class ConnectionPool:
    """Makes, counts, watches and ends connections.

    `memory` is the budget for requests: each frame is charged from before its body is read until it is answered.
    """

    def __init__(
        self, dispatcher: Dispatcher, memory: MemoryBudget, clock: Clock, limits: ServerLimits
    ) -> None:
        self.dispatcher = dispatcher
        self.memory = memory
        self.clock = clock
        self.limits = limits
        self.frame_bytes_max = min(limits.request_bytes_max, memory.bytes_max)
        self.receive_buffer = SharedReceiveBuffer(limits.receive_buffer_bytes)
        self.opened = 0
        self.refused = 0
        self.protocol_errors = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self._connections: dict[Connection, None] = {}
        self._refused_log = LogLimit(clock)
        self._error_log = LogLimit(clock, interval_ms=100)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_draining = False
        self._emptied: asyncio.Event = asyncio.Event()

    def __len__(self) -> int:
        return len(self._connections)

    def connection(self, advertised: Endpoint, listener: int = 0) -> Connection:
        """A new connection of a listener, for a transport that is about to be made.

        Its peer is told `advertised` of this agent.
        """
        return Connection(self, Client("?", advertised, listener))

    def admit(self, connection: Connection) -> bool:
        """Take a connection in; False when there are too many, or the agent is about to stop."""
        if self._is_draining or len(self._connections) >= self.limits.connections_max:
            self.refused += 1
            if self._refused_log.passes():
                why = "the agent is stopping" if self._is_draining else f"{len(self._connections)} are open"
                log.warning(
                    "connection from %s refused: %s%s", connection.peer, why, self._refused_log.note()
                )
            return False
        self._connections[connection] = None
        self.opened += 1
        self._emptied.clear()
        if self._sweep_timer is None:
            self._sweep_later()
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is over: its peer is gone and nothing of it runs any more."""
        self._connections.pop(connection, None)
        connection.client.gone()
        if not self._connections:
            self._emptied.set()

    def sent(self, size_bytes: int) -> None:
        """Count bytes handed to a transport."""
        self.sent_bytes += size_bytes

    def broke_protocol(self, connection: Connection, why: str) -> None:
        """Count and log that a peer broke the protocol."""
        self.protocol_errors += 1
        if self._error_log.passes():
            log.warning("closing the connection from %s: %s%s", connection.peer, why, self._error_log.note())

    def stalled(self, connection: Connection, unsent_bytes: int) -> None:
        """Log that a peer takes none of its answers."""
        if self._error_log.passes():
            note = self._error_log.note()
            log.warning(
                "dropping %s: it takes none of %d bytes of answers%s", connection.peer, unsent_bytes, note
            )

    async def drain(self, timeout_s: float) -> bool:
        """Let every connection finish what it holds and close it; False when some had to be cut at the timeout."""
        self._is_draining = True
        for connection in list(self._connections):
            connection.drain()
        if not self._connections:
            return True
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout_s)
        except TimeoutError:
            log.warning("%d connections cut: not finished within %.1f s", len(self._connections), timeout_s)
            self.abort()
            return False
        return True

    def abort(self) -> None:
        """Cut every connection now."""
        self._is_draining = True
        for connection in list(self._connections):
            connection.abort()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep_timer = loop.call_later(self.limits.sweep_ms / 1000, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        now_s = self.clock.monotonic()
        for connection in list(self._connections):
            connection.check(now_s)
        if self._connections:
            self._sweep_later()

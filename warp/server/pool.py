"""All connections of one agent: how many there may be, the limits in time that they share, and their common end.

One timer looks after every connection, in the order in which they came, instead of several timers for each.

Connections that have not authenticated may be only a part of all, and where there are more the one that has waited
longest makes room: whoever opens many and says nothing is soon out, and who authenticates at once has had its turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from warp.handlers.context import Client
from warp.log.memory import MemoryBudget
from warp.protocol import SharedReceiveBuffer
from warp.server.connection import Connection
from warp.server.limits import LogLimit, ServerLimits

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.handlers.context import Endpoint
    from warp.security.mechanisms import Mechanisms
    from warp.server.dispatch import Dispatcher
    from warp.server.incoming import Incoming

log = logging.getLogger("warp.server")


class ConnectionPool:
    """Makes, counts, watches and ends connections.

    `memory` is the budget for requests: each frame is charged from before its body is read until it is answered.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        memory: MemoryBudget,
        clock: Clock,
        limits: ServerLimits,
        *,
        mechanisms: Mechanisms | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.dispatcher = dispatcher
        self.memory = memory
        self.clock = clock
        self.limits = limits
        self.mechanisms = mechanisms
        self.random_bytes = random_bytes
        self.early_memory = MemoryBudget(limits.early_memory_bytes_max)
        self.early_frame_bytes_max = min(
            limits.early_frame_bytes_max, limits.request_bytes_max, memory.bytes_max
        )
        self.frame_bytes_max = min(limits.request_bytes_max, memory.bytes_max)
        self.receive_buffer = SharedReceiveBuffer(limits.receive_buffer_bytes)
        self.opened = 0
        self.refused = 0
        self.crowded_out = 0
        self.protocol_errors = 0
        self.authentication_failures = 0
        self.sessions_expired = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self._connections: dict[Connection, None] = {}
        self._early: dict[Incoming, Connection] = {}  # those that have not authenticated, by their arrival
        self._leaving: dict[Connection, None] = {}  # those that made room, until they are gone
        self._by_host: dict[str, int] = {}
        self._refused_log = LogLimit(clock)
        self._crowd_log = LogLimit(clock)
        self._authentication_log = LogLimit(clock)
        self._error_log = LogLimit(clock, interval_ms=100)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_draining = False
        self._emptied: asyncio.Event = asyncio.Event()

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def early_count(self) -> int:
        """Connections that have not authenticated."""
        return len(self._early)

    def connection(
        self, advertised: Endpoint, listener: int = 0, protocol: str = "PLAINTEXT", *, has_tls: bool = False
    ) -> Connection:
        """A new connection of a listener, for a transport that is about to be made.

        Its peer is told `advertised` of this agent. `has_tls`: it is not known who it is before `secured` is called.
        """
        client = Client("?", advertised, listener, protocol=protocol)
        client.is_authenticated = not has_tls and not protocol.startswith("SASL_")
        return Connection(self, client)

    def admit(self, connection: Connection) -> bool:
        """Take a connection in; False when there are too many, or the agent is about to stop."""
        client = connection.client
        why = self._why_not(client)
        if why is not None:
            self.refused += 1
            if self._refused_log.passes():
                log.warning(
                    "connection from %s refused: %s%s", connection.peer, why, self._refused_log.note()
                )
            return False
        self._connections[connection] = None
        self._by_host[client.host] = self._by_host.get(client.host, 0) + 1
        if not client.is_authenticated:
            self._early[connection] = connection
        self.opened += 1
        self._emptied.clear()
        if self._sweep_timer is None:
            self._sweep_later()
        return True

    def _why_not(self, client: Client) -> str | None:
        """Why no connection of that client can be taken in, after room has been made if that can be."""
        if self._is_draining:
            return "the agent is stopping"
        own_max, own = self.limits.connections_per_address_max, self._by_host.get(client.host, 0)
        if own_max is not None and own >= own_max:
            return f"{own} of its address are open"
        quotas = self.dispatcher.quotas
        if quotas.limits_connections and not quotas.connected(client.host):
            return "its address opens more than its quota"
        open_count = len(self._connections) - len(self._leaving)
        is_full = open_count >= self.limits.connections_max
        is_crowd = not client.is_authenticated and len(self._early) >= self.limits.early_connections_max
        if is_crowd or (is_full and self._early):
            self._make_room()
        elif is_full:
            return f"{open_count} are open"
        return None

    def _make_room(self) -> None:
        """End the connection that has waited longest without authenticating."""
        oldest = next(iter(self._early.values()))
        del self._early[oldest]
        self._leaving[oldest] = None
        self.crowded_out += 1
        if self._crowd_log.passes():
            log.warning(
                "dropping %s, which has not authenticated: %d others have not either%s",
                oldest.peer, len(self._early), self._crowd_log.note(),
            )  # fmt: skip
        oldest.abort()

    def authenticated(self, connection: Incoming) -> None:
        """It is known who is at the other end of a connection."""
        self._early.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """A connection is over: its peer is gone and nothing of it runs any more."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self._early.pop(connection, None)
        self._leaving.pop(connection, None)
        host = connection.client.host
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]
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

    def authentication_failed(self, peer: str, mechanism: str, why: str) -> None:
        """Count and log that a client is not who it says it is, or has not said so as it should."""
        self.authentication_failures += 1
        if self._authentication_log.passes():
            by = f" by {mechanism}" if mechanism else ""
            log.warning("authentication of %s%s failed: %s%s", peer, by, why, self._authentication_log.note())

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

"""The server: every listener of an agent, from its socket to its end.

A listener is a bound address and the address that its clients are told; Metadata answers with the one of the listener
that a request came in on. All listeners share one pool of connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from warp.errors import StartError
from warp.handlers.context import Endpoint, Services
from warp.handlers.table import TABLE
from warp.security.tls_endpoint import CIPHER_BUFFER_BYTES, TlsEndpoint
from warp.server.acceptor import Acceptor, ArrivalRate
from warp.server.dispatch import Dispatcher, RequestObserver
from warp.server.limits import ServerLimits
from warp.server.pool import ConnectionPool
from warp.sockets import listening_sockets

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.log.memory import MemoryBudget
    from warp.security.tls import Tls
    from warp.server.connection import Connection

log = logging.getLogger("warp.server")

_BACKLOG = 1024
"""Connections that the kernel holds ready; the kernel's own bound cuts it if need be."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """Where to listen (port 0: any free one), and the address that clients are told; None: the bound one."""

    bind: Endpoint
    advertise: Endpoint | None = None
    protocol: str = "PLAINTEXT"

    @property
    def has_tls(self) -> bool:
        """Whether its connections are encrypted."""
        return self.protocol.endswith("SSL")


class Listener:
    """One address that clients come in on. `bound` and `advertised` hold once it is bound."""

    def __init__(self, config: ListenerConfig) -> None:
        self.config = config
        self.bound = config.bind
        self.advertised = config.advertise or config.bind
        self._sockets: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []

    async def bind(self) -> None:
        """Take the address; connections that come are kept waiting. Raises StartError."""
        host, port = self.config.bind.host, self.config.bind.port
        try:
            self._sockets = await listening_sockets(host, port, _BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"can't listen on {self.config.bind}: {reason}") from error
        self.bound = Endpoint(host, self._sockets[0].getsockname()[1])
        if self.config.advertise is None:
            self.advertised = self.bound
        elif self.config.advertise.port == 0:
            self.advertised = Endpoint(self.config.advertise.host, self.bound.port)

    def open(
        self, protocol: Callable[[], asyncio.BaseProtocol], clock: Clock, rate: ArrivalRate | None
    ) -> None:
        """Accept, on an address that is bound; `protocol` makes what each connection is given to."""
        while self._sockets:
            self._acceptors.append(Acceptor(self._sockets[0], protocol, clock, rate))
            del self._sockets[0]

    def close(self) -> None:
        """Accept no more. Connections go on."""
        for acceptor in self._acceptors:
            acceptor.close()
        for waiting in self._sockets:
            waiting.close()
        self._acceptors, self._sockets = [], []


async def bind_all(listeners: Sequence[Listener]) -> None:
    """Bind every listener. Raises StartError when one can't be had; then none is."""
    try:
        for listener in listeners:
            await listener.bind()
    except StartError:
        for listener in listeners:
            listener.close()
        raise


class Server:
    """Serves the Kafka protocol on all listeners. `memory` is the budget for the frames of requests.

    Listeners are bound before there is a server, so that an agent knows its ports before it can serve. A simulation
    needs neither that nor `start`: it makes connections with `connect` and gives them transports of its own.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        services: Services,
        memory: MemoryBudget,
        clock: Clock,
        limits: ServerLimits | None = None,
        observe: RequestObserver | None = None,
        tls: Tls | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.listeners = list(listeners)
        self._clock = clock
        self._tls = tls
        self._cipher_buffer = memoryview(bytearray(CIPHER_BUFFER_BYTES if tls is not None else 0))
        limits = limits or ServerLimits()
        rate_max = limits.connection_rate_max
        self._rate = None if rate_max is None else ArrivalRate(rate_max, clock)
        self._services = services
        self._dispatcher = Dispatcher(TABLE, services, clock, observe)
        self._pool = ConnectionPool(
            self._dispatcher,
            memory,
            clock,
            limits,
            mechanisms=services.mechanisms,
            random_bytes=random_bytes,
        )

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._pool)

    @property
    def early_count(self) -> int:
        """Connections that are open now and have not authenticated."""
        return self._pool.early_count

    @property
    def crowded_out(self) -> int:
        """Connections dropped so far for others, because they were too many that had not authenticated."""
        return self._pool.crowded_out

    @property
    def authentication_failures(self) -> int:
        """Connections so far that failed to authenticate, whether by what they said or by how they said it."""
        return self._pool.authentication_failures

    @property
    def sessions_expired(self) -> int:
        """Connections closed so far because they went on after the end of their session."""
        return self._pool.sessions_expired

    @property
    def connections_opened(self) -> int:
        """Connections taken in so far."""
        return self._pool.opened

    @property
    def connections_refused(self) -> int:
        """Connections refused so far, because there were too many or the agent was stopping."""
        return self._pool.refused

    @property
    def received_bytes(self) -> int:
        """Bytes read from connections so far."""
        return self._pool.received_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the transports of connections so far."""
        return self._pool.sent_bytes

    @property
    def protocol_errors(self) -> int:
        """Connections closed so far because their peer broke the protocol, or because of an unanswerable error."""
        return self._pool.protocol_errors

    @property
    def handler_bugs(self) -> int:
        """Requests that ended in an exception that nobody expected."""
        return self._dispatcher.bugs

    async def start(self) -> None:
        """Accept on every listener; all are bound."""
        for number, listener in enumerate(self.listeners):
            listener.open(partial(self.protocol, number), self._clock, self._rate)

    def connect(self, listener: int = 0) -> Connection:
        """A new connection on one of the listeners, for a transport that the caller makes.

        On one with TLS, `secured` of the connection has to be called when its peer is known.
        """
        at = self.listeners[listener]
        return self._pool.connection(at.advertised, listener, at.config.protocol, has_tls=at.config.has_tls)

    def protocol(self, listener: int) -> asyncio.BaseProtocol:
        """What a new connection from the socket of a listener is given to: a connection, or TLS above which is one."""
        connection = self.connect(listener)
        if not self.listeners[listener].config.has_tls:
            return connection
        assert self._tls is not None, "a listener with TLS has certificates"
        return TlsEndpoint(self._tls.context(), connection, self._cipher_buffer, self._tls.principal)

    def stop_accepting(self) -> None:
        """Take no more connections."""
        for listener in self.listeners:
            listener.close()

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting, answer every request that was read, close; False when some had to be cut at the timeout."""
        self.stop_accepting()
        self._services.fetch.stop_waiting()
        return await self._pool.drain(timeout_s)

    def abort(self) -> None:
        """Close everything now."""
        self.stop_accepting()
        self._pool.abort()

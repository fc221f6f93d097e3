"""The HTTP listener: binds, counts connections, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from warp.config_values import Address
from warp.errors import StartError
from warp.http.connection import HttpConnection, HttpLimits
from warp.http.messages import Handler
from warp.http.tls import HttpTls, TlsAcceptor
from warp.sockets import listening_sockets

log = logging.getLogger("warp.http")

DEFAULT_LIMITS = HttpLimits()


class _Refusal(asyncio.Protocol):
    """A connection above the limit: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpServer:
    """Serves one handler on one address, with `tls` over TLS; it may be bound before there is a handler."""

    def __init__(
        self, address: Address, limits: HttpLimits = DEFAULT_LIMITS, tls: HttpTls | None = None
    ) -> None:
        self._address = address
        self._tls = tls
        self._handler: Handler | None = None
        self._limits = limits
        self._sockets: list[socket.socket] = []
        # A dict, because its order is that of arrival.
        self._connections: dict[HttpConnection, None] = {}
        self._servers: list[asyncio.Server | TlsAcceptor] = []
        self._bound: Address | None = None
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self.refused = 0
        """Connections closed at once because of the limit."""

    async def bind(self) -> None:
        """Take the address; connections that come are kept waiting. Raises StartError when it can't be had."""
        try:
            self._sockets = await listening_sockets(
                self._address.host, self._address.port, self._limits.connections_max
            )
        except OSError as error:
            raise StartError(f"can't serve HTTP on {self._address}: {os_error_text(error)}") from error
        host, port, *_ = self._sockets[0].getsockname()
        self._bound = Address(host, port)

    async def start(self, handler: Handler) -> None:
        """Answer requests, on an address that is bound."""
        self._handler = handler
        loop = asyncio.get_running_loop()
        while self._sockets:
            listening = self._sockets[0]
            if self._tls is None:
                server = await loop.create_server(
                    self._accept, sock=listening, backlog=self._limits.connections_max
                )
                self._servers.append(server)
            else:
                handshake_s = self._limits.request_ms_max / 1000
                self._servers.append(
                    TlsAcceptor(listening, self._tls, handshake_s, self._begin, self._forget)
                )
            del self._sockets[0]

    @property
    def bound(self) -> Address:
        """Where it listens, with the port that it got. Valid after `bind`."""
        assert self._bound is not None
        return self._bound

    @property
    def scheme(self) -> str:
        """What its addresses begin with: http or https."""
        return "http" if self._tls is None else "https"

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._connections)

    async def stop(self, timeout_s: float) -> None:
        """Stop listening, end idle connections, give the others `timeout_s` to get their answers."""
        for server in self._servers:
            server.close()
        for waiting in self._sockets:
            waiting.close()
        self._servers, self._sockets = [], []
        for connection in list(self._connections):
            connection.end()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_closed.wait()
        except TimeoutError:
            log.warning("%d HTTP connections were cut", len(self._connections))
            for connection in list(self._connections):
                connection.abort()

    def _accept(self) -> asyncio.Protocol:
        return self._begin() or _Refusal()

    def _begin(self) -> HttpConnection | None:
        """A connection more; None when there are too many."""
        if len(self._connections) >= self._limits.connections_max:
            self.refused += 1
            return None
        assert self._handler is not None
        if self._tls is None:
            connection = HttpConnection(self._handler, self._limits, self._forget)
        else:
            connection = HttpConnection(self._handler, self._limits, self._forget, self._tls.principal)
        self._connections[connection] = None
        self._all_closed.clear()
        return connection

    def _forget(self, connection: HttpConnection) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._all_closed.set()


def os_error_text(error: OSError) -> str:
    """The reason alone: event loops wrap it in addresses and numbers."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "unknown host"
    return os.strerror(error.errno) if error.errno else str(error)

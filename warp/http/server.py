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

log = logging.getLogger("warp.http")

DEFAULT_LIMITS = HttpLimits()


class _Refusal(asyncio.Protocol):
    """A connection above the limit: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpServer:
    """Serves one handler on one address."""

    def __init__(self, address: Address, handler: Handler, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._address = address
        self._handler = handler
        self._limits = limits
        # A dict, because its order is that of arrival.
        self._connections: dict[HttpConnection, None] = {}
        self._server: asyncio.Server | None = None
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self.refused = 0
        """Connections closed at once because of the limit."""

    async def start(self) -> None:
        """Bind the address. Raises StartError when it can't be had."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept, self._address.host, self._address.port, backlog=self._limits.connections_max
            )
        except OSError as error:
            raise StartError(f"can't serve HTTP on {self._address}: {os_error_text(error)}") from error

    @property
    def bound(self) -> Address:
        """Where it listens, with the port that it got. Valid after `start`."""
        assert self._server is not None
        host, port, *_ = self._server.sockets[0].getsockname()
        return Address(host, port)

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._connections)

    async def stop(self, timeout_s: float) -> None:
        """Stop listening, end idle connections, give the others `timeout_s` to get their answers."""
        if self._server is not None:
            self._server.close()
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
        if len(self._connections) >= self._limits.connections_max:
            self.refused += 1
            return _Refusal()
        connection = HttpConnection(self._handler, self._limits, self._forget)
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

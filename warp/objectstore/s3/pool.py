"""Connections to one server: made when needed, used again while they are fresh, never more than a bound.

The one used last is used first, so that those too many grow old and are closed before the server closes them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from warp.objectstore.s3.connection import Connection, Meter, Request
from warp.objectstore.s3.errors import Answer, CannotConnect

IDLE_S_MAX = 15.0
"""S3 closes a connection that was idle for some 20 s."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go. `tls` is None for plain HTTP.

    `certificate_sha256`, in hex, is of the one certificate that the server may show, where `tls` trusts any.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    certificate_sha256: str = ""

    def describe(self) -> str:
        """For messages."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class Pool:
    """At most `connections_max` connections to a server; who finds all of them busy waits for a turn."""

    def __init__(
        self, server: Server, *, connections_max: int, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        self._server = server
        self._connections_max = connections_max
        self._turns = asyncio.Semaphore(connections_max)
        self._busy = 0
        """Turns that are taken, each with a connection or about to have one."""
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._loop = asyncio.get_running_loop()
        self._failed_at: dict[str, float] = {}
        """When a connection to an address failed last, of those that have not taken one since."""
        self._idle: deque[tuple[float, Connection]] = deque()
        """With the time since when; the oldest first."""
        self._all: dict[Connection, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def ask(self, request: Request, meter: Meter, *, on_new: bool = False) -> Answer:
        """Send a request over an idle connection, or over a new one if there is none or `on_new` asks for it.

        Raises CannotConnect, Cut, BadAnswer.
        """
        async with self._turns:
            self._busy += 1
            try:
                return await self._ask(request, meter, on_new)
            finally:
                self._busy -= 1

    def close(self) -> None:
        """Close every connection at once, also those that are in use."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        for connection in list(self._all):
            connection.abort()

    async def _ask(self, request: Request, meter: Meter, on_new: bool) -> Answer:
        connection = None if on_new else self._take_idle()
        meter.is_reused = connection is not None
        if connection is None:
            # One that is wanted anew must not come on top of as many idle ones as there may be.
            while self._idle and len(self._idle) + self._busy > self._connections_max:
                self._idle.popleft()[1].abort()
            connection = await self._connect()
        answer = await connection.ask(request, meter)
        if self._is_closed:
            connection.abort()
        elif connection.is_usable:
            self._idle.append((self._loop.time(), connection))
            self._sweep_later()
        return answer

    def _take_idle(self) -> Connection | None:
        self._sweep()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _sweep(self) -> None:
        """Close what was idle for too long."""
        oldest = self._loop.time() - IDLE_S_MAX
        while self._idle and self._idle[0][0] <= oldest:
            self._idle.popleft()[1].abort()

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._idle:
            self._sweeper = self._loop.call_at(self._idle[0][0] + IDLE_S_MAX, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweeper = None
        self._sweep()
        self._sweep_later()

    async def _connect(self) -> Connection:
        self._check_open()
        server = self._server
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connect_to_any(await self._addresses())
        except TimeoutError as error:
            message = f"{server.describe()}: no connection within {self._connect_timeout_s:g} s"
            raise CannotConnect(message, CannotConnect.TIMEOUT) from error
        except socket.gaierror as error:
            raise CannotConnect(f"can't resolve {server.host!r}: {error}", CannotConnect.NAME) from error
        except ssl.SSLCertVerificationError as error:
            message = f"{server.describe()}: its certificate is refused: {error.verify_message}"
            raise CannotConnect(message, CannotConnect.CERTIFICATE) from error
        except ssl.SSLError as error:
            message = f"{server.describe()}: no TLS connection: {error.reason or error}"
            raise CannotConnect(message, CannotConnect.TLS) from error
        except OSError as error:
            message = f"{server.describe()}: no connection: {error}"
            raise CannotConnect(message, CannotConnect.REFUSED) from error
        if not connection.is_usable:
            message = f"{server.describe()}: the connection was lost as soon as it was made"
            raise CannotConnect(message, CannotConnect.REFUSED)
        try:
            self._check_open()
        except CannotConnect:
            connection.abort()
            raise
        self._all[connection] = None
        return connection

    async def _addresses(self) -> list[str]:
        """Of the server; those last to which no connection could be made lately."""
        addresses = await self._resolve()
        self._failed_at = {each: at for each, at in self._failed_at.items() if each in addresses}
        return sorted(addresses, key=lambda address: self._failed_at.get(address, 0.0))

    async def _resolve(self) -> list[str]:
        found = await self._loop.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _connect_to_any(self, addresses: Sequence[str]) -> Connection:
        """A connection to the first address that takes one.

        A silent one takes all the time that there is; but the next attempt begins with another.
        """
        server = self._server
        for place, address in enumerate(addresses, 1):
            is_reached = False
            try:
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._read_timeout_s, self._forget),
                    address,
                    server.port,
                    ssl=server.tls,
                    server_hostname=server.host if server.tls else None,
                )
                is_reached = True
                self._check_certificate(connection)
                return connection
            except ssl.SSLError:
                raise
            except OSError:
                if place == len(addresses):
                    raise
            finally:
                if is_reached:
                    self._failed_at.pop(address, None)
                else:
                    self._failed_at[address] = self._loop.time()
        raise OSError(f"{server.host} has no address")

    def _check_certificate(self, connection: Connection) -> None:
        """Is it the one that the server must show? Raises CannotConnect; nothing has been sent by then."""
        expected = self._server.certificate_sha256
        if expected and connection.certificate_sha256() != expected:
            connection.abort()
            message = f"{self._server.describe()}: it shows another certificate than it should"
            raise CannotConnect(message, CannotConnect.CERTIFICATE)

    def _check_open(self) -> None:
        if self._is_closed:
            raise CannotConnect("the object store is closed", CannotConnect.REFUSED)

    def _forget(self, connection: Connection) -> None:
        self._all.pop(connection, None)

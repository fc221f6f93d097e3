"""TLS under the HTTP face: takes connections, and makes each one's handshake before HTTP begins.

Each handshake has the context that is in force at that moment, so certificates are replaced without a restart. Clients
are asked for a certificate at most, never made to have one: health checks need none, and `warp.http.access` decides
about the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from warp.http.connection import HttpConnection
from warp.security.principal import Principal

log = logging.getLogger("warp.http")

SHUTDOWN_S = 3.0
"""For the peer to say goodbye in TLS's way; then the connection is closed."""
HANDSHAKE_STEPS_MAX = 5
ACCEPT_PAUSE_S = 0.2
"""After an accept that failed, as for want of descriptors."""


@dataclass(frozen=True, slots=True)
class HttpTls:
    """`context` returns that of the next handshake, `principal` whose certificate a connection has shown, if any.

    `principal` raises ValueError for a certificate that says nothing that can be used.
    """

    context: Callable[[], ssl.SSLContext]
    principal: Callable[[ssl.SSLObject], Principal | None] = lambda shown: None


class TlsAcceptor:
    """Takes the connections of a listening socket until it is closed.

    `begin` makes what gets a connection after its handshake, None when there are too many; `failed` is told when a
    handshake came to nothing.
    """

    def __init__(
        self,
        listening: socket.socket,
        tls: HttpTls,
        handshake_s: float,
        begin: Callable[[], HttpConnection | None],
        failed: Callable[[HttpConnection], None],
    ) -> None:
        self._listening = listening
        self._tls = tls
        self._handshake_s = handshake_s
        self._begin = begin
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Take no more, and cut the handshakes that are under way."""
        self._accepting.cancel()
        for task in self._handshakes:
            task.cancel()
        self._accepting.add_done_callback(lambda task: self._listening.close())

    async def _accept(self) -> None:
        while True:
            try:
                made, address = await self._loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("can't take an HTTP connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            connection = self._begin()
            if connection is None:
                made.close()
                continue
            task = self._loop.create_task(self._shake_hands(made, str(address[0]), connection))
            self._handshakes[task] = None
            task.add_done_callback(self._handshakes.pop)

    async def _shake_hands(self, made: socket.socket, host: str, connection: HttpConnection) -> None:
        is_done = False
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                made,
                ssl=self._tls.context(),
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
            is_done = True
        except (OSError, TimeoutError, ValueError) as error:
            # SSLError is an OSError; a certificate that can't be used, a ValueError.
            log.info("no TLS for an HTTP connection: %s", _reason(error), extra={"client": host})
        finally:
            if not is_done:
                made.close()
                self._failed(connection)


class CertificateHash:
    """The SHA-256 of the certificate that is shown at the moment, in hex: by it other agents know this one."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._of: ssl.SSLContext | None = None
        self._hash = ""

    def __call__(self) -> str:
        """Raises ssl.SSLError where the context can't make a handshake."""
        context = self._context()
        if context is not self._of:
            self._hash = hashlib.sha256(shown_certificate(context)).hexdigest()
            self._of = context
        return self._hash


def shown_certificate(context: ssl.SSLContext) -> bytes:
    """What a server with that context shows, in DER: seen by a handshake in memory, because a context does not tell."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    for _ in range(HANDSHAKE_STEPS_MAX):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
            return client.getpeercert(binary_form=True) or b""
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
    raise ssl.SSLError("a handshake without end")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error) or type(error).__name__

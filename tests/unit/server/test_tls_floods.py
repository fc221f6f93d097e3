"""What TLS itself answers: a peer that asks and takes nothing is not read from."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.tls_renegotiation import CIPHER, Renegotiations
from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import MemoryTransport, settle
from warp.handlers.context import Endpoint
from warp.security.tls import Tls, TlsSettings
from warp.security.tls_endpoint import CIPHER_BUFFER_BYTES, TlsEndpoint


class Socket(MemoryTransport):
    """A transport that TLS is above."""

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def abort(self) -> None:
        self.lose()


class SecureClient:
    """A client with TLS in memory, whose handshake is over."""

    def __init__(self, directory: Path, bench: SaslBench, version: ssl.TLSVersion) -> None:
        authority = Authority(directory)
        server = authority.issue("server")
        self.key_log = directory / "keys.log"
        self.first = b""
        """What the server has sent first."""
        self._tls = Tls(TlsSettings(server.certificate, server.key))
        context = authority.client_context()
        context.minimum_version = context.maximum_version = version
        context.keylog_filename = str(self.key_log)
        self._receive = memoryview(bytearray(CIPHER_BUFFER_BYTES))
        self.connection = bench.pool.connection(
            Endpoint("broker.test", 9092), 0, bench.protocol, has_tls=True
        )
        self.endpoint = TlsEndpoint(self._tls.context(), self.connection, self._receive, self._tls.principal)
        self.socket = Socket()
        self.socket.protocol = self.endpoint  # type: ignore[assignment]
        self.endpoint.connection_made(self.socket)
        self.from_server, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.from_server, self.to_server, server_hostname="localhost")
        self._shake_hands()

    def feed(self, data: bytes) -> int:
        """Send, for as long as it is read; returns how much was."""
        sent = 0
        while sent < len(data) and not self.socket.is_paused and not self.socket.is_closing():
            part = data[sent : sent + CIPHER_BUFFER_BYTES]
            self._receive[: len(part)] = part
            self.endpoint.buffer_updated(len(part))
            sent += len(part)
        return sent

    def is_read(self) -> bool:
        """Whether the server reads what is sent."""
        return not self.socket.is_paused

    def take(self) -> None:
        """Read what the server has sent."""
        self.first = self.first or bytes(self.socket.written)
        self.from_server.write(bytes(self.socket.written))
        self.socket.written.clear()

    def _shake_hands(self) -> None:
        for _ in range(4):
            try:
                self.tls.do_handshake()
                self.feed(self.to_server.read())
                return
            except ssl.SSLWantReadError:
                self.feed(self.to_server.read())
                self.take()
        raise AssertionError("no handshake")


def test_a_peer_that_wants_new_handshakes_and_takes_no_answer_is_not_read_from(tmp_path: Path) -> None:
    async def test() -> None:
        bench = SaslBench("SASL_SSL")
        client = SecureClient(tmp_path, bench, ssl.TLSVersion.TLSv1_2)
        assert client.tls.cipher()[0] == CIPHER  # type: ignore[index]
        asking = Renegotiations(client.key_log, client.first)
        client.socket.takes_all = False
        client.feed(asking.next())
        assert client.socket.unsent > 0, "it is told that there is none"
        sent = 0
        while client.is_read() and sent < 20_000:
            client.feed(b"".join(asking.next() for _ in range(100)))
            sent += 100
        assert not client.is_read()
        assert client.socket.unsent < 300_000
        # Once it takes them, it is read from again.
        client.socket.drain()
        await settle()
        assert client.is_read()
        client.socket.takes_all = False
        # Whoever has not authenticated meanwhile is out, whether it takes the goodbye or not.
        for seconds in (11, 31):
            bench.clock.now_s += seconds
            client.connection.check(bench.clock.now_s)
            await settle()
            assert client.socket.is_closing()
        assert len(bench.pool) == 0

    asyncio.run(test())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_stops_taking_and_goes_on_is_served_in_order(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async def test() -> None:
        bench = SaslBench("SSL")
        client = SecureClient(tmp_path, bench, version)
        client.take()
        client.endpoint.set_write_buffer_limits(high=2**20)
        client.socket.takes_all = False
        for number in range(40):
            client.endpoint.write(bytes([number]) * 16_384)
        assert not client.is_read()
        assert client.socket.unsent < 300_000
        while client.socket.unsent:
            client.socket.drain()
            client.socket.takes_all = False
            await settle()
        assert client.is_read()
        client.take()
        found = b""
        while len(found) < 40 * 16_384:
            found += client.tls.read(16_384)
        assert found == b"".join(bytes([number]) * 16_384 for number in range(40))

    asyncio.run(test())

"""TLS: records and handshakes from whoever connects, over a transport in memory.

The input is a script: the ciphertext of a real client, changed here and there, then raw bytes. The certificate is made
anew in each process, so inputs steer what is done to the client's bytes. The connection above is told nothing that was
not authentic, and nothing is left of it.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.fuzz.marks import mark
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import run
from tests.support.certificates import Authority
from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import MemoryTransport, frame, serial, settle
from warp.handlers.context import Endpoint
from warp.security.tls import Tls, TlsSettings
from warp.security.tls_endpoint import CIPHER_BUFFER_BYTES, TlsEndpoint
from warp.server.connection import Connection

STEPS_MAX: Final = 12
CLIENT, CHANGED, RAW, REQUEST, CLOSE = range(5)


class Socket(MemoryTransport):
    """A transport that TLS is above."""

    def writelines(self, parts: Any) -> None:
        """See asyncio.Transport."""
        self.write(b"".join(parts))


@cache
def _files() -> tuple[Tls, ssl.SSLContext]:
    directory = tempfile.mkdtemp(prefix="warp-fuzz-")
    authority = Authority(Path(directory))
    server = authority.issue("server")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return Tls(TlsSettings(server.certificate, server.key)), client


class Client:
    """A TLS client in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._to_server, self._from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_server, self._to_server)
        self.is_open = False
        self.written = b""

    def answered(self, ciphertext: bytes) -> None:
        """Take what the server says."""
        self._from_server.write(ciphertext)

    def next(self, plaintext: bytes = b"") -> bytes:
        """What it sends next."""
        try:
            if not self.is_open:
                self._tls.do_handshake()
                self.is_open = True
            if plaintext:
                self._tls.write(plaintext)
                self.written += plaintext
            self._tls.read(65_536)
        except (ssl.SSLError, OSError, ValueError):
            mark("client waits")
        return self._to_server.read()

    def close(self) -> bytes:
        """Its last word."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError, ValueError):
            mark("client closes")
        return self._to_server.read()


def check(data: bytes) -> None:
    """One connection."""
    run(_connection(Script(data), *_files()))


async def _connection(script: Script, tls: Tls, context: ssl.SSLContext) -> None:
    choice = script.byte()
    protocol = ("SSL", "SASL_SSL")[choice & 1]
    context.maximum_version = ssl.TLSVersion.TLSv1_2 if choice & 2 else ssl.TLSVersion.TLSv1_3
    bench, client, below = SaslBench(protocol), Client(context), Socket()
    connection = bench.pool.connection(Endpoint("broker.test", 9092), 0, protocol, has_tls=True)
    receive = memoryview(bytearray(CIPHER_BUFFER_BYTES))
    endpoint = TlsEndpoint(tls.context(), connection, receive, tls.principal)
    below.protocol = endpoint  # type: ignore[assignment]
    endpoint.connection_made(below)
    plaintext = _watched(connection)
    for _ in range(STEPS_MAX):
        if not script or below.is_closing() or below.is_paused:
            break
        piece = _piece(script, client)
        # In two reads, to cut records.
        cut = script.number(2) % (len(piece) + 1)
        for part in (piece[:cut], piece[cut:]):
            if part and not below.is_closing() and not below.is_paused:
                receive[: len(part)] = part
                endpoint.buffer_updated(len(part))
                await settle()
        client.answered(bytes(below.written))
        below.written.clear()
    mark(protocol, connection.client.is_authenticated, below.is_closing(), min(len(plaintext), 2))
    assert client.written.startswith(plaintext), "something else came through than was sent"
    assert protocol == "SSL" or bench.asked == []
    assert bench.pool.dispatcher.bugs == 0
    if not below.is_closing():
        below.abort()
    await settle()
    assert (len(bench.pool), bench.pool.early_count) == (0, 0)
    assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0


def _watched(connection: Connection) -> bytearray:
    """What comes through to a connection, from now on."""
    seen, last = bytearray(), [memoryview(b"")]
    really_get, really_take = connection.get_buffer, connection.buffer_updated

    def get_buffer(sizehint: int) -> memoryview:
        last[0] = memoryview(really_get(sizehint))
        return last[0]

    def buffer_updated(nbytes: int) -> None:
        seen.extend(last[0][:nbytes])
        last[0] = memoryview(b"")
        really_take(nbytes)

    changed: Any = connection
    changed.get_buffer, changed.buffer_updated = get_buffer, buffer_updated
    return seen


def _piece(script: Script, client: Client) -> bytes:
    kind = script.byte() % 5
    mark("piece", kind, client.is_open)
    if kind == RAW:
        return script.take(script.number(2))
    if kind == CLOSE:
        return client.close()
    made = bytearray(client.next(frame(1, serial()) if kind == REQUEST else b""))
    if kind != CHANGED:
        return bytes(made)
    for _ in range(1 + script.byte() % 4):
        at, bits = script.number(2), script.byte()
        if made:
            made[at % len(made)] ^= bits
    return bytes(made[: len(made) - script.byte() % 8])


def seeds() -> Iterable[bytes]:
    """Whole handshakes of both versions, then requests; changed ones; bytes that are no TLS."""
    for choice in range(4):
        whole = bytes([CLIENT, 0, 0, CLIENT, 0, 0, REQUEST, 0, 0, REQUEST, 0, 9, CLOSE, 0, 0])
        yield bytes([choice]) + whole
        yield bytes([choice, CLIENT, 0, 7, CHANGED, 0, 0, 50, 1, 0, 0, 0])
        yield bytes([choice, CHANGED, 0, 0, 5, 1, 0, 0, 0])
        yield bytes([choice, RAW, 0, 8]) + b"\x16\x03\x01\0\x03\x01\0\0" + b"\0\0"
        yield bytes([choice, CLIENT, 0, 0, CLIENT, 0, 0, CHANGED, 0, 0, 30, 8, 0, 0, 0])


TARGET = Target(
    check,
    seeds,
    words=(
        b"\x16\x03\x01",
        b"\x17\x03\x03",
        b"\x15\x03\x03\0\x02",
        b"\x14\x03\x03\0\x01\x01",
        b"\x80\x2e\x01",
        b"GET / HTTP/1.1\r\n",
    ),
    input_bytes_max=512,
)

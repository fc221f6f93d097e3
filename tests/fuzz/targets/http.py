"""The HTTP face: whatever bytes come to it, from people, load balancers, other agents, and those who pretend to be.

The input is a script: raw bytes in pieces, requests of its own, credentials and signatures that are right but for some
bytes. No handler fails, every answer is one (h11 reads it as a client), facts are shown to those alone who have the
password, and chunks handed out to agents alone.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final, cast

import h11

from tests.fuzz.marks import mark
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import PASSWORD, USER, run
from tests.support.zone import CountingStore, HandClock
from tests.unit.server.support import MemoryTransport, settle
from warp.cluster.peer_auth import Claim, PeerAuth
from warp.http.access import Access, AccessLimits, BasicAuthentication
from warp.http.app import AgentFace, App
from warp.http.chunks import ChunkRoute
from warp.http.connection import HttpConnection, HttpLimits
from warp.http.messages import Response
from warp.ids import BrokerId
from warp.log.cache import ChunkCache
from warp.security.exchange import AuthenticationFailed
from warp.security.principal import Principal

STEPS_MAX: Final = 8
BYTES, PLAIN, LOGIN, SIGNED = range(4)
PATHS: Final = ("/v1/status", "/v1/ready", "/v1/cluster", "/metrics", "/", "/internal/v1/chunk", "/nothing")
CHUNK: Final = "/internal/v1/chunk"
SECRET_TEXT: Final = "a fact about the cluster"
KEY: Final = "segments/0f/018bcfe56800-00112233445566778899"
DATA: Final = b"bytes of an object" * 100
LIMITS: Final = HttpLimits(header_bytes_max=2048, body_bytes_max=256)
AUTH: Final = PeerAuth(bytes(range(32)))
NONCE: Final = "00112233445566778899aabb"


class Face:
    """What is behind the HTTP face."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.failures: list[str] = []
        self.route = ChunkRoute(
            ChunkCache(cast("Any", CountingStore({KEY: DATA})), bytes_max=65536, chunk_bytes=1024),
            AUTH,
            self.clock,
            length_max=4096,
        )
        passwords = BasicAuthentication(_verify, self.clock, bytes, AccessLimits(failure_delay_ms=0))
        self.app = App(
            AgentFace(_status, _ready, _metrics, _facts, _facts, _facts, _facts),
            {CHUNK: self.route},
            Access(self.clock, passwords=passwords, limits=AccessLimits(failure_delay_ms=0)),
        )

    async def __call__(self, request: Any) -> Response:
        try:
            return await self.app(request)
        except Exception:
            logging.getLogger(__name__).exception("a handler failed")
            self.failures.append(repr(request))
            raise


async def _verify(user: str, password: str) -> Principal:
    if (user, password) != (USER, PASSWORD):
        raise AuthenticationFailed("no", reason="wrong password")
    return Principal("User", user)


def _status() -> dict[str, Any]:
    return {"version": "1"}


def _facts() -> dict[str, Any]:
    return {"fact": SECRET_TEXT}


async def _ready() -> list[str]:
    return ["metadata: why it is not"]


async def _metrics() -> bytes:
    return SECRET_TEXT.encode()


def check(data: bytes) -> None:
    """One connection."""
    run(_connection(Script(data)))


async def _connection(script: Script) -> None:
    face, transport = Face(), MemoryTransport()
    gone: list[HttpConnection] = []
    connection = HttpConnection(face, LIMITS, gone.append)
    transport.protocol = cast("Any", connection)
    connection.connection_made(transport)
    sent = b""
    for _ in range(STEPS_MAX):
        if not script or transport.is_closing():
            break
        piece = _piece(script, face)
        if not transport.is_paused:
            sent += piece
            connection.data_received(piece)
        await settle()
    if not transport.is_closing():
        transport.abort()
    await settle()
    assert not face.failures, face.failures
    assert gone == [connection]
    _read(bytes(transport.written), sent)


def _piece(script: Script, face: Face) -> bytes:
    choice = script.byte()
    kind = choice & 3
    mark("piece", kind)
    if kind == BYTES:
        return script.take(script.number(2))
    path = PATHS[(choice >> 2) % len(PATHS)]
    method = ("GET", "HEAD", "POST", "GET")[script.byte() & 3]
    header = ""
    if kind == LOGIN:
        header = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    elif kind == SIGNED:
        path = f"{CHUNK}?key={KEY.replace('/', '%2F')}&start={script.byte()}&length={script.number(2)}"
        claim = Claim(BrokerId(script.byte()), face.clock.time_ms() + script.signed(3), NONCE)
        header = AUTH.sign(method, path, claim)
    extra = script.take(script.byte()).decode("latin-1")
    made = f"{method} {path} HTTP/1.1\r\nHost: a\r\n" + (f"Authorization: {header}\r\n" if header else "")
    whole = bytearray((made + extra + "\r\n").encode("latin-1"))
    for _ in range(script.byte() & 3):
        whole[script.number(2) % len(whole)] ^= script.byte()
    return bytes(whole)


def _read(written: bytes, sent: bytes) -> None:
    """All answers, as a client reads them."""
    shows = b64encode(f"{USER}:{PASSWORD}".encode()) in sent
    reader = h11.Connection(h11.CLIENT)
    for _ in range(STEPS_MAX * 2):
        if not written:
            return
        method = "HEAD" if _is_empty(written) else "GET"
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(written)
        body, status = b"", 0
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, "an answer is cut short"
            if isinstance(event, h11.Response):
                status = event.status_code
            if isinstance(event, h11.Data):
                body += event.data
        mark("answer", status)
        assert shows or SECRET_TEXT.encode() not in body, "shown without a password"
        assert b"bytes of an object" not in body or b"WARP-HMAC-SHA256" in sent
        assert status != 500
        written = reader.trailing_data[0]
        reader = h11.Connection(h11.CLIENT)


def _is_empty(written: bytes) -> bool:
    """Whether the first answer, though it names a length, has no body: that to HEAD."""
    head, _, rest = written.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):  # only an interim one
        head, _, rest = rest.partition(b"\r\n\r\n")
    return b"Content-Length: 0" not in head and (not rest or rest.startswith(b"HTTP/1.1 "))


def seeds() -> Iterable[bytes]:
    """Requests for everything, with and without leave, whole and in pieces."""
    for number in range(len(PATHS)):
        for kind in (PLAIN, LOGIN):
            yield bytes([kind | number << 2, 0, 0, 0])
            yield bytes([kind | number << 2, 1, 0, 0]) + bytes([kind | number << 2, 0, 0, 0])
    yield bytes([SIGNED, 0, 3]) + (100).to_bytes(2, "big") + bytes([3, 0, 0, 0, 0, 0])
    yield bytes([SIGNED, 0, 3]) + (100).to_bytes(2, "big") + bytes([3, 1, 0, 0, 0, 1, 0, 40, 1])
    for raw in (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/status HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \xff\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ):
        yield bytes([BYTES]) + len(raw).to_bytes(2, "big") + raw
        yield bytes([BYTES, 0, 9]) + raw[:9] + bytes([BYTES]) + len(raw[9:]).to_bytes(2, "big") + raw[9:]


TARGET = Target(
    check,
    seeds,
    words=(
        b"GET ", b"HEAD ", b" HTTP/1.1\r\n", b"\r\n\r\n", b"Host: a\r\n", b"Content-Length: ", b"Authorization: Basic ",
        b"Authorization: WARP-HMAC-SHA256 ", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"?key=", b"&start=", b"&length=", b"%2F", b"%00",
    ),
    input_bytes_max=2048,
)  # fmt: skip

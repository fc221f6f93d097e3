"""A connection before anybody has authenticated: whatever bytes come, in whatever pieces, to a SASL listener.

The input is a script of requests: raw bytes, or SASL's requests with tokens from the input. Nothing but ApiVersions and
SASL is answered before authentication, nothing is a bug, and what the connection has held it gives back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final, cast

from tests.fuzz.marks import mark
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import NAMES, PASSWORD, USER, run, shared_mechanisms
from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import settle
from warp.protocol import ApiKey, encode_request_frame
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.security.mechanisms import Mechanisms

STEPS_MAX: Final = 12
BYTES, FRAME, HANDSHAKE, TOKEN, BARE, LOGIN, METADATA, VERSIONS = range(8)
BEFORE: Final = {int(ApiKey.API_VERSIONS), int(ApiKey.SASL_HANDSHAKE), int(ApiKey.SASL_AUTHENTICATE)}


def check(data: bytes) -> None:
    """Run the script against a new connection."""
    run(_connection(Script(data), shared_mechanisms()))


async def _connection(script: Script, mechanisms: Mechanisms) -> None:
    bench = SaslBench()
    bench.pool.mechanisms = mechanisms
    opened: list[int] = []
    _watch(bench, opened)
    peer = bench.connect()
    for _ in range(STEPS_MAX):
        if not script or peer.transport.is_closing():
            break
        step = script.byte()
        mark("step", step & 7, peer.connection.client.is_authenticated)
        peer.feed(_sent(step & 7, script), step >> 3)
        await settle()
    is_authenticated = peer.connection.client.is_authenticated
    mark("end", is_authenticated, peer.ended(), min(len(peer.bodies()), 3))
    assert bench.pool.dispatcher.bugs == 0, "a bug in a handler"
    assert is_authenticated or not bench.asked, "answered before authentication"
    assert is_authenticated or set(opened) <= BEFORE, f"read {opened} before authentication"
    if not peer.transport.is_closing():
        peer.transport.abort()
    await settle()
    assert (len(bench.pool), bench.pool.early_count) == (0, 0)
    assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0


def _watch(bench: SaslBench, opened: list[int]) -> None:
    """Note which requests are looked at."""
    dispatcher = bench.pool.dispatcher
    really = dispatcher.open

    def watched(frame: Any, client: Any, received_s: float) -> Any:
        call = really(frame, client, received_s)
        opened.append(call.header.api_key)
        return call

    cast("SimpleNamespace", dispatcher).open = watched


def _sent(kind: int, script: Script) -> bytes:
    if kind == BYTES:
        return script.take(script.byte())
    if kind == FRAME:
        body = script.take(script.number(2))
        return len(body).to_bytes(4, "big") + body
    if kind == HANDSHAKE:
        choice = script.byte()
        name = NAMES[choice & 3] if choice < 128 else script.take(script.byte()).decode("utf-8", "replace")
        return _frame(SaslHandshakeRequest(mechanism=name), choice >> 2 & 1)
    if kind in (TOKEN, LOGIN):
        token = f"\0{USER}\0{PASSWORD}".encode() if kind == LOGIN else script.take(script.number(2))
        return _frame(SaslAuthenticateRequest(auth_bytes=token), script.byte() % 3)
    if kind == BARE:
        token = script.take(script.number(2))
        return len(token).to_bytes(4, "big") + token
    if kind == METADATA:
        return _frame(MetadataRequest(topics=[]), 1)
    return _frame(ApiVersionsRequest(), script.byte() % 5)


def _frame(request: Any, version: int) -> bytes:
    low, high = type(request).versions
    if not low <= version <= high:
        # One that is not served: the header says so, the body is that of the newest.
        header = struct.pack(">hhih", request.api, version, 7, -1)
        return len(header).to_bytes(4, "big") + header
    return b"".join(encode_request_frame(7, "fuzz", request, version))


def seeds() -> Iterable[bytes]:
    """Logins by every mechanism, in each version, whole and in pieces; requests that come too early."""
    plain = bytes([HANDSHAKE, 2 | 4])
    bare = bytes([HANDSHAKE, 2])
    token = f"\0{USER}\0{PASSWORD}".encode()
    yield plain + bytes([LOGIN, 1, METADATA])
    yield plain + bytes([LOGIN | 3 << 3, 2, METADATA | 1 << 3, LOGIN, 1])
    yield bare + bytes([BARE]) + len(token).to_bytes(2, "big") + token + bytes([METADATA])
    yield bytes([METADATA])
    yield bytes([VERSIONS, 3, VERSIONS, 4]) + plain + bytes([TOKEN, 0, 3]) + b"a\0b" + bytes([1])
    scram = b"n,,n=alice,r=client-nonce"
    for number in range(2):
        begin = bytes([HANDSHAKE, number | 4, TOKEN]) + len(scram).to_bytes(2, "big") + scram + bytes([1])
        yield begin + bytes([TOKEN, 0, 4]) + b"c=b," + bytes([1])
    bearer = b"n,,\x01auth=Bearer a.b.c\x01\x01"
    yield (
        bytes([HANDSHAKE, 3 | 4, TOKEN])
        + len(bearer).to_bytes(2, "big")
        + bearer
        + bytes([1, TOKEN, 0, 1, 1, 1])
    )
    yield bytes([HANDSHAKE, 255, 3]) + b"ABC"
    yield bytes([HANDSHAKE, 6, HANDSHAKE, 6])
    whole = _frame(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    yield bytes([BYTES, len(whole)]) + whole
    yield bytes([BYTES | 1 << 3, len(whole)]) + whole
    yield bytes([FRAME]) + (len(whole) - 4).to_bytes(2, "big") + whole[4:]


TARGET = Target(
    check,
    seeds,
    words=(
        b"\0\x11\0\x01",
        b"\0\x24\0\x02",
        b"\0\x12\0\x03",
        b"\0\x03\0\x0c",
        b"\0\0\0\x08",
        b"PLAIN",
        b"\xff\xff",
        b"\x7f\xff\xff\xff",
    ),
    input_bytes_max=1024,
)

"""Whatever bytes come to a listener with TLS: the connection ends or waits, and nothing is left of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.certificates import Authority
from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import MemoryTransport, settle
from warp.handlers.context import Endpoint
from warp.security.tls import Tls, TlsSettings
from warp.security.tls_endpoint import CIPHER_BUFFER_BYTES, TlsEndpoint


class Socket(MemoryTransport):
    """A transport that TLS is above."""

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory: Path = tmp_path_factory.mktemp("tls")
    server = Authority(directory).issue("server")
    return Tls(TlsSettings(server.certificate, server.key))


HELLO = b"\x16\x03\x01"
BYTES = st.lists(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: HELLO + rest), max_size=6)


@settings(max_examples=150, deadline=None)
@given(pieces=BYTES, protocol=st.sampled_from(["SSL", "SASL_SSL"]))
def test_any_bytes_end_or_wait_and_leave_nothing(tls: Tls, pieces: list[bytes], protocol: str) -> None:
    async def test() -> None:
        bench = SaslBench(protocol)
        connection = bench.pool.connection(Endpoint("broker.test", 9092), 0, protocol, has_tls=True)
        receive = memoryview(bytearray(CIPHER_BUFFER_BYTES))
        endpoint = TlsEndpoint(tls.context(), connection, receive, tls.principal)
        below = Socket()
        below.protocol = endpoint  # type: ignore[assignment]
        endpoint.connection_made(below)
        for piece in pieces:
            if not below.is_closing() and not below.is_paused:
                receive[: len(piece)] = piece
                endpoint.buffer_updated(len(piece))
                await settle()
        assert not connection.client.is_authenticated
        assert bench.asked == []
        if not below.is_closing():
            bench.clock.now_s += 11
            connection.check(bench.clock.now_s)
        await settle()
        assert below.is_closing()
        assert (len(bench.pool), bench.pool.early_count) == (0, 0)
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0

    asyncio.run(test())

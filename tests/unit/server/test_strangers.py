"""What a client that nobody knows yet may ask for, and how much of the agent's time and memory that may take."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import run, settle
from warp.protocol import encode_request_frame
from warp.protocol.messages.api_versions import ApiVersionsRequest

LOGGER = "warp.server"
VERSIONS_REQUEST = b"".join(encode_request_frame(1, "test", ApiVersionsRequest(), 0))


def test_a_client_that_asks_too_much_before_it_has_authenticated_is_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        bench = SaslBench(early_requests_max=20)
        asking, patient = bench.connect(), bench.connect()
        for _ in range(20):
            asking.feed(VERSIONS_REQUEST)
            patient.feed(VERSIONS_REQUEST)
        assert len(asking.answered()) == 20
        asking.feed(VERSIONS_REQUEST)
        await settle()
        assert asking.ended() == "close"
        assert "it asks more than 20 times unauthenticated" in caplog.text
        assert patient.ended() is None

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_requests_that_come_all_at_once_before_authentication_are_not_even_begun() -> None:
    async def test() -> None:
        bench = SaslBench(early_requests_max=20)
        peer = bench.connect()
        peer.feed(VERSIONS_REQUEST * 10_000)
        await settle()
        assert (peer.ended(), peer.answered()) == ("close", [])
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0
        assert len(bench.pool) == 0

    run(test)


def test_bare_tokens_behind_one_that_waits_do_not_pile_up() -> None:
    async def test() -> None:
        bench = SaslBench(early_requests_max=20)
        bench.mechanisms.waiting = asyncio.get_running_loop().create_future()
        peer = bench.connect()
        peer.handshake(version=0)
        peer.feed(b"\0\0\0\4wait")
        await settle()
        assert peer.ended() is None
        peer.feed(b"\0\0\0\1x" * 10_000)
        bench.mechanisms.waiting.set_result(None)
        await settle()
        assert peer.ended() == "close"
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0
        assert len(bench.pool) == 0

    run(test)


def test_who_has_authenticated_may_ask_as_often_as_it_likes() -> None:
    async def test() -> None:
        bench = SaslBench(early_requests_max=2)
        peer = bench.connect()
        peer.handshake()
        peer.token(b"user:alice")
        await settle()
        for _ in range(30):
            peer.metadata()
        assert (peer.ended(), len(bench.asked)) == (None, 30)

    run(test)

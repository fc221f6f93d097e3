"""What a connection of a SASL listener lets through, and when, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct

import pytest

from tests.unit.server.sasl_support import SaslBench, SaslPeer
from tests.unit.server.support import run, settle
from warp.errors import ErrorCode
from warp.protocol import decode
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.sasl import SaslAuthenticateResponse, SaslHandshakeResponse
from warp.security.principal import ANONYMOUS, Principal

LOGGER = "warp.server"
ALICE = Principal("User", "alice")


async def authenticated(bench: SaslBench, name: str = "alice") -> SaslPeer:
    peer = bench.connect()
    peer.handshake()
    peer.token(b"user:" + name.encode())
    await settle()
    assert peer.connection.client.is_authenticated
    peer.transport.written.clear()
    return peer


def test_a_client_that_says_who_it_is_is_served_as_that() -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        assert (peer.connection.client.is_authenticated, bench.pool.early_count) == (False, 1)
        peer.ask(ApiVersionsRequest(), 0)
        peer.handshake()
        peer.token(b"more")
        await settle()
        peer.token(b"user:alice")
        await settle()
        assert peer.codes() == [ErrorCode.NONE] * 4
        assert [decode(SaslAuthenticateResponse, 1, body).auth_bytes for body in peer.bodies()[2:]] == [
            b"go on",
            b"welcome",
        ]
        peer.metadata()
        assert bench.asked == ["User:alice"]
        assert peer.connection.client.principal == ALICE
        assert (peer.ended(), bench.pool.early_count) == (None, 0)

    run(test)


def test_requests_behind_the_token_wait_for_what_it_comes_to() -> None:
    async def test() -> None:
        bench = SaslBench()
        bench.mechanisms.waiting = asyncio.get_running_loop().create_future()
        peer = bench.connect()
        peer.handshake()
        peer.token(b"wait")
        peer.metadata()
        await settle()
        assert (bench.asked, len(peer.bodies())) == ([], 1)
        bench.mechanisms.waiting.set_result(None)
        await settle()
        assert (bench.asked, len(peer.bodies())) == (["User:late"], 3)

    run(test)


def test_nothing_else_is_looked_at_before(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bench = SaslBench()
        for key in range(-1, 100):
            if key in (17, 18, 36):
                continue
            caplog.clear()
            bench.clock.now_s += 1
            peer = bench.connect()
            peer.feed(struct.pack(">ihhih", 10, key, 0, 1, -1))
            assert (peer.ended(), peer.bodies()) == ("close", []), key
            assert f"API key {key} before authentication" in caplog.text
            await settle()
        assert bench.asked == []
        assert len(bench.pool) == 0

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


@pytest.mark.parametrize("key", [0, 1, 3, 10, 22, 36 + 1, 60])
def test_neither_is_anything_else_between_handshake_and_success(key: int) -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake()
        peer.feed(struct.pack(">ihhih", 10, key, 1, 1, -1))
        peer.token(b"user:alice")
        await settle()
        assert (len(peer.bodies()), peer.ended()) == (1, "close")
        assert not peer.connection.client.is_authenticated

    run(test)


def test_the_mechanisms_are_named_to_who_asks_for_another() -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake("GSSAPI")
        await settle()
        (body,) = peer.bodies()
        answer = decode(SaslHandshakeResponse, 1, body)
        assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
        assert answer.mechanisms == ["PLAIN", "OTHER"]
        assert peer.ended() == "close"

    run(test)


@pytest.mark.parametrize("is_first", [True, False], ids=["token first", "two handshakes"])
def test_sasl_out_of_order_is_told_so_and_ends(is_first: bool) -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        if is_first:
            peer.token(b"user:alice")
        else:
            peer.handshake()
            peer.handshake()
        await settle()
        assert peer.codes()[-1] is ErrorCode.ILLEGAL_SASL_STATE
        assert peer.ended() == "close"
        assert not peer.connection.client.is_authenticated

    run(test)


def test_a_failure_is_answered_late_counted_logged_without_secrets_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        bench = SaslBench(authentication_delay_ms=30)
        loop = asyncio.get_running_loop()
        peers = []
        for _ in range(3):
            peer = bench.connect()
            peers.append(peer)
            peer.handshake()
            peer.token(b"the password of somebody")
            peer.metadata()
        begun_s = loop.time()
        await settle()
        assert [len(peer.bodies()) for peer in peers] == [1, 1, 1]
        while not all(peer.ended() for peer in peers):  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.005)
        assert loop.time() - begun_s >= 0.03
        for peer in peers:
            answer = decode(SaslAuthenticateResponse, 1, peer.bodies()[1])
            assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
            assert answer.error_message == "Authentication failed"
            assert len(peer.bodies()) == 2
        assert bench.asked == []
        assert bench.pool.authentication_failures == 3
        (line,) = caplog.messages
        assert line == "authentication of 192.0.2.1:1234 by PLAIN failed: wrong password of somebody"
        bench.clock.now_s += 1.1
        bench.connect().token(b"")
        await settle()
        assert caplog.messages[1].endswith("(2 more like it not logged)")
        assert "the password" not in caplog.text

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


@pytest.mark.parametrize("version", [0, 1])
def test_where_it_can_not_be_found_out_the_connection_ends_without_an_answer(
    version: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake(version=version)
        peer.transport.written.clear()
        if version == 0:
            peer.feed(struct.pack(">i", 4) + b"busy")
        else:
            peer.token(b"busy")
            peer.metadata()
        await settle()
        # A failure would be final to clients; after an end they come again.
        assert (bytes(peer.transport.written), peer.ended()) == (b"", "close")
        assert bench.asked == []
        assert bench.pool.authentication_failures == 1
        assert "130 wait" in caplog.text
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_a_bug_in_a_mechanism_lets_nobody_in() -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake()
        peer.token(b"bug")
        peer.metadata()
        await settle()
        assert peer.codes()[-1] is ErrorCode.UNKNOWN_SERVER_ERROR
        assert (bench.asked, peer.ended()) == ([], "close")
        assert bench.pool.dispatcher.bugs == 1

    run(test)


def test_after_the_old_handshake_tokens_are_bare_frames() -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake(version=0)
        peer.transport.written.clear()
        peer.feed(struct.pack(">i", 4) + b"more")
        await settle()
        assert bytes(peer.transport.written) == struct.pack(">i", 5) + b"go on"
        peer.feed(struct.pack(">i", 10) + b"user:alice", step=3)
        await settle()
        assert bytes(peer.transport.written).endswith(struct.pack(">i", 7) + b"welcome")
        peer.transport.written.clear()
        peer.metadata()
        assert bench.asked == ["User:alice"]
        # From here on frames are requests again, and none is as short as a token.
        peer.feed(struct.pack(">i", 4) + b"more")
        assert peer.ended() == "close"

    run(test)


def test_a_bare_token_that_fails_gets_no_answer_but_the_end() -> None:
    async def test() -> None:
        bench = SaslBench()
        for token in (b"x", bytes(500)):
            peer = bench.connect()
            peer.handshake(version=0)
            peer.transport.written.clear()
            peer.feed(struct.pack(">i", len(token)) + token)
            await settle()
            assert (bytes(peer.transport.written), peer.ended()) == (b"", "close")

    run(test)


@pytest.mark.parametrize("size", [-1, 0, 524_289])
def test_frames_before_success_have_limits_of_their_own(size: int) -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = bench.connect()
        peer.handshake(version=0)
        peer.feed(struct.pack(">i", size))
        assert peer.ended() == "close"
        await settle()
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0

    run(test)


def test_frames_may_be_large_after_success() -> None:
    async def test() -> None:
        bench = SaslBench(memory_bytes=2**22)
        peer = await authenticated(bench)
        peer.feed(struct.pack(">i", 2**21) + bytes(100))
        assert peer.ended() is None
        assert bench.memory.used_bytes == 2**21

    run(test)


# ---- again (KIP-368) ----


def test_without_an_end_of_the_session_there_is_no_second_authentication() -> None:
    async def test() -> None:
        bench = SaslBench()
        peer = await authenticated(bench)
        peer.handshake()
        peer.token(b"user:alice")
        await settle()
        assert peer.codes() == [ErrorCode.ILLEGAL_SASL_STATE] * 2
        assert peer.ended() is None
        peer.metadata()
        assert bench.asked == ["User:alice"]

    run(test)


def test_a_client_that_authenticates_again_in_time_goes_on() -> None:
    async def test() -> None:
        bench = SaslBench()
        bench.mechanisms.lifetime_ms = 10_000
        peer = bench.connect()
        peer.handshake()
        peer.token(b"user:alice")
        await settle()
        assert decode(SaslAuthenticateResponse, 1, peer.bodies()[1]).session_lifetime_ms == 10_000
        for _ in range(3):
            bench.clock.now_s += 9
            peer.metadata()
            peer.handshake()
            peer.token(b"user:alice")
            await settle()
        assert peer.ended() is None
        assert bench.asked == ["User:alice"] * 3

    run(test)


def test_a_request_after_the_end_of_the_session_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        bench = SaslBench()
        bench.mechanisms.lifetime_ms = 10_000
        late, again = await authenticated(bench), await authenticated(bench)
        bench.clock.now_s += 10
        late.metadata()
        assert late.ended() == "close"
        assert "its session has ended" in caplog.text
        again.handshake()
        again.token(b"user:alice")
        await settle()
        again.metadata()
        assert bench.asked == ["User:alice"]
        assert (again.ended(), bench.pool.sessions_expired) == (None, 1)

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


@pytest.mark.parametrize("what", ["mechanism", "principal", "password", "another request"])
def test_who_does_not_authenticate_again_as_the_same_is_out(what: str) -> None:
    async def test() -> None:
        bench = SaslBench()
        bench.mechanisms.lifetime_ms = 10_000
        peer = await authenticated(bench)
        peer.handshake("OTHER" if what == "mechanism" else "PLAIN")
        await settle()
        if what == "another request":
            peer.metadata()
        elif peer.ended() is None:
            peer.token({"principal": b"user:bob"}.get(what, b"wrong"))
        await settle()
        assert peer.ended() == "close"
        assert bench.asked == []
        assert peer.connection.client.principal == ALICE
        if what != "another request":
            assert peer.codes()[-1] is ErrorCode.SASL_AUTHENTICATION_FAILED

    run(test)


# ---- any order ----


def test_in_any_order_of_messages_nobody_is_served_without_a_success_of_the_same_name() -> None:
    """Every sequence of four of these: whatever is answered to Metadata came after a success."""
    moves = {
        "hello": lambda peer: peer.ask(ApiVersionsRequest(), 0),
        "hand": lambda peer: peer.handshake(),
        "old hand": lambda peer: peer.handshake(version=0),
        "good": lambda peer: peer.token(b"user:alice"),
        "bad": lambda peer: peer.token(b"nobody"),
        "ask": lambda peer: peer.metadata(),
    }

    async def test() -> None:
        for names in itertools.product(moves, repeat=4):
            bench = SaslBench()
            peer = bench.connect()
            for name in names:
                if peer.ended() is None:
                    moves[name](peer)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            await settle()
            succeeded = "hand" in names and "good" in names[names.index("hand") :]
            assert not bench.asked or (succeeded and set(bench.asked) == {"User:alice"}), names
            assert peer.connection.client.principal == (
                ALICE if peer.connection.client.is_authenticated else ANONYMOUS
            )
            peer.transport.lose()
            await settle()
            assert (len(bench.pool), bench.pool.early_count) == (0, 0), names
            assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0, names
            assert bench.pool.dispatcher.bugs == 0

    run(test)

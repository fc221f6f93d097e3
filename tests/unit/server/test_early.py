"""What clients that nobody knows yet may cost: connections, time, memory; and limits per address and per second."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest

from tests.unit.server.sasl_support import SaslBench
from tests.unit.server.support import HandClock, run, settle
from warp.log.memory import MemoryBudget
from warp.security.principal import Principal
from warp.server.acceptor import Acceptor, ArrivalRate
from warp.server.early_memory import EarlyMemory

LOGGER = "warp.server"
ALICE = Principal("User", "alice")


@pytest.mark.parametrize("protocol", ["SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_who_does_not_say_who_it_is_in_time_is_out(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bench = SaslBench(protocol, authentication_ms_max=10_000)
        silent, known = bench.connect(), bench.connect()
        known.connection.secured(ALICE)
        if "SASL" in protocol:
            assert not known.connection.client.is_authenticated
            known.handshake()
            known.token(b"user:alice")
            await settle()
        bench.clock.now_s += 9.9
        for peer in (silent, known):
            peer.connection.check(bench.clock.now_s)
        assert (silent.ended(), known.ended()) == (None, None)
        # Bytes that trickle in don't help.
        silent.feed(b"\0\0")
        bench.clock.now_s += 0.1
        for peer in (silent, known):
            peer.connection.check(bench.clock.now_s)
        await settle()
        assert (silent.ended(), known.ended()) == ("close", None)
        assert known.connection.client.principal == ALICE
        assert "it has not authenticated in time" in caplog.text
        assert (len(bench.pool), bench.pool.early_count) == (1, 0)

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_a_certificate_says_nothing_on_a_listener_with_sasl() -> None:
    async def test() -> None:
        bench = SaslBench("SASL_SSL")
        peer = bench.connect()
        peer.connection.secured(Principal("User", "CN=somebody"))
        assert not peer.connection.client.is_authenticated
        assert str(peer.connection.client.principal) == "User:ANONYMOUS"

    run(test)


def test_a_crowd_of_the_unknown_loses_its_oldest_and_leaves_the_known_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        bench = SaslBench(connections_max=8, early_connections_part=4)
        known = []
        for _ in range(3):
            peer = bench.connect()
            peer.handshake()
            peer.token(b"user:alice")
            await settle()
            known.append(peer)
        crowd = []
        for _ in range(10):
            crowd.append(bench.connect())
            await settle()
            assert bench.pool.early_count <= 2
            assert len(bench.pool) <= 5
        assert [peer.ended() for peer in crowd] == ["abort"] * 8 + [None] * 2
        assert bench.pool.crowded_out == 8
        assert "has not authenticated: " in caplog.text
        # One that comes now and knows what to say is served, and so are the others.
        late = bench.connect()
        late.handshake()
        late.token(b"user:bob")
        await settle()
        for peer in (*known, late):
            peer.metadata()
            assert peer.ended() is None
        assert bench.asked == ["User:alice"] * 3 + ["User:bob"]

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_where_all_places_are_taken_the_unknown_make_room_and_the_known_do_not() -> None:
    async def test() -> None:
        bench = SaslBench(connections_max=3, early_connections_part=1)
        known = []
        for _ in range(2):
            peer = bench.connect()
            peer.handshake()
            peer.token(b"user:alice")
            await settle()
            known.append(peer)
        unknown = bench.connect()
        another = bench.connect()
        assert (unknown.ended(), another.ended()) == ("abort", None)
        another.handshake()
        another.token(b"user:alice")
        await settle()
        refused = bench.connect()
        assert refused.ended() == "abort"
        assert [peer.ended() for peer in (*known, another)] == [None] * 3
        assert bench.pool.refused == 1

    run(test)


def test_connections_of_one_address_are_counted_and_others_let_in(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bench = SaslBench("PLAINTEXT", connections_per_address_max=2)
        first, second, third = (bench.connect("192.0.2.1") for _ in range(3))
        other, six = bench.connect("192.0.2.2"), bench.connect("2001:db8::1")
        assert [peer.ended() for peer in (first, second, third, other, six)] == [
            None,
            None,
            "abort",
            None,
            None,
        ]
        assert six.connection.client.host == "2001:db8::1"
        assert "connection from 192.0.2.1:1234 refused: 2 of its address are open" in caplog.text
        first.transport.lose()
        await settle()
        assert bench.connect("192.0.2.1").ended() is None
        assert bench.pool.refused == 1

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


# ---- memory ----


def test_memory_of_the_unknown_is_apart_from_that_of_the_known() -> None:
    async def test() -> None:
        limits: dict[str, Any] = {"early_allowance_bytes": 1_000, "early_memory_bytes_max": 10_000}
        bench = SaslBench(memory_bytes=100_000, **limits)
        greedy = [bench.connect() for _ in range(5)]
        for peer in greedy:
            peer.feed(struct.pack(">i", 50_000) + bytes(8))
        await settle()
        # The first has it all, because one may; the others wait for it.
        assert [peer.is_paused() for peer in greedy] == [False] + [True] * 4
        assert (bench.memory.used_bytes, bench.pool.early_memory.used_bytes) == (0, 49_000)
        # An ordinary token needs none of that.
        modest = bench.connect()
        modest.handshake()
        modest.token(b"user:alice")
        await settle()
        assert modest.connection.client.is_authenticated
        for peer in greedy:
            peer.transport.lose()
        await settle()
        assert (bench.pool.early_memory.used_bytes, bench.pool.early_memory.waiting) == (0, 0)

    run(test)


def test_what_a_client_holds_when_it_becomes_known_is_charged_to_the_memory_of_all() -> None:
    async def test() -> None:
        bench = SaslBench(early_allowance_bytes=100)
        bench.mechanisms.waiting = asyncio.get_running_loop().create_future()
        peer = bench.connect()
        peer.handshake()
        peer.token(b"wait")
        peer.feed(struct.pack(">i", 5_000) + bytes(10))
        await settle()
        assert bench.memory.used_bytes == 0
        assert bench.pool.early_memory.used_bytes > 4_900
        bench.mechanisms.waiting.set_result(None)
        await settle()
        assert (bench.memory.used_bytes, bench.pool.early_memory.used_bytes) == (5_000, 0)
        peer.transport.lose()
        await settle()
        assert bench.memory.used_bytes == 0

    run(test)


def test_a_frame_that_waits_for_memory_while_its_client_becomes_known_is_read() -> None:
    async def test() -> None:
        limits: dict[str, Any] = {"early_allowance_bytes": 4_096, "early_memory_bytes_max": 1_000}
        bench = SaslBench(**limits)
        bench.mechanisms.waiting = asyncio.get_running_loop().create_future()
        holder, peer = bench.connect(), bench.connect()
        holder.feed(struct.pack(">i", 9_000) + bytes(10))
        peer.handshake()
        peer.token(b"wait")
        peer.feed(struct.pack(">i", 9_000) + bytes(10))
        await settle()
        assert peer.is_paused()
        bench.mechanisms.waiting.set_result(None)
        await settle()
        holder.transport.lose()
        await settle()
        assert not peer.is_paused()
        assert (bench.memory.used_bytes, bench.pool.early_memory.used_bytes) == (9_000, 0)
        peer.transport.lose()
        await settle()
        assert bench.memory.used_bytes == 0

    run(test)


def test_early_memory_gives_back_exactly_what_it_drew() -> None:
    async def test() -> None:
        shared = MemoryBudget(1_000)
        one, two = EarlyMemory(shared, 100), EarlyMemory(shared, 100)
        assert one.try_reserve(100)
        assert shared.used_bytes == 0
        assert one.try_reserve(900)
        assert shared.used_bytes == 900
        assert two.try_reserve(200)
        assert not two.try_reserve(1)
        waiting = asyncio.ensure_future(two.reserve(50))
        await settle()
        assert not waiting.done()
        one.release(500)
        await waiting
        assert (shared.used_bytes, one.used_bytes, two.used_bytes) == (400 + 150, 500, 250)
        two.charge(1_000)
        assert shared.used_bytes == 400 + 1_150
        two.release(1_250)
        one.release(500)
        assert (shared.used_bytes, one.used_bytes, two.used_bytes) == (0, 0, 0)
        with pytest.raises(ValueError, match="released 1 bytes of 0"):
            one.release(1)

    run(test)


# ---- how fast they come ----


def test_arrivals_have_a_rate_and_a_second_of_it_at_once() -> None:
    clock = HandClock()
    rate = ArrivalRate(4, clock)
    assert [rate.take() for _ in range(4)] == [0.0] * 4
    assert rate.take() == pytest.approx(0.25)
    clock.now_s += 0.125
    assert rate.take() == pytest.approx(0.125)
    clock.now_s += 0.125
    assert rate.take() == 0.0
    clock.now_s += 100
    assert [rate.take() for _ in range(5)][:4] == [0.0] * 4


def test_connections_above_the_rate_wait_and_are_taken_later() -> None:
    async def test() -> None:
        taken: list[asyncio.BaseTransport] = []

        class Took(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken.append(transport)

        clock = HandClock()
        with socket.create_server(("127.0.0.1", 0), backlog=20) as made:
            made.setblocking(False)
            acceptor = Acceptor(made, Took, clock, ArrivalRate(2, clock))
            port = made.getsockname()[1]
            writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(5)]
            while len(taken) < 2:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert len(taken) == 2
            for second in (1, 2):
                clock.now_s += 1
                while len(taken) < min(5, 2 + 2 * second):  # noqa: ASYNC110  no event tells of it
                    await asyncio.sleep(0.001)
            acceptor.close()
            acceptor.close()
            for transport in (*taken, *(writer.transport for writer in writers)):
                transport.abort()  # type: ignore[attr-defined]

    run(test)


def test_without_file_descriptors_connections_wait_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("warp.server.acceptor.EXHAUSTED_PAUSE_S", 0.05)
    left = 3

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal left
            if left:
                left -= 1
                raise OSError(24, "Too many open files")
            return super().accept()

    async def test() -> None:
        taken: list[asyncio.BaseTransport] = []

        class Took(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken.append(transport)

        with Exhausted() as made:
            made.bind(("127.0.0.1", 0))
            made.listen(5)
            made.setblocking(False)
            acceptor = Acceptor(made, Took, HandClock())
            _reader, writer = await asyncio.open_connection("127.0.0.1", made.getsockname()[1])
            while not taken:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.005)
            acceptor.close()
            for transport in (*taken, writer.transport):
                transport.abort()  # type: ignore[attr-defined]
        assert left == 0
        assert caplog.messages == ["can't take connections, the next try is in 0 s: Too many open files"]

    with caplog.at_level(logging.ERROR, LOGGER):
        run(test)

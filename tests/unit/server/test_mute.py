"""A connection whose client is held back: nothing is read or started, what was started is answered."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from types import SimpleNamespace
from typing import cast

import pytest

from tests.unit.server.support import Bench, at_once, fetch, produce, run, serial, settle
from warp.server.peer import has_left

LONG_MS = 60_000


def test_a_muted_connection_reads_and_starts_nothing_and_answers_what_was_started() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        peer.connection.client.mute(LONG_MS)
        assert peer.is_paused()
        bench.end("serial")
        await settle()
        assert peer.answered() == [1]
        assert bench.begun == ["serial"]

    run(test)


def test_after_the_time_it_goes_on_with_what_it_had_read() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        peer.connection.client.mute(20)
        bench.end("serial")
        while peer.answered() != [1, 2]:  # noqa: ASYNC110  a timer of the loop
            await asyncio.sleep(0.001)
        assert not peer.is_paused()

    run(test)


def test_a_shorter_time_does_not_end_a_longer_one() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.connection.client.mute(LONG_MS)
        peer.connection.client.mute(1)
        await asyncio.sleep(0.02)
        assert peer.is_paused()

    run(test)


def test_a_muted_connection_is_not_idle() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.connection.client.mute(LONG_MS)
        bench.clock.now_s += 3_600
        peer.connection.check(bench.clock.monotonic())
        assert peer.ended() is None

    run(test)


def test_draining_ends_the_mute_and_answers_what_was_read() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        peer.connection.client.mute(LONG_MS)
        bench.end("serial")
        await settle()
        assert peer.answered() == [1]
        assert await bench.pool.drain(5)
        assert peer.answered() == [1, 2]
        assert peer.ended() == "close"

    run(test)


def test_a_draining_connection_is_not_muted_again() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        peer.connection.drain()
        peer.connection.client.mute(LONG_MS)
        bench.end("serial")
        await settle()
        assert peer.answered() == [1, 2]
        assert peer.ended() == "close"

    run(test)


def test_a_client_that_vanishes_while_it_is_muted_leaves_nothing_behind() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, produce()), (3, fetch()))
        await settle()
        peer.connection.client.mute(LONG_MS)
        peer.transport.lose()
        await settle()
        bench.end("serial")
        await settle()
        # The Produce that was read is stored all the same; the Fetch behind it is not even begun.
        assert bench.begun == ["serial", "commit"]
        bench.end("commit")
        await settle()
        assert len(bench.pool) == 0
        assert bench.memory.used_bytes == 0

    run(test)


@pytest.mark.parametrize("frame_bytes", [200_000, 50_000])
def test_a_mute_that_holds_memory_which_others_wait_for_is_given_up(frame_bytes: int) -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=300_000)
        peer = bench.connect()
        peer.connection.client.mute(LONG_MS)
        # The first bytes of a frame had come before: its memory is set aside. Little is much in thousands of such.
        peer.transport.is_paused = False
        peer.feed(frame_bytes.to_bytes(4, "big") + bytes(40_000))
        peer.transport.is_paused = True
        assert peer.connection.reserved_bytes >= frame_bytes
        peer.connection.check(bench.clock.monotonic())
        assert peer.is_paused()
        waiter = asyncio.get_running_loop().create_task(bench.memory.reserve(290_000))
        await settle()
        peer.connection.check(bench.clock.monotonic())
        assert not peer.is_paused()
        waiter.cancel()
        peer.connection.abort()
        await settle()

    run(test)


@pytest.mark.parametrize("how", ["end", "cut"])
def test_a_peer_that_has_left_is_noticed_without_reading(how: str) -> None:
    async def test() -> None:
        arrived: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda _, writer: arrived.set_result(writer), "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        writer = await arrived
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.sendall(b"not read yet")
        assert not has_left(writer.transport)
        if how == "cut":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        while not has_left(writer.transport):  # noqa: ASYNC110  the kernel tells nobody
            await asyncio.sleep(0.001)
        writer.transport.abort()
        server.close()
        await server.wait_closed()

    run(test)


def test_a_socket_that_is_none_any_more_has_been_left() -> None:
    reading, writing = os.pipe()
    try:
        of_transport = SimpleNamespace(fileno=lambda: reading, family=socket.AF_INET)
        transport = SimpleNamespace(get_extra_info=lambda name: of_transport)
        assert has_left(cast("asyncio.BaseTransport", transport))
    finally:
        os.close(reading)
        os.close(writing)

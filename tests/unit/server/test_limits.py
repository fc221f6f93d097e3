"""What bounds a connection: requests in flight, memory, unread answers, time, and the number of connections."""

from __future__ import annotations

import logging
import struct

import pytest

from tests.unit.server.support import Bench, at_once, fetch, frame, produce, run, serial, settle
from warp.handlers.context import Held
from warp.protocol.messages.fetch import FetchResponse
from warp.server.exchange import PART_BYTES, REQUEST_BYTES

LOGGER = "warp.server"


def test_reading_stops_at_the_limit_of_requests_and_goes_on_below_it() -> None:
    async def test() -> None:
        bench = Bench(requests_in_flight_max=3)
        peer = bench.connect()
        peer.send((1, produce()), (2, produce()))
        assert not peer.is_paused()
        peer.send((3, produce()))
        assert peer.is_paused()
        bench.end("commit")
        await settle()
        assert not peer.is_paused()
        assert peer.answered() == [1]

    run(test)


def test_produces_without_acks_count_as_in_flight() -> None:
    async def test() -> None:
        bench = Bench(requests_in_flight_max=2)
        peer = bench.connect()
        peer.send((1, produce(acks=0)), (2, produce(acks=0)))
        assert peer.is_paused()
        bench.end("commit")
        await settle()
        assert not peer.is_paused()

    run(test)


def test_many_small_requests_count_with_what_they_really_cost() -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=20 * REQUEST_BYTES)
        peers = [bench.connect() for _ in range(10)]
        for peer in peers:
            peer.send(*((number, produce()) for number in range(5)))
        await settle()
        assert 20 * REQUEST_BYTES <= bench.memory.used_bytes <= 26 * REQUEST_BYTES
        assert [peer.is_paused() for peer in peers] == [False] * 4 + [True] * 6
        for _ in range(50):
            bench.end("commit")
            await settle()
        assert [peer.answered() for peer in peers] == [[0, 1, 2, 3, 4]] * 10
        assert bench.memory.used_bytes == 0

    run(test)


def test_many_small_batches_count_with_what_they_really_cost() -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=100 * PART_BYTES)
        peers = [bench.connect() for _ in range(10)]
        for peer in peers:
            peer.send((1, produce(batches=50)))
        await settle()
        assert len(bench.begun) == 2
        assert 100 * PART_BYTES <= bench.memory.used_bytes <= 150 * PART_BYTES
        for _ in peers:
            bench.end("commit")
            await settle()
        assert [peer.answered() for peer in peers] == [[1]] * 10
        assert bench.memory.used_bytes == 0

    run(test)


def test_a_frame_is_not_read_before_its_memory_is_there() -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=1000)
        assert bench.memory.try_reserve(900)
        peer = bench.connect()
        peer.feed(frame(1, at_once()) + struct.pack(">i", 500) + b"\0\x12\0\0\0\0\0\x02")
        await settle()
        assert peer.is_paused()
        assert bench.memory.used_bytes == 900
        assert bench.memory.waiting == 1
        bench.memory.release(900)
        await settle()
        assert not peer.is_paused()
        assert bench.memory.used_bytes == 500
        assert peer.answered() == [1]

    run(test)


def test_memory_is_given_out_in_the_order_of_asking() -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=1000)
        assert bench.memory.try_reserve(1000)
        peers = [bench.connect() for _ in range(3)]
        for peer in peers:
            peer.feed(struct.pack(">i", 400) + bytes(8))
        await settle()
        bench.memory.release(400)
        await settle()
        assert [peer.is_paused() for peer in peers] == [False, True, True]

    run(test)


def test_a_connection_that_goes_away_gives_back_what_it_holds_and_waits_for() -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=1000)
        holder, waiter, next_one = bench.connect(), bench.connect(), bench.connect()
        holder.feed(struct.pack(">i", 800) + bytes(20))
        waiter.feed(struct.pack(">i", 900) + bytes(20))
        next_one.feed(struct.pack(">i", 700) + bytes(20))
        await settle()
        waiter.transport.lose()
        await settle()
        assert (bench.memory.used_bytes, bench.memory.waiting) == (800, 1)
        holder.transport.lose()
        await settle()
        assert (bench.memory.used_bytes, bench.memory.waiting) == (700, 0)
        next_one.transport.lose()
        await settle()
        assert bench.memory.used_bytes == 0
        assert len(bench.pool) == 0

    run(test)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole frame", "part of a frame"])
def test_frames_behind_a_member_that_waits_keep_nobody_from_memory_for_long(is_whole: bool) -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=20_000, parked_ms_max=10_000, parked_bytes_max=5_000)
        bench.serial_parks = True
        modest, greedy = bench.connect(), bench.connect()
        modest.feed(frame(1, serial()) + struct.pack(">i", 4_000) + bytes(8))
        size = 12_000 if is_whole else 12_100
        greedy.feed(frame(1, serial()) + struct.pack(">i", size) + bytes(12_000))
        for _ in range(20):
            bench.clock.now_s += 1
            for peer in (modest, greedy):
                if peer is modest or not is_whole:
                    peer.feed(b"\0")  # The rest comes, slowly.
                peer.connection.check(bench.clock.now_s)
        # As long as nobody needs it they may hold it.
        assert [modest.ended(), greedy.ended()] == [None, None]
        other = bench.connect()
        other.feed(struct.pack(">i", 15_000) + bytes(8))
        await settle()
        assert bench.memory.waiting == 1
        for peer in (modest, greedy):
            peer.connection.check(bench.clock.now_s)
        await settle()
        assert [modest.ended(), greedy.ended()] == [None, "close"]
        assert bench.memory.waiting == 1
        modest.transport.lose()
        await settle()
        assert bench.memory.waiting == 0

    run(test)


@pytest.mark.parametrize("size", [-1, 0, 7, 2**31 - 1, 2001])
def test_a_size_that_can_not_be_is_refused_without_memory(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench(memory_bytes=2000)
        peer = bench.connect()
        peer.feed(struct.pack(">i", size))
        assert peer.ended() == "close"
        assert bench.memory.used_bytes == 0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "192.0.2.1:1234" in caplog.text

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_a_peer_that_does_not_read_gets_no_more_requests_started() -> None:
    async def test() -> None:
        bench = Bench(write_buffer_bytes=10)
        peer = bench.connect()
        peer.transport.takes_all = False
        peer.send((1, at_once()))
        assert peer.is_paused()
        assert bench.begun == ["at once"]
        peer.connection._take([frame(2, at_once())[4:]])
        bench.memory.used_bytes += len(frame(2, at_once())) - 4
        assert bench.begun == ["at once"]
        peer.transport.drain()
        assert bench.begun == ["at once"] * 2
        assert not peer.is_paused()
        assert peer.answered() == [1, 2]

    run(test)


def test_a_peer_that_takes_nothing_is_dropped_and_one_that_takes_a_little_is_not() -> None:
    async def test() -> None:
        bench = Bench(write_buffer_bytes=10, write_stall_ms_max=5_000)
        stuck, slow = bench.connect(), bench.connect()
        for peer in (stuck, slow):
            peer.transport.takes_all = False
            peer.send((1, at_once()))
        for _ in range(4):
            bench.clock.now_s += 3
            slow.transport.unsent -= 1
            for peer in (stuck, slow):
                peer.connection.check(bench.clock.now_s)
        assert stuck.ended() == "abort"
        assert slow.ended() is None

    run(test)


def test_the_memory_of_an_answer_is_held_until_it_is_written() -> None:
    async def test() -> None:
        released: list[int] = []
        bench = Bench(write_buffer_bytes=10)
        peer = bench.connect()
        peer.transport.takes_all = False
        peer.send((1, fetch()))
        await settle()
        answer = FetchResponse(error_code=0, responses=[])
        bench.end("fetch", Held(answer, lambda: released.append(1)))
        await settle()
        assert peer.answered() == [1]
        assert released == []
        peer.transport.drain()
        assert released == [1]

    run(test)


def test_the_memory_of_an_answer_is_given_back_at_the_next_request_of_whoever_has_read_it() -> None:
    async def test() -> None:
        released: list[int] = []
        bench = Bench()
        peer = bench.connect()
        peer.transport.takes_all = False
        peer.send((1, fetch()))
        await settle()
        bench.end("fetch", Held(FetchResponse(error_code=0, responses=[]), lambda: released.append(1)))
        await settle()
        assert not peer.transport.is_writing_paused, "nobody will say when it has left"
        peer.transport.unsent = 0
        assert released == []
        peer.send((2, fetch()))
        assert released == [1]

    run(test)


@pytest.mark.parametrize("is_paused", [False, True])
def test_the_memory_of_an_answer_that_nobody_takes_is_given_back(is_paused: bool) -> None:
    async def test() -> None:
        released: list[int] = []
        bench = Bench(write_buffer_bytes=10)
        peer = bench.connect()
        peer.transport.takes_all = not is_paused
        peer.send((1, at_once()), (2, fetch())) if not is_paused else peer.send((2, fetch()), (1, at_once()))
        await settle()
        held = Held(FetchResponse(error_code=0, responses=[]), lambda: released.append(1))
        bench.end("fetch", held)
        peer.transport.lose()
        await settle()
        assert released == [1]
        assert len(bench.pool) == 0

    run(test)


def test_an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not() -> None:
    async def test() -> None:
        bench = Bench(idle_ms_max=10_000)
        idle, waiting = bench.connect(), bench.connect()
        waiting.send((1, fetch()))
        await settle()
        bench.clock.now_s += 11
        for peer in (idle, waiting):
            peer.connection.check(bench.clock.now_s)
        assert idle.ended() == "close"
        assert waiting.ended() is None
        assert bench.pool.protocol_errors == 0

    run(test)


def test_a_peer_that_stops_inside_a_frame_is_closed_long_before_an_idle_one() -> None:
    async def test() -> None:
        bench = Bench(idle_ms_max=600_000, partial_frame_ms_max=30_000)
        peer = bench.connect()
        peer.feed(struct.pack(">i", 1000) + bytes(100))
        bench.clock.now_s += 29
        peer.connection.check(bench.clock.now_s)
        assert peer.ended() is None
        bench.clock.now_s += 2
        peer.connection.check(bench.clock.now_s)
        await settle()
        assert peer.ended() == "close"
        assert bench.memory.used_bytes == 0

    run(test)


def test_a_frame_that_nobody_reads_on_is_waited_for() -> None:
    async def test() -> None:
        bench = Bench(requests_in_flight_max=2, partial_frame_ms_max=30_000)
        peer = bench.connect()
        peer.feed(frame(1, produce()) + frame(2, produce()) + struct.pack(">i", 1000) + bytes(100))
        assert peer.is_paused()
        bench.clock.now_s += 3600
        peer.connection.check(bench.clock.now_s)
        bench.end("commit")
        await settle()
        assert not peer.is_paused()
        peer.connection.check(bench.clock.now_s)
        assert peer.ended() is None
        assert peer.answered() == [1]
        bench.clock.now_s += 31
        peer.connection.check(bench.clock.now_s)
        assert peer.ended() == "close"

    run(test)


def test_a_frame_that_drips_in_is_not_waited_for_without_end() -> None:
    async def test() -> None:
        bench = Bench(frame_ms_max=60_000)
        peer = bench.connect()
        peer.feed(struct.pack(">i", 1000) + bytes(100))
        for _ in range(7):
            peer.feed(b"\0")
            peer.connection.check(bench.clock.now_s)
            bench.clock.now_s += 10
        peer.connection.check(bench.clock.now_s)
        assert peer.ended() == "close"

    run(test)


def test_large_frames_one_after_the_other_are_no_dripping_frame() -> None:
    async def test() -> None:
        bench = Bench(frame_ms_max=60_000)
        peer = bench.connect()
        whole = frame(1, at_once())
        peer.feed(whole[:9])
        for _ in range(30):
            peer.feed(whole[9:] + whole[:9])
            peer.connection.check(bench.clock.now_s)
            bench.clock.now_s += 10
        assert peer.ended() is None

    run(test)


def test_connections_above_the_limit_are_closed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bench = Bench(connections_max=2)
        peers = [bench.connect() for _ in range(5)]
        await settle()
        assert [peer.ended() for peer in peers] == [None, None, "abort", "abort", "abort"]
        assert (bench.pool.opened, bench.pool.refused, len(bench.pool)) == (2, 3, 2)
        assert len(caplog.records) == 1
        peers[0].transport.lose()
        await settle()
        assert bench.connect().ended() is None

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_a_flood_of_refusals_is_one_log_line_a_second_that_counts_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        bench = Bench(connections_max=0)
        for _ in range(100):
            bench.connect()
        bench.clock.now_s += 2
        bench.connect()
        assert len(caplog.records) == 2
        assert "99 more like it" in caplog.records[1].getMessage()

    with caplog.at_level(logging.WARNING, LOGGER):
        run(test)


def test_a_serial_request_in_progress_is_finished_after_its_client_has_left() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        peer.transport.lose()
        await settle()
        assert len(bench.pool) == 1
        bench.end("serial")
        await settle()
        assert len(bench.pool) == 0
        assert bench.begun == ["serial"]
        assert bench.observed == [("Metadata", "DROPPED")]
        assert bench.memory.used_bytes == 0

    run(test)

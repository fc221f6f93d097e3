"""The frame splitter against an obvious one: whatever the chunks, whatever the memory, the same frames in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import uvloop
from hypothesis import given, settings, strategies as st

from warp._frames import BLOCK_BYTES_MIN, FRAME_BYTES_MIN
from warp.protocol import DecodeError, FrameSplitter, SharedReceiveBuffer

T = TypeVar("T")
Frame = bytes | memoryview


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def split(stream: bytes) -> list[bytes]:
    """The obvious splitter: whole frames at the front of a stream."""
    frames = []
    while len(stream) >= 4 and len(stream) >= 4 + (size := int.from_bytes(stream[:4], "big")):
        frames.append(stream[4 : 4 + size])
        stream = stream[4 + size :]
    return frames


def receive(splitter: FrameSplitter, stream: bytes, chunk_sizes: Iterator[int]) -> Iterator[list[Frame]]:
    """Feed a stream the way a transport does, at most so many bytes at a time; frames as they come out."""
    while stream:
        buffer = splitter.get_buffer(-1)
        size = min(next(chunk_sizes), len(buffer), len(stream))
        buffer[:size] = stream[:size]
        stream = stream[size:]
        yield splitter.buffer_updated(size)
        while splitter.blocked:
            yield splitter.resume()


def endless(values: list[T]) -> Iterator[T]:
    while True:
        yield from values


class Budget:
    """Grants what `answers` say, and counts what was granted; denied requests are granted when asked again."""

    def __init__(self, answers: Iterator[bool]) -> None:
        self.answers = answers
        self.granted = 0
        self.denied: list[int] = []

    def reserve(self, size: int) -> bool:
        assert size > 0
        if next(self.answers):
            self.granted += size
            return True
        self.denied.append(size)
        return False


@settings(max_examples=400)
@given(
    frames=st.lists(st.binary(min_size=FRAME_BYTES_MIN, max_size=100), max_size=12),
    tail_size=st.integers(0, 60),
    chunk_sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    shared_size=st.integers(4, 80),
    answers=st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_frames_come_out_whole_and_in_order_however_they_come_in(
    frames: list[bytes], tail_size: int, chunk_sizes: list[int], shared_size: int, answers: list[bool]
) -> None:
    stream = b"".join(map(framed, frames))
    stream += framed(bytes(60))[:tail_size]
    budget = Budget(endless(answers))
    splitter = FrameSplitter(SharedReceiveBuffer(shared_size), 100, budget.reserve)
    out: list[Frame] = []
    fed = receive(splitter, stream, endless(chunk_sizes))
    for step in fed:
        out += step
        granted_later = sum(budget.denied) - (splitter.wanted_bytes if splitter.blocked else 0)
        assert budget.granted + granted_later == sum(map(len, out)) + splitter.reserved_bytes
        assert splitter.held_bytes <= shared_size + 3
    assert out == split(stream)
    assert out == frames


def plain_splitter(
    frame_bytes_max: int = 1 << 20,
    reserve: Callable[[int], bool] = lambda _: True,
    shared: SharedReceiveBuffer | None = None,
) -> FrameSplitter:
    return FrameSplitter(shared or SharedReceiveBuffer(64), frame_bytes_max, reserve)


def feed(splitter: FrameSplitter, data: bytes) -> list[Frame]:
    out: list[Frame] = []
    while data:
        buffer = splitter.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        data = data[size:]
        out += splitter.buffer_updated(size)
    return out


def test_connections_that_share_a_buffer_do_not_disturb_each_other() -> None:
    shared = SharedReceiveBuffer(64)
    one, other = plain_splitter(shared=shared), plain_splitter(shared=shared)
    mine, yours = framed(b"mine" * 20), framed(b"your" * 20)
    out: dict[str, list[Frame]] = {"one": [], "other": []}
    for at in range(len(mine)):
        out["one"] += feed(one, mine[at : at + 1])
        out["other"] += feed(other, yours[at : at + 1])
    assert out == {"one": [b"mine" * 20], "other": [b"your" * 20]}


def test_an_idle_connection_holds_no_buffer() -> None:
    splitter = plain_splitter()
    feed(splitter, framed(b"a whole frame") * 3)
    assert splitter.reserved_bytes == 0
    assert splitter.held_bytes == 0
    assert len(splitter.get_buffer(-1)) == 64


def test_a_large_frame_is_received_straight_into_its_own_buffer() -> None:
    splitter = plain_splitter()
    large = bytes(range(256)) * 40
    assert feed(splitter, framed(large)[:20]) == []
    assert splitter.reserved_bytes == len(large)
    buffer = splitter.get_buffer(-1)
    assert len(buffer) == len(large) - 16
    buffer[:] = large[16:]
    assert splitter.buffer_updated(len(buffer)) == [large]
    assert splitter.reserved_bytes == 0


def test_a_finished_frame_can_no_longer_be_written_to() -> None:
    splitter = plain_splitter()
    feed(splitter, framed(b"x" * 100)[:50])
    stale = splitter.get_buffer(-1).obj
    feed(splitter, framed(b"x" * 100)[50:])
    with pytest.raises(BufferError, match="the frame is complete"):
        memoryview(stale)


def test_memory_is_asked_for_once_per_read_and_before_a_frame_on_its_way() -> None:
    asked: list[int] = []

    def reserve(size: int) -> bool:
        asked.append(size)
        return True

    splitter = plain_splitter(reserve=reserve)
    feed(splitter, framed(b"12345678") + framed(b"1234567890") + framed(b"x" * 1000)[:10])
    assert asked == [18, 1000]


def test_nothing_is_lost_while_memory_is_short() -> None:
    asked: list[int] = []

    def reserve(size: int) -> bool:
        asked.append(size)
        return False

    splitter = plain_splitter(reserve=reserve)
    data = framed(b"12345678") + framed(b"x" * 1000)[:20]
    assert feed(splitter, data) == []
    assert (splitter.blocked, splitter.wanted_bytes, splitter.held_bytes) == (True, 8, len(data))
    with pytest.raises(RuntimeError, match="receiving while blocked"):
        splitter.get_buffer(-1)
    assert splitter.resume() == [b"12345678"]
    assert (splitter.blocked, splitter.wanted_bytes) == (True, 1000)
    assert splitter.resume() == []
    assert not splitter.blocked
    assert splitter.reserved_bytes == 1000
    assert feed(splitter, bytes(984)) == [b"x" * 16 + bytes(984)]
    assert asked == [8, 1000]
    with pytest.raises(RuntimeError, match="not blocked"):
        splitter.resume()


@pytest.mark.parametrize("size", [-1, -(2**31), 0, FRAME_BYTES_MIN - 1, 1001, 2**31 - 1])
def test_absurd_sizes_are_refused_before_memory_is_asked_for(size: int) -> None:
    def reserve(_: int) -> bool:
        raise AssertionError

    for cut in range(4):
        splitter = plain_splitter(1000, reserve)
        data = size.to_bytes(4, "big", signed=True) + b"rest"
        assert feed(splitter, data[:cut]) == []
        with pytest.raises(DecodeError, match=f"a frame of {size} bytes; 8 to 1000 are allowed"):
            feed(splitter, data[cut:])


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01"])
def test_other_protocols_show_up_as_absurd_sizes(greeting: bytes) -> None:
    with pytest.raises(DecodeError, match=r"a frame of [0-9]+ bytes"):
        feed(plain_splitter(104857600), greeting)


def test_the_limit_may_rise_on_the_way() -> None:
    splitter = plain_splitter(10)
    feed(splitter, framed(b"12345678"))
    splitter.frame_bytes_max = 100
    assert feed(splitter, framed(b"x" * 100)) == [b"x" * 100]


def test_counts_outside_of_the_buffer_are_bugs() -> None:
    splitter = plain_splitter()
    for count in (-1, 65):
        with pytest.raises(ValueError, match="bytes in a buffer of 64"):
            splitter.buffer_updated(count)
    feed(splitter, framed(b"x" * 100)[:50])
    for count in (-1, 55):
        with pytest.raises(ValueError, match="bytes where 54 are missing"):
            splitter.buffer_updated(count)


def test_closing_lets_go_of_everything() -> None:
    splitter = plain_splitter()
    feed(splitter, framed(b"x" * 100)[:50])
    splitter.close()
    assert splitter.reserved_bytes == 0
    blocked = plain_splitter(reserve=lambda _: False)
    feed(blocked, framed(b"12345678"))
    blocked.close()
    assert (blocked.blocked, blocked.held_bytes) == (False, 0)


def test_a_receive_buffer_has_room_for_a_size() -> None:
    with pytest.raises(ValueError, match="at least the size of a frame"):
        SharedReceiveBuffer(3)


class Received(FrameSplitter, asyncio.BufferedProtocol):
    """A protocol as a server would have it: the splitter, under an event loop."""

    def __init__(self, shared: SharedReceiveBuffer, frames: list[Frame], ended: asyncio.Event) -> None:
        FrameSplitter.__init__(self, shared, 1 << 24, lambda _: True)
        self.frames = frames
        self.ended = ended

    def buffer_updated(self, nbytes: int) -> list[Frame]:  # type: ignore[override]
        self.frames += FrameSplitter.buffer_updated(self, nbytes)
        return []

    def connection_lost(self, _: Exception | None) -> None:
        self.ended.set()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_serves_as_a_buffered_protocol(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    sent = [b"small one", b"large" * 1_000_000, b"small two", b"medium" * 10_000]
    received: list[Frame] = []

    async def run() -> None:
        ended = asyncio.Event()
        shared = SharedReceiveBuffer()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Received(shared, received, ended), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for frame in sent:
            writer.write(framed(frame))
        await writer.drain()
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    assert received == sent


@pytest.mark.parametrize("size", [BLOCK_BYTES_MIN - 1, BLOCK_BYTES_MIN, 3 * BLOCK_BYTES_MIN])
@pytest.mark.parametrize("shared_bytes", [100, 1 << 20])
def test_large_frames_keep_their_bytes_while_later_ones_come_and_go(size: int, shared_bytes: int) -> None:
    splitter = plain_splitter(shared=SharedReceiveBuffer(shared_bytes))
    [kept] = feed(splitter, framed(b"k" * size))
    for byte in b"abc":
        assert feed(splitter, framed(bytes([byte]) * size)) == [bytes([byte]) * size]
    assert kept == b"k" * size

"""One cell of the commit benchmark: where SQLite's commit runs, beside an event loop that is idle or flooded.

Run by bench_commit_beside_flood. Prints one line of JSON: latencies of commits and lateness of a timer on the loop, in
milliseconds, and how many frames the flood got through.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import pickle
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import uvloop

from warp.clock import SystemClock
from warp.ids import IdSource, LogId, ProducerId
from warp.metadata import sqlite_sync
from warp.metadata.model import BatchEntry, NewTopic, SegmentCommit, Topic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

FRAME = struct.pack(">i", 196) + bytes(196)
ANSWER = struct.pack(">i", 16) + bytes(16)
FRAMES_AT_ONCE = 64
COMMIT_EVERY_S = 0.01
TIMER_EVERY_S = 0.002


def new_store(path: Path) -> MetadataStore:
    """A store on a file, not yet opened."""
    clock = SystemClock()
    return MetadataStore(SqliteDatabase(path, now_ms=clock.time_ms), clock, IdSource(clock, os.urandom))


def run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits, as those of the inline store are while nobody else uses it."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waited")


class Placement(Protocol):
    """A place for the store to run in."""

    async def open(self) -> None:
        """Make the store ready."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Run one of the store's methods."""

    async def close(self) -> None:
        """End what the placement has begun."""


class Agent:
    """As the agent does it: on the event loop, and the sync there too or in a thread, as the disk is fast or slow."""

    def __init__(self, path: Path) -> None:
        self._store = new_store(path)

    async def open(self) -> None:
        await self._store.open()

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._store, method)(*arguments)

    async def close(self) -> None:
        await self._store.close()


class Inline(Agent):
    """On the event loop, with the sync, however slow the disk is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        sqlite_sync.SLOW_SYNC_S = float("inf")


class SyncInThread(Agent):
    """On the event loop, but for the sync, which is one system call in a worker thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        sqlite_sync.SLOW_SYNC_S = 0.0


class Thread:
    """In one worker thread of the agent's process."""

    def __init__(self, path: Path) -> None:
        sqlite_sync.SLOW_SYNC_S = float("inf")
        self._executor = ThreadPoolExecutor(1)
        self._store = new_store(path)

    async def open(self) -> None:
        await self.call("open")

    async def call(self, method: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: run_at_once(getattr(self._store, method)(*arguments))
        )

    async def close(self) -> None:
        await self.call("close")
        self._executor.shutdown()


class Child:
    """In a child process, behind a socket pair."""

    def __init__(self, path: Path) -> None:
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(theirs, path), daemon=True)
        self._process.start()
        theirs.close()
        self._socket = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        self._streams = await asyncio.open_connection(sock=self._socket)

    async def call(self, method: str, *arguments: Any) -> Any:
        assert self._streams is not None
        reader, writer = self._streams
        message = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)
        writer.write(struct.pack(">i", len(message)) + message)
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        return pickle.loads(await reader.readexactly(size))

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._process.join(10)


def _serve(connection: socket.socket, path: Path) -> None:
    """The child: one request after the other, until the parent hangs up."""
    sqlite_sync.SLOW_SYNC_S = float("inf")
    store = new_store(path)
    run_at_once(store.open())
    stream = connection.makefile("rwb")
    while header := stream.read(4):
        method, arguments = pickle.loads(stream.read(struct.unpack(">i", header)[0]))
        answer = pickle.dumps(run_at_once(getattr(store, method)(*arguments)), pickle.HIGHEST_PROTOCOL)
        stream.write(struct.pack(">i", len(answer)) + answer)
        stream.flush()
    run_at_once(store.close())


PLACEMENTS: dict[str, Callable[[Path], Placement]] = {
    "as the agent does": Agent,
    "inline": Inline,
    "child process": Child,
    "worker thread": Thread,
    "inline, sync in a thread": SyncInThread,
}


class FrameServer(asyncio.Protocol):
    """Answers every frame with a small one: the busy loop."""

    frames = 0
    first_frame: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        position = 0
        while position + len(FRAME) <= len(data):
            (size,) = struct.unpack_from(">i", data, position)
            position += 4 + size
            FrameServer.frames += 1
            self._transport.write(ANSWER)
        self._rest = data[position:]
        self.first_frame.set()


def flood(port: int) -> None:
    """The other process: sends frames as fast as they are answered, many on their way."""
    connection = socket.create_connection(("127.0.0.1", port))
    on_the_way = threading.Semaphore(8)

    def send() -> None:
        while True:
            on_the_way.acquire()
            connection.sendall(FRAME * FRAMES_AT_ONCE)

    threading.Thread(target=send, daemon=True).start()
    answers = 0
    while chunk := connection.recv(1 << 16):
        answers += len(chunk)
        while answers >= FRAMES_AT_ONCE * len(ANSWER):
            answers -= FRAMES_AT_ONCE * len(ANSWER)
            on_the_way.release()


async def commits(placement: Placement, topic: Topic, logs: int, seconds: float, first: int) -> list[float]:
    """Commit a segment every so often; how long each took, in milliseconds."""
    took = []
    end = time.perf_counter() + seconds
    number = first
    while time.perf_counter() < end:
        batches = [
            BatchEntry(LogId(log_id), 1000 * place, 1000, 10, number, ProducerId(1), 0, 10 * number)
            for place, log_id in enumerate(topic.logs[:logs])
        ]
        segment = SegmentCommit(f"segments/{number}", 1000 * logs, number, batches)
        begin = time.perf_counter()
        result = await placement.call("commit", [segment], number)
        took.append((time.perf_counter() - begin) * 1e3)
        assert result.outcomes[0][-1].base_offset == 10 * number, result
        number += 1
        await asyncio.sleep(COMMIT_EVERY_S)
    return took


async def lateness(late: list[float]) -> None:
    """How late a timer fires on the loop, again and again, in milliseconds."""
    while True:
        due = time.perf_counter() + TIMER_EVERY_S
        await asyncio.sleep(TIMER_EVERY_S)
        late.append((time.perf_counter() - due) * 1e3)


async def measure(arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Open the store, start the flood where asked, and commit."""
    placement = PLACEMENTS[arguments.placement](path)
    await placement.open()
    topic_id = IdSource(SystemClock(), os.urandom).topic_id()
    [topic] = await placement.call("create_topics", [NewTopic("t", topic_id, arguments.logs)])
    loop = asyncio.get_running_loop()
    FrameServer.first_frame = asyncio.Event()
    server = await loop.create_server(FrameServer, "127.0.0.1", 0)
    flooding: Any = None
    if arguments.flood:
        context = multiprocessing.get_context("spawn")
        flooding = context.Process(target=flood, args=(server.sockets[0].getsockname()[1],), daemon=True)
        flooding.start()
        await FrameServer.first_frame.wait()
    warm = await commits(placement, topic, arguments.logs, 0.5, 0)
    frames, begin = FrameServer.frames, time.perf_counter()
    late: list[float] = []
    timer = asyncio.ensure_future(lateness(late))
    took = await commits(placement, topic, arguments.logs, arguments.seconds, len(warm))
    per_second = (FrameServer.frames - frames) / (time.perf_counter() - begin)
    timer.cancel()
    if flooding is not None:
        flooding.terminate()
        flooding.join()
    server.close()
    await placement.close()
    return {"commit_ms": took, "late_ms": late, "frames_per_second": per_second}


def run(main: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Run on the loop that the agent runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)  # type: ignore[arg-type]


def main() -> None:
    """Measure one cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("placement", choices=PLACEMENTS)
    parser.add_argument("--flood", action="store_true")
    parser.add_argument("--logs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        threading.Thread(target=os.sched_setaffinity, args=(0, {0})).start()
    with tempfile.TemporaryDirectory(
        prefix="warp-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")
    ) as folder:
        json.dump(run(measure(arguments, Path(folder) / "metadata.sqlite")), sys.stdout)


if __name__ == "__main__":
    main()

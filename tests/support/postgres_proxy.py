"""A proxy in front of PostgreSQL that knows where a COMMIT is on its way, and can cut the connection there.

It reads what clients send as the messages that PostgreSQL's protocol is made of (version 3.0; chapter "Frontend/Backend
Protocol", "Message Formats"), so that it finds a COMMIT however the network has cut the stream in pieces.
It runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import enum
import random
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import uvloop

CALL_TIMEOUT_S = 30.0
READ_BYTES = 1 << 16
MESSAGE_BYTES_MAX = 1 << 28
START_CODE = 196608
"""Protocol 3.0: after this message, each has a type."""
COMMITS = (b"commit\0", b"commit;\0")


class CutAt(enum.Enum):
    """Where the connection of a COMMIT is cut."""

    BEFORE = "not passed on: PostgreSQL rolls back"
    SENT = "passed on and cut at once: PostgreSQL commits meanwhile, if it gets to it"
    ANSWERED = "committed, and the answer withheld"
    LATE = "not cut: committed, and answered a while later"


class Messages:
    """Cuts what one client sends into whole messages."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_started = False

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The messages that are whole now, as they are on the wire, and whether each is a COMMIT.

        Raises ValueError when this is not the protocol.
        """
        self._rest += data
        found: list[tuple[bytes, bool]] = []
        position = 0
        while (end := self._end(position)) is not None:
            message = self._rest[position:end]
            found.append((message, self._is_started and is_commit(message)))
            if not self._is_started:
                self._is_started = int.from_bytes(message[4:8], "big") == START_CODE
            position = end
        self._rest = self._rest[position:]
        return found

    def _end(self, position: int) -> int | None:
        """Where the message that begins here ends, if all of it is there."""
        head = position + (1 if self._is_started else 0)
        if len(self._rest) < head + 4:
            return None
        size_bytes = int.from_bytes(self._rest[head : head + 4], "big")
        if not 4 <= size_bytes <= MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {size_bytes} bytes")
        end = head + size_bytes
        return end if end <= len(self._rest) else None


def is_commit(message: bytes) -> bool:
    """Is it a Query message with nothing but COMMIT in it?"""
    return message[:1] == b"Q" and message[5:].lower() in COMMITS


@dataclass(slots=True)
class CommitRule:
    """What happens to a share of the COMMITs, in ways that take turns."""

    ways: Sequence[CutAt]
    share: float
    late_s: float
    happened: int = 0

    def draw(self, source: random.Random) -> CutAt | None:
        """What happens to this one."""
        if source.random() >= self.share:
            return None
        self.happened += 1
        return self.ways[self.happened % len(self.ways)]


class PostgresProxy:
    """In front of 127.0.0.1:`target_port`, at a free port of `host`. Use as a context manager."""

    def __init__(self, target_port: int, host: str = "127.0.0.1", *, seed: int = 1) -> None:
        self.host = host
        self.port = 0
        self.happened: Counter[CutAt] = Counter()
        self.commits = 0
        """How many have come by."""
        self._target_port = target_port
        self._source = random.Random(seed)
        self._rule: CommitRule | None = None
        self._flowing = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    @contextmanager
    def cutting_commits(
        self, ways: Sequence[CutAt], share: float = 1.0, late_s: float = 1.0
    ) -> Iterator[CommitRule]:
        """A share of the COMMITs is cut meanwhile. There is one such rule at a time."""
        rule = CommitRule(ways, share, late_s)
        self._rule = rule
        try:
            yield rule
        finally:
            self._rule = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing is passed on in either direction meanwhile, and nobody is hung up on."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    def cut_all(self) -> int:
        """Cut every connection now; how many there were."""
        count: int = self._call(self._cut_all())
        return count

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut_all(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        return len(pairs)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair: _Pair | None = None
        try:
            await self._flowing.wait()
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
            pair = _Pair((reader, writer), there)
            self._pairs.add(pair)
            await self._relay(pair)
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # either side may hang up at any time, and who shuts this proxy down cancels
        finally:
            writer.transport.abort()
            if pair is not None:
                pair.cut()
                self._pairs.discard(pair)
            self._tasks.discard(task)

    async def _relay(self, pair: _Pair) -> None:
        answers = asyncio.ensure_future(self._answers(pair))
        messages = Messages()
        try:
            while data := await pair.client_reader.read(READ_BYTES):
                await self._flowing.wait()
                for message, is_commit_ in messages.feed(data):
                    if not is_commit_:
                        pair.server.write(message)
                    elif await self._commit(pair, message):
                        return
                await pair.server.drain()
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _commit(self, pair: _Pair, message: bytes) -> bool:
        """Pass on a COMMIT, or do to it what the rule says. True: the connection is over."""
        self.commits += 1
        rule = self._rule
        way = pair.way = None if rule is None else rule.draw(self._source)
        if rule is not None and way is not None:
            self.happened[way] += 1
            pair.late_s = rule.late_s
        if way is CutAt.BEFORE:
            return True
        pair.server.write(message)
        await pair.server.drain()
        if way is CutAt.SENT:
            pair.client.transport.abort()
            pair.server.close()  # once all is written
            return True
        if way is CutAt.ANSWERED:
            await pair.answered.wait()
            return True
        return False

    async def _answers(self, pair: _Pair) -> None:
        try:
            while data := await pair.server_reader.read(READ_BYTES):
                await self._flowing.wait()
                if pair.way is CutAt.ANSWERED:
                    pair.answered.set()
                    return
                if pair.way is CutAt.LATE:
                    pair.way = None
                    await asyncio.sleep(pair.late_s)
                pair.client.write(data)
        except ConnectionError:
            return
        finally:
            pair.answered.set()
            if pair.way is not CutAt.SENT:
                pair.client.transport.abort()


class _Pair:
    """The connections of a client: to us, and to the server."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client_reader, self.client = client
        self.server_reader, self.server = server
        self.way: CutAt | None = None
        """Of the COMMIT that is on its way."""
        self.late_s = 0.0
        self.answered = asyncio.Event()

    def cut(self) -> None:
        """Both, at once; but what the server is still to be sent goes out first."""
        self.client.transport.abort()
        if not self.server.is_closing():
            self.server.transport.abort()

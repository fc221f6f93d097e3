"""Stores that are slow, fail, and leave one in doubt, as the weather of the moment has it."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.sim.loop import OUTSIDE, Process, SimClock, SimLoop
from warp.errors import MetadataUnavailable, ObjectStoreError, OutcomeUnknown
from warp.metadata.session import Argument, Call, Notices, Row, Rows, Session, Statement
from warp.metadata.sqlite import SqliteDatabase
from warp.objectstore.base import Buffer, ObjectInfo
from warp.objectstore.memory import MemoryStore

T = TypeVar("T")

OBJECTS_BYTES_MAX = 2**30

_WRITES = re.compile(r"\b(insert|update|delete)\b")


@dataclass(slots=True)
class Weather:
    """How the stores behave right now: chances between 0 and 1, mean delays in seconds."""

    put_s: float = 0.01
    get_s: float = 0.005
    slow_share: float = 0.0
    """Of PUTs and GETs: those that take `slow_s` more."""
    slow_s: float = 2.0
    statement_s: float = 0.0
    stall_s: float = 0.0
    put_fails: float = 0.0
    put_is_ambiguous: float = 0.0
    """Answered with an error, though the object is there, or will be in a while."""
    get_fails: float = 0.0
    begin_fails: float = 0.0
    commit_fails: float = 0.0
    commit_answer_is_lost: float = 0.0
    """Of transactions that write: half of them were applied."""

    @classmethod
    def fine(cls) -> Weather:
        """No faults at all."""
        return cls()

    @classmethod
    def rough(cls, chance: random.Random) -> Weather:
        """Some of everything, never the same."""

        def some(most: float) -> float:
            return chance.choice((0.0, 0.0, most * chance.random()))

        return cls(
            put_s=chance.choice((0.001, 0.02, 0.2, 1.0)),
            get_s=chance.choice((0.001, 0.02, 0.3)),
            slow_share=chance.choice((0.0, 0.03, 0.1, 0.6)),
            slow_s=chance.choice((0.5, 2.0, 30.0)),
            statement_s=chance.choice((0.0, 0.0, 0.002)),
            stall_s=some(1.5),
            put_fails=some(0.7),
            put_is_ambiguous=some(0.7),
            get_fails=some(0.6),
            begin_fails=some(0.6),
            commit_fails=some(0.6),
            commit_answer_is_lost=some(0.8),
        )


class Sky:
    """The weather, shared by all stores, and the chance that they draw from."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = Weather.fine()
        self.faults = 0

    def strikes(self, likelihood: float) -> bool:
        """Whether a fault happens now."""
        hit = likelihood > 0 and self.chance.random() < likelihood
        self.faults += hit
        return hit

    async def pause(self, mean_s: float) -> None:
        """Take some time."""
        if mean_s > 0:
            await asyncio.sleep(self.chance.expovariate(1 / mean_s))

    def delay_s(self, mean_s: float) -> float:
        """How long a request to the object store takes."""
        slow_s = self.weather.slow_s if self.strikes(self.weather.slow_share) else 0.0
        return slow_s + self.chance.expovariate(1 / mean_s)


class SimObjectStore(MemoryStore):
    """A store at the other end of a network: what was sent to it happens, also when the sender has died."""

    def __init__(self, sky: Sky, clock: SimClock, *, requests_are_free: bool) -> None:
        super().__init__(clock, bytes_max=OBJECTS_BYTES_MAX)
        self.requests_are_free = requests_are_free
        self.puts = 0
        self._sky = sky
        self._keys: set[str] = set()
        self.keys_used_twice: list[str] = []
        """Of PUTs: one may have stored its object, and may still do so, whatever became of it."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store, fail, or leave in doubt."""
        self.puts += 1
        if key in self._keys:
            self.keys_used_twice.append(key)
        self._keys.add(key)
        weather = self._sky.weather
        if self._sky.strikes(weather.put_fails):
            await self._sky.pause(weather.put_s)
            raise ObjectStoreError("the store is down")
        data = b"".join(parts)
        stored = self._sky.loop.create_future()

        def store() -> None:
            self._store(key, data)
            if not stored.done():
                stored.set_result(None)

        delay_s = self._sky.delay_s(weather.put_s)
        if self._sky.strikes(weather.put_is_ambiguous):
            late_s = delay_s * self._sky.chance.choice((0.5, 3.0))
            self._sky.loop.call_later(late_s, store, context=OUTSIDE)
            await asyncio.sleep(delay_s)
            raise ObjectStoreError("no answer from the store")
        self._sky.loop.call_later(delay_s, store, context=OUTSIDE)
        await stored

    async def create(self, key: str, data: Buffer) -> bool:
        """Store if the key is free, after a while."""
        await self._sky.pause(self._sky.weather.put_s)
        return await super().create(key, data)

    async def get(self, key: str, start: int, length: int) -> bytes:
        """Read, or fail."""
        await asyncio.sleep(self._sky.delay_s(self._sky.weather.get_s))
        if self._sky.strikes(self._sky.weather.get_fails):
            raise ObjectStoreError("the store is down")
        return await super().get(key, start, length)

    async def head(self, key: str) -> ObjectInfo:
        """Look, or fail."""
        await self._sky.pause(self._sky.weather.get_s)
        if self._sky.strikes(self._sky.weather.get_fails):
            raise ObjectStoreError("the store is down")
        return await super().head(key)


class WriteTurn:
    """The database's lock on writing, as several agents see it: granted in order, let go by those who die."""

    def __init__(self) -> None:
        self._holder: Process | None = None
        self._waiting: deque[tuple[Process, asyncio.Future[None]]] = deque()

    async def take(self, process: Process) -> None:
        """Wait for the lock."""
        if self._holder is None:
            self._holder = process
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((process, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(process)
            raise

    def leave(self, process: Process) -> None:
        """Let go of the lock, if this process holds it."""
        if self._holder is process:
            self._holder = None
            while self._waiting and self._holder is None:
                waiting, turn = self._waiting.popleft()
                if waiting.is_alive and not turn.done():
                    self._holder = waiting
                    turn.set_result(None)


class SimDatabase:
    """The real SQLite database, inline, with faults around every statement and every COMMIT."""

    is_shared = False
    notices: Notices | None = None

    def __init__(
        self,
        path: Path,
        sky: Sky,
        clock: SimClock,
        turn: WriteTurn,
        process: Process,
        on_commit: Callable[[sqlite3.Connection], None],
    ) -> None:
        self._on_commit = on_commit
        self._inner = SqliteDatabase(path, now_ms=clock.time_ms, sync=None)
        self._sky = sky
        self._turn = turn
        self._process = process

    def die(self) -> None:
        """The process has died: what was not committed never was."""
        connection = self._inner._connection
        if connection is not None:
            connection.close()
        self._turn.leave(self._process)

    async def open(self) -> None:
        """Open the file."""
        await self._take_turn()
        try:
            await self._inner.open()
        finally:
            self._turn.leave(self._process)

    async def close(self) -> None:
        """Close the file."""
        await self._inner.close()

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        """A statement in a transaction of its own."""
        async with self._maybe_writing(statement) as session:
            return await session.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        """A statement in a transaction of its own."""
        async with self._maybe_writing(statement) as session:
            return await session.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        """A statement in a transaction of its own."""
        async with self.transaction() as session:
            return await session.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        """A batch in a transaction of its own."""
        async with self.transaction() as session:
            await session.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """Statements in one transaction of their own."""
        async with self.transaction() as session:
            return await session.together(calls)

    async def time_ms(self) -> int:
        """The clock of the machine."""
        return await self._inner.time_ms()

    def _maybe_writing(self, statement: Statement) -> AbstractAsyncContextManager[Session]:
        return self.transaction() if _WRITES.search(statement.text) else self.snapshot()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A transaction whose COMMIT may fail, or whose answer may be lost."""
        weather = self._sky.weather
        await self._begin()
        await self._take_turn()
        try:
            answer_is_lost = self._sky.strikes(weather.commit_answer_is_lost)
            async with self._inner.transaction() as session:
                yield _SimSession(session, self._sky)
                await self._sky.pause(weather.stall_s)
                if self._sky.strikes(weather.commit_fails):
                    raise MetadataUnavailable("the commit failed")
                if answer_is_lost and self._sky.chance.random() < 0.5:
                    raise OutcomeUnknown("the connection was lost before the commit")
            if self._inner._connection is not None:
                self._on_commit(self._inner._connection)
            if answer_is_lost:
                await self._sky.pause(weather.stall_s)
                raise OutcomeUnknown("the connection was lost after the commit")
        finally:
            self._turn.leave(self._process)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """A snapshot, late or not at all."""
        await self._begin()
        async with self._inner.snapshot() as session:
            yield _SimSession(session, self._sky)

    async def _begin(self) -> None:
        await self._sky.pause(self._sky.weather.statement_s)
        if self._sky.strikes(self._sky.weather.begin_fails):
            raise MetadataUnavailable("the database is not there")

    async def _take_turn(self) -> None:
        await self._turn.take(self._process)


class _SimSession:
    """A session on which each statement takes a while."""

    def __init__(self, inner: Session, sky: Sky) -> None:
        self._inner = inner
        self._sky = sky

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        await self._sky.pause(self._sky.weather.statement_s)
        return await self._inner.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        await self._sky.pause(self._sky.weather.statement_s)
        return await self._inner.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        await self._sky.pause(self._sky.weather.statement_s)
        return await self._inner.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        await self._sky.pause(self._sky.weather.statement_s)
        await self._inner.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        await self._sky.pause(self._sky.weather.statement_s)
        return await self._inner.together(calls)

"""The metadata database as agents see it from afar: late, failing, in doubt about its commits, or out of reach.

Every statement may fail or stall, within a transaction too, and so may `begin` and COMMIT. A transaction whose statement
has failed is over: the database has rolled it back. The answer to a COMMIT may be lost before it was carried out, after
it, or while it is under way: then it is carried out, or not, some time after the agent was told that nobody knows.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from tests.sim.faults import Sky
from tests.sim.ghosts import Ghost
from tests.sim.loop import Process, SimClock, at_a_step
from warp.errors import MetadataContention, MetadataUnavailable, OutcomeUnknown
from warp.metadata.session import Argument, Call, Notices, Row, Rows, Session, Statement
from warp.metadata.sqlite import SqliteDatabase

HANG_S_MAX = 10.0
"""Drivers give up some time; and what hangs must not outlast the storm for longer than members are patient with it."""
_WRITES = re.compile(r"\b(insert|update|delete)\b")
T = TypeVar("T")


class Ticket:
    """The right to write, of one transaction."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.is_broken = False
        """The database has given the transaction up."""
        self.is_inside = False
        """The transaction has begun."""


class WriteTurn:
    """The database's lock on writing, as several agents see it: granted in order, let go by those who die."""

    def __init__(self) -> None:
        self.abandoned: list[sqlite3.Connection] = []
        """Of processes that have died, to be closed in the end."""
        self._holder: Ticket | None = None
        self._waiting: deque[tuple[Ticket, asyncio.Future[None]]] = deque()

    async def take(self, process: Process) -> Ticket:
        """Wait for the lock."""
        ticket = Ticket(process)
        if self._holder is None:
            self._holder = ticket
            return ticket
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((ticket, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(ticket)
            raise
        return ticket

    def held_by(self, process: Process) -> Ticket | None:
        """What a process holds the lock with, if it does."""
        holder = self._holder
        return holder if holder is not None and holder.process is process else None

    def leave(self, ticket: Ticket | None) -> None:
        """Let go of the lock, if this one holds it."""
        if ticket is not None and self._holder is ticket:
            self._holder = None
            while self._waiting and self._holder is None:
                waiting, turn = self._waiting.popleft()
                if waiting.process.is_alive and not turn.done():
                    self._holder = waiting
                    turn.set_result(None)


class Way:
    """How one machine reaches the database."""

    def __init__(self) -> None:
        self.is_cut = False
        self.hang_s = 0.0
        """How long it takes to notice that it is."""
        self.ambush: Callable[[], None] | None = None
        """To happen once, when a task that runs one of `ambushed` is about to begin a transaction."""
        self.ambushed: Sequence[str] = ()
        """Qualified names of coroutine functions."""

    async def pass_ambush(self) -> None:
        """On the way to a transaction."""
        ambush, task = self.ambush, asyncio.current_task()
        running = None if task is None else getattr(task.get_coro(), "__qualname__", None)
        if ambush is not None and running in self.ambushed:
            self.ambush = None
            ambush()
            await asyncio.sleep(0)


class SimDatabase:
    """The real SQLite database, inline, with faults around every statement and every COMMIT.

    Where agents share it each has two connections, as with PostgreSQL: what only reads does not wait for what writes.
    """

    def __init__(
        self,
        path: Path,
        sky: Sky,
        clock: SimClock,
        turn: WriteTurn,
        process: Process,
        on_commit: Callable[[sqlite3.Connection], None],
        *,
        way: Way | None = None,
        is_shared: bool = False,
        notices: Notices | None = None,
    ) -> None:
        self.is_shared = is_shared
        self.notices = notices
        self.sky = sky
        self.way = way or Way()
        self._on_commit = on_commit
        self._inner = SqliteDatabase(
            path, now_ms=clock.time_ms, sync=None, is_shared=is_shared, notices=notices
        )
        self._reading = (
            SqliteDatabase(path, now_ms=clock.time_ms, sync=None, is_shared=True)
            if is_shared
            else self._inner
        )
        self._turn = turn
        self._process = process
        self._ghost: Ghost | None = None

    def die(self) -> None:
        """The process has died: what was not committed never was, but for a COMMIT that is under way."""
        if self._reading is not self._inner:
            self._abandon(self._reading)
        if self._ghost is None or self._ghost.is_over:
            self._abandon(self._inner)
            self._turn.leave(self._turn.held_by(self._process))

    def break_off(self) -> None:
        """The database has waited for long enough in a transaction that does not go on: it never was."""
        ticket = self._turn.held_by(self._process)
        if ticket is not None and (self._ghost is None or self._ghost.is_over):
            ticket.is_broken = True
            connection = self._inner._connection
            if ticket.is_inside and connection is not None and connection.in_transaction:
                connection.rollback()
            self._turn.leave(ticket)

    async def open(self) -> None:
        """Open the file."""
        ticket = await self._turn.take(self._process)
        try:
            await self._inner.open()
            if self._reading is not self._inner:
                await self._reading.open()
        finally:
            self._turn.leave(ticket)

    async def close(self) -> None:
        """Close the file."""
        await self._inner.close()
        if self._reading is not self._inner:
            await self._reading.close()

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
        """The clock of the database's machine."""
        return await self._inner.time_ms()

    def _maybe_writing(self, statement: Statement) -> AbstractAsyncContextManager[Session]:
        return self.transaction() if _WRITES.search(statement.text) else self.snapshot()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A transaction whose COMMIT may fail, or whose answer may be lost."""
        await self._begin()
        await self.way.pass_ambush()
        ticket = await self._turn.take(self._process)
        ghost: Ghost | None = None
        inner = self._inner.transaction()
        try:
            session = await inner.__aenter__()
            ticket.is_inside = True
            try:
                yield _SimSession(session, self, ticket)
                ghost = await self._end(ticket, inner)
            except BaseException as error:
                await inner.__aexit__(type(error), error, error.__traceback__)
                raise
            if ghost is None:
                await inner.__aexit__(None, None, None)
                self.committed()
        finally:
            if ghost is None:
                self._turn.leave(ticket)
        if ghost is not None:
            raise OutcomeUnknown("the connection was lost in the commit")
        if self.sky.strikes(self.sky.weather.commit_answer_is_lost / 2) or self.way.is_cut:
            await self.sky.pause(self.sky.weather.stall_s)
            raise OutcomeUnknown("the connection was lost after the commit")

    async def _end(self, ticket: Ticket, inner: AbstractAsyncContextManager[Session]) -> Ghost | None:
        """On the way to COMMIT: it may fail, or never come to the database, or take longer than anybody waits for it."""
        weather = self.sky.weather
        await self.sky.pause(weather.stall_s)
        await at_a_step()
        self.check(ticket)
        if self.sky.strikes(weather.commit_fails):
            raise MetadataUnavailable("the commit failed")
        if self.way.is_cut or self.sky.strikes(weather.commit_answer_is_lost / 4):
            raise OutcomeUnknown("the connection was lost before the commit")
        if self.is_shared and self.sky.strikes(weather.commit_answer_is_lost / 4):
            self._ghost = Ghost(self, inner, lambda: self._turn.leave(ticket))
            return self._ghost
        return None

    def committed(self) -> None:
        """Have what stands in the database now looked at."""
        if self._inner._connection is not None:
            self._on_commit(self._inner._connection)

    def bury(self) -> None:
        """A COMMIT has ended whose agent has died meanwhile."""
        if not self._process.is_alive:
            self._abandon(self._inner)

    def _abandon(self, database: SqliteDatabase) -> None:
        """What a process leaves behind that has died: its transactions end. Its coroutines still stand in the midst."""
        connection = database._connection
        if connection is not None:
            connection.rollback()
            self._turn.abandoned.append(connection)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """A snapshot, late or not at all."""
        await self._begin()
        async with self._reading.snapshot() as session:
            yield _SimSession(session, self, None)

    def check(self, ticket: Ticket | None) -> None:
        """Raises MetadataUnavailable when the database has given the transaction up."""
        if ticket is not None and ticket.is_broken:
            raise MetadataUnavailable("the database has ended a transaction that stood still, or had failed")

    async def run(self, ticket: Ticket | None, statement: Callable[[], Awaitable[T]]) -> T:
        """Bring a statement to the database, and its answer back. Raises MetadataUnavailable."""
        weather = self.sky.weather
        await self.sky.pause(weather.statement_s)
        if self.sky.strikes(weather.statement_stalls):
            await self.sky.pause(weather.statement_stall_s, HANG_S_MAX)
        await at_a_step()
        self.check(ticket)
        error: MetadataUnavailable | None = None
        if self.way.is_cut:
            error = MetadataUnavailable("the connection to the database is lost")
        elif self.sky.strikes(weather.statement_fails):
            error = MetadataUnavailable("the connection was lost in a statement")
        elif self.is_shared and ticket is not None and self.sky.strikes(weather.contention):
            error = MetadataContention("another transaction was in the way")
        if error is not None:
            if ticket is not None:
                ticket.is_broken = True
            raise error
        return await statement()

    async def _begin(self) -> None:
        await self.sky.pause(self.sky.weather.statement_s)
        await at_a_step()
        if self.way.is_cut:
            await self.sky.pause(self.way.hang_s, HANG_S_MAX)
            raise MetadataUnavailable("there is no way to the database")
        if self.sky.strikes(self.sky.weather.begin_fails):
            raise MetadataUnavailable("the database is not there")


class _SimSession:
    """A session whose every statement may take a while, or fail."""

    def __init__(self, inner: Session, database: SimDatabase, ticket: Ticket | None) -> None:
        self._inner = inner
        self._database = database
        self._ticket = ticket

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        return await self._database.run(self._ticket, lambda: self._inner.one(statement, *arguments))

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        return await self._database.run(self._ticket, lambda: self._inner.all(statement, *arguments))

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        return await self._database.run(self._ticket, lambda: self._inner.execute(statement, *arguments))

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        await self._database.run(self._ticket, lambda: self._inner.execute_rows(statement, rows))

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        return await self._database.run(self._ticket, lambda: self._inner.together(calls))

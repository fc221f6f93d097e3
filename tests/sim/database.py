"""The metadata database as agents see it from afar: late, failing, in doubt about its commits, or out of reach.

Every statement may fail or stall, within a transaction too, and so may `begin` and COMMIT. After a failed statement
a transaction is over: the database has rolled it back. The answer to a COMMIT may be lost before it was carried out,
after it, or while it is under way: then it is carried out, or not, after its agent was told that nobody knows.

An agent alone has SQLite for itself (tests/sim/turns.py). Those of a cluster share what behaves as PostgreSQL does
(tests/sim/rows.py).
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from tests.sim.faults import Sky
from tests.sim.ghosts import haunt
from tests.sim.loop import Process, SimClock, at_a_step
from warp.errors import MetadataContention, MetadataUnavailable, OutcomeUnknown
from warp.metadata.session import Argument, Call, Notices, Row, Rows, Session, Statement
from warp.metadata.sqlite import SqliteDatabase

HANG_S_MAX = 10.0
"""Drivers give up some time; and what hangs must not outlast the storm for longer than members are patient with it."""
SHARED_S = 0.001
"""How long a statement of a transaction is on its way to a shared database on average: meanwhile others write."""
SWAPPING = "PortionWorker._store_one"
"""The task that stores a merged segment, and swaps it part by part."""
SWAP_WAITS_S = 4.0
_WRITES = re.compile(r"\b(insert|update|delete)\b")
T = TypeVar("T")


class Transaction(Protocol):
    """One transaction of either kind of database."""

    is_ghost: bool

    @property
    def session(self) -> Session: ...
    @property
    def connection(self) -> sqlite3.Connection: ...
    def check(self) -> None: ...
    def break_off(self) -> None: ...
    async def commit(self) -> None: ...
    async def roll_back(self) -> None: ...


class Store(Protocol):
    """Either kind of database."""

    async def begin(self, process: Process) -> Transaction: ...
    def process_died(self, process: Process) -> None: ...
    def break_off(self, process: Process) -> None: ...


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
        ambush = self.ambush
        if ambush is not None and _running() in self.ambushed:
            self.ambush = None
            ambush()
            await asyncio.sleep(0)


def _running() -> str:
    """The qualified name of the coroutine function that the task at hand runs; empty outside of any."""
    task = asyncio.current_task()
    return "" if task is None else getattr(task.get_coro(), "__qualname__", "")


class SimDatabase:
    """One agent's way to the database, with faults around every statement and every COMMIT.

    `inner` is its own connection to the file: for what only reads, and to make the schema. `store` is for what writes.
    """

    def __init__(
        self,
        path: Path,
        sky: Sky,
        clock: SimClock,
        process: Process,
        on_commit: Callable[[sqlite3.Connection], None],
        store: Callable[[SqliteDatabase], Store],
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
        self._store = store(self._inner)
        self._process = process

    def die(self) -> None:
        """The process has died: what was not committed never was, but for a COMMIT that is under way."""
        self._store.process_died(self._process)

    def break_off(self) -> None:
        """The database has waited for long enough in transactions that do not go on: they never were."""
        self._store.break_off(self._process)

    async def open(self) -> None:
        """Open the file."""
        await self._inner.open()

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
        """The clock of the database's machine."""
        return await self._inner.time_ms()

    def _maybe_writing(self, statement: Statement) -> AbstractAsyncContextManager[Session]:
        return self.transaction() if _WRITES.search(statement.text) else self.snapshot()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A transaction whose COMMIT may fail, or whose answer may be lost."""
        await self._begin()
        await self.way.pass_ambush()
        if _running() == SWAPPING and self.sky.strikes(self.sky.weather.swap_waits):
            await self.sky.pause(SWAP_WAITS_S, HANG_S_MAX)
        transaction = await self._store.begin(self._process)
        try:
            yield _SimSession(self, transaction)
            is_lost = await self._end(transaction)
        except BaseException:
            await transaction.roll_back()
            raise
        if is_lost:
            haunt(transaction, self.sky, self.committed)
            raise OutcomeUnknown("the connection was lost in the commit")
        await transaction.commit()
        self.committed(transaction)
        if self.sky.strikes(self.sky.weather.commit_answer_is_lost / 2) or self.way.is_cut:
            await self.sky.pause(self.sky.weather.stall_s)
            raise OutcomeUnknown("the connection was lost after the commit")

    async def _end(self, transaction: Transaction) -> bool:
        """On the way to COMMIT: it may fail, or never come to the database. Does it take longer than anybody waits?"""
        weather = self.sky.weather
        await self.sky.pause(weather.stall_s)
        await at_a_step()
        transaction.check()
        if self.sky.strikes(weather.commit_fails):
            raise MetadataUnavailable("the commit failed")
        if self.way.is_cut or self.sky.strikes(weather.commit_answer_is_lost / 4):
            raise OutcomeUnknown("the connection was lost before the commit")
        return self.is_shared and self.sky.strikes(weather.commit_answer_is_lost / 4)

    def committed(self, transaction: Transaction) -> None:
        """Have what stands in the database now looked at."""
        self._on_commit(transaction.connection)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """A snapshot, late or not at all."""
        await self._begin()
        async with self._inner.snapshot() as session:
            yield _SimSession(self, None, session)

    async def run(self, transaction: Transaction | None, statement: Callable[[], Awaitable[T]]) -> T:
        """Bring a statement to the database, and its answer back. Raises MetadataUnavailable."""
        weather = self.sky.weather
        is_beside_others = self.is_shared and transaction is not None
        await self.sky.pause(max(weather.statement_s, SHARED_S if is_beside_others else 0.0))
        if self.sky.strikes(weather.statement_stalls):
            await self.sky.pause(weather.statement_stall_s, HANG_S_MAX)
        await at_a_step()
        error: MetadataUnavailable | None = None
        if self.way.is_cut:
            error = MetadataUnavailable("the connection to the database is lost")
        elif self.sky.strikes(weather.statement_fails):
            error = MetadataUnavailable("the connection was lost in a statement")
        elif is_beside_others and self.sky.strikes(weather.contention):
            error = MetadataContention("another transaction was in the way")
        if transaction is not None:
            transaction.check()
            if error is not None:
                transaction.break_off()
        if error is not None:
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

    def __init__(
        self, database: SimDatabase, transaction: Transaction | None, session: Session | None = None
    ) -> None:
        found = session if transaction is None else transaction.session
        assert found is not None, "one of both is given"
        self._inner = found
        self._database = database
        self._transaction = transaction

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        return await self._database.run(self._transaction, lambda: self._inner.one(statement, *arguments))

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        return await self._database.run(self._transaction, lambda: self._inner.all(statement, *arguments))

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        return await self._database.run(self._transaction, lambda: self._inner.execute(statement, *arguments))

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        await self._database.run(self._transaction, lambda: self._inner.execute_rows(statement, rows))

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        return await self._database.run(self._transaction, lambda: self._inner.together(calls))

"""A database that behaves as PostgreSQL does where several agents write at once, kept in SQLite.

Transactions run side by side, as at READ COMMITTED: each statement sees what was committed before it began and what
its own transaction has done; writers wait for each other by the row, and by the key that both want to insert, and not
otherwise. A statement that has waited for rows looks at them anew, but locks none that it had not seen at first. Ids
are not given out again. Deadlocks and waits that take too long end in contention.

Each statement is run on the one connection, upon the changes that its transaction has made so far, and all of it is
rolled back at once; what it has changed is kept (tests/sim/capture.py), and made for good at COMMIT.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import cast

from tests.sim.capture import Capture, Change
from tests.sim.locks import Lock, Locks, Owner, Wanted
from tests.sim.loop import Process, SimLoop
from warp.errors import MetadataUnavailable
from warp.metadata.session import LOCK_PATTERN, Argument, Call, Row, Rows, Session, Statement
from warp.metadata.sqlite import SqliteDatabase

_SELECTED = re.compile(r"^select\s.*?\bfrom\b", re.DOTALL)


class How(Enum):
    """What a statement is asked for."""

    ROWS = "its rows"
    COUNT = "how many rows it has changed"
    BATCH = "nothing, once for each row of a batch"


async def _answer(session: Session, call: Call, how: How) -> list[Row]:
    statement, arguments = call
    if how is How.BATCH:
        await session.execute_rows(statement, cast("Rows", arguments[0]))
        return []
    if how is How.COUNT:
        return [(await session.execute(statement, *arguments),)]
    [rows] = await session.together([call])
    return rows


class RowServer:
    """The server: one in a world, whoever comes and goes. Opened when the first agent has made the schema."""

    def __init__(self, path: Path, loop: SimLoop, now_ms: Callable[[], int]) -> None:
        self.locks = Locks()
        self.loop = loop
        self._database = SqliteDatabase(path, now_ms=now_ms, sync=None, is_shared=True)
        self._capture: Capture | None = None
        self._ids: dict[str, int] = {}
        """The last that were given out, by table, also by transactions that came to nothing."""
        self._open: list[RowTransaction] = []
        self._keys: dict[Statement, tuple[str, str, Statement]] = {}

    @property
    def connection(self) -> sqlite3.Connection:
        """To look at what is committed."""
        assert self._database._connection is not None, "an agent has begun a transaction"
        return self._database._connection

    async def begin(self, process: Process) -> RowTransaction:
        """A transaction of a process."""
        if self._capture is None:
            await self._database.open()
            self._capture = Capture(self.connection)
        transaction = RowTransaction(self, process)
        self._open.append(transaction)
        return transaction

    def process_died(self, process: Process) -> None:
        """The connections are gone: what was not committed never was, but for a COMMIT that is under way."""
        for transaction in self._of(process):
            transaction.break_off()

    def break_off(self, process: Process) -> None:
        """Wait no longer for transactions whose agent stands still; those that wait for a lock are not idle."""
        for transaction in self._of(process):
            if transaction.waiting is None:
                transaction.break_off()

    def _of(self, process: Process) -> list[RowTransaction]:
        return [one for one in self._open if one.process is process and not one.is_ghost]

    def close(self) -> None:
        """The simulation is over."""
        if self._database._connection is not None:
            self._database._connection.close()

    async def run(self, transaction: RowTransaction, calls: Sequence[Call], how: How) -> list[list[Row]]:
        """Run statements for a transaction, on one view of the data. Raises MetadataError."""
        answers, blocker, seen = await self._attempt(transaction, calls, how, None)
        if blocker is None:
            return answers
        # It is the server that waits: it goes on also while the agent stands still, and then has the lock.
        waiting = self.loop.create_task(
            self._wait(transaction, calls, how, blocker, seen), context=contextvars.Context()
        )
        # Its agent may have died meanwhile, or have given up waiting.
        waiting.add_done_callback(lambda task: task.cancelled() or task.exception())
        transaction.waiting = waiting
        try:
            return await asyncio.shield(waiting)
        finally:
            transaction.waiting = None

    async def _wait(
        self, transaction: RowTransaction, calls: Sequence[Call], how: How, blocker: Owner, seen: set[Lock]
    ) -> list[list[Row]]:
        while True:
            await self.locks.wait(transaction, blocker)
            transaction.check()
            answers, another, _ = await self._attempt(transaction, calls, how, seen)
            if another is None:
                return answers
            blocker = another

    async def _attempt(
        self, transaction: RowTransaction, calls: Sequence[Call], how: How, seen: set[Lock] | None
    ) -> tuple[list[list[Row]], Owner | None, set[Lock]]:
        """Nothing here is awaited in earnest. Who is in the way, and which rows were to be locked, if it is in vain."""
        assert self._capture is not None, "it is open"
        assert self._database._statements is not None, "it is open"
        statements, capture = self._database._statements, self._capture
        wanted: list[Wanted] = []
        answers: list[list[Row]] = []
        self.connection.execute("begin")
        try:
            capture.make(transaction.changes)
            capture.give_ids_from(self._ids)
            capture.begin()
            for call in calls:
                rows = await _answer(statements, call, how)
                if LOCK_PATTERN.search(call.statement.text):
                    rows = await self._lock(transaction, call, rows, wanted, seen)
                answers.append(rows)
            changes = capture.take()
        finally:
            self.connection.execute("rollback")
        locked = {each.lock for each in wanted}
        wanted += self._locks_of(changes)
        self._note_ids(changes)
        blocker = self.locks.take(transaction, wanted)
        if blocker is None:
            transaction.changes += changes
        return answers, blocker, locked

    async def _lock(
        self,
        transaction: RowTransaction,
        call: Call,
        rows: list[Row],
        wanted: list[Wanted],
        seen: set[Lock] | None,
    ) -> list[Row]:
        """The rows that it is to lock, without those that it passes over."""
        statements = self._database._statements
        assert statements is not None
        mode, table, keyed = self._keyed(call.statement)
        keys = await statements.all(keyed, *call.arguments)
        assert len(keys) == len(rows), "both go through the same rows in the same order"
        kept = []
        for key, row in zip(keys, rows, strict=True):
            each = Wanted(Lock(table, 0, tuple(key)), mode == "share")
            if seen is not None and each.lock not in seen:
                continue
            if mode == "lock free" and self.locks.blocker(transaction, each) is not None:
                continue
            wanted.append(each)
            kept.append(row)
        return kept

    def _keyed(self, statement: Statement) -> tuple[str, str, Statement]:
        """How a statement locks, rows of which table, and the statement that gives the keys of these rows."""
        known = self._keys.get(statement)
        if known is None:
            assert self._capture is not None
            found = LOCK_PATTERN.search(statement.text)
            assert found is not None
            mode, alias = found[1], found[2]
            named = re.search(rf"\b(\w+) {alias}\b(?! as)", _SELECTED.sub("from", statement.text))
            assert named is not None, statement.text
            table = self._capture.tables[named[1]]
            columns = ", ".join(f"{alias}.{column}" for column in table.key)
            text = _SELECTED.sub(f"select {columns} from", statement.text, count=1)
            known = self._keys[statement] = (mode, table.name, replace(statement, text=text))
        return known

    def _locks_of(self, changes: Sequence[Change]) -> list[Wanted]:
        """Of the rows that go, and of every key of those that come."""
        assert self._capture is not None
        found = []
        for name, gone, come in changes:
            if gone is not None:
                found.append(Wanted(Lock(name, 0, gone), False))
            if come is not None:
                for number, places in enumerate(self._capture.tables[name].uniques):
                    found.append(Wanted(Lock(name, number, tuple(come[place] for place in places)), False))
        return found

    def _note_ids(self, changes: Sequence[Change]) -> None:
        assert self._capture is not None
        for name, gone, come in changes:
            table = self._capture.tables[name]
            if table.counts_ids and gone is None and come is not None:
                self._ids[name] = max(self._ids.get(name, 0), come[table.columns.index(table.key[0])])

    def commit(self, transaction: RowTransaction) -> None:
        """Make what it has changed for good."""
        assert self._capture is not None
        self.connection.execute("begin immediate")
        try:
            self._capture.make(transaction.changes)
            self._capture.give_ids_from(self._ids)
        except BaseException:
            self.connection.execute("rollback")
            raise
        self.connection.execute("commit")
        self.end(transaction)

    def end(self, transaction: RowTransaction) -> None:
        """It holds nothing any more."""
        if transaction in self._open:
            self._open.remove(transaction)
            self.locks.let_go(transaction)
            if transaction.waiting is not None:
                transaction.waiting.cancel()


class RowTransaction(Owner):
    """One transaction, and the session in which it runs."""

    def __init__(self, server: RowServer, process: Process) -> None:
        super().__init__(server.loop)
        self.process = process
        self.changes: list[Change] = []
        self.is_broken = False
        """The server has given it up."""
        self.is_ghost = False
        """Its COMMIT is under way, and nobody waits for it any more."""
        self.waiting: asyncio.Task[list[list[Row]]] | None = None
        self._server = server

    @property
    def session(self) -> RowTransaction:
        """What statements are sent to."""
        return self

    @property
    def connection(self) -> sqlite3.Connection:
        """To look at what is committed."""
        return self._server.connection

    def check(self) -> None:
        """Raises MetadataUnavailable when the server has given it up."""
        if self.is_broken:
            raise MetadataUnavailable("the database has ended a transaction that stood still, or had failed")

    async def commit(self) -> None:
        """For good. Raises MetadataUnavailable."""
        self.check()
        self._server.commit(self)

    async def roll_back(self) -> None:
        """It never was."""
        self._server.end(self)

    def break_off(self) -> None:
        """The server gives it up."""
        self.is_broken = True
        self._server.end(self)

    async def _run(self, calls: Sequence[Call], how: How) -> list[list[Row]]:
        self.check()
        try:
            return await self._server.run(self, calls, how)
        except BaseException:
            # A statement that fails ends its transaction: the server does no more of it.
            self.break_off()
            raise

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        """See Session."""
        rows = await self.all(statement, *arguments)
        return rows[0] if rows else None

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        """See Session."""
        [rows] = await self._run([Call(statement, arguments)], How.ROWS)
        return rows

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        """See Session."""
        [[row]] = await self._run([Call(statement, arguments)], How.COUNT)
        return cast("int", row[0])

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        """See Session."""
        if rows:
            await self._run([Call(statement, (rows,))], How.BATCH)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """See Session."""
        return await self._run(calls, How.ROWS) if calls else []

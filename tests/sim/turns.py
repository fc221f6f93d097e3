"""The database of an agent that has it for itself, in SQLite: one transaction at a time, whoever else wants to write.

Some worlds have two agents on one such database that know nothing of each other.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from contextlib import AbstractAsyncContextManager

from tests.sim.loop import Process
from warp.errors import MetadataUnavailable
from warp.metadata.session import Session
from warp.metadata.sqlite import SqliteDatabase


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


class EmbeddedStore:
    """One agent's connection to it."""

    def __init__(self, database: SqliteDatabase, turn: WriteTurn) -> None:
        self._database = database
        self._turn = turn

    async def begin(self, process: Process) -> EmbeddedTransaction:
        """A transaction, when it is this process's turn."""
        ticket = await self._turn.take(process)
        inner = self._database.transaction()
        try:
            session = await inner.__aenter__()
        except BaseException:
            self._turn.leave(ticket)
            raise
        ticket.is_inside = True
        return EmbeddedTransaction(self._database, self._turn, ticket, inner, session)

    def process_died(self, process: Process) -> None:
        """What was not committed never was. Its coroutines still stand in the midst of it."""
        connection = self._database._connection
        if connection is not None:
            connection.rollback()
            self._turn.abandoned.append(connection)
        self._turn.leave(self._turn.held_by(process))

    def break_off(self, process: Process) -> None:
        """The database does not wait for a transaction that does not go on: it never was."""
        ticket = self._turn.held_by(process)
        if ticket is not None:
            ticket.is_broken = True
            connection = self._database._connection
            if ticket.is_inside and connection is not None and connection.in_transaction:
                connection.rollback()
            self._turn.leave(ticket)


class EmbeddedTransaction:
    """One transaction."""

    is_ghost = False

    def __init__(
        self,
        database: SqliteDatabase,
        turn: WriteTurn,
        ticket: Ticket,
        inner: AbstractAsyncContextManager[Session],
        session: Session,
    ) -> None:
        self.session = session
        self._database = database
        self._turn = turn
        self._ticket = ticket
        self._inner = inner

    @property
    def connection(self) -> sqlite3.Connection:
        """To look at what is committed."""
        assert self._database._connection is not None, "it is open"
        return self._database._connection

    def check(self) -> None:
        """Raises MetadataUnavailable when the database has given it up."""
        if self._ticket.is_broken:
            raise MetadataUnavailable("the database has ended a transaction that stood still, or had failed")

    def break_off(self) -> None:
        """It has failed, and nothing of it will be."""
        self._ticket.is_broken = True

    async def commit(self) -> None:
        """For good. Raises MetadataError."""
        try:
            self.check()
            await self._inner.__aexit__(None, None, None)
        finally:
            self._turn.leave(self._ticket)

    async def roll_back(self) -> None:
        """It never was."""
        error = MetadataUnavailable("rolled back")
        try:
            await self._inner.__aexit__(type(error), error, None)
        except MetadataUnavailable:
            return
        finally:
            self._turn.leave(self._ticket)

"""PostgreSQL behind the Session surface: a pool of connections, transactions of as few round trips as there can be.

A transaction is read committed: its statements see what others have committed before each of them, and what it depends
on it locks first. A snapshot is repeatable read and read only; nobody waits for its end.

What becomes of an error depends on where it comes up. A connection that was lost before COMMIT was sent has changed
nothing (MetadataUnavailable); one that was lost during COMMIT, or during a statement that writes on its own, may have
(OutcomeUnknown). A pooled connection that turns out to be dead at the first statement of a transaction, or at a read,
is replaced, and that statement sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar, cast

import asyncpg

from warp.errors import MetadataUnavailable
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_errors import DRIVER_ERRORS, is_lost, leaves_stale, map_error
from warp.metadata.postgres_notices import NoNotices, PostgresNotices
from warp.metadata.postgres_pool import ConnectionPool
from warp.metadata.postgres_schema import open_schema
from warp.metadata.postgres_sql import Rendered, bind, render, render_together, split_answer, writes
from warp.metadata.postgres_url import PostgresUrl
from warp.metadata.session import Argument, Call, Notices, Row, Rows, Session, Statement

T = TypeVar("T")

CONNECTIONS_MAX = 10
TIMEOUT_S = 10.0

BEGIN = "begin isolation level read committed"
BEGIN_SNAPSHOT = "begin isolation level repeatable read, read only"
TIME_MS = "select cast(floor(extract(epoch from clock_timestamp()) * 1000) as bigint)"


class PostgresDatabase:
    """A database that several agents share. `Database` in session.py says what the methods mean.

    `timeout_s` bounds every wait: for a connection out of the pool's `connections_max`, and for an answer.
    """

    is_shared = True

    def __init__(
        self,
        url: PostgresUrl,
        *,
        now_ms: Callable[[], int],
        connections_max: int = CONNECTIONS_MAX,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._connector = Connector(url, timeout_s=timeout_s)
        self._now_ms = now_ms
        self._pool = ConnectionPool(
            self._connector.connect, connections_max=connections_max, wait_s_max=timeout_s
        )
        self._texts = _Texts()
        self._listening = None if url.is_transaction_pooled else PostgresNotices(self._connector)
        self.notices: Notices | None = self._listening or NoNotices()

    @property
    def pool(self) -> ConnectionPool:
        """Its connections, for those who count them."""
        return self._pool

    async def open(self) -> None:
        """Connect, check the server, and run the migrations that nobody has run. Raises StartError."""
        connection, schema = await open_schema(self._connector, self._now_ms)
        self._pool.adopt(connection)
        if self._listening is not None:
            self._listening.start(schema)

    async def close(self) -> None:
        """Close all connections."""
        if self._listening is not None:
            await self._listening.close()
        await self._pool.close()

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        """See Session."""
        rows = await self.all(statement, *arguments)
        return rows[0] if rows else None

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        """See Session."""
        return await self._alone(
            lambda connection: _all(connection, self._texts, statement, arguments), writes(statement)
        )

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        """See Session."""
        return await self._alone(
            lambda connection: _execute(connection, self._texts, statement, arguments), writes(statement)
        )

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        """See Session."""
        if rows:
            await self.execute(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """See Session."""
        if not calls:
            return []
        is_write = any(writes(call.statement) for call in calls)
        return await self._alone(lambda connection: _together(connection, self._texts, calls), is_write)

    async def time_ms(self) -> int:
        """See Database."""
        return cast("int", await self._alone(lambda connection: connection.fetchval(TIME_MS), False))

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """See Database."""
        return _Transaction(self, self._connector.begin(BEGIN), self._texts)

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        """See Database."""
        return _Snapshot(self, self._connector.begin(BEGIN_SNAPSHOT), self._texts)

    async def _alone(self, run: Callable[[asyncpg.Connection], Awaitable[T]], is_write: bool) -> T:
        """Run something in a transaction of its own; once more on a new connection where that does no harm."""
        connection, answer = await self._first(run, is_write)
        self._pool.release(connection)
        return answer

    async def _first(
        self, run: Callable[[asyncpg.Connection], Awaitable[T]], is_write: bool
    ) -> tuple[asyncpg.Connection, T]:
        """A connection, and the answer to the first that was run on it."""
        may_repeat = not is_write
        while True:
            connection = await self._pool.acquire()
            try:
                return connection, await run(connection)
            except DRIVER_ERRORS as error:
                self._pool.hand_back(connection, leaves_stale(error))
                if is_lost(error):
                    self._pool.drop_idle()
                if may_repeat and is_lost(error) and not isinstance(error, TimeoutError):
                    may_repeat = False
                    continue
                raise map_error(error, writing=is_write) from error
            except BaseException:
                self._pool.settle(connection)
                raise


class _Texts:
    """The statements as PostgreSQL takes them, each rendered once."""

    def __init__(self) -> None:
        self._alone: dict[Statement, Rendered] = {}
        self._together: dict[tuple[Statement, ...], Rendered] = {}

    def alone(self, statement: Statement) -> Rendered:
        """One statement."""
        rendered = self._alone.get(statement)
        if rendered is None:
            rendered = self._alone[statement] = render(statement)
        return rendered

    def together(self, statements: tuple[Statement, ...]) -> Rendered:
        """Several statements as one."""
        rendered = self._together.get(statements)
        if rendered is None:
            rendered = self._together[statements] = render_together(statements)
        return rendered


async def _all(
    connection: asyncpg.Connection, texts: _Texts, statement: Statement, arguments: Sequence[Argument]
) -> list[Row]:
    rendered = texts.alone(statement)
    return cast("list[Row]", await connection.fetch(rendered.text, *bind(rendered.shapes, arguments)))


async def _execute(
    connection: asyncpg.Connection, texts: _Texts, statement: Statement, arguments: Sequence[Argument]
) -> int:
    rendered = texts.alone(statement)
    status = await connection.execute(rendered.text, *bind(rendered.shapes, arguments))
    return int(status.rpartition(" ")[2])


async def _together(connection: asyncpg.Connection, texts: _Texts, calls: Sequence[Call]) -> list[list[Row]]:
    rendered = texts.together(tuple(call.statement for call in calls))
    arguments = [argument for call in calls for argument in call.arguments]
    return split_answer(rendered, await connection.fetch(rendered.text, *bind(rendered.shapes, arguments)))


class _Statements:
    """The statements of an open transaction."""

    def __init__(self, connection: asyncpg.Connection, texts: _Texts) -> None:
        self._connection = connection
        self._texts = texts

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        rows = await self.all(statement, *arguments)
        return rows[0] if rows else None

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        try:
            return await _all(self._connection, self._texts, statement, arguments)
        except DRIVER_ERRORS as error:
            raise self._mapped(error) from error

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        try:
            return await _execute(self._connection, self._texts, statement, arguments)
        except DRIVER_ERRORS as error:
            raise self._mapped(error) from error

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        if rows:
            await self.execute(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        if not calls:
            return []
        try:
            return await _together(self._connection, self._texts, calls)
        except DRIVER_ERRORS as error:
            raise self._mapped(error) from error

    def _mapped(self, error: Exception) -> Exception:
        if leaves_stale(error):
            self._connection.terminate()
        return map_error(error)


class _Transaction(AbstractAsyncContextManager[Session]):
    """Begins on a connection of its own, and commits at the end of the block."""

    def __init__(self, database: PostgresDatabase, begin: str, texts: _Texts) -> None:
        self._database = database
        self._pool = database.pool
        self._begin = begin
        self._texts = texts
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Session:
        begin = self._begin
        self._connection, _ = await self._database._first(
            lambda connection: connection.execute(begin), is_write=False
        )
        return _Statements(self._connection, self._texts)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self._connection
        assert connection is not None, "the block was entered"
        self._connection = None
        if error is None:
            await self._commit(connection)
        elif isinstance(error, Exception):
            await self._roll_back(connection)
        else:
            self._pool.settle(connection)  # cancelled: its caller waits for nothing more

    async def _commit(self, connection: asyncpg.Connection) -> None:
        if connection.is_closed():
            self._pool.discard(connection)
            raise MetadataUnavailable("the connection to PostgreSQL was lost before the commit")
        try:
            status = await connection.execute("commit")
        except DRIVER_ERRORS as error:
            self._pool.hand_back(connection, True)
            raise map_error(error, committing=True) from error
        except BaseException:
            self._pool.settle(connection)
            raise
        self._pool.release(connection)
        if status != "COMMIT":
            # A statement of the block had failed, and the block went on: the server rolls back then.
            raise MetadataUnavailable(f"PostgreSQL has not committed, its answer was {status}")

    async def _roll_back(self, connection: asyncpg.Connection) -> None:
        """Let go of the locks before the caller goes on."""
        if connection.is_closed():
            self._pool.discard(connection)
            return
        try:
            await connection.execute("rollback")
        except DRIVER_ERRORS:
            self._pool.discard(connection)  # the server rolls back when it notices
        except BaseException:
            self._pool.settle(connection)
            raise
        else:
            self._pool.release(connection)


class _Snapshot(_Transaction):
    """Reads only, so nobody needs to wait for its end."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self._connection
        assert connection is not None, "the block was entered"
        self._connection = None
        self._pool.settle(connection)

"""SQLite behind the Session surface: one connection, run inline on the event loop.

Inline, because a commit in a worker thread waits for the interpreter lock many times beside a busy loop, and takes a
hundred times as long there (docs/adr/0001 has the measurements). Durable, because a Produce is acknowledged on the
word of a commit: SQLite writes the frames of a commit to its write-ahead log (synchronous=NORMAL), and the log is
synced here before anybody, reader or writer, goes on. That is what synchronous=FULL does, but on a slow disk the loop
stays free.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from warp.errors import (
    MetadataCorrupt,
    MetadataError,
    MetadataFull,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
    StartError,
)
from warp.metadata.migrate import Migration, load_migrations, pending
from warp.metadata.session import (
    LOCK_PATTERN,
    ROWS_PATTERN,
    Argument,
    Call,
    Column,
    Notices,
    Row,
    Rows,
    Session,
    Statement,
    Value,
)
from warp.metadata.sqlite_sync import LogSync

OLDEST_SQLITE = (3, 35, 0)
"""The first with `returning`."""

BUSY_TIMEOUT_MS = 100
"""How long a statement waits, with the loop, for a lock that another process holds: nobody else should hold one."""

CACHE_KIB = 8 * 1024
WAL_CHECKPOINT_PAGES = 1000
WAL_BYTES_MAX = 64 * 1024 * 1024
"""To what size the write-ahead log is cut back after a checkpoint, should a long reader have let it grow."""

CACHED_STATEMENTS = 256


def map_error(error: sqlite3.Error, *, committing: bool = False) -> MetadataError:
    """This package's error for one of the library's. The one place where SQLite's result codes are known.

    With `committing` the error came out of COMMIT, where a failed write to disk leaves the outcome unknown: the frames
    may be found by the recovery after a crash.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return MetadataError(f"SQLite: {error}")
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return MetadataFull("the disk under the SQLite database is full: free some space")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return MetadataUnavailable("the SQLite database is locked by another process")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return MetadataCorrupt(f"the SQLite database is damaged ({error}): restore it")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return MetadataReadOnly(
            "the SQLite database can't be written: check the owner and rights of its files"
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        return MetadataUnavailable("the SQLite database can't be opened: check its folder and rights")
    if primary == sqlite3.SQLITE_IOERR:
        text = f"SQLite could not read or write its files ({error.sqlite_errorname})"
        return OutcomeUnknown(text) if committing else MetadataUnavailable(text)
    if primary == sqlite3.SQLITE_NOMEM:
        return MetadataUnavailable("SQLite ran out of memory")
    return MetadataError(f"SQLite: {error} ({error.sqlite_errorname})")


IN_MEMORY = ":memory:"
"""As a path: a database that is gone when it is closed."""


class SqliteDatabase:
    """A database file (or IN_MEMORY), used by one process.

    `sync` makes an open file's data durable. None leaves that to the operating system, for tests in which processes
    fail and machines do not. `is_shared` and `notices` are for simulations of several agents in the one process.
    `Database` in session.py says what the methods mean. Only one coroutine at a time is
    inside a transaction or a statement; the others wait in order.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        now_ms: Callable[[], int],
        sync: Callable[[int], None] | None = os.fdatasync,
        is_shared: bool = False,
        notices: Notices | None = None,
    ) -> None:
        self.is_shared = is_shared
        self.notices = notices
        self._path = str(path)
        self._now_ms = now_ms
        self._sync_file = sync
        self._lock = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        self._statements: _Statements | None = None
        self._log_file = -1
        self._sync: LogSync | None = None
        self._synced_changes = 0
        self._unsynced: str | None = None

    async def open(self) -> None:
        """Open the file, creating it where there is none, and run the migrations. Raises StartError."""
        check_library()
        try:
            connection = self._connect()
        except (sqlite3.Error, MetadataError) as error:
            raise self._start_error(error) from error
        try:
            self._migrate(connection)
            # What a failed sync has left in the log alone goes to the database file, and is synced there.
            connection.execute("pragma wal_checkpoint(truncate)")
            self._open_log()
        except (sqlite3.Error, OSError, MetadataError) as error:
            connection.close()
            raise self._start_error(error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._statements = _Statements(connection)
        self._synced_changes = connection.total_changes

    async def close(self) -> None:
        """Write the log back into the database file and close it."""
        async with self._lock:
            if self._connection is not None:
                connection, self._connection, self._statements = self._connection, None, None
                connection.close()
                self._close_log()

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        """See Session."""
        async with self._lock:
            answer = await self._opened().one(statement, *arguments)
            await self._make_durable()
            return answer

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        """See Session."""
        async with self._lock:
            answer = await self._opened().all(statement, *arguments)
            await self._make_durable()
            return answer

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        """See Session."""
        async with self._lock:
            touched = await self._opened().execute(statement, *arguments)
            await self._make_durable()
            return touched

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        """See Session."""
        async with self.transaction() as transaction:
            await transaction.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """See Session."""
        async with self.transaction() as transaction:
            return await transaction.together(calls)

    async def time_ms(self) -> int:
        """See Database. It runs on this machine, by its clock."""
        return self._now_ms()

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """See Database."""
        return self._within("begin immediate")

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        """See Database."""
        return self._within("begin")

    @asynccontextmanager
    async def _within(self, begin: str) -> AsyncIterator[Session]:
        async with self._lock:
            statements = self._opened()
            statements.begin(begin)
            try:
                yield statements
            except BaseException:
                statements.rollback()
                raise
            statements.commit()
            await self._make_durable()

    def _opened(self) -> _Statements:
        if self._statements is None:
            raise MetadataUnavailable("the metadata store is closed")
        if self._unsynced is not None:
            raise MetadataUnavailable(self._unsynced)
        return self._statements

    async def _make_durable(self) -> None:
        """Sync what has been written since the last sync, before the lock is let go and anybody can read it.

        A failed sync can't be repeated: the system may have dropped the very pages that it could not write and call the
        next sync a success. So from then on nothing is served; the next start reads what is there and writes it anew.
        """
        if self._sync is None or self._connection is None:
            return
        changes = self._connection.total_changes
        if changes == self._synced_changes:
            return
        try:
            await self._sync()
        except OSError as error:
            self._unsynced = (
                f"SQLite's write-ahead log could not be synced ({error.strerror}): restart the agent"
            )
            raise OutcomeUnknown(self._unsynced) from error
        self._synced_changes = changes

    def _open_log(self) -> None:
        """Open the write-ahead log for syncing, and sync what the recovery or the migrations have written."""
        self._unsynced = None
        if self._path == IN_MEMORY or self._sync_file is None:
            return
        # No lock is held on this file, so closing it later drops none of SQLite's.
        self._log_file = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._sync = LogSync(partial(self._sync_file, self._log_file))
        try:
            self._sync.on_the_loop()
        except BaseException:
            self._close_log()
            raise

    def _close_log(self) -> None:
        if self._sync is not None:
            self._sync.close()
            self._sync = None
            os.close(self._log_file)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            cached_statements=CACHED_STATEMENTS,
        )
        try:
            connection.create_function("from_hex", 1, _from_hex, deterministic=True)
            mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
            if mode != "wal" and self._path != IN_MEMORY:
                raise MetadataError(f"the file system refuses SQLite's write-ahead log (journal mode {mode})")
            connection.execute("pragma synchronous = normal")
            connection.execute(f"pragma wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
            connection.execute(f"pragma journal_size_limit = {WAL_BYTES_MAX}")
            connection.execute(f"pragma cache_size = -{CACHE_KIB}")
            connection.execute("pragma temp_store = memory")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        migrations = load_migrations("sqlite")
        if not pending(migrations, *_schema_versions(connection), self._path):
            return
        connection.execute("begin immediate")
        try:
            # Read again under the lock: another process may have come first.
            for migration in pending(migrations, *_schema_versions(connection), self._path):
                self._apply(connection, migration)
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def _apply(self, connection: sqlite3.Connection, migration: Migration) -> None:
        for sql in migration.statements:
            connection.execute(sql)
        connection.execute(
            "create table if not exists migrations (version integer primary key, name text, applied_ms integer)"
        )
        connection.execute(
            "insert into migrations (version, name, applied_ms) values (?, ?, ?)",
            (migration.version, migration.name, self._now_ms()),
        )
        _, needed = _schema_versions(connection)
        connection.execute(f"pragma user_version = {max(needed, migration.needed_version)}")

    def _start_error(self, error: sqlite3.Error | OSError | MetadataError) -> StartError:
        mapped = map_error(error) if isinstance(error, sqlite3.Error) else error
        return StartError(f"can't use the metadata in {self._path}: {mapped}")


def check_library(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Raise StartError when the SQLite library is too old, or was built without JSON."""
    if version < OLDEST_SQLITE:
        found = ".".join(map(str, version))
        needed = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise StartError(f"the SQLite library is {found}; Warp needs {needed} or newer")
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("select value from json_each('[1]')").fetchone()
    except sqlite3.OperationalError:
        raise StartError("the SQLite library was built without JSON functions, which Warp needs") from None
    finally:
        connection.close()


def _schema_versions(connection: sqlite3.Connection) -> tuple[int, int]:
    """The newest migration that has run, and the schema version that a release must know (`user_version`)."""
    needed: int = connection.execute("pragma user_version").fetchone()[0]
    if needed == 0:
        return 0, 0
    applied: int = connection.execute("select coalesce(max(version), 0) from migrations").fetchone()[0]
    return applied, needed


class _Statements:
    """The statements of an open connection, without any lock: what a transaction hands out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._texts: dict[Statement, str] = {}
        self._batch_texts: dict[Statement, str] = {}

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        rows = await self.all(statement, *arguments)
        return rows[0] if rows else None

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        try:
            return self._run(statement, arguments).fetchall()
        except sqlite3.Error as error:
            raise map_error(error) from error

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        try:
            return self._run(statement, arguments).rowcount
        except sqlite3.Error as error:
            raise map_error(error) from error

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        text = self._batch_texts.get(statement)
        if text is None:
            text = self._batch_texts[statement] = render_for_each(statement)
        try:
            self._connection.executemany(text, cast("Sequence[Sequence[Any]]", rows))
        except sqlite3.Error as error:
            raise map_error(error) from error

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        answers: list[list[Row]] = []
        for statement, arguments in calls:
            if statement.writes_rows:
                await self.execute_rows(statement, cast("Rows", arguments[0]))
                answers.append([])
            else:
                answers.append(await self.all(statement, *arguments))
        return answers

    def begin(self, sql: str) -> None:
        try:
            if self._connection.in_transaction:
                # What an earlier rollback could not undo.
                self._connection.execute("rollback")
            self._connection.execute(sql)
        except sqlite3.Error as error:
            raise map_error(error) from error

    def commit(self) -> None:
        try:
            self._connection.execute("commit")
        except sqlite3.Error as error:
            self.rollback()
            raise map_error(error, committing=True) from error

    def rollback(self) -> None:
        # SQLite rolls back by itself after some errors; a rollback that fails now is tried again by the next begin.
        if self._connection.in_transaction:
            try:
                self._connection.execute("rollback")
            except sqlite3.Error:
                return

    def _run(self, statement: Statement, arguments: Sequence[Argument]) -> sqlite3.Cursor:
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = render(statement)
        if statement.row_sets:
            values = list(arguments)
            for row_set in statement.row_sets:
                position = row_set.argument - 1
                values[position] = encode_rows(row_set.columns, cast("Rows", values[position]))
            return self._connection.execute(text, cast("Sequence[Value]", values))
        return self._connection.execute(text, cast("Sequence[Value]", arguments))


def render(statement: Statement) -> str:
    """SQLite's text of a statement. A batch of rows is one JSON argument; bytes travel in it as hexadecimal."""
    row_sets = {row_set.argument: row_set for row_set in statement.row_sets}

    def table(match: Any) -> str:
        argument = int(match[1])
        columns = row_sets[argument].columns
        if len(columns) == 1:
            fields = _field("j.value", columns[0])
        else:
            fields = ", ".join(
                _field(f"json_extract(j.value, '$[{index}]')", column) for index, column in enumerate(columns)
            )
        return f"(select {fields} from json_each(?{argument}) j) as {match[2]}"

    return _numbered(ROWS_PATTERN.sub(table, LOCK_PATTERN.sub("", statement.text)))


def render_for_each(statement: Statement) -> str:
    """SQLite's text of a statement that writes a batch, to be run once per row, with its columns as the arguments.

    Faster than JSON, and takes bytes. The batch has to be all that the statement selects from.
    """
    row_set = statement.row_sets[0]
    numbers = {column.name: number for number, column in enumerate(row_set.columns, 1)}
    text = re.sub(r"from\s+" + ROWS_PATTERN.pattern, "", statement.text)
    return re.sub(rf"\b{row_set.alias}\.(\w+)", lambda match: f"?{numbers[match[1]]}", text)


def encode_rows(columns: Sequence[Column], rows: Rows) -> str:
    """A batch of rows as the JSON that `render` reads: an array of values, or of arrays for several columns."""
    hexadecimal = [index for index, column in enumerate(columns) if column.kind == "bytea"]
    if hexadecimal:
        rows = [tuple(v.hex() if isinstance(v, bytes) else v for v in row) for row in rows]
    if len(columns) == 1:
        return json.dumps([row[0] for row in rows], separators=(",", ":"))
    return json.dumps(rows, separators=(",", ":"))


def _field(expression: str, column: Column) -> str:
    return (
        f"from_hex({expression}) as {column.name}"
        if column.kind == "bytea"
        else f"{expression} as {column.name}"
    )


def _numbered(text: str) -> str:
    """`$1` as `?1`: the library takes positional arguments for the latter alone."""
    pieces = text.split("'")
    pieces[::2] = [piece.replace("$", "?") for piece in pieces[::2]]
    return "'".join(pieces)


def _from_hex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)

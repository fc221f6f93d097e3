"""A metadata store that tests call without awaiting, on a clock that they turn; and short ways to write its values."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, NO_SEQUENCE, IdSource, LogId, ProducerId
from warp.metadata.model import BatchEntry, CommitResult, ExtentQuery, NewTopic, SegmentCommit, Topic
from warp.metadata.session import (
    Argument,
    Call,
    Database,
    Row,
    Rows,
    Session,
    Statement,
    parse_statements,
)
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database

T = TypeVar("T")
NOW_MS = 1_700_000_000_000


class TestClock:
    """Time that stands still until a test moves it."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1000.0

    def time_ms(self) -> int:
        return NOW_MS + int((self.seconds - 1000.0) * 1000)

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds


class Store:
    """A metadata store whose operations are plain calls. `wrap` puts something between it and its database."""

    def __init__(
        self,
        database: Callable[[TestClock], Database],
        wrap: Callable[[Database], Database] = lambda d: d,
        seed: int = 1,
    ) -> None:
        self.clock = TestClock()
        self.ids = IdSource(self.clock, random.Random(seed).randbytes)
        self.database = wrap(database(self.clock))
        self.metadata = MetadataStore(self.database, self.clock, self.ids)
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Each operation of MetadataStore, without the await."""
        operation = getattr(self.metadata, name)
        return lambda *arguments: self.run(operation(*arguments))

    def open(self) -> None:
        try:
            self.run(self.metadata.open())
        except BaseException:
            self._loop.close()
            raise

    def close(self) -> None:
        self.run(self.metadata.close())
        self._loop.close()

    def new_topic(self, name: str, partitions: int = 1, **configs: str) -> Topic:
        new = NewTopic(name, self.ids.topic_id(), partitions, configs)
        [topic] = self.create_topics([new])
        assert isinstance(topic, Topic), topic
        return topic

    def commit_batches(self, *batches: BatchEntry, now_ms: int = NOW_MS) -> CommitResult:
        """Commit one segment of these batches under a new key."""
        result: CommitResult = self.commit([segment(self.ids.segment_key(), *batches)], now_ms)
        return result

    def rows(self, sql: str, *arguments: Argument) -> list[tuple[Any, ...]]:
        """Run a statement as it stands: the rows of its answer."""
        statement = parse_statements(f"-- name: of_a_test\n{sql}")["of_a_test"]
        return [tuple(row) for row in self.run(self.database.all(statement, *arguments))]

    def append(self, log_id: LogId, *max_timestamps_ms: int, count: int = 10) -> None:
        """Append a batch per timestamp, each in a segment, and so an extent, of its own."""
        for timestamp_ms in max_timestamps_ms:
            result = self.commit_batches(batch(log_id, count=count, max_timestamp_ms=timestamp_ms))
            assert errors(result) == [ErrorCode.NONE]


class Stores:
    """Stores that tests open, close and open again, all on one database."""

    def __init__(self, database: Callable[[TestClock], Database]) -> None:
        self._database = database

    def open(self, wrap: Callable[[Database], Database] = lambda d: d, seed: int = 1) -> Store:
        """Another seed makes other ids."""
        store = Store(self._database, wrap, seed)
        store.open()
        return store


def sqlite_store(
    path: Path | str, wrap: Callable[[Database], Database] = lambda d: d, seed: int = 1
) -> Store:
    """A store on a SQLite file, opened."""
    return sqlite_stores(path).open(wrap, seed)


def sqlite_stores(path: Path | str) -> Stores:
    """Stores on a SQLite file."""
    return Stores(lambda clock: SqliteDatabase(path, now_ms=clock.time_ms))


def postgres_stores(url: str) -> Stores:
    """Stores on a PostgreSQL database."""
    return Stores(lambda clock: open_database(url, clock))


def connection_of(store: Store) -> sqlite3.Connection:
    """The library's connection under a store on SQLite."""
    database: Any = store.database
    found: sqlite3.Connection = database._connection
    return found


def batch(
    log_id: LogId,
    position: int = 0,
    *,
    count: int = 1,
    size: int = 100,
    max_timestamp_ms: int = -1,
    transactional: bool = False,
) -> BatchEntry:
    """A batch of no producer."""
    return BatchEntry(
        log_id, position, size, count, max_timestamp_ms, NO_PRODUCER_ID, -1, NO_SEQUENCE, transactional
    )


def sequenced(
    log_id: LogId,
    sequence: int,
    position: int = 0,
    *,
    count: int = 1,
    producer: int = 7,
    epoch: int = 0,
    size: int = 100,
    max_timestamp_ms: int = -1,
) -> BatchEntry:
    """A batch of an idempotent producer."""
    return BatchEntry(
        log_id, position, size, count, max_timestamp_ms, ProducerId(producer), epoch, sequence, False
    )


def segment(key: str, *batches: BatchEntry) -> SegmentCommit:
    return SegmentCommit(key, sum(entry.size_bytes for entry in batches), NOW_MS, batches)


def errors(result: CommitResult) -> list[ErrorCode]:
    """Every batch's error, in order."""
    return [outcome.error for outcomes in result.outcomes for outcome in outcomes]


def offsets(result: CommitResult) -> list[int]:
    """Every batch's base offset, in order."""
    return [outcome.base_offset for outcomes in result.outcomes for outcome in outcomes]


class WatchedDatabase:
    """A database that calls back before every statement, and before every commit (named `commit`)."""

    def __init__(self, inner: Database, before: Callable[[str], None]) -> None:
        self.is_shared = inner.is_shared
        self.notices = inner.notices
        self._inner = inner
        self._before = before

    async def time_ms(self) -> int:
        return await self._inner.time_ms()

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        return await _WatchedSession(self._inner, self._before).one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        return await _WatchedSession(self._inner, self._before).all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        return await _WatchedSession(self._inner, self._before).execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        await _WatchedSession(self._inner, self._before).execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        return await _WatchedSession(self._inner, self._before).together(calls)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        return self._within(self._inner.transaction())

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        return self._within(self._inner.snapshot())

    @asynccontextmanager
    async def _within(self, inner: AbstractAsyncContextManager[Session]) -> Any:
        async with inner as session:
            yield _WatchedSession(session, self._before)
            self._before("commit")


class _WatchedSession:
    def __init__(self, inner: Session, before: Callable[[str], None]) -> None:
        self._inner = inner
        self._before = before

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        self._before(statement.name)
        return await self._inner.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        self._before(statement.name)
        return await self._inner.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        self._before(statement.name)
        return await self._inner.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        self._before(statement.name)
        await self._inner.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        for call in calls:
            self._before(call.statement.name)
        return await self._inner.together(calls)


def contents(store: Store, logs: Sequence[LogId]) -> Any:
    """All that a commit can change, as far as the store shows it."""
    reads = store.read_extents([ExtentQuery(log_id, 0, 1 << 40) for log_id in logs])
    return [(read.state, list(read.extents)) for read in reads]

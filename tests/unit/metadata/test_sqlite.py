"""SQLite underneath: opening, migrations, errors, transactions, and what a crash leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.metadata.support import (
    NOW_MS,
    Store,
    TestClock,
    batch,
    connection_of,
    offsets,
    segment,
    sequenced,
    sqlite_store,
)
from warp.errors import (
    MetadataCorrupt,
    MetadataError,
    MetadataFull,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
    StartError,
)
from warp.metadata import sqlite
from warp.metadata.session import load_statements
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase, check_library, map_error, render, render_for_each

SETTINGS = load_statements("settings")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    store = sqlite_store(path)
    yield store
    store.close()


# Opening


@pytest.mark.parametrize("version", [(3, 34, 1), (3, 7, 17)])
def test_a_library_that_is_too_old_is_refused_in_one_line(version: tuple[int, ...]) -> None:
    with pytest.raises(StartError, match=r"^the SQLite library is 3\.\d+\.\d+; Warp needs 3\.35 or newer$"):
        check_library(version)


def test_the_oldest_library_that_will_do_is_taken() -> None:
    check_library((3, 35, 0))


def test_the_log_and_the_caches_are_bounded(opened: Store) -> None:
    def pragma(name: str) -> Any:
        return connection_of(opened).execute(f"pragma {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 1, (
        "normal: what is left to do for a commit to be durable is done in test_sync"
    )
    assert pragma("wal_autocheckpoint") == sqlite.WAL_CHECKPOINT_PAGES
    assert pragma("journal_size_limit") == sqlite.WAL_BYTES_MAX
    assert pragma("cache_size") == -sqlite.CACHE_KIB


def test_the_write_ahead_log_stays_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAL_CHECKPOINT_PAGES", 100)
    store = sqlite_store(path)
    [log] = store.new_topic("t").logs
    for _ in range(100):
        store.commit_batches(*(batch(log, 200 * n) for n in range(100)))
    assert Path(f"{path}-wal").stat().st_size // 4096 < 200
    assert path.stat().st_size > 100_000, "checkpoints have moved the data"
    store.close()


def test_closing_leaves_one_file_that_opens_again(path: Path) -> None:
    store = sqlite_store(path)
    topic = store.new_topic("t")
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    store = sqlite_store(path)
    assert list(store.catalogue(None).topics) == [topic]
    store.close()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"no/db: the SQLite database can't be opened"):
        sqlite_store(tmp_path / "no" / "db")


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(StartError, match=r"can't use the metadata in .*damaged"):
        sqlite_store(path)
    assert path.read_bytes() == b"something else" * 1000


# Statements


@pytest.mark.parametrize(
    "file_name", ["commits", "extents", "group_offsets", "groups", "leases", "settings", "topics"]
)
def test_every_statement_is_understood(opened: Store, file_name: str) -> None:
    connection = connection_of(opened)
    for statement in load_statements(file_name).values():
        text = render(statement)
        connection.execute(f"explain {text}", [None] * _arguments(text))
        # What execute_rows can run: a write whose only argument is its batch.
        if statement.row_sets and "$2" not in statement.text and not text.startswith(("select", "with")):
            connection.execute(
                f"explain {render_for_each(statement)}", [None] * len(statement.row_sets[0].columns)
            )


@pytest.mark.parametrize("file_name", ["commits", "extents", "group_offsets", "groups", "leases", "topics"])
def test_no_statement_looks_through_a_whole_table_by_accident(opened: Store, file_name: str) -> None:
    whole = {"all_topics", "all_configs", "all_logs", "leases_of_holder"}
    for name, statement in load_statements(file_name).items():
        text = render(statement)
        plan = (
            connection_of(opened).execute(f"explain query plan {text}", [None] * _arguments(text)).fetchall()
        )
        # Scans of the batch, of the walk's own rows and of constants are what they look like.
        scans = {row[3] for row in plan if row[3].startswith("SCAN")}
        tables = {
            scan
            for scan in scans
            if not scan.startswith(("SCAN j ", "SCAN k", "SCAN b", "SCAN w", "SCAN h", "SCAN CONSTANT"))
        }
        assert (not tables) == (name not in whole), (name, scans)


def _arguments(text: str) -> int:
    return max((number for number in range(1, 10) if f"?{number}" in text), default=0)


# Errors


def sqlite_error(code: int, text: str = "text", name: str = "NAME") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, MetadataFull, "full"),
        (sqlite3.SQLITE_BUSY, MetadataUnavailable, "locked by another process"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, MetadataUnavailable, "locked by another process"),
        (sqlite3.SQLITE_LOCKED, MetadataUnavailable, "locked by another process"),
        (sqlite3.SQLITE_CORRUPT, MetadataCorrupt, "damaged"),
        (sqlite3.SQLITE_NOTADB, MetadataCorrupt, "damaged"),
        (sqlite3.SQLITE_READONLY, MetadataReadOnly, "can't be written"),
        (sqlite3.SQLITE_READONLY_DBMOVED, MetadataReadOnly, "can't be written"),
        (sqlite3.SQLITE_CANTOPEN, MetadataUnavailable, "can't be opened"),
        (sqlite3.SQLITE_IOERR_FSYNC, MetadataUnavailable, "could not read or write"),
        (sqlite3.SQLITE_NOMEM, MetadataUnavailable, "memory"),
        (sqlite3.SQLITE_ERROR, MetadataError, "text"),
    ],
)
def test_library_errors_are_mapped_once(code: int, kind: type[MetadataError], words: str) -> None:
    mapped = map_error(sqlite_error(code))
    assert type(mapped) is kind
    assert words in str(mapped)


def test_a_failed_sync_of_a_commit_leaves_the_outcome_unknown() -> None:
    assert type(map_error(sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), committing=True)) is OutcomeUnknown
    assert type(map_error(sqlite_error(sqlite3.SQLITE_FULL), committing=True)) is MetadataFull
    assert type(map_error(sqlite_error(sqlite3.SQLITE_BUSY), committing=True)) is MetadataUnavailable


def test_an_error_without_a_code_is_still_ours() -> None:
    assert type(map_error(sqlite3.ProgrammingError("closed"))) is MetadataError


def test_a_full_disk_fails_the_commit_and_the_next_one_works(opened: Store) -> None:
    [log] = opened.new_topic("t").logs
    connection = connection_of(opened)
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages}")
    large = [sequenced(log, n, 200 * n, producer=n) for n in range(2000)]
    large = [entry for entry in large if entry.base_sequence == 0] + [
        batch(log, 10**6 + 200 * n) for n in range(2000)
    ]
    with pytest.raises(MetadataFull):
        opened.commit([segment("k", *large)], NOW_MS)
    assert opened.log_states([log])[log].next_offset == 0
    connection.execute("pragma max_page_count = 1000000")
    assert offsets(opened.commit([segment("k", *large)], NOW_MS))[-1] == 2000
    # The wait is over: nothing of the failed attempt is left.
    assert opened.claim_key("other", 1)


def test_a_lock_of_another_process_is_waited_for_briefly(path: Path, opened: Store) -> None:
    topic = opened.new_topic("t")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(MetadataUnavailable, match="locked by another process"):
            opened.commit_batches(batch(topic.logs[0]))
        assert opened.log_states(topic.logs)[topic.logs[0]].next_offset == 0, "reading goes on"
        other.execute("rollback")
    assert offsets(opened.commit_batches(batch(topic.logs[0]))) == [0]


def test_a_transaction_has_the_lock_before_it_reads(path: Path, opened: Store) -> None:
    entered = []

    async def read_in_transaction() -> None:
        async with opened.database.transaction() as session:
            entered.append(await session.one(SETTINGS["read_setting"], "x"))

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(MetadataUnavailable, match="locked by another process"):
            opened.run(read_in_transaction())
        assert entered == []
        other.execute("rollback")
    opened.run(read_in_transaction())
    assert entered == [None]


def test_a_database_that_can_not_be_written_says_so(opened: Store) -> None:
    connection_of(opened).execute("pragma query_only = on")
    with pytest.raises(MetadataReadOnly, match="can't be written"):
        opened.set_setting("x", "1")


def test_damage_is_told_apart_from_trouble(path: Path) -> None:
    store = sqlite_store(path)
    for n in range(50):
        store.new_topic(f"topic-{n}", 20)
    store.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 3 * 4096))
    with pytest.raises((MetadataCorrupt, StartError), match="damaged"):
        _use_everything(path)


def _use_everything(path: Path) -> None:
    store = sqlite_store(path)
    try:
        store.catalogue(None)
        store.new_topic("one more", 5)
    finally:
        store.close()


# Transactions


class _FailingConnection:
    """A connection whose next statement that begins with `on` fails as told, before or after it was done."""

    def __init__(self, inner: sqlite3.Connection, on: str, error: sqlite3.Error, *, done: bool) -> None:
        self._inner = inner
        self._on: str | None = on
        self._error = error
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self._on is not None and sql.startswith(self._on):
            self._on = None
            if self._done:
                self._inner.execute(sql, *arguments)
            raise self._error
        return self._inner.execute(sql, *arguments)


def fail_next(store: Store, on: str, code: int, *, done: bool = False) -> None:
    database: Any = store.database
    statements = database._statements
    statements._connection = _FailingConnection(statements._connection, on, sqlite_error(code), done=done)


@pytest.mark.parametrize("done", [False, True])
def test_an_unknown_outcome_is_resolved_by_the_same_key(opened: Store, done: bool) -> None:
    [log] = opened.new_topic("t").logs
    fail_next(opened, "commit", sqlite3.SQLITE_IOERR_FSYNC, done=done)
    ask = segment("k", batch(log, count=3))
    with pytest.raises(OutcomeUnknown):
        opened.commit([ask], NOW_MS)
    assert opened.log_states([log])[log].next_offset == (3 if done else 0)
    result = opened.commit([ask], NOW_MS)
    assert offsets(result) == [0]
    assert [state.next_offset for state in result.logs] == [3]
    assert [extent.key for extent in result.extents] == ["k"]


def test_a_rollback_that_fails_is_made_up_for_by_the_next_transaction(opened: Store) -> None:
    [log] = opened.new_topic("t").logs
    fail_next(opened, "rollback", sqlite3.SQLITE_IOERR)

    async def fails() -> None:
        async with opened.database.transaction() as session:
            await session.execute(SETTINGS["write_setting"], "x", "1")
            raise MetadataUnavailable("as told")

    with pytest.raises(MetadataUnavailable, match="as told"):
        opened.run(fails())
    assert connection_of(opened).in_transaction
    assert offsets(opened.commit_batches(batch(log))) == [0]
    assert opened.setting("x") is None


def test_transactions_wait_for_each_other_in_order(opened: Store) -> None:
    seen: list[str] = []

    async def count_up(name: str) -> None:
        async with opened.database.transaction() as session:
            seen.append(name)
            row = await session.one(SETTINGS["read_setting"], "n")
            await asyncio.sleep(0)
            await session.execute(SETTINGS["write_setting"], "n", str(int(row[0] if row else 0) + 1))
            await asyncio.sleep(0)
            seen.append(name)

    async def all_at_once() -> None:
        await asyncio.gather(*(count_up(name) for name in "abc"))

    opened.run(all_at_once())
    assert "".join(seen) == "aabbcc"
    assert opened.setting("n") == "3"


def test_nobody_reads_what_an_open_transaction_has_written(opened: Store) -> None:
    async def scenario() -> str | None:
        written = asyncio.Event()

        async def writer() -> None:
            async with opened.database.transaction() as session:
                await session.execute(SETTINGS["write_setting"], "x", "1")
                written.set()
                await asyncio.sleep(0.01)
                raise MetadataUnavailable("as told")

        task = asyncio.ensure_future(writer())
        await written.wait()
        read = await opened.metadata.setting("x")
        with pytest.raises(MetadataUnavailable, match="as told"):
            await task
        return read

    assert opened.run(scenario()) is None


def test_a_cancelled_transaction_is_rolled_back(opened: Store) -> None:
    async def scenario() -> None:
        async def writer() -> None:
            async with opened.database.transaction() as session:
                await session.execute(SETTINGS["write_setting"], "x", "1")
                await asyncio.sleep(60)

        task = asyncio.ensure_future(writer())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    opened.run(scenario())
    assert opened.setting("x") is None
    opened.set_setting("x", "2")
    assert opened.setting("x") == "2"


def test_a_snapshot_does_not_see_later_writes_of_others(path: Path, opened: Store) -> None:
    async def scenario() -> list[Any]:
        async with opened.database.snapshot() as session:
            before = await session.one(SETTINGS["read_setting"], "x")
            with closing(sqlite3.connect(path)) as other:
                other.execute("insert into settings (name, value) values ('x', '1')")
                other.commit()
            return [before, await session.one(SETTINGS["read_setting"], "x")]

    assert opened.run(scenario()) == [None, None]
    assert opened.setting("x") == "1"


def test_a_database_in_memory_works_and_is_gone_when_closed() -> None:
    clock = TestClock()
    store = Store(lambda _: SqliteDatabase(IN_MEMORY, now_ms=clock.time_ms))
    store.open()
    topic = store.new_topic("t")
    assert offsets(store.commit_batches(batch(topic.logs[0]))) == [0]
    store.run(store.metadata.close())
    store.open()
    assert list(store.catalogue(None).topics) == []
    store.close()

"""Whole SQLite databases as files: a consistent copy of one that is in use, and another one put in its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from warp.errors import StartError
from warp.metadata.sqlite import map_error

PAGES_AT_ONCE = 256
"""Between two looks at how far it is."""
BUSY_TIMEOUT_S = 10.0
SIDE_FILES = ("-wal", "-shm")


def copy_database(
    source: Path, target: Path, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """Copy a database, in use or not, as it is when the copying begins, and check the copy. Replaces the target.

    `progress(done, total)` counts pages. Raises StartError for what is no database, is damaged, or can't be written.
    """
    if not source.is_file():
        raise StartError(f"there is no database {source}")
    work = target.with_name(target.name + ".partial")
    try:
        remove_database(work)
        with (
            closing(
                sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
            ) as old,
            closing(sqlite3.connect(work)) as new,
        ):
            _copy(old, new, progress)
        _make_durable(work)
        remove_database(target)
        work.replace(target)
        _sync(target.parent)
    except sqlite3.Error as error:
        raise StartError(f"can't copy the database {source} to {target}: {error}") from error
    except OSError as error:
        raise StartError(f"can't write {target}: {error.strerror}") from error


def put_in_place(new: Path, path: Path, now_ms: int) -> Path | None:
    """Put a database in the place of another, which is kept under a name of its own: where. Nobody uses either.

    Raises StartError.
    """
    kept = path.with_name(f"{path.name}.before-{now_ms}")
    had_one = path.exists()
    if not new.is_file():
        raise StartError(f"can't put {new} in the place of {path}: it is not there")
    try:
        if had_one:
            path.rename(kept)
        # What is left of the log of one database would ruin another, so it goes even where the database went before.
        for suffix in SIDE_FILES:
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                beside.rename(kept.with_name(kept.name + suffix))
        new.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise StartError(f"can't put {new} in the place of {path}: {error.strerror}") from error
    return kept if had_one else None


class SqliteSettings:
    """The settings in a SQLite file beside an agent that is at work on it: nothing is migrated, each write is brief."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def setting(self, name: str) -> str | None:
        """See `MetadataStore`, for this and the others. Raises MetadataError."""
        rows = self._run("select value from settings where name = ?", name)
        return rows[0][0] if rows else None

    async def set_setting(self, name: str, value: str) -> None:
        self._run(
            "insert into settings (name, value) values (?, ?) on conflict (name) do update set value = excluded.value",
            name,
            value,
        )

    async def forget_settings(self, prefix: str) -> None:
        self._run("delete from settings where substr(name, 1, ?) = ?", len(prefix), prefix)

    def _run(self, sql: str, *values: str | int) -> list[tuple[str]]:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection, connection:
                connection.execute("pragma synchronous = full")
                return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise map_error(error) from error


def remove_database(path: Path) -> None:
    """Remove a database, if there is one, with what stands beside it. Raises OSError."""
    for suffix in ("", *SIDE_FILES, "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, progress: Callable[[int, int], None]) -> None:
    # One read transaction for all of it: without, each commit of an agent at work would begin the copy anew. It keeps
    # nobody from writing; the write-ahead log grows until it ends.
    old.execute("begin")
    old.execute("select count(*) from sqlite_master").fetchone()

    old.backup(
        new,
        pages=PAGES_AT_ONCE,
        progress=lambda _status, remaining, total: progress(total - remaining, total),
    )
    [result] = new.execute("pragma integrity_check(1)").fetchone()
    if result != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged, and so is the database: {result}")
    # Out of the write-ahead mode, so that the copy is one file.
    new.execute("pragma journal_mode = delete")


def _make_durable(path: Path) -> None:
    _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

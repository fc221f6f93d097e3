"""Reads a SQLite file beside the agent that owns it, and changes nothing.

The write-ahead log lets readers and the one writer go on side by side. A reader of its own only keeps the log from
being cut while one of its snapshots lasts. Nothing is migrated, nothing is checkpointed, nothing is synced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from warp.errors import MetadataReadOnly, OlderSchema, StartError
from warp.metadata.migrate import load_migrations, pending
from warp.metadata.session import Session
from warp.metadata.sqlite import (
    SqliteDatabase,
    _from_hex,
    _schema_versions,
    _Statements,
    check_library,
    map_error,
)

BUSY_TIMEOUT_MS = 5000
"""An agent that starts or stops holds everybody up for a moment."""


class SqliteReader(SqliteDatabase):
    """A database file that somebody else writes. What would write raises MetadataReadOnly."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, now_ms=lambda: 0, sync=None)
        self._file = path

    async def open(self) -> None:
        """Open the file, which has to have this release's schema. Raises StartError."""
        check_library()
        if not self._file.is_file():
            raise StartError(
                f"there are no metadata in {self._file}: name the agent's --data-dir or --metadata"
            )
        connection = None
        try:
            connection = self._connect()
            versions = _schema_versions(connection)
            if pending(load_migrations("sqlite"), *versions, str(self._file)):
                raise OlderSchema(
                    f"the metadata in {self._file} have an older schema: start an agent of this release once"
                )
        except (sqlite3.Error, StartError) as error:
            if connection is not None:
                connection.close()
            raise error if isinstance(error, StartError) else self._start_error(error) from error
        self._connection = connection
        self._statements = _Statements(connection)
        self._synced_changes = connection.total_changes

    async def damage(self, lines_max: int = 20) -> list[str]:
        """What SQLite itself finds wrong with the file, its indexes beside its tables; reads all of it.

        Raises MetadataError.
        """
        async with self._lock:
            assert self._connection is not None, "it was opened"
            try:
                rows = self._connection.execute(f"pragma integrity_check({lines_max})").fetchall()
            except sqlite3.Error as error:
                raise map_error(error) from error
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._file.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
        )
        connection.create_function("from_hex", 1, _from_hex, deterministic=True)
        return connection

    @asynccontextmanager
    async def _within(self, begin: str) -> AsyncIterator[Session]:
        if begin != "begin":
            raise MetadataReadOnly("the metadata are only read here")
        async with super()._within(begin) as session:
            yield session

"""Opens the metadata that a URL names for reading alone, whether agents are at work on them or not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from warp.errors import UsageError
from warp.metadata.session import Database
from warp.metadata.sqlite_reader import SqliteReader
from warp.metadata.urls import POSTGRES_SCHEMES


def open_reader(url: str, *, timeout_s: float = 10.0) -> Database:
    """The database that a metadata URL names, not connected yet. Raises UsageError.

    Its `open` neither makes nor migrates anything. `timeout_s` bounds every wait for PostgreSQL.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path.startswith("/") and not parts.netloc:
        return SqliteReader(Path(unquote(parts.path)))
    if parts.scheme in POSTGRES_SCHEMES:
        from warp.metadata.postgres_reader import PostgresReader  # noqa: PLC0415
        from warp.metadata.postgres_url import parse_postgres_url  # noqa: PLC0415

        return PostgresReader(parse_postgres_url(url), timeout_s=timeout_s)
    if parts.scheme == "mem":
        raise UsageError("metadata in memory can't be read from outside of their agent")
    raise UsageError(
        f"metadata {url!r}: this release reads sqlite:///dir/file.sqlite and postgresql://user@host/database"
    )

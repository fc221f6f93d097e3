"""Which database a metadata URL names. The one way to PostgreSQL's driver, which nobody else has to load."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from warp.clock import Clock
from warp.errors import UsageError
from warp.metadata.session import Database
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase

POSTGRES_SCHEMES = ("postgresql", "postgres")


def open_database(url: str, clock: Clock, *, connections_max: int = 10, timeout_s: float = 10.0) -> Database:
    """The database that a metadata URL names, not connected yet. Raises UsageError.

    `connections_max` and `timeout_s`, which bounds every wait for it, are PostgreSQL's.
    """
    parts = urlsplit(url)
    if parts.scheme == "mem":
        return SqliteDatabase(IN_MEMORY, now_ms=clock.time_ms)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise UsageError(
                f"metadata {url!r}: give an absolute path after three slashes, as in sqlite:///dir/file"
            )
        return SqliteDatabase(Path(unquote(parts.path)), now_ms=clock.time_ms)
    if parts.scheme in POSTGRES_SCHEMES:
        from warp.metadata.postgres import PostgresDatabase  # noqa: PLC0415
        from warp.metadata.postgres_url import parse_postgres_url  # noqa: PLC0415

        return PostgresDatabase(
            parse_postgres_url(url),
            now_ms=clock.time_ms,
            connections_max=connections_max,
            timeout_s=timeout_s,
        )
    raise UsageError(
        f"metadata: unknown kind {parts.scheme!r}; this release knows sqlite:///dir/file.sqlite, "
        "postgresql://user@host/database, and mem://"
    )

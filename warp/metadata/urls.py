"""Opens the metadata store that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from warp.clock import Clock
from warp.errors import UsageError
from warp.ids import IdSource
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore


def metadata_store(url: str, clock: Clock, ids: IdSource) -> MetadataStore:
    """The store behind `sqlite:///FILE` (an absolute path) or `mem://`, not yet opened. Raises UsageError."""
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise UsageError(f"metadata URL {url!r}: it takes no parameters")
    if parts.scheme == "mem" and not parts.netloc and parts.path in ("", "/"):
        return MetadataStore(SqliteDatabase(IN_MEMORY, now_ms=clock.time_ms), clock, ids)
    if parts.scheme == "sqlite":
        if parts.netloc or len(parts.path) < 2:
            raise UsageError(f"metadata URL {url!r}: write sqlite:///FILE, with three slashes")
        return MetadataStore(SqliteDatabase(Path(unquote(parts.path)), now_ms=clock.time_ms), clock, ids)
    raise UsageError(f"metadata URL {url!r}: it must be sqlite:///FILE or mem://")

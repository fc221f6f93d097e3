"""Operations of restoring: they put a database right while no agent uses it."""

from __future__ import annotations

from warp.metadata.session import Database, load_statements

_SQL = load_statements("restore")
FORGET_SETTINGS = _SQL["forget_settings"]


async def forget_settings(database: Database, prefix: str) -> None:
    """Delete settings whose names begin so. Raises ValueError for a prefix that is a pattern."""
    if not prefix or "%" in prefix or "_" in prefix:
        raise ValueError(f"not a plain prefix: {prefix!r}")
    await database.execute(FORGET_SETTINGS, prefix + "%")

"""The catalogue's version, which rises in every transaction that changes what the catalogue holds.

Whoever changes any of it locks its one row first, so changes come one after the other, and what is read after the lock
is what holds.
"""

from __future__ import annotations

from warp.metadata.session import Session, load_statements

_SQL = load_statements("catalogue")
LOCK_CATALOGUE = _SQL["lock_catalogue"]
CATALOGUE_VERSION = _SQL["catalogue_version"]
SET_CATALOGUE_VERSION = _SQL["set_catalogue_version"]


async def read_version(session: Session) -> int:
    """The version as it is."""
    row = await session.one(CATALOGUE_VERSION)
    assert row is not None, "the first migration inserts the row"
    return int(row[0])


async def lock_catalogue(session: Session) -> int:
    """Keep others from changing the catalogue until the transaction ends; its version."""
    row = await session.one(LOCK_CATALOGUE)
    assert row is not None, "the first migration inserts the row"
    return int(row[0])


async def set_version(session: Session, version: int) -> None:
    """Set the version, under the lock, to one above that of before."""
    await session.execute(SET_CATALOGUE_VERSION, version)

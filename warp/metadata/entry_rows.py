"""Entries in the database: one row each, which stays when its entry is deleted, so that agents find that out.

It stays for so many versions of the catalogue; an agent that has missed more of them reads all entries anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from warp.metadata.catalogue_version import lock_catalogue, set_version
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.session import Database, Session, load_statements

_SQL = load_statements("entries")
ALL_ENTRIES = _SQL["all_entries"]
CHANGED_ENTRIES = _SQL["changed_entries"]
NEWER_ENTRY = _SQL["newer_entry"]
UPSERT_ENTRIES = _SQL["upsert_entries"]
DELETE_ENTRIES = _SQL["delete_entries"]
FORGET_DELETED_ENTRIES = _SQL["forget_deleted_entries"]

DELETED_VERSIONS = 10_000
"""For how many versions of the catalogue the row of a deleted entry stays."""

_KINDS = {kind.value: kind for kind in EntryKind}


async def change_entries(
    database: Database, kind: EntryKind, changes: Sequence[EntryChange], if_version: int
) -> int | None:
    """Set and delete entries of a kind, one change per key: the catalogue's version afterwards.

    None, and nothing is changed, when entries of that kind have changed since the catalogue was at `if_version`.
    """
    deleted = [(entry_digest(kind, key),) for key, value in changes if value is None]
    async with database.transaction() as session:
        version = await lock_catalogue(session)
        if await session.one(NEWER_ENTRY, kind.value, if_version) is not None:
            return None
        rows = [
            (entry_digest(kind, key), kind.value, key, value, version + 1)
            for key, value in changes
            if value is not None
        ]
        await session.execute_rows(UPSERT_ENTRIES, rows)
        count = len(rows)
        if deleted:
            count += await session.execute(DELETE_ENTRIES, deleted, version + 1)
            await session.execute(FORGET_DELETED_ENTRIES, version + 1 - DELETED_VERSIONS)
        if count == 0:
            return version
        await set_version(session, version + 1)
    return version + 1


async def changed_entries(
    session: Session, known_version: int, version: int
) -> tuple[dict[EntryKind, list[EntryChange]], bool]:
    """The entries that have changed from a version to the present one; and whether these are all that there are.

    They are where deletions since then may have been forgotten. Kinds that only a newer release knows are left out.
    """
    are_all = version - known_version > DELETED_VERSIONS
    rows = await (session.all(ALL_ENTRIES) if are_all else session.all(CHANGED_ENTRIES, known_version))
    changes: dict[EntryKind, list[EntryChange]] = {}
    for kind, key, value in rows:
        if kind in _KINDS:
            changes.setdefault(_KINDS[kind], []).append(EntryChange(key, value))
    return changes, are_all


def entry_digest(kind: EntryKind, key: str) -> bytes:
    """What a row is found by: 32 bytes."""
    return hashlib.sha256(f"{kind.value}\0{key}".encode()).digest()

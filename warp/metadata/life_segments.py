"""Segments after their commit: which there are, which have died, and when their rows may be forgotten.

A segment gets extents in the transaction that inserts it, and after that only in one that has locked it and found it
live. So death, which is established under the same lock, can be found out by anybody at any time, and is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp.metadata.group_model import Lease
from warp.metadata.leases import share_leases
from warp.metadata.life_model import DeadSegment, SegmentRow, SegmentTotals
from warp.metadata.session import Database, Session, Statement, load_statements

_SQL = load_statements("life_segments")
SEGMENT_TOTALS = _SQL["segment_totals"]
LIVE_LEVELS = _SQL["live_levels"]
LIVE_SEGMENTS_OF_LEVEL = _SQL["live_segments_of_level"]
LOCK_LIVE_SEGMENTS = _SQL["lock_live_segments"]
MARK_EMPTY_DEAD = _SQL["mark_empty_dead"]
DEAD_SEGMENTS = _SQL["dead_segments"]
GONE_SEGMENTS = _SQL["gone_segments"]
LOCK_SEGMENTS = _SQL["lock_segments"]
MARK_GONE = _SQL["mark_gone"]
FORGET_SEGMENTS = _SQL["forget_segments"]
KNOWN_KEYS = _SQL["known_keys"]
CLAIM_KEYS = _SQL["claim_keys"]

SEGMENTS_PER_LOOK = 200


async def segment_totals(database: Database) -> list[SegmentTotals]:
    """Number and bytes of the live segments of each level that has any, by level."""
    return [SegmentTotals(*map(int, row)) for row in await database.all(SEGMENT_TOTALS)]


async def oldest_segments(database: Database, level: int, limit: int, after_id: int) -> list[SegmentRow]:
    """The first so many live segments of a level by id, without those that are empty or hold a quarantined extent."""
    found: list[SegmentRow] = []
    while len(found) < limit:
        rows = await database.all(LIVE_SEGMENTS_OF_LEVEL, level, after_id, SEGMENTS_PER_LOOK)
        found += [SegmentRow(*row[:5]) for row in rows if row[5] is not None and row[6] is None]
        if len(rows) < SEGMENTS_PER_LOOK:
            break
        after_id = rows[-1][0]
        await asyncio.sleep(0)  # SQLite runs on the loop
    return found[:limit]


async def mark_dead(
    database: Database, lease: Lease, after_id: int, limit: int, now_ms: int
) -> tuple[int, int | None]:
    """Look at the next `limit` live segments by id, and mark those dead that have no extents.

    How many died, and the id to go on after; None at the end. Raises LeaseLost.
    """
    async with database.transaction() as session:
        await share_leases(session, [lease])
        found: list[tuple[int, bool]] = []
        for (level,) in await session.all(LIVE_LEVELS):
            rows = await session.all(LIVE_SEGMENTS_OF_LEVEL, level, after_id, limit)
            found += [(row[0], row[5] is not None) for row in rows]
        walked = sorted(found)[:limit]
        died = await _mark_dead(session, [segment_id for segment_id, full in walked if not full], now_ms)
    return died, walked[-1][0] if len(walked) == limit else None


async def mark_dead_among(
    database: Database, lease: Lease | None, segment_ids: Sequence[int], now_ms: int
) -> int:
    """Mark those of the live segments dead that have no extents; how many. Raises LeaseLost."""
    async with database.transaction() as session:
        await share_leases(session, [] if lease is None else [lease])
        return await _mark_dead(session, sorted(set(segment_ids)), now_ms)


async def _mark_dead(session: Session, segment_ids: Sequence[int], now_ms: int) -> int:
    if not segment_ids:
        return 0
    locked = await session.all(LOCK_LIVE_SEGMENTS, [(segment_id,) for segment_id in segment_ids])
    if not locked:
        return 0
    # Looked at once more, by a statement later than the lock.
    return await session.execute(MARK_EMPTY_DEAD, [(row[0],) for row in locked], now_ms)


async def dead_segments(database: Database, limit: int, after: DeadSegment | None) -> list[DeadSegment]:
    """Segments whose objects are to be deleted, by the time of their death, those of `after` and before left out."""
    return await _ended_segments(database, DEAD_SEGMENTS, limit, after)


async def gone_segments(database: Database, limit: int, after: DeadSegment | None) -> list[DeadSegment]:
    """Segments whose objects are deleted, in the same order."""
    return await _ended_segments(database, GONE_SEGMENTS, limit, after)


async def _ended_segments(
    database: Database, statement: Statement, limit: int, after: DeadSegment | None
) -> list[DeadSegment]:
    died_ms, segment_id = (-(1 << 62), 0) if after is None else (after.died_ms, after.segment_id)
    return [DeadSegment(*row) for row in await database.all(statement, died_ms, segment_id, limit)]


async def mark_gone(database: Database, lease: Lease, segment_ids: Sequence[int]) -> None:
    """Note that the objects of dead segments are deleted. Others are left alone. Raises LeaseLost."""
    await _change(database, lease, MARK_GONE, segment_ids)


async def forget_segments(database: Database, lease: Lease, segment_ids: Sequence[int]) -> int:
    """Delete the rows of segments whose objects are deleted; how many of them were. Raises LeaseLost."""
    return await _change(database, lease, FORGET_SEGMENTS, segment_ids)


async def _change(database: Database, lease: Lease, statement: Statement, segment_ids: Sequence[int]) -> int:
    ids = [(segment_id,) for segment_id in sorted(set(segment_ids))]
    if not ids:
        return 0
    async with database.transaction() as session:
        await share_leases(session, [lease])
        await session.all(LOCK_SEGMENTS, ids)
        return await session.execute(statement, ids)


async def known_keys(database: Database, keys: Sequence[str]) -> set[str]:
    """Those of the keys that segments have, in whatever state."""
    if not keys:
        return set()
    return {row[0] for row in await database.all(KNOWN_KEYS, [(key,) for key in dict.fromkeys(keys)])}


async def claim_keys(
    database: Database, lease: Lease, unknown: Sequence[tuple[str, int]], now_ms: int
) -> list[str]:
    """Insert the unknown ones of some objects (key, size in bytes) as dead segments, so that no commit can take them.

    The keys that were claimed; the others are known. Raises LeaseLost.
    """
    # In order of the keys: of two sweeps none ever waits for the other with a key that it waits for.
    rows = [(key, size_bytes, now_ms) for key, size_bytes in sorted(dict(unknown).items())]
    if not rows:
        return []
    async with database.transaction() as session:
        await share_leases(session, [lease])
        return sorted(row[0] for row in await session.all(CLAIM_KEYS, rows))

"""Logs as jobs read and trim them: the start moves first, what lies before it goes after, a step at a time.

Whoever changes a log's extents has locked the log before and reads them after, as commits do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from warp.ids import LogId, ProducerId
from warp.metadata.commits import LOCK_LOGS
from warp.metadata.extents import FIRST_OFFSET_REACHING_TIME
from warp.metadata.group_model import Lease
from warp.metadata.leases import share_leases
from warp.metadata.life_model import IndexRow, LogDirt, LogHead
from warp.metadata.quarantine import forget_quarantined
from warp.metadata.records import MOVE_LOG_STARTS
from warp.metadata.session import Database, Row, Session, load_statements
from warp.metadata.swaps import CHANGE_LOGS, delete_extents

_SQL = load_statements("life_logs")
EXTENTS_IN_SEGMENTS = _SQL["extents_in_segments"]
EXTENTS_OF_LOG = _SQL["extents_of_log"]
LOG_HEADS = _SQL["log_heads"]
LOG_DIRT = _SQL["log_dirt"]
WALK_LOGS = _SQL["walk_logs"]
EXTENTS_BEFORE_STARTS = _SQL["extents_before_starts"]
LOCK_DELETED_LOGS = _SQL["lock_deleted_logs"]
PRODUCERS_OF_DELETED_LOGS = _SQL["producers_of_deleted_logs"]
DELETE_PRODUCERS = _SQL["delete_producers"]
FORGET_DELETED_LOGS = _SQL["forget_deleted_logs"]
WALK_PRODUCERS = _SQL["walk_producers"]
LOCK_PRODUCERS = _SQL["lock_producers"]
DELETE_IDLE_PRODUCERS = _SQL["delete_idle_producers"]

LOGS_PER_STATEMENT = 32
"""From so many logs at once the extents to be deleted are read; from each no more than may be deleted in all."""

ROWS_PER_STEP = 250

_LAST_OFFSET = 2**63 - 1

ProducerCursor = tuple[LogId, ProducerId]


async def extents_in_segments(database: Database, segment_ids: Sequence[int]) -> list[IndexRow]:
    """All extents in some segments, by log and offset, without the quarantined ones."""
    if not segment_ids:
        return []
    rows = await database.all(
        EXTENTS_IN_SEGMENTS, [(segment_id,) for segment_id in dict.fromkeys(segment_ids)]
    )
    found: list[IndexRow] = []
    for start in range(0, len(rows), ROWS_PER_STEP):
        found += [index_row(row) for row in rows[start : start + ROWS_PER_STEP]]
        await asyncio.sleep(0)  # a segment may hold an extent of each log that there is
    return found


async def extents_of_log(database: Database, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]:
    """The first extents of a log that end after an offset, by offset, quarantined ones too."""
    return [index_row(row) for row in await database.all(EXTENTS_OF_LOG, log_id, from_offset, limit)]


def index_row(row: Row) -> IndexRow:
    """An extent from the columns that these statements select; key and level are null of one that has no segment."""
    log_id, base_offset, end_offset, segment_id, position, size_bytes, max_timestamp_ms, key, level = row
    return IndexRow(
        log_id,
        base_offset,
        end_offset,
        segment_id,
        position,
        size_bytes,
        max_timestamp_ms,
        key or "",
        level or 0,
    )


async def log_heads(database: Database, log_ids: Sequence[LogId]) -> list[LogHead]:
    """How those of the logs begin that exist, by id."""
    if not log_ids:
        return []
    rows = await database.all(LOG_HEADS, _ids(log_ids))
    return [
        LogHead(*row[:4], *((-1, -1) if row[4] is None else (row[4], row[5])))
        for row in rows
    ]  # fmt: skip


async def log_dirt(database: Database, log_ids: Sequence[LogId]) -> list[LogDirt]:
    """How much of those of the logs that exist is compacted, by id."""
    if not log_ids:
        return []
    dirts = []
    for row in await database.all(LOG_DIRT, _ids(log_ids)):
        log_id, start_offset, next_offset, clean_offset, *sizes, first_dirty_ms = row
        size_bytes, ended_bytes, dirty_bytes = map(int, sizes)
        clean_bytes = size_bytes - ended_bytes - dirty_bytes
        first_ms = -1 if first_dirty_ms is None else first_dirty_ms
        dirts.append(
            LogDirt(log_id, start_offset, next_offset, clean_offset, clean_bytes, dirty_bytes, first_ms)
        )
    return dirts


async def offset_reaching_time(database: Database, log_id: LogId, timestamp_ms: int) -> int | None:
    """The first offset whose extent, or one before it, can hold that time or a later one; where there is none the
    next offset. None when the log is gone."""
    row = await database.one(FIRST_OFFSET_REACHING_TIME, log_id, timestamp_ms)
    return None if row is None else int(row[0])


async def advance_log_starts(
    database: Database, lease: Lease, starts: Mapping[LogId, int]
) -> dict[LogId, int]:
    """Move log starts on: never back, never past the end. Where they are then, of the logs that exist.

    Raises LeaseLost.
    """
    if not starts:
        return {}
    async with database.transaction() as session:
        await share_leases(session, [lease])
        reached: dict[LogId, int] = {}
        moved = []
        for log_id, start_offset, next_offset, *_ in await session.all(LOCK_LOGS, _ids(starts)):
            reached[log_id] = max(start_offset, min(starts[log_id], next_offset))
            if reached[log_id] > start_offset:
                moved.append((log_id, reached[log_id]))
        await session.execute_rows(MOVE_LOG_STARTS, moved)
    return reached


async def logs_to_trim(database: Database, after_log: LogId, limit: int) -> tuple[list[LogId], LogId | None]:
    """Of the next `limit` logs by id, those whose first extent ends at or below their start.

    And the log to go on after; None at the end.
    """
    rows = await database.all(WALK_LOGS, after_log, limit)
    return [row[0] for row in rows if row[1]], rows[-1][0] if len(rows) == limit else None


async def trim_logs(database: Database, lease: Lease, log_ids: Sequence[LogId], extents_max: int) -> int:
    """Delete at most so many of the extents that end at or below the starts of their logs; how many.

    Fewer: there are no more. What was quarantined goes with them. Raises LeaseLost.
    """
    if not log_ids:
        return 0
    async with database.transaction() as session:
        await share_leases(session, [lease])
        starts = [(row[0], row[1]) for row in await session.all(LOCK_LOGS, _ids(log_ids))]
        rows = await _delete_first_extents(session, starts, extents_max)
        grown: dict[LogId, int] = {}
        for log_id, _, size_bytes in rows:
            grown[log_id] = grown.get(log_id, 0) - size_bytes
        await session.execute_rows(CHANGE_LOGS, [(log_id, size, 0) for log_id, size in grown.items()])
    return len(rows)


async def _delete_first_extents(
    session: Session, ends: Sequence[tuple[LogId, int]], extents_max: int
) -> list[Row]:
    """Delete the first extents that end at or below an offset of their log; logs, end offsets and sizes of them."""
    rows: list[Row] = []
    for start in range(0, len(ends), LOGS_PER_STATEMENT):
        if len(rows) >= extents_max:
            break
        part = ends[start : start + LOGS_PER_STATEMENT]
        rows += await session.all(EXTENTS_BEFORE_STARTS, part, extents_max - len(rows))
    places = [(row[0], row[1]) for row in rows]
    await delete_extents(session, places)
    await forget_quarantined(session, places)
    return rows


async def clear_deleted_logs(database: Database, lease: Lease, rows_max: int) -> int:
    """Delete at most so many rows of deleted logs: their extents, then their producers, then their own.

    How many; 0 when nothing is left of any. Raises LeaseLost.
    """
    async with database.transaction() as session:
        await share_leases(session, [lease])
        logs = await session.all(LOCK_DELETED_LOGS, min(LOGS_PER_STATEMENT, rows_max))
        ids = [(row[0],) for row in logs]
        if not ids:
            return 0
        extents = await _delete_first_extents(session, [(row[0], _LAST_OFFSET) for row in logs], rows_max)
        removed = len(extents)
        if removed < rows_max:
            removed += await _clear_producers(session, ids, rows_max - removed)
        if removed < rows_max:
            removed += await session.execute(FORGET_DELETED_LOGS, ids[: rows_max - removed])
    return removed


async def _clear_producers(session: Session, log_ids: Sequence[tuple[int]], rows_max: int) -> int:
    rows = await session.all(PRODUCERS_OF_DELETED_LOGS, log_ids, rows_max)
    await session.execute_rows(DELETE_PRODUCERS, [(row[0], row[1]) for row in rows])
    return len(rows)


async def expire_producers(
    database: Database, lease: Lease, after: ProducerCursor, limit: int, written_before_ms: int
) -> tuple[int, ProducerCursor | None]:
    """Look at the next `limit` producers' states, and delete those last written before a time without an open
    transaction. How many, and the one to go on after; None at the end. Raises LeaseLost.

    Beside a commit of the same producer it is right without a lock on its log: the commit writes the whole state anew.
    """
    async with database.transaction() as session:
        await share_leases(session, [lease])
        walked = await session.all(WALK_PRODUCERS, *after, limit, written_before_ms)
        idle = [(row[0], row[1]) for row in walked if row[2]]
        expired = 0
        if idle:
            await session.all(LOCK_PRODUCERS, idle)
            expired = await session.execute(DELETE_IDLE_PRODUCERS, idle, written_before_ms)
    return expired, (walked[-1][0], walked[-1][1]) if len(walked) == limit else None


def _ids(log_ids: Sequence[LogId] | Mapping[LogId, int]) -> list[tuple[int]]:
    return [(log_id,) for log_id in sorted(set(log_ids))]

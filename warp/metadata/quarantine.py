"""Extents whose bytes a job could not read: noted, so that no job touches them again, and until somebody looks.

A note goes with its extent when the log's start has passed it, or its topic is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from warp.ids import LogId
from warp.metadata import swaps
from warp.metadata.commits import LOCK_LOGS
from warp.metadata.group_model import Lease
from warp.metadata.leases import share_leases
from warp.metadata.life_model import IndexRow, Quarantined
from warp.metadata.session import Database, Session, Value, load_statements

_SQL = load_statements("quarantine")
INSERT_QUARANTINED = _SQL["insert_quarantined"]
QUARANTINED_OF_LOG = _SQL["quarantined_of_log"]
QUARANTINED = _SQL["quarantined"]
RELEASE_QUARANTINED = _SQL["release_quarantined"]
FORGET_QUARANTINED = _SQL["forget_quarantined"]

REASON_CHARACTERS_MAX = 1_000


async def quarantine(
    database: Database, lease: Lease | None, found: Sequence[IndexRow], reason: str, now_ms: int
) -> None:
    """Quarantine those of the extents that are still as they were read, and whose logs are there. Raises LeaseLost.

    What is left of a deleted log is cleared without a lock on it: a note made beside that would stay for ever, and keep
    its segment from dying.
    """
    in_segments = [row for row in found if row.segment_id is not None]
    if not in_segments:
        return
    async with database.transaction() as session:
        await share_leases(session, [] if lease is None else [lease])
        wanted = sorted({row.log_id for row in in_segments})
        logs = {row[0] for row in await session.all(LOCK_LOGS, [(log_id,) for log_id in wanted])}
        there = [row for row in in_segments if row.log_id in logs]
        current = await swaps.read_again(session, there)
        places = [(row, current.get((row.log_id, row.end_offset))) for row in there]
        text = reason[:REASON_CHARACTERS_MAX].replace("\0", "")
        rows = [
            (row.log_id, row.end_offset, row.segment_id, text, now_ms)
            for row, extent in sorted(places, key=lambda place: place[0][:3])
            if extent is not None and extent.is_as_read(row)
        ]
        await session.execute_rows(INSERT_QUARANTINED, rows)


async def quarantined_of_log(database: Database, log_id: LogId) -> list[Quarantined]:
    """What is quarantined of a log, by offset."""
    return [Quarantined(*row) for row in await database.all(QUARANTINED_OF_LOG, log_id)]


async def quarantined(database: Database, limit: int) -> list[Quarantined]:
    """The first so many of all quarantined extents, by log and offset."""
    return [Quarantined(*row) for row in await database.all(QUARANTINED, limit)]


async def release_quarantined(database: Database, rows: Sequence[Quarantined]) -> int:
    """Let jobs have extents again; how many of them were still quarantined as they were then."""
    if not rows:
        return 0
    places = [(row.log_id, row.end_offset, row.segment_id, row.found_ms) for row in sorted(rows)]
    return await database.execute(RELEASE_QUARANTINED, places)


async def forget_quarantined(session: Session, places: Sequence[tuple[Value, ...]]) -> None:
    """Forget about extents that are being deleted, by log id and end offset."""
    await session.execute_rows(FORGET_QUARANTINED, places)

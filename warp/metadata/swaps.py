"""Swaps: new segments take the place of extents, in one transaction, while others read and write the same logs.

A swap is right whoever asks for it. It deletes exactly the rows that it was made from: it locks the logs, as everybody
does who changes extents, then reads those rows again, and leaves a log alone of which any has changed. So two that
were made from the same rows never both take effect, and nothing that a commit or a deletion does meanwhile is undone.

What is to be swapped of many logs may come in parts, a transaction each, so that nobody waits long for the logs, or for
SQLite's only lock. The first part to take effect inserts the segments. Each later one locks them and finds them live,
or does nothing: a segment that has died never gets an extent.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple, TypeVar

from warp.ids import LogId
from warp.metadata.commits import LOCK_LOGS
from warp.metadata.group_model import Lease
from warp.metadata.leases import share_leases
from warp.metadata.life_model import IndexRow, NewExtent, Swap, SwapRefused, SwapResult
from warp.metadata.model import NO_TIMESTAMP
from warp.metadata.session import Database, Row, Session, Statement, Value, load_statements

_SQL = load_statements("swaps")
EXTENTS_AS_THEY_ARE = _SQL["extents_as_they_are"]
KEEP_LIVE_SEGMENTS = _SQL["keep_live_segments"]
SEGMENTS_OF_KEYS = _SQL["segments_of_keys"]
INSERT_SEGMENTS = _SQL["insert_segments"]
DELETE_EXTENTS = _SQL["delete_extents"]
INSERT_EXTENTS = _SQL["insert_extents"]
CHANGE_LOGS = _SQL["change_logs"]
LOGS_IN_SEGMENTS = _SQL["logs_in_segments"]

ROWS_PER_STATEMENT = 125
"""Before each statement of so many rows the event loop gets its turn: SQLite runs on it."""

T = TypeVar("T")
Place = tuple[LogId, int]
"""Of an extent in the index: its log and its end offset."""


class _Extent(NamedTuple):
    """A row as it is at present."""

    log_id: LogId
    end_offset: int
    base_offset: int
    segment_id: int | None
    position: int
    size_bytes: int
    max_timestamp_ms: int
    prefix_max_timestamp_ms: int
    quarantined_segment: int | None

    def is_as_read(self, row: IndexRow) -> bool:
        """Is it still what a job has read? A quarantined one is left to nobody's swap."""
        return self.quarantined_segment is None and is_same(self, row)


def is_same(row: _Extent | IndexRow, other: IndexRow) -> bool:
    """Do two rows say the same of the same extent?"""
    return (row.base_offset, row.segment_id, row.position, row.size_bytes, row.max_timestamp_ms) == (
        other.base_offset, other.segment_id, other.position, other.size_bytes, other.max_timestamp_ms
    )  # fmt: skip


async def swap(database: Database, lease: Lease | None, change: Swap) -> SwapResult:
    """Swap, log by log all or nothing; the segments are inserted unless no log is swapped.

    Asked again under the same keys it changes nothing and answers by what is left: logs that have extents in the
    segments. A part that is not the first may be asked again too. Raises SwapRefused, LeaseLost, and ValueError for a
    swap that does not tile what it removes.
    """
    check_swap(change)
    async with database.transaction() as session:
        await share_leases(session, [] if lease is None else [lease])
        wanted = _logs_of(change)
        logs = {row[0] for row in await session.all(LOCK_LOGS, [(log_id,) for log_id in sorted(wanted)])}
        ids: list[int] = []
        if change.is_begun:
            ids = await _keep_live_segments(session, change)
            if not ids:
                return SwapResult(frozenset(), wanted)
        elif known := await _known_segments(session, change):
            swapped = frozenset(await _logs_in(session, known)) & wanted
            return SwapResult(swapped, wanted - swapped)
        current = await read_again(session, change.removed)
        swapped = frozenset(logs - _changed(change.removed, current))
        if swapped:
            await _write(session, change, swapped, current, ids)
        if ids and swapped != wanted:
            # An attempt of which nobody knew what has become of it has swapped them, perhaps.
            swapped |= wanted & await _logs_in(session, ids)
        return SwapResult(swapped, wanted - swapped)


async def read_again(session: Session, rows: Iterable[IndexRow]) -> dict[Place, _Extent]:
    """The extents at the places of those that were read. Once their logs are locked nobody changes them."""
    places = [(row.log_id, row.end_offset) for row in rows]
    found: dict[Place, _Extent] = {}
    async for chunk in chunks(places):
        for row in await session.all(EXTENTS_AS_THEY_ARE, chunk):
            extent = _Extent(*row)
            found[extent.log_id, extent.end_offset] = extent
    return found


async def delete_extents(session: Session, places: Sequence[tuple[Value, ...]]) -> None:
    """Delete extents by log id and end offset."""
    await _write_rows(session, DELETE_EXTENTS, places)


def check_swap(change: Swap) -> None:
    """Raise ValueError unless what is added tiles what is removed, run by run, and lies in the swap's segments."""
    if len({segment.key for segment in change.segments}) != len(change.segments):
        raise ValueError("a segment is twice in one swap")
    if any(segment.level < 1 for segment in change.segments):
        raise ValueError("segments of level 0 come by commits alone")
    if any(not 0 <= extent.segment < len(change.segments) for extent in change.added):
        raise ValueError("an added extent lies in none of the swap's segments")
    removed, added = _runs(change.removed), _runs(change.added)
    if removed != added:
        differing = sorted({log_id for log_id, _, _ in set(removed) ^ set(added)})
        raise ValueError(f"what is added does not tile what is removed in the logs {differing}")


def _runs(rows: Sequence[IndexRow] | Sequence[NewExtent]) -> list[tuple[LogId, int, int]]:
    """The offsets that extents cover: log, base, end of each contiguous run. Raises ValueError where they overlap."""
    runs: list[tuple[LogId, int, int]] = []
    for log_id, base, end in sorted((row.log_id, row.base_offset, row.end_offset) for row in rows):
        if base >= end:
            raise ValueError(f"an extent of log {log_id} ends where it begins, at {base}")
        last_log, last_base, last_end = runs[-1] if runs else (None, 0, 0)
        if log_id == last_log and base < last_end:
            raise ValueError(f"two extents of log {log_id} hold offset {base}")
        if log_id == last_log and base == last_end:
            runs[-1] = (log_id, last_base, end)
        else:
            runs.append((log_id, base, end))
    return runs


def _logs_of(change: Swap) -> frozenset[LogId]:
    return frozenset(change.clean_offsets).union(row.log_id for row in change.removed)


async def _known_segments(session: Session, change: Swap) -> list[int]:
    """Ids of the segments if this very swap has been made before; none if it has not. Raises SwapRefused."""
    rows = await session.all(SEGMENTS_OF_KEYS, [(segment.key,) for segment in change.segments])
    if rows:
        levels = {row[0]: row[2] for row in rows}
        # A claimed key has level 0, which no swap inserts.
        if levels != {segment.key: segment.level for segment in change.segments}:
            raise _refused(sorted(levels))
    return [row[1] for row in rows]


async def _keep_live_segments(session: Session, change: Swap) -> list[int]:
    """Ids of the segments, in the swap's order, kept from dying; none unless all are live."""
    rows = await session.all(KEEP_LIVE_SEGMENTS, [(segment.key,) for segment in change.segments])
    ids = {row[0]: row[1] for row in rows}
    return [ids[segment.key] for segment in change.segments] if len(ids) == len(change.segments) else []


async def _logs_in(session: Session, segment_ids: Sequence[int]) -> set[LogId]:
    rows = await session.all(LOGS_IN_SEGMENTS, [(segment_id,) for segment_id in segment_ids])
    return {row[0] for row in rows}


def _changed(removed: Sequence[IndexRow], current: dict[Place, _Extent]) -> set[LogId]:
    """The logs of which a row is no longer as it was read."""
    changed: set[LogId] = set()
    for row in removed:
        extent = current.get((row.log_id, row.end_offset))
        if extent is None or not extent.is_as_read(row):
            changed.add(row.log_id)
    return changed


async def _write(
    session: Session,
    change: Swap,
    swapped: frozenset[LogId],
    current: dict[Place, _Extent],
    ids: Sequence[int],
) -> None:
    """`ids` are of the segments, if they have been inserted before."""
    added = [extent for extent in change.added if extent.log_id in swapped]
    removed = [row for row in change.removed if row.log_id in swapped]
    if added and not ids:
        ids = await _insert_segments(session, change)
    await delete_extents(session, [(row.log_id, row.end_offset) for row in removed])
    await _write_rows(session, INSERT_EXTENTS, _extent_rows(added, removed, ids, current))
    grown = dict.fromkeys(sorted(swapped), 0)
    for extent in added:
        grown[extent.log_id] += extent.size_bytes
    for row in removed:
        grown[row.log_id] -= row.size_bytes
    await _write_rows(
        session, CHANGE_LOGS, [(log, size, change.clean_offsets.get(log, 0)) for log, size in grown.items()]
    )


async def _insert_segments(session: Session, change: Swap) -> list[int]:
    """Ids of the segments, in the swap's order. Raises SwapRefused."""
    rows: list[tuple[Value, ...]] = [(s.key, s.size_bytes, s.level, s.created_ms) for s in change.segments]
    inserted: list[Row] = await session.all(INSERT_SEGMENTS, rows)
    ids = {row[0]: row[1] for row in inserted}
    taken = [segment.key for segment in change.segments if segment.key not in ids]
    if taken:
        # The insert has waited for somebody who took the key since it was looked up.
        raise _refused(taken)
    return [ids[segment.key] for segment in change.segments]


def _extent_rows(
    added: Sequence[NewExtent], removed: Sequence[IndexRow], ids: Sequence[int], current: dict[Place, _Extent]
) -> list[tuple[Value, ...]]:
    """The rows to insert. Each takes over the prefix maximum of the removed extent in which it ends.

    Its own timestamp can't be above that, and is that extent's own where its batches have none.
    """
    places = sorted((row.log_id, row.end_offset) for row in removed)
    rows: list[tuple[Value, ...]] = []
    for extent in sorted(added, key=lambda extent: (extent.log_id, extent.end_offset)):
        ends_in = current[places[bisect_left(places, (extent.log_id, extent.end_offset))]]
        has_time = extent.max_timestamp_ms != NO_TIMESTAMP
        timestamp_ms = extent.max_timestamp_ms if has_time else ends_in.max_timestamp_ms
        rows.append(
            (
                extent.log_id,
                extent.end_offset,
                extent.base_offset,
                ids[extent.segment],
                extent.position,
                extent.size_bytes,
                min(timestamp_ms, ends_in.prefix_max_timestamp_ms),
                ends_in.prefix_max_timestamp_ms,
            )
        )
    return rows


def _refused(keys: Iterable[str]) -> SwapRefused:
    return SwapRefused(f"the keys of these segments are taken: {', '.join(keys)}")


async def _write_rows(session: Session, statement: Statement, rows: Sequence[tuple[Value, ...]]) -> None:
    async for chunk in chunks(rows):
        await session.execute_rows(statement, chunk)


async def chunks(rows: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """The rows, so many at a time; the event loop gets its turn before each."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        await asyncio.sleep(0)
        yield rows[start : start + ROWS_PER_STATEMENT]

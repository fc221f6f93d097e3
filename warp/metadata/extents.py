"""Reading the index: which byte ranges hold a log's offsets, what its ends are, where a time begins.

Every read costs as much as its answer: extents are walked one by one until the bytes asked for are reached, and a time
is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

from warp.ids import LogId
from warp.metadata.model import Extent, ExtentQuery, LogRead, LogState
from warp.metadata.session import Database, Row, Session, load_statements

_SQL = load_statements("extents")
LOG_STATES = _SQL["log_states"]
READ_EXTENTS = _SQL["read_extents"]
FIRST_OFFSET_REACHING_TIME = _SQL["first_offset_reaching_time"]
EXTENTS_REACHING_TIME = _SQL["extents_reaching_time"]
LARGEST_TIMESTAMPS = _SQL["largest_timestamps"]
EXTENT_OF_LARGEST_TIMESTAMP = _SQL["extent_of_largest_timestamp"]

EXTENTS_PER_QUERY_MAX = 1000
"""Where a read of one log stops although its bytes are not reached; the caller reads on from there."""


async def read_extents(database: Database, queries: Sequence[ExtentQuery]) -> list[LogRead]:
    """Answer the queries from one snapshot, in their order.

    An offset outside [log start, next offset) gets the log's state and no extents. At least one extent, then as many as
    it takes to reach `bytes_max`, but not more than `extents_max` and EXTENTS_PER_QUERY_MAX.
    """
    async with database.snapshot() as session:
        states = await log_states(session, [query.log_id for query in queries])
        wanted = [
            (
                number,
                query.log_id,
                query.offset,
                query.bytes_max,
                min(query.extents_max, EXTENTS_PER_QUERY_MAX),
            )
            for number, query in enumerate(queries)
            if (state := states.get(query.log_id)) and state.start_offset <= query.offset < state.next_offset
        ]
        found: list[list[Extent]] = [[] for _ in queries]
        if wanted:
            for number, *fields in await session.all(READ_EXTENTS, wanted):
                found[number].append(extent_from_row(fields))
    return [LogRead(states.get(query.log_id), extents) for query, extents in zip(queries, found, strict=True)]


async def log_states(session: Session, log_ids: Sequence[LogId]) -> dict[LogId, LogState]:
    """The ends of the logs that exist."""
    if not log_ids:
        return {}
    rows = await session.all(LOG_STATES, [(log_id,) for log_id in dict.fromkeys(log_ids)])
    return {row[0]: LogState(*row) for row in rows}


async def extents_for_time(
    database: Database, log_id: LogId, timestamp_ms: int, extents_max: int, from_offset: int
) -> list[Extent]:
    """The first extents that end after an offset, in their order, that can hold a record of that time or later.

    None when the log is gone.
    """
    async with database.snapshot() as session:
        first = await session.one(FIRST_OFFSET_REACHING_TIME, log_id, timestamp_ms)
        if first is None:
            return []
        after = max(first[0], from_offset)
        rows = await session.all(EXTENTS_REACHING_TIME, log_id, after, timestamp_ms, extents_max)
        return [extent_from_row(row) for row in rows]


async def extent_of_max_timestamp(database: Database, log_id: LogId) -> Extent | None:
    """The first of the extents that hold the log's largest timestamp; None when the log is empty or gone."""
    async with database.snapshot() as session:
        largest = await session.one(LARGEST_TIMESTAMPS, log_id)
        if largest is None or largest[0] is None:
            return None
        log_max_ms, start_offset = largest
        first = await session.one(FIRST_OFFSET_REACHING_TIME, log_id, log_max_ms)
        assert first is not None, "the log was there a statement ago, in the same snapshot"
        row = await session.one(EXTENTS_REACHING_TIME, log_id, first[0], log_max_ms, 1)
        if row is None:
            # The extent that held it is gone: nothing but the whole index knows the largest of the rest.
            row = await session.one(EXTENT_OF_LARGEST_TIMESTAMP, log_id, start_offset)
        return None if row is None else extent_from_row(row)


def extent_from_row(row: Row) -> Extent:
    """An extent from the columns that all statements on extents select, in their order."""
    log_id, base_offset, end_offset, key, position, size_bytes, max_timestamp_ms, level, payload = row
    return Extent(
        log_id,
        base_offset,
        end_offset,
        key or "",
        position,
        size_bytes,
        max_timestamp_ms,
        level or 0,
        payload,
    )

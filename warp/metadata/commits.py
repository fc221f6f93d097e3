"""The commit transaction: gives the batches of sealed segments their offsets, all at once and once only.

A handful of set-based statements whatever the number of partitions, in five round trips where the database is far.
The order matters. Logs are locked first, by log id: that waits for all other commits into one of them, an attempt under
the same keys among them, and what the decision depends on is read after it. Then come the segments' keys; segments
whose keys are there already are answered as they were.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, LogId, ProducerId
from warp.metadata.commit import (
    Decision,
    ExtentRow,
    GapMemory,
    LogRow,
    ProducerKey,
    ProducerRow,
    decide,
    pack_outcomes,
    unpack_outcomes,
)
from warp.metadata.extents import extent_from_row
from warp.metadata.model import (
    BatchEntry,
    BatchOutcome,
    CommitRefused,
    CommitResult,
    Extent,
    LogState,
    SegmentCommit,
)
from warp.metadata.session import Call, Database, Rows, Session, load_statements

_SQL = load_statements("commits")
LOCK_LOGS = _SQL["lock_logs"]
INSERT_SEGMENTS = _SQL["insert_segments"]
KNOWN_SEGMENTS = _SQL["known_segments"]
READ_PRODUCERS = _SQL["read_producers"]
READ_OPEN_OFFSETS = _SQL["read_open_offsets"]
UPDATE_LOGS = _SQL["update_logs"]
INSERT_EXTENTS = _SQL["insert_extents"]
UPSERT_PRODUCERS = _SQL["upsert_producers"]
STORE_OUTCOMES = _SQL["store_outcomes"]
EXTENTS_OF_SEGMENTS = _SQL["extents_of_segments"]
CLAIM_KEY = _SQL["claim_key"]

_REFUSED = CommitRefused(
    ErrorCode.KAFKA_STORAGE_ERROR, "the segment's key was claimed as an orphan before its commit came"
)


class _Known(NamedTuple):
    """A segment whose key was there already. No outcome: the key was claimed as dead."""

    segment_id: int
    outcome: bytes | None


async def commit(
    database: Database, segments: Sequence[SegmentCommit], gaps: GapMemory, now_s: float, now_ms: int
) -> CommitResult:
    """Commit segments in their order. `now_s` is monotonic, for gaps; `now_ms` wall time, for missing timestamps.

    Raises MetadataUnavailable when nothing was changed, OutcomeUnknown when that is not certain: then the same segments
    can be committed again, under the same keys.
    """
    if len({segment.key for segment in segments}) != len(segments):
        raise ValueError("a segment is twice in one commit")
    async with database.transaction() as session:
        logs = await _lock_logs(session, segments)
        ids, producers = await _insert_segments(session, segments)
        known = await _known_segments(session, [s.key for s in segments if s.key not in ids])
        fresh = [segment for segment in segments if segment.key in ids]
        decision = decide(
            [segment.batches for segment in fresh],
            logs,
            producers,
            lambda gap: gaps.has_lasted(gap, now_s),
            now_ms,
        )
        open_offsets = await _write(
            session, decision, [ids[segment.key] for segment in fresh], list(logs), now_ms
        )
        return CommitResult(
            outcomes=_outcomes(segments, decision, known, logs),
            extents=[
                *await _known_extents(session, known, logs),
                *(_extent(row, fresh[row.segment].key) for row in decision.extents),
            ],
            logs=_log_states(logs.values(), open_offsets),
            refused={
                place: _REFUSED
                for place, segment in enumerate(segments)
                if segment.key in known and known[segment.key].outcome is None
            },
        )


async def claim_key(session: Session, key: str, size_bytes: int, now_ms: int) -> bool:
    """Insert an unknown object's key as a dead segment, so that no commit can take it. False: the key is known."""
    return await session.execute(CLAIM_KEY, key, size_bytes, now_ms) == 1


async def _lock_logs(session: Session, segments: Sequence[SegmentCommit]) -> dict[LogId, LogRow]:
    log_ids = sorted({batch.log_id for segment in segments for batch in segment.batches})
    rows = await session.all(LOCK_LOGS, [(log_id,) for log_id in log_ids])
    return {row[0]: LogRow(*row) for row in rows}


async def _insert_segments(
    session: Session, segments: Sequence[SegmentCommit]
) -> tuple[dict[str, int], dict[ProducerKey, ProducerRow]]:
    """Ids of the segments whose keys are new, and the states of all producers."""
    calls = [Call(INSERT_SEGMENTS, ([(s.key, s.size_bytes, s.created_ms) for s in segments],))]
    keys = _producer_keys(segments)
    if keys:
        calls.append(Call(READ_PRODUCERS, (keys,)))
    inserted, *found = await session.together(calls)
    producers = {
        ProducerKey(LogId(log_id), ProducerId(producer_id)): ProducerRow(epoch, batches)
        for rows in found
        for log_id, producer_id, epoch, batches, _open_offset in rows
    }
    return {row[0]: row[1] for row in inserted}, producers


async def _known_segments(session: Session, keys: Sequence[str]) -> dict[str, _Known]:
    if not keys:
        return {}
    rows = await session.all(KNOWN_SEGMENTS, [(key,) for key in keys])
    return {key: _Known(segment_id, outcome) for key, segment_id, outcome in rows}


def _producer_keys(segments: Sequence[SegmentCommit]) -> list[tuple[LogId, ProducerId]]:
    return sorted(
        {
            (batch.log_id, batch.producer_id)
            for segment in segments
            for batch in segment.batches
            if batch.producer_id != NO_PRODUCER_ID
        }
    )


async def _write(
    session: Session, decision: Decision, segment_ids: Sequence[int], log_ids: Sequence[LogId], now_ms: int
) -> dict[LogId, int]:
    """Write what was decided; the first offset of an open transaction in each of the logs that has one."""
    writes = [
        Call(statement, (rows,))
        for statement, rows in (
            (UPDATE_LOGS, _log_rows(decision)),
            (STORE_OUTCOMES, _outcome_rows(decision, segment_ids)),
            (INSERT_EXTENTS, _extent_rows(decision, segment_ids)),
            (UPSERT_PRODUCERS, _producer_rows(decision, now_ms)),
        )
        if rows
    ]
    read = Call(READ_OPEN_OFFSETS, ([(log_id,) for log_id in log_ids],))
    *_, found = await session.together((*writes, read))
    return {row[0]: row[1] for row in found}


def _log_rows(decision: Decision) -> Rows:
    logs = sorted(decision.logs.values(), key=lambda log: log.log_id)
    return [(log.log_id, log.next_offset, log.size_bytes, log.max_timestamp_ms) for log in logs]


def _outcome_rows(decision: Decision, segment_ids: Sequence[int]) -> Rows:
    return [
        (segment_id, pack_outcomes(outcomes))
        for segment_id, outcomes in zip(segment_ids, decision.outcomes, strict=True)
    ]


def _extent_rows(decision: Decision, segment_ids: Sequence[int]) -> Rows:
    return [
        (
            row.log_id,
            row.end_offset,
            row.base_offset,
            segment_ids[row.segment],
            row.position,
            row.size_bytes,
            row.max_timestamp_ms,
            row.prefix_max_timestamp_ms,
        )
        for row in decision.extents
    ]


def _producer_rows(decision: Decision, now_ms: int) -> Rows:
    return [
        (key.log_id, key.producer_id, state.epoch, state.packed_batches, now_ms)
        for key, state in sorted(decision.producers.items())
    ]


def _outcomes(
    segments: Sequence[SegmentCommit],
    decision: Decision,
    known: dict[str, _Known],
    logs: dict[LogId, LogRow],
) -> list[Sequence[BatchOutcome]]:
    decided = iter(decision.outcomes)
    return [
        _stored_outcomes(segment.batches, known[segment.key], logs) if segment.key in known else next(decided)
        for segment in segments
    ]


def _stored_outcomes(
    batches: Sequence[BatchEntry], known: _Known, logs: dict[LogId, LogRow]
) -> list[BatchOutcome]:
    if known.outcome is None:
        return [BatchOutcome(_REFUSED.error, -1) for _ in batches]
    outcomes = []
    for batch, stored in zip(batches, unpack_outcomes(known.outcome), strict=True):
        error, base_offset, is_duplicate, max_timestamp_ms = stored
        log = logs.get(batch.log_id)
        start_offset = log.start_offset if log is not None and error == ErrorCode.NONE else -1
        outcomes.append(BatchOutcome(error, base_offset, is_duplicate, start_offset, max_timestamp_ms))
    return outcomes


async def _known_extents(session: Session, known: dict[str, _Known], logs: Container[LogId]) -> list[Extent]:
    """What is left in the index of segments that were committed before, in logs that have not been deleted since."""
    if not known:
        return []
    rows = await session.all(EXTENTS_OF_SEGMENTS, [(entry.segment_id,) for entry in known.values()])
    return [extent for extent in map(extent_from_row, rows) if extent.log_id in logs]


def _log_states(logs: Iterable[LogRow], open_offsets: dict[LogId, int]) -> list[LogState]:
    states = []
    for log in sorted(logs, key=lambda log: log.log_id):
        stable = open_offsets.get(log.log_id, log.next_offset)
        states.append(LogState(log.log_id, log.start_offset, log.next_offset, stable, log.size_bytes))
    return states


def _extent(row: ExtentRow, key: str) -> Extent:
    return Extent(
        row.log_id, row.base_offset, row.end_offset, key, row.position, row.size_bytes, row.max_timestamp_ms
    )

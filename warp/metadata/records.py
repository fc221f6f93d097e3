"""DeleteRecords: moves the start of logs. The data goes later, by a job."""

from __future__ import annotations

from collections.abc import Mapping

from warp.errors import ErrorCode
from warp.ids import LogId
from warp.metadata.commits import LOCK_LOGS
from warp.metadata.session import Database, load_statements

MOVE_LOG_STARTS = load_statements("commits")["move_log_starts"]

TO_HIGH_WATERMARK = -1
"""As an offset: delete all that is there."""


async def delete_records(
    database: Database, before_offsets: Mapping[LogId, int]
) -> dict[LogId, int | ErrorCode]:
    """Delete what lies before an offset, per log.

    Answers the new log start, UNKNOWN_TOPIC_OR_PARTITION or OFFSET_OUT_OF_RANGE. An offset below the
    start changes nothing and is no error, as in Kafka.
    """
    async with database.transaction() as session:
        rows = await session.all(LOCK_LOGS, [(log_id,) for log_id in sorted(before_offsets)])
        ends = {row[0]: (row[1], row[2]) for row in rows}
        answers: dict[LogId, int | ErrorCode] = {}
        moved: list[tuple[LogId, int]] = []
        for log_id, before_offset in before_offsets.items():
            if log_id not in ends:
                answers[log_id] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                continue
            start_offset, next_offset = ends[log_id]
            wanted = next_offset if before_offset == TO_HIGH_WATERMARK else before_offset
            if wanted < 0 or wanted > next_offset:
                answers[log_id] = ErrorCode.OFFSET_OUT_OF_RANGE
                continue
            answers[log_id] = max(start_offset, wanted)
            if wanted > start_offset:
                moved.append((log_id, wanted))
        await session.execute_rows(MOVE_LOG_STARTS, moved)
    return answers

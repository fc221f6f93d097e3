"""The few things that fsck puts right: what can be worked out anew from rows that stand, under the log's lock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from warp.ids import LogId, ProducerId
from warp.metadata.commits import LOCK_LOGS
from warp.metadata.contention import retried
from warp.metadata.fsck_store import SQL
from warp.metadata.session import Database, Session

EXTENTS_PER_STEP = 1000

_BEFORE_ALL = -(2**63)


class FsckRepairs:
    """Each is one transaction, or a few, and does nothing where nothing is wrong any more. All raise MetadataError.

    True says that something was changed.
    """

    def __init__(self, database: Database, *, extents_per_step: int = EXTENTS_PER_STEP) -> None:
        self._database = database
        self._extents_per_step = extents_per_step

    @retried
    async def log_size(self, log_id: LogId) -> bool:
        """Add up the sizes of a log's extents anew."""
        async with self._database.transaction() as session:
            await _lock(session, log_id)
            row = await session.one(SQL["size_of_extents"], log_id)
            assert row is not None, "a sum has one row"
            return await session.execute(SQL["repair_log_size"], log_id, row[0]) > 0

    async def prefix(self, log_id: LogId) -> bool:
        """Work out the largest timestamps up to each extent anew; also that of the log, which bounds them.

        Step by step from the start, so that what lies before is right at any time.
        """
        changed = False
        after: int | None = _BEFORE_ALL
        largest_ms = -1
        while after is not None:
            after, largest_ms, step_changed = await self._prefix_step(log_id, after, largest_ms)
            changed |= step_changed
        return await self.log_maximum(log_id) or changed

    @retried
    async def log_maximum(self, log_id: LogId) -> bool:
        """Raise a log's largest timestamp to that of its extents."""
        async with self._database.transaction() as session:
            await _lock(session, log_id)
            row = await session.one(SQL["largest_of_extents"], log_id)
            assert row is not None, "a maximum has one row"
            return await session.execute(SQL["repair_log_maximum"], log_id, row[0]) > 0

    async def clean_offset(self, log_id: LogId) -> bool:
        """Let a log be compacted from its start, where it counts as compacted past its end."""
        return await self._changes(lambda session: session.execute(SQL["repair_clean_offset"], log_id))

    async def release(self, log_id: LogId, end_offset: int, segment_id: int) -> bool:
        """Take an extent out of quarantine."""
        return await self._changes(
            lambda session: session.execute(SQL["release_quarantined"], log_id, end_offset, segment_id)
        )

    async def producer(self, log_id: LogId, producer_id: ProducerId) -> bool:
        """Remove a producer's state in a log that is nowhere."""
        return await self._changes(
            lambda session: session.execute(SQL["remove_producer"], log_id, producer_id)
        )

    @retried
    async def _changes(self, change: Callable[[Session], Awaitable[int]]) -> bool:
        async with self._database.transaction() as session:
            return await change(session) > 0

    @retried
    async def _prefix_step(self, log_id: LogId, after: int, largest_ms: int) -> tuple[int | None, int, bool]:
        """Put some extents right: where to go on, the largest timestamp so far, whether any was wrong."""
        async with self._database.transaction() as session:
            await _lock(session, log_id)
            rows = await session.all(SQL["extents_for_prefix"], log_id, after, self._extents_per_step)
            wrong: list[tuple[int, int, int]] = []
            for end_offset, max_timestamp_ms, prefix_max_timestamp_ms in rows:
                largest_ms = max(largest_ms, max_timestamp_ms)
                if prefix_max_timestamp_ms != largest_ms:
                    wrong.append((log_id, end_offset, largest_ms))
            await session.execute_rows(SQL["repair_prefix"], wrong)
        is_last = len(rows) < self._extents_per_step
        return None if is_last else rows[-1][0], largest_ms, bool(wrong)


async def _lock(session: Session, log_id: LogId) -> None:
    """Nobody commits into, swaps or trims the log before the transaction ends."""
    await session.all(LOCK_LOGS, [(log_id,)])

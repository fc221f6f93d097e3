"""The operations of the metadata store on behalf of the jobs that merge, compact and delete, and of those who check.

Each does a bounded piece of work, so that SQLite holds the event loop for milliseconds. Those that write under a lease
raise LeaseLost, having changed nothing, once it is another's. None of them is right only because of the lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warp.clock import Clock
from warp.ids import LogId, ProducerId
from warp.metadata import life_logs, life_segments, quarantine, swaps
from warp.metadata.contention import retried
from warp.metadata.group_model import Lease
from warp.metadata.life_model import (
    DeadSegment,
    IndexRow,
    LogDirt,
    LogHead,
    Quarantined,
    SegmentRow,
    SegmentTotals,
    Swap,
    SwapResult,
)
from warp.metadata.session import Database


class LifecycleStore:
    """The part of MetadataStore that jobs use."""

    _database: Database
    _clock: Clock

    # Segments

    async def segment_totals(self) -> list[SegmentTotals]:
        """Number and bytes of live segments, by level."""
        return await life_segments.segment_totals(self._database)

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]:
        """Live segments of a level by id, without those that are empty or hold a quarantined extent."""
        return await life_segments.oldest_segments(self._database, level, limit, after_id)

    @retried
    async def mark_dead(self, lease: Lease, after_id: int, limit: int) -> tuple[int, int | None]:
        """Mark those of the next `limit` live segments by id dead that have no extents.

        How many died, and the id to go on after; None at the end.
        """
        return await life_segments.mark_dead(self._database, lease, after_id, limit, self._clock.time_ms())

    @retried
    async def mark_dead_among(self, lease: Lease | None, segment_ids: Sequence[int]) -> int:
        """Mark those of the live segments dead that have no extents; how many."""
        return await life_segments.mark_dead_among(self._database, lease, segment_ids, self._clock.time_ms())

    async def dead_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]:
        """Segments whose objects are to be deleted, oldest death first; those that come after `after`."""
        return await life_segments.dead_segments(self._database, limit, after)

    @retried
    async def mark_gone(self, lease: Lease, segment_ids: Sequence[int]) -> None:
        """Note that the objects of dead segments are deleted. Segments in another state are left alone."""
        await life_segments.mark_gone(self._database, lease, segment_ids)

    async def gone_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]:
        """Segments whose objects are deleted, oldest death first; those that come after `after`."""
        return await life_segments.gone_segments(self._database, limit, after)

    @retried
    async def forget_segments(self, lease: Lease, segment_ids: Sequence[int]) -> int:
        """Delete the rows of segments whose objects are deleted; how many of these there were."""
        return await life_segments.forget_segments(self._database, lease, segment_ids)

    async def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that segments have, in whatever state."""
        return await life_segments.known_keys(self._database, keys)

    @retried
    async def claim_keys(self, lease: Lease, unknown: Sequence[tuple[str, int]]) -> list[str]:
        """Make the keys of unknown objects (with sizes in bytes) unusable for commits and swaps: they count as dead.

        The keys that were claimed; the others are known.
        """
        return await life_segments.claim_keys(self._database, lease, unknown, self._clock.time_ms())

    # Extents

    async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]:
        """All extents in some segments, by log and offset, without the quarantined ones."""
        return await life_logs.extents_in_segments(self._database, segment_ids)

    async def extents_of_log(self, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]:
        """The first extents of a log that end after an offset, by offset, quarantined ones too."""
        return await life_logs.extents_of_log(self._database, log_id, from_offset, limit)

    @retried
    async def swap(self, lease: Lease | None, change: Swap) -> SwapResult:
        """Put new segments in the place of extents: of each log all or, where any of its extents has changed, none.

        After OutcomeUnknown ask again, under the same keys: it is answered by what has come of the first time. Raises
        SwapRefused when a key was claimed, and ValueError when what is added does not tile what is removed.
        """
        return await swaps.swap(self._database, lease, change)

    @retried
    async def quarantine(self, lease: Lease | None, found: Sequence[IndexRow], reason: str) -> None:
        """Keep all jobs away from extents that can't be read; from those of them that are still as they were found."""
        await quarantine.quarantine(self._database, lease, found, reason, self._clock.time_ms())

    async def quarantined_of_log(self, log_id: LogId) -> list[Quarantined]:
        """What is quarantined of a log, by offset."""
        return await quarantine.quarantined_of_log(self._database, log_id)

    async def quarantined(self, limit: int) -> list[Quarantined]:
        """The first so many of all quarantined extents, by log and offset."""
        return await quarantine.quarantined(self._database, limit)

    @retried
    async def release_quarantined(self, rows: Sequence[Quarantined]) -> int:
        """Let jobs have extents again, once their bytes can be read; how many were still quarantined as given."""
        return await quarantine.release_quarantined(self._database, rows)

    # Logs

    async def log_heads(self, log_ids: Sequence[LogId]) -> list[LogHead]:
        """How those of the logs begin that exist, by id.

        `size_bytes` counts extents that end before the start too, as long as they are not trimmed.
        """
        return await life_logs.log_heads(self._database, log_ids)

    async def log_dirt(self, log_ids: Sequence[LogId]) -> list[LogDirt]:
        """How much of those of the logs that exist is compacted, by id."""
        return await life_logs.log_dirt(self._database, log_ids)

    async def offset_reaching_time(self, log_id: LogId, timestamp_ms: int) -> int | None:
        """The first offset up to which a log can hold a record of that time or later; where there is none the next
        offset. None when the log is gone."""
        return await life_logs.offset_reaching_time(self._database, log_id, timestamp_ms)

    @retried
    async def advance_log_starts(self, lease: Lease, starts: Mapping[LogId, int]) -> dict[LogId, int]:
        """Move log starts on: never back, never past the end. Where they are then, of the logs that exist."""
        return await life_logs.advance_log_starts(self._database, lease, starts)

    async def logs_to_trim(self, after_log: LogId, limit: int) -> tuple[list[LogId], LogId | None]:
        """Of the next `limit` logs by id, those that have extents which end at or below their start.

        And the log to go on after; None at the end.
        """
        return await life_logs.logs_to_trim(self._database, after_log, limit)

    @retried
    async def trim_logs(self, lease: Lease, log_ids: Sequence[LogId], extents_max: int) -> int:
        """Delete extents that end at or below the starts of their logs; how many. Fewer than asked: none are left."""
        return await life_logs.trim_logs(self._database, lease, log_ids, extents_max)

    @retried
    async def clear_deleted_logs(self, lease: Lease, rows_max: int) -> int:
        """Delete rows of deleted logs, extents first: how many. 0: nothing is left of any."""
        return await life_logs.clear_deleted_logs(self._database, lease, rows_max)

    @retried
    async def expire_producers(
        self, lease: Lease, after: tuple[LogId, ProducerId], limit: int, written_before_ms: int
    ) -> tuple[int, tuple[LogId, ProducerId] | None]:
        """Of the next `limit` producers' states delete those that were last written before a time and have no open
        transaction. How many, and the one to go on after; None at the end. Begin with (0, -1)."""
        return await life_logs.expire_producers(self._database, lease, after, limit, written_before_ms)

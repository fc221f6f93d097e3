"""ListOffsets, DeleteRecords and OffsetForLeaderEpoch: where a log begins and ends, and where a time falls in it.

All of it is asked of the metadata store, so it includes everything that was acknowledged before. A time is looked up in
two steps: the index names the extents that can hold it, then the one batch that does is opened, because the answer is
exact to the record.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from warp._records import (
    BatchSpan,
    InvalidBatch,
    find_offset_by_timestamp,
    iterate_records,
    needs_thread,
    scan_batches,
)
from warp.errors import ErrorCode, MetadataError, ObjectNotFound, ObjectStoreError, ShortObject
from warp.ids import LEADER_EPOCH, LogId
from warp.log.cache import ChunkCache
from warp.log.hints import LogHint
from warp.log.memory import MemoryBudget
from warp.log.reader import CorruptExtent, ExtentReader, Place
from warp.metadata.model import NO_TIMESTAMP, Extent, LogState

logger = logging.getLogger(__name__)

_CANDIDATES_MAX = 100
"""Extents named per question about a time; more than two are needed only if many hold no timestamps."""


class SpecialTimestamp(enum.IntEnum):
    """Timestamps in ListOffsets that mean something else (KIP-734, KIP-405, KIP-1005, KIP-1023)."""

    LATEST = -1
    EARLIEST = -2
    MAX_TIMESTAMP = -3
    EARLIEST_LOCAL = -4
    LATEST_TIERED = -5
    EARLIEST_PENDING_UPLOAD = -6


class OffsetQuery(NamedTuple):
    """One partition of a ListOffsets request: a time in milliseconds, or a SpecialTimestamp."""

    log_id: LogId
    timestamp_ms: int
    read_committed: bool = False


class OffsetAnswer(NamedTuple):
    """Offset and timestamp; both -1 when nothing was found, and with an error."""

    error: ErrorCode = ErrorCode.NONE
    offset: int = -1
    timestamp_ms: int = NO_TIMESTAMP


class EpochAnswer(NamedTuple):
    """The largest epoch up to the one asked for, and where it ends; both -1 when there is none."""

    error: ErrorCode = ErrorCode.NONE
    leader_epoch: int = -1
    end_offset: int = -1


class DeletedRecords(NamedTuple):
    """The first offset that is left; -1 with an error."""

    error: ErrorCode = ErrorCode.NONE
    low_watermark: int = -1


class OffsetIndex(Protocol):
    """What these services ask of the metadata store. All of it raises MetadataError."""

    async def log_states(self, log_ids: Sequence[LogId]) -> Mapping[LogId, LogState]:
        """The ends of those of the logs that exist."""

    async def extents_for_time(
        self, log_id: LogId, timestamp_ms: int, limit: int, from_offset: int = 0
    ) -> Sequence[Extent]:
        """The first extents from an offset on, in their order, that can hold a record of that time or later."""

    async def extent_of_max_timestamp(self, log_id: LogId) -> Extent | None:
        """The first extent that holds the log's largest timestamp; None when the log is empty or gone."""

    async def delete_records(self, before_offsets: Mapping[LogId, int]) -> Mapping[LogId, int | ErrorCode]:
        """Move log starts up to an offset (-1: the end): the new starts."""


class OffsetService:
    """Answers about offsets of logs.

    `log_starts_at(log_id, offset)` is told when records were deleted, `ends_told` what the store has said of ends of
    logs: what this agent has told once no later answer may take back. `decompressed_bytes_max` bounds one batch.
    """

    def __init__(
        self,
        index: OffsetIndex,
        cache: ChunkCache,
        memory: MemoryBudget,
        log_starts_at: Callable[[LogId, int], None],
        *,
        decompressed_bytes_max: int,
        ends_told: Callable[[Sequence[LogHint]], None] | None = None,
    ) -> None:
        self.storage_failures = 0
        self._ends_told = ends_told
        self._index = index
        self._reader = ExtentReader(cache)
        self._memory = memory
        self._log_starts_at = log_starts_at
        self._decompressed_bytes_max = decompressed_bytes_max

    async def list_offsets(self, queries: Sequence[OffsetQuery]) -> list[OffsetAnswer]:
        """Answer in the order of the queries.

        Errors per partition: UNKNOWN_TOPIC_OR_PARTITION (the log is gone), UNSUPPORTED_VERSION (no such special
        timestamp), KAFKA_STORAGE_ERROR.
        """
        try:
            states = await self._ask([query.log_id for query in queries])
        except MetadataError as error:
            return [self._failed(query, error) for query in queries]
        answers = []
        for query in queries:
            answers.append(await self._list_offset(query, states.get(query.log_id)))
            if query.timestamp_ms >= 0 or query.timestamp_ms == SpecialTimestamp.MAX_TIMESTAMP:
                # Perhaps nothing had to be waited for, and there are thousands of them.
                await asyncio.sleep(0)
        return answers

    async def end_of_epochs(self, queries: Sequence[tuple[LogId, int]]) -> list[EpochAnswer]:
        """Where leader epochs end, for pairs of log and epoch. There is one epoch, so it ends at the log's end."""
        try:
            states = await self._ask([log_id for log_id, _ in queries])
        except MetadataError as error:
            logger.warning("the metadata store can't answer where epochs end: %s", error)
            return [EpochAnswer(ErrorCode.KAFKA_STORAGE_ERROR) for _ in queries]
        answers = []
        for log_id, epoch in queries:
            state = states.get(log_id)
            if state is None:
                answers.append(EpochAnswer(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            elif epoch == LEADER_EPOCH:
                answers.append(EpochAnswer(ErrorCode.NONE, LEADER_EPOCH, state.next_offset))
            else:
                answers.append(EpochAnswer())
        return answers

    async def _ask(self, log_ids: Sequence[LogId]) -> Mapping[LogId, LogState]:
        """The ends of logs, as the store has them. Raises MetadataError."""
        states = await self._index.log_states(log_ids)
        if self._ends_told is not None:
            self._ends_told(
                [LogHint(state.log_id, state.next_offset, state.start_offset) for state in states.values()]
            )
        return states

    async def delete_records(self, before_offsets: Mapping[LogId, int]) -> dict[LogId, DeletedRecords]:
        """Let logs start at these offsets; -1 means the high watermark. A log never starts earlier than before.

        Errors per log: OFFSET_OUT_OF_RANGE (above the high watermark, or below -1), UNKNOWN_TOPIC_OR_PARTITION,
        KAFKA_STORAGE_ERROR (it may have happened).
        """
        try:
            starts = await self._index.delete_records(before_offsets)
        except MetadataError as error:
            logger.warning("records can't be deleted: %s", error)
            return dict.fromkeys(before_offsets, DeletedRecords(ErrorCode.KAFKA_STORAGE_ERROR))
        answers = {}
        for log_id in before_offsets:
            start = starts[log_id]
            if isinstance(start, ErrorCode):
                answers[log_id] = DeletedRecords(start)
            else:
                self._log_starts_at(log_id, start)
                answers[log_id] = DeletedRecords(ErrorCode.NONE, start)
        return answers

    async def _list_offset(self, query: OffsetQuery, state: LogState | None) -> OffsetAnswer:
        if state is None:
            return OffsetAnswer(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        end_offset = state.last_stable_offset if query.read_committed else state.next_offset
        match query.timestamp_ms:
            case SpecialTimestamp.LATEST:
                return OffsetAnswer(offset=end_offset)
            case SpecialTimestamp.EARLIEST | SpecialTimestamp.EARLIEST_LOCAL:
                return OffsetAnswer(offset=state.start_offset)
            case SpecialTimestamp.LATEST_TIERED | SpecialTimestamp.EARLIEST_PENDING_UPLOAD:
                # There is one tier, so nothing is in another or on the way to it.
                return OffsetAnswer()
            case SpecialTimestamp.MAX_TIMESTAMP:
                look_up = partial(self._of_max_timestamp, state)
            case timestamp_ms if timestamp_ms >= 0:
                look_up = partial(self._of_timestamp, state, timestamp_ms)
            case _:
                return OffsetAnswer(ErrorCode.UNSUPPORTED_VERSION)
        try:
            try:
                found = await look_up()
            except (ObjectNotFound, ShortObject) as error:
                logger.info("log %d: %s; looking it up again", query.log_id, error)
                found = await look_up()
        except (MetadataError, ObjectStoreError) as error:
            return self._failed(query, error)
        return found if found.offset < end_offset else OffsetAnswer()

    async def _of_timestamp(self, state: LogState, timestamp_ms: int) -> OffsetAnswer:
        """The first record at or after the log's start that is as late as `timestamp_ms`."""
        from_offset = state.start_offset
        while True:
            candidates = await self._index.extents_for_time(
                state.log_id, timestamp_ms, _CANDIDATES_MAX, from_offset
            )
            for extent in candidates:
                found = await self._first_reaching(extent, timestamp_ms, state.start_offset)
                if found is not None:
                    return found
            if len(candidates) < _CANDIDATES_MAX:
                return OffsetAnswer()
            # The index gives extents without timestamps the time of their commit: none of these held what it promised.
            from_offset = candidates[-1].end_offset

    async def _of_max_timestamp(self, state: LogState) -> OffsetAnswer:
        """The first record, at or after the log's start, that has the largest timestamp."""
        extent = await self._index.extent_of_max_timestamp(state.log_id)
        if extent is None:
            return OffsetAnswer()
        found = await self._first_reaching(extent, extent.max_timestamp_ms, state.start_offset)
        if found is not None:
            return found
        # The extent has no timestamps, and stands in the index with the time of its commit; or the log begins inside
        # it, after the record in question. What the index says is no more than a bound.
        best = OffsetAnswer()
        from_offset = state.start_offset
        while True:
            extents = await self._index.extents_for_time(
                state.log_id, best.timestamp_ms + 1, _CANDIDATES_MAX, from_offset
            )
            for extent in sorted(extents, key=lambda each: -each.max_timestamp_ms):
                if extent.max_timestamp_ms <= best.timestamp_ms:
                    break
                best = await self._better(best, extent, state.start_offset)
            if len(extents) < _CANDIDATES_MAX:
                return best
            from_offset = extents[-1].end_offset

    async def _better(self, best: OffsetAnswer, extent: Extent, start_offset: int) -> OffsetAnswer:
        """The first record with the largest timestamp of an extent, if that is larger than that of `best`."""
        found = await self._first_reaching(extent, extent.max_timestamp_ms, start_offset)
        if found is None:
            found = await self._largest_after_start(extent, start_offset)
        return found if found.timestamp_ms > best.timestamp_ms else best

    async def _first_reaching(
        self, extent: Extent, timestamp_ms: int, start_offset: int
    ) -> OffsetAnswer | None:
        def look(data: memoryview) -> tuple[int, int] | None:
            limit = self._decompressed_bytes_max
            return find_offset_by_timestamp(data, timestamp_ms, limit, from_offset=start_offset)

        def is_candidate(span: BatchSpan) -> bool:
            return span.max_timestamp >= timestamp_ms and _end(span) > start_offset

        for found in await self._look_into(extent, is_candidate, look, first=True):
            return OffsetAnswer(ErrorCode.NONE, *found)
        return None

    async def _largest_after_start(self, extent: Extent, start_offset: int) -> OffsetAnswer:
        def look(data: memoryview) -> tuple[int, int] | None:
            records = iterate_records(data, self._decompressed_bytes_max)
            times = ((r.timestamp, -r.offset) for r in records if r.offset >= start_offset)
            timestamp_ms, negative_offset = max(times, default=(NO_TIMESTAMP, 1))
            return None if timestamp_ms == NO_TIMESTAMP else (-negative_offset, timestamp_ms)

        best = OffsetAnswer()
        for offset, timestamp_ms in await self._look_into(
            extent, lambda span: _end(span) > start_offset, look, first=False
        ):
            if timestamp_ms > best.timestamp_ms:
                best = OffsetAnswer(ErrorCode.NONE, offset, timestamp_ms)
        return best

    async def _look_into(
        self,
        extent: Extent,
        is_candidate: Callable[[BatchSpan], bool],
        look: Callable[[memoryview], tuple[int, int] | None],
        *,
        first: bool,
    ) -> list[tuple[int, int]]:
        """What `look` finds in the batches of an extent that are candidates: the first find, or all."""
        await self._memory.reserve(extent.size_bytes)
        found: list[tuple[int, int]] = []
        try:
            place = Place(extent.position, extent.base_offset, 0)
            records = await self._reader.read([extent], place, extent.size_bytes, extent.end_offset)
            view = memoryview(records.buffer)
            for span in scan_batches(view):
                if is_candidate(span):
                    hit = await _run(look, view[span.position : span.position + span.size_bytes])
                    if hit is not None:
                        found.append(hit)
                        if first:
                            break
        except InvalidBatch as error:
            raise CorruptExtent(f"{extent.key}: {error}") from error
        finally:
            self._memory.release(extent.size_bytes)
        return found

    def _failed(self, query: OffsetQuery, error: Exception) -> OffsetAnswer:
        self.storage_failures += 1
        logger.warning("log %d: offset at %d can't be found: %s", query.log_id, query.timestamp_ms, error)
        return OffsetAnswer(ErrorCode.KAFKA_STORAGE_ERROR)


def _end(span: BatchSpan) -> int:
    return span.base_offset + span.last_offset_delta + 1


async def _run(
    look: Callable[[memoryview], tuple[int, int] | None], batch: memoryview
) -> tuple[int, int] | None:
    """Open a batch here, or in a thread if it takes long to decompress."""
    if needs_thread(batch):
        return await asyncio.get_running_loop().run_in_executor(None, look, batch)
    return look(batch)

"""The filling of an answer to a fetch: whole batches in request order, within the limits and the memory set aside.

Kafka's rules (KIP-74): partitions are filled in the order of the request, each up to its own limit and what is left of
the whole answer's; the first batch of the first partition that has data goes out whatever its size.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.errors import ErrorCode, ObjectNotFound, ObjectStoreError, ShortObject
from warp.ids import LogId, ProducerId
from warp.log.cache import Hold
from warp.log.memory import MemoryBudget
from warp.log.reader import ExtentReader, Place, Views, holds_zstd
from warp.log.trace import FetchNote
from warp.metadata.model import Extent, LogState
from warp.objectstore.base import Buffer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds that the broker sets, whatever clients ask for."""

    bytes_max: int = 57_671_680
    """Kafka's `fetch.max.bytes`."""
    wait_ms_max: int = 3_600_000
    memory_wait_s_max: float = 10.0
    """How long a fetch with data waits for memory before it answers without."""
    prefetches_max: int = 16
    """Chunks that one fetch loads ahead of the partition that it fills."""
    look_interval_s: float = 0.5
    """How often a waiting fetch asks the store while hints of other agents don't arrive."""
    look_interval_hearing_s: float = 5.0
    """The same while they arrive."""


@dataclass(frozen=True, slots=True)
class FetchPartitionQuery:
    """One partition of a Fetch request; `bytes_max` is its own limit."""

    log_id: LogId
    offset: int
    bytes_max: int


class AbortedTransaction(NamedTuple):
    """An aborted transaction that overlaps an answer: from its first offset on, the producer's records don't count."""

    producer_id: ProducerId
    first_offset: int


@dataclass(slots=True)
class FetchPartitionResult:
    """One partition of a Fetch response.

    `records` are whole batches, stamped with their offsets, in pieces to be sent one after the other. With an error all
    offsets are -1 and there are no records. `aborted_transactions` is None unless isolation is read_committed.
    """

    error: ErrorCode = ErrorCode.NONE
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    records: list[Buffer] = field(default_factory=list)
    aborted_transactions: list[AbortedTransaction] | None = None

    def take_ends(self, other: FetchPartitionResult) -> None:
        """Become what `other` says, without any records."""
        self.error = other.error
        self.high_watermark = other.high_watermark
        self.last_stable_offset = other.last_stable_offset
        self.log_start_offset = other.log_start_offset
        self.records.clear()


class FetchAnswer:
    """The answer to one fetch, in the order of its queries, and the memory that its records take.

    Whoever gets it calls `release` once the response has been written, or has become pointless.
    """

    __slots__ = (
        "_holds",
        "_let_go",
        "_release",
        "allow_zstd",
        "bytes_left",
        "has_missed",
        "is_full",
        "note",
        "partitions",
        "read_committed",
        "records_bytes",
        "reserved_bytes",
    )

    def __init__(
        self,
        partitions: list[FetchPartitionResult],
        bytes_max: int,
        read_committed: bool,
        allow_zstd: bool,
        release: Callable[[int], None],
        let_go: Callable[[Hold], None],
        note: FetchNote,
    ) -> None:
        self.note = note
        """What it had to wait for."""
        self.partitions = partitions
        self.records_bytes = 0
        self.reserved_bytes = 0
        self.bytes_left = bytes_max
        self.read_committed = read_committed
        self.allow_zstd = allow_zstd
        self.is_full = False
        self.has_missed = False
        self._release = release
        self._let_go = let_go
        self._holds: list[Hold] = []

    def add(self, result: FetchPartitionResult, records: Buffer) -> None:
        """Put records into a partition of this answer."""
        result.records.append(records)
        self.records_bytes += len(records)
        self.bytes_left -= len(records)
        self.is_full = self.bytes_left <= 0

    def add_views(self, result: FetchPartitionResult, views: Views) -> None:
        """Put records that stay in the cache's memory into a partition of this answer."""
        result.records += views.parts
        self.records_bytes += views.size_bytes
        self.bytes_left -= views.size_bytes
        self.is_full = self.bytes_left <= 0
        self._holds += views.holds

    def release(self) -> None:
        """Give the memory back. Harmless when repeated."""
        holds, self._holds = self._holds, []
        for hold in holds:
            self._let_go(hold)
        if self.reserved_bytes:
            size_bytes, self.reserved_bytes = self.reserved_bytes, 0
            self._release(size_bytes)


@dataclass(slots=True)
class FetchCounters:
    """What happened so far, for metrics."""

    fetches: int = 0
    waits: int = 0
    looks: int = 0
    """Questions to the store by fetches that waited: after a hint, or because none had come for long."""
    missing_objects: int = 0
    """Partitions answered with KAFKA_STORAGE_ERROR because an object was gone, short or not what the index says."""
    store_failures: int = 0
    metadata_failures: int = 0
    answers_without_memory: int = 0
    records_bytes: int = 0


class View(NamedTuple):
    """What is known of one partition of a fetch: an error, or its ends and extents."""

    error: ErrorCode
    state: LogState | None = None
    extents: Sequence[Extent] = ()
    asked: bool = False
    """Whether the store said so after the fetch had begun."""

    def end_offset(self, read_committed: bool) -> int:
        """Up to where a reader of that isolation level may read."""
        if self.state is None:
            return -1
        return self.state.last_stable_offset if read_committed else self.state.next_offset


LookAgain = Callable[[FetchPartitionQuery, FetchNote], Awaitable[View]]
"""Asks the store, not the memory, about one partition, because an object was not as the index said."""


class Filling:
    """One pass over the partitions of a fetch that puts records into its answer."""

    def __init__(
        self,
        reader: ExtentReader,
        memory: MemoryBudget,
        limits: FetchLimits,
        counters: FetchCounters,
        look_again: LookAgain,
    ) -> None:
        self._reader = reader
        self._memory = memory
        self._limits = limits
        self._counters = counters
        self._look_again = look_again

    async def fill(
        self,
        queries: Sequence[FetchPartitionQuery],
        views: Sequence[View],
        *,
        bytes_max: int,
        read_committed: bool,
        allow_zstd: bool,
        note: FetchNote | None = None,
    ) -> FetchAnswer:
        """Build the answer, in request order, until the limits or the memory are used up.

        `note` is told what that had to wait for.
        """
        results = [view_result(view, read_committed) for view in views]
        answer = FetchAnswer(
            results,
            bytes_max,
            read_committed,
            allow_zstd,
            self._memory.release,
            self._reader.let_go,
            note or FetchNote(),
        )
        try:

            def on_miss() -> None:
                # Once: the first partition that is not in memory starts the loads of those after it as well.
                if not answer.has_missed:
                    answer.has_missed = True
                    self._prefetch(queries, views, answer.bytes_left)

            for query, view, result in zip(queries, views, results, strict=True):
                if view.extents and not answer.is_full:
                    await self._fill_partition(answer, query, view, result, on_miss)
        except BaseException:
            answer.release()
            raise
        self._counters.records_bytes += answer.records_bytes
        return answer

    def _prefetch(
        self, queries: Sequence[FetchPartitionQuery], views: Sequence[View], bytes_left: int
    ) -> None:
        """Start the loads that the first partitions will need, so that they run beside each other."""
        loads_left = self._limits.prefetches_max
        for query, view in zip(queries, views, strict=True):
            if bytes_left <= 0 or loads_left <= 0:
                return
            # A partition that begins inside an extent is located first; its loads follow from that.
            if view.extents and view.extents[0].base_offset == query.offset:
                size_bytes = min(query.bytes_max, bytes_left)
                loads_left -= self._reader.prefetch(view.extents, size_bytes)
                bytes_left -= size_bytes

    async def _fill_partition(
        self,
        answer: FetchAnswer,
        query: FetchPartitionQuery,
        view: View,
        result: FetchPartitionResult,
        on_miss: Callable[[], None],
    ) -> None:
        """Fill one partition; if an object is not as the index said, look once more before giving up."""
        try:
            try:
                await self._fill_once(answer, query, view, result, on_miss)
            except (ObjectNotFound, ShortObject) as error:
                logger.info("log %d: %s; looking it up again", query.log_id, error)
                fresh = await self._look_again(query, answer.note)
                result.take_ends(view_result(fresh, answer.read_committed))
                if fresh.extents:
                    await self._fill_once(answer, query, fresh, result, on_miss)
        except ObjectStoreError as error:
            logger.warning("log %d: offset %d can't be read: %s", query.log_id, query.offset, error)
            if isinstance(error, ObjectNotFound | ShortObject):
                self._counters.missing_objects += 1
            else:
                self._counters.store_failures += 1
            result.take_ends(FetchPartitionResult(ErrorCode.KAFKA_STORAGE_ERROR))

    async def _fill_once(
        self,
        answer: FetchAnswer,
        query: FetchPartitionQuery,
        view: View,
        result: FetchPartitionResult,
        on_miss: Callable[[], None],
    ) -> None:
        end_offset = view.end_offset(answer.read_committed)
        if query.offset >= end_offset:
            return
        place = await self._reader.locate(view.extents[0], query.offset, on_miss, answer.note)
        limit = min(query.bytes_max, answer.bytes_left)
        if place.batch_bytes > limit:
            if answer.records_bytes:
                return
            limit = place.batch_bytes
        extents = view.extents
        if answer.allow_zstd:
            views = self._reader.hold_views(extents, place, limit, end_offset)
            extents, place = views.extents, views.place
            if views.parts:
                answer.add_views(result, views)
                limit -= views.size_bytes
                if not 0 < place.batch_bytes <= limit:
                    return
        limit = min(limit, _size_from(extents, place))
        if not await self._reserve(answer, limit):
            answer.is_full = True
            return
        records = await self._reader.read(extents, place, limit, end_offset, on_miss, answer.note)
        if not answer.allow_zstd and holds_zstd(records.buffer):
            result.take_ends(FetchPartitionResult(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE))
        elif records.buffer:
            answer.add(result, records.buffer)

    async def _reserve(self, answer: FetchAnswer, size_bytes: int) -> bool:
        """Set memory aside. Only a fetch that has nothing yet waits for it: else two could wait for each other."""
        if not self._memory.try_reserve(size_bytes):
            if answer.reserved_bytes or answer.records_bytes:
                return False
            granted = False
            loop = asyncio.get_running_loop()
            began_at = loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.memory_wait_s_max):
                    await self._memory.reserve(size_bytes)
                    granted = True
            answer.note.memory_s += loop.time() - began_at
            if not granted:
                self._counters.answers_without_memory += 1
                return False
        answer.reserved_bytes += size_bytes
        return True


def view_result(view: View, read_committed: bool) -> FetchPartitionResult:
    """The answer for a partition before any records are in it."""
    aborted: list[AbortedTransaction] | None = [] if read_committed else None
    state = view.state
    if state is None:
        return FetchPartitionResult(view.error, aborted_transactions=aborted)
    return FetchPartitionResult(
        ErrorCode.NONE,
        state.next_offset,
        state.last_stable_offset,
        state.start_offset,
        aborted_transactions=aborted,
    )


def _size_from(extents: Sequence[Extent], place: Place) -> int:
    """Bytes of the extents from a place in the first of them on."""
    return sum(extent.size_bytes for extent in extents) - (place.position - extents[0].position)


def available_bytes(query: FetchPartitionQuery, view: View, read_committed: bool, enough: int) -> int:
    """About how many bytes there are to read (counted up to `enough`): of an extent begun, its share by offsets.

    A partition counts with no more than its own limit.
    """
    enough = min(enough, query.bytes_max)
    if view.state is None or not view.extents:
        return 0
    end_offset = view.end_offset(read_committed)
    size_bytes = 0
    for extent in view.extents:
        begin, end = max(extent.base_offset, query.offset), min(extent.end_offset, end_offset)
        if begin >= end or size_bytes >= enough:
            break
        share = extent.size_bytes * (end - begin)
        size_bytes += -(-share // (extent.end_offset - extent.base_offset))
    return min(size_bytes, enough)

"""The filling of an answer to a fetch: whole batches in request order, within the limits and the memory set aside.

Kafka's rules (KIP-74): partitions are filled in the order of the request, each up to its own limit and what is left of
the whole answer's; the first batch of the first partition that has data goes out whatever its size.

That holds for what is in memory. At the first thing that is not, the answer is planned (`warp.log.plan`): it waits for
few chunks, once, for all partitions that have a share in them, and goes out with what these give.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.errors import ErrorCode, ObjectNotFound, ObjectStoreError, ShortObject
from warp.ids import LogId, ProducerId
from warp.log.cache import ChunkCache, Hold
from warp.log.claims import Claim, Claims
from warp.log.memory import MemoryBudget
from warp.log.plan import Plan, Want, plan_answer
from warp.log.reader import ExtentReader, Place, Records, Views, holds_zstd
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
    chunks_max: int = 16
    """Chunks that one fetch waits for, at most."""
    claim_wait_s_max: float = 1.0
    """How long a fetch that has something to answer waits for room in the cache to get more."""
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

    def give_back(self, size_bytes: int) -> None:
        """Return so much of the memory that was reserved: the answer will not need it."""
        if size_bytes > 0:
            self.reserved_bytes -= size_bytes
            self._release(size_bytes)

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


class _Filled:
    """An answer in the making: what it is made from, and what it may wait for once something was not in memory."""

    __slots__ = ("answer", "claim", "plan", "queries", "views")

    def __init__(
        self, queries: Sequence[FetchPartitionQuery], views: Sequence[View], answer: FetchAnswer
    ) -> None:
        self.queries = queries
        self.views = views
        self.answer = answer
        self.plan: Plan | None = None
        self.claim: Claim | None = None

    def leaves_out(self, index: int) -> bool:
        """Whether nothing of a partition is in the plan."""
        return self.plan is not None and index >= 0 and index not in self.plan.reaches

    def bytes_from(self, index: int, place: Place) -> int:
        """How many bytes of a partition may be read from a place on."""
        if self.plan is None or index < 0:
            return self.answer.bytes_left
        reach = self.plan.reaches.get(index)
        return 0 if reach is None else reach.bytes_after(place.position)


class Filling:
    """One pass over the partitions of a fetch that puts records into its answer."""

    def __init__(
        self,
        cache: ChunkCache,
        memory: MemoryBudget,
        limits: FetchLimits,
        counters: FetchCounters,
        look_again: LookAgain,
    ) -> None:
        self._reader = ExtentReader(cache)
        self._claims = Claims(cache)
        self._chunk_bytes = cache.chunk_bytes
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
        filled = _Filled(queries, views, answer)
        try:
            for index, (query, view, result) in enumerate(zip(queries, views, results, strict=True)):
                if view.extents and not answer.is_full:
                    await self._fill_partition(filled, index, query, view, result)
        except BaseException:
            answer.release()
            raise
        finally:
            if filled.claim is not None:
                self._claims.release(filled.claim)
        self._counters.records_bytes += answer.records_bytes
        return answer

    async def _fill_partition(
        self,
        filled: _Filled,
        index: int,
        query: FetchPartitionQuery,
        view: View,
        result: FetchPartitionResult,
    ) -> None:
        """Fill one partition; if an object is not as the index said, look once more before giving up."""
        answer = filled.answer
        try:
            try:
                await self._fill_once(filled, index, query, view, result)
            except (ObjectNotFound, ShortObject) as error:
                logger.info("log %d: %s; looking it up again", query.log_id, error)
                fresh = await self._look_again(query, answer.note)
                result.take_ends(view_result(fresh, answer.read_committed))
                if fresh.extents:
                    # No plan knows where it lies now: what is read without one is kept small.
                    first = fresh._replace(extents=fresh.extents[:1])
                    await self._fill_once(filled, -1, query, first, result)
        except ObjectStoreError as error:
            logger.warning("log %d: offset %d can't be read: %s", query.log_id, query.offset, error)
            if isinstance(error, ObjectNotFound | ShortObject):
                self._counters.missing_objects += 1
            else:
                self._counters.store_failures += 1
            result.take_ends(FetchPartitionResult(ErrorCode.KAFKA_STORAGE_ERROR))

    async def _fill_once(
        self,
        filled: _Filled,
        index: int,
        query: FetchPartitionQuery,
        view: View,
        result: FetchPartitionResult,
    ) -> None:
        """Fill one partition, by the plan if there is one; `index` is its place in the request, -1 for no plan's."""
        answer, extents = filled.answer, view.extents
        end_offset = view.end_offset(answer.read_committed)
        if query.offset >= end_offset or filled.leaves_out(index):
            return
        place = self._reader.locate_here(extents[0], query.offset)
        if not place.batch_bytes and index >= 0:
            await self._plan(filled, index, self._want(index, query, view, end_offset))
            if filled.leaves_out(index):
                return
        place = await self._reader.locate(extents[0], query.offset, answer.note)
        limit = min(query.bytes_max, answer.bytes_left, filled.bytes_from(index, place))
        if place.batch_bytes > limit:
            if answer.records_bytes:
                return
            limit = place.batch_bytes
        if answer.allow_zstd:
            views = self._reader.hold_views(extents, place, limit, end_offset)
            extents, place = views.extents, views.place
            if views.parts:
                answer.add_views(result, views)
                limit -= views.size_bytes
                if not 0 < place.batch_bytes <= limit:
                    return
        records = await self._read(filled, index, extents, place, limit, end_offset)
        if records is None:
            return
        if not answer.allow_zstd and holds_zstd(records.buffer):
            result.take_ends(FetchPartitionResult(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE))
        elif records.buffer:
            answer.add(result, records.buffer)

    async def _read(
        self,
        filled: _Filled,
        index: int,
        extents: Sequence[Extent],
        place: Place,
        limit: int,
        end_offset: int,
    ) -> Records | None:
        """Records from memory, or from chunks that were planned; None when the answer has no room for them."""
        answer = filled.answer
        limit = min(limit, _size_from(extents, place))
        if not await self._reserve(answer, limit):
            answer.is_full = True
            return None
        records = self._reader.read_here(extents, place, limit, end_offset)
        if records is not None:
            return records
        if filled.plan is None and index >= 0:
            # First the room in the cache, then the memory, always: else two fetches could wait for each other.
            answer.give_back(limit)
            await self._plan(filled, index, Want(index, extents, place.position, True, limit, end_offset))
            planned = min(limit, filled.bytes_from(index, place))
            if planned < place.batch_bytes:
                planned = 0 if answer.records_bytes else place.batch_bytes
            if not planned:
                return None
            limit = planned
            if not await self._reserve(answer, limit):
                answer.is_full = True
                return None
        return await self._reader.read(extents, place, limit, end_offset, answer.note)

    async def _plan(self, filled: _Filled, index: int, want: Want) -> None:
        """At the first partition that is not in memory: decide what to wait for, for it and those after it."""
        answer = filled.answer
        if filled.plan is not None:
            return
        holds_some = answer.records_bytes or answer.reserved_bytes
        wait_s_max = self._limits.claim_wait_s_max if holds_some else self._limits.memory_wait_s_max
        claim = await self._claims.room(self._limits.chunks_max, wait_s_max)
        if claim is None and answer.records_bytes:
            filled.plan = Plan({}, [])
            answer.is_full = True
            return
        filled.claim = claim
        chunks_max = 1 if claim is None else max(1, claim.chunks_max)
        filled.plan = plan_answer(
            [want, *self._wants_after(filled, index)],
            bytes_max=max(1, answer.bytes_left),
            chunks_max=chunks_max,
            chunk_bytes=self._chunk_bytes,
            is_whole=self._reader.holds_whole,
        )
        if claim is not None:
            self._claims.use(claim, filled.plan.chunks)

    def _wants_after(self, filled: _Filled, index: int) -> Iterator[Want]:
        """What the partitions after one would read."""
        pairs = zip(filled.queries[index + 1 :], filled.views[index + 1 :], strict=True)
        for later, (query, view) in enumerate(pairs, index + 1):
            end_offset = view.end_offset(filled.answer.read_committed)
            if view.extents and query.offset < end_offset:
                yield self._want(later, query, view, end_offset)

    def _want(self, index: int, query: FetchPartitionQuery, view: View, end_offset: int) -> Want:
        position, is_exact = self._reader.near(view.extents[0], query.offset)
        # A limit of 0 keeps the first batch from nobody.
        return Want(index, view.extents, position, is_exact, max(1, query.bytes_max), end_offset)

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

"""Fetch: what a consumer gets from an offset on, and when.

One call goes through three steps. *Resolve*: the ends and extents of each log, from the tail index where it knows,
otherwise from the store. *Wait*: while there is less than the client's minimum, first the store is asked once whether
there is more (so that what was acknowledged before the request is seen), then the commits wake the fetch. *Fill*: in
request order, whole batches are copied into buffers that were set aside in a memory budget before, until a limit is
reached; the first batch goes out whatever its size.

Where other agents write too, hints of their commits wake the fetch: they say that the store is worth a look, and it is
the store that answers. Hints may be lost, so a fetch that waits looks from time to time without one.

Sources: Kafka's rules for the limits (KIP-74), for isolation levels (KIP-98); the constant leader epoch is our own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence

from warp.errors import ErrorCode, MetadataError
from warp.ids import LogId
from warp.log.answer import (
    FetchAnswer,
    FetchCounters,
    FetchLimits,
    FetchPartitionQuery,
    Filling,
    View,
    available_bytes,
)
from warp.log.cache import ChunkCache
from warp.log.hints import HintMarks, LogHint
from warp.log.memory import MemoryBudget
from warp.log.refresh import ExtentIndex, Refresher
from warp.log.tail import TailIndex
from warp.log.trace import FetchNote, RequestTrace
from warp.log.waiters import Waiters
from warp.metadata.model import CommitResult, Extent, ExtentQuery, LogRead
from warp.objectstore.base import Buffer

logger = logging.getLogger(__name__)

_ASKS_MAX = 3
"""How often one fetch asks the store about a partition whose end keeps moving away, before it takes the last word."""

_ASK_BYTES_MIN = 64 * 1024
"""So much of a partition the index is asked for at least, among however many."""

_ASK_EXTENTS_MAX = 20_000
"""Extents that one fetch asks the index for, some 400 bytes each: where they are small it takes very many of them to
fill an answer. SQLite, which runs on the loop, needs 5 µs for each."""

_ASK_EXTENTS_MIN = 4
"""Of each partition, however many there are: one would do to get on."""


class FetchService:
    """Serves fetches of one agent. `memory` is the budget of response buffers.

    `hears` says whether hints of other agents arrive at present; None means that nobody else writes to the store.
    """

    def __init__(
        self,
        index: ExtentIndex,
        cache: ChunkCache,
        tail: TailIndex,
        memory: MemoryBudget,
        limits: FetchLimits | None = None,
        trace: RequestTrace | None = None,
        *,
        hears: Callable[[], bool] | None = None,
    ) -> None:
        self.counters = FetchCounters()
        self._cache = cache
        self._tail = tail
        self._trace = trace
        self._limits = limits or FetchLimits()
        self._refresher = Refresher(index)
        self._waiters = Waiters()
        self._marks = HintMarks()
        self._hears = hears
        self._filling = Filling(cache, memory, self._limits, self.counters, self._look_again)

    @property
    def waiting(self) -> int:
        """How many fetches wait for data."""
        return self._waiters.count

    async def fetch(
        self,
        queries: Sequence[FetchPartitionQuery],
        *,
        bytes_max: int,
        bytes_min: int,
        wait_ms: int,
        read_committed: bool = False,
        allow_zstd: bool = True,
    ) -> FetchAnswer:
        """Answer a Fetch of these partitions, in this order, when `bytes_min` are there or `wait_ms` have passed.

        Errors are per partition: OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC_OR_PARTITION (the log is gone),
        KAFKA_STORAGE_ERROR, UNSUPPORTED_COMPRESSION_TYPE (zstd records, `allow_zstd` False: KIP-110).
        """
        self.counters.fetches += 1
        bytes_max = max(0, min(bytes_max, self._limits.bytes_max))
        bytes_min = min(bytes_min, bytes_max)
        note = FetchNote()
        began_at = asyncio.get_running_loop().time()
        views = await self._until_enough(queries, bytes_max, bytes_min, wait_ms, read_committed, note)
        answer = await self._filling.fill(
            queries,
            views,
            bytes_max=bytes_max,
            read_committed=read_committed,
            allow_zstd=allow_zstd,
            note=note,
        )
        if self._trace is not None:
            took_s = asyncio.get_running_loop().time() - began_at
            error = next((part.error for part in answer.partitions if part.error), ErrorCode.NONE)
            self._trace.fetched(note, took_s, error, answer.records_bytes, len(queries))
        return answer

    def committed(self, result: CommitResult, images: Mapping[str, Buffer | Sequence[Buffer]]) -> None:
        """A commit of this agent: keep its bytes (`images` by object key) and its extents, wake who waits for them."""
        for key, image in images.items():
            self._cache.put_segment(key, image)
        self._tail.committed(result)
        self._waiters.arrived((extent.log_id, extent.size_bytes) for extent in result.extents)

    def log_starts_at(self, log_id: LogId, start_offset: int) -> None:
        """Records before `start_offset` were deleted: readers of the log look anew."""
        self._tail.log_starts_at(log_id, start_offset)
        self._look_into([log_id])

    def logs_gone(self, log_ids: Sequence[LogId]) -> None:
        """These logs were deleted: forget them, and let their readers find out."""
        for log_id in log_ids:
            self._tail.forget(log_id)
        self._look_into(log_ids)

    def hinted(self, hints: Sequence[LogHint]) -> None:
        """Other agents say how far logs have come: those who wait for more of them look into the store."""
        news = [hint.log_id for hint in hints if self._tail.hinted(hint)]
        if news:
            self._look_into(news)

    def look_again(self) -> None:
        """Hints may have been lost: all who wait look into the store."""
        self._marks.mark_all()
        self._waiters.wake_all()

    def stop_waiting(self) -> None:
        """Answer all that wait, and let nobody wait from now on: the agent drains."""
        self._waiters.close()

    async def close(self) -> None:
        """Stop for good; fetches that still ask the store get an error."""
        self.stop_waiting()
        await self._refresher.close()

    async def _until_enough(
        self,
        queries: Sequence[FetchPartitionQuery],
        bytes_max: int,
        bytes_min: int,
        wait_ms: int,
        read_committed: bool,
        note: FetchNote,
    ) -> list[View]:
        """Resolve all partitions, as often as it takes until the answer may go out."""
        deadline = asyncio.get_running_loop().time() + min(wait_ms, self._limits.wait_ms_max) / 1000
        mark = self._marks.number
        asked: dict[int, View] = {}
        views = await self._resolve(queries, bytes_max, asked, note)
        # Even a client that wants no minimum must see what was acknowledged before it asked; and an error of one
        # partition, which answers for all at once, says nothing of the others.
        if _has_bytes(queries, views, max(bytes_min, 1), read_committed):
            if self._hears is not None and len(queries) > 1:
                return await self._look_beside(queries, views, bytes_max, asked, note)
            return views
        known = [query for query, view in zip(queries, views, strict=True) if not view.asked]
        error = await self._refresh_ends(known, bytes_max, note)
        if error is not None:
            self._metadata_failed(error)
            return [_unless_known(view) for view in views]
        # Of partitions that have more than their share the rest counts now.
        asked = {index: view for index, view in asked.items() if _is_all(view)}
        views = await self._resolve(queries, bytes_max, asked, note)
        asked.clear()
        watch = _Watch(mark, deadline)
        return await self._wait_until_enough(
            queries, views, bytes_max, bytes_min, read_committed, watch, note
        )

    async def _wait_until_enough(
        self,
        queries: Sequence[FetchPartitionQuery],
        views: list[View],
        bytes_max: int,
        bytes_min: int,
        read_committed: bool,
        watch: _Watch,
        note: FetchNote,
    ) -> list[View]:
        """Wait for more than these views, which the store has just confirmed; they are used up.

        Who waits holds no extents: there may be many who wait, for an hour, and thousands of extents of each log.
        """
        loop = asyncio.get_running_loop()
        watch.look_at = loop.time() + self._look_interval_s()
        # Between a view from memory and the wait that builds on it nothing is awaited: no commit is missed.
        while not _is_enough(queries, views, bytes_min, read_committed):
            now = loop.time()
            if not queries or watch.deadline <= now or self._waiters.is_closed:
                break
            if not self._doubtful(queries, watch):
                room, available = _room(queries, views, read_committed, bytes_min)
                views.clear()
                self.counters.waits += 1
                until = min(watch.deadline, watch.look_at)
                await self._waiters.wait(room, bytes_min - available, until - now)
                note.wait_s += loop.time() - now
            await self._look(queries, watch, bytes_max, note)
            views = await self._resolve(queries, bytes_max, {}, note)
        return views

    def _doubtful(self, queries: Sequence[FetchPartitionQuery], watch: _Watch) -> list[FetchPartitionQuery]:
        """The partitions of which something was heard since the store was asked last."""
        if watch.mark == self._marks.number:
            return []
        return [query for query in queries if self._marks.since(watch.mark, query.log_id)]

    async def _look(
        self, queries: Sequence[FetchPartitionQuery], watch: _Watch, bytes_max: int, note: FetchNote
    ) -> None:
        """Ask the store about what a waiting fetch was told of; about everything, if it has not looked for long.

        If the store can't be asked the fetch waits on: it has asked before, and will ask again.
        """
        now = asyncio.get_running_loop().time()
        is_due = watch.look_at <= now < watch.deadline
        doubtful = list(queries) if is_due else self._doubtful(queries, watch)
        watch.mark = self._marks.number
        if not doubtful:
            return
        self.counters.looks += 1
        error = await self._refresh_ends(doubtful, bytes_max, note)
        if error is not None:
            self.counters.metadata_failures += 1
            watch.look_at = now + self._limits.look_interval_s
        elif is_due:
            watch.look_at = now + self._look_interval_s()

    async def _look_beside(
        self,
        queries: Sequence[FetchPartitionQuery],
        views: list[View],
        bytes_max: int,
        asked: dict[int, View],
        note: FetchNote,
    ) -> list[View]:
        """Look after partitions that have nothing to give while others have enough: or hints that were lost would keep
        their records back for as long as the others grow."""
        oldest = asyncio.get_running_loop().time() - self._look_interval_s()
        quiet = [
            query
            for query, view in zip(queries, views, strict=True)
            if not (view.asked or view.extents) and self._tail.asked_at(query.log_id) <= oldest
        ]
        if not quiet or await self._refresh_ends(quiet, bytes_max, note) is not None:
            return views
        return await self._resolve(queries, bytes_max, asked, note)

    def _look_interval_s(self) -> float:
        """How long a fetch waits before it looks into the store without a hint."""
        if self._hears is None:
            return math.inf
        return self._limits.look_interval_hearing_s if self._hears() else self._limits.look_interval_s

    def _look_into(self, log_ids: Sequence[LogId]) -> None:
        self._marks.mark(log_ids)
        self._waiters.wake(log_ids)

    async def _resolve(
        self,
        queries: Sequence[FetchPartitionQuery],
        bytes_max: int,
        asked: dict[int, View],
        note: FetchNote,
    ) -> list[View]:
        """A view of each partition: from memory where that suffices, else from the store.

        `asked` keeps what the store said, by place in the request. Memory is looked at last, for all partitions at
        once, so the views belong to one moment.
        """
        asks = 0
        while True:
            views, unknown = self._from_memory(queries, bytes_max, asked)
            if asks >= _ASKS_MAX:
                for index in unknown:
                    views[index] = asked.get(index, _UNKNOWN)
                # What memory has let go of only now the store was not asked about yet.
                unknown = [index for index in unknown if index not in asked]
            if not unknown:
                return views
            said = await self._ask([queries[index] for index in unknown], bytes_max, note)
            asked.update(zip(unknown, said, strict=True))
            asks += 1

    def _from_memory(
        self, queries: Sequence[FetchPartitionQuery], bytes_max: int, asked: Mapping[int, View]
    ) -> tuple[list[View], list[int]]:
        """What can be said without asking, and the places in the request of what can't."""
        views: list[View] = []
        unknown: list[int] = []
        for index, query in enumerate(queries):
            read = self._tail.read(query.log_id, query.offset, min(query.bytes_max, bytes_max))
            said = asked.get(index)
            if read is not None:
                # A question that failed has asked nothing, even if an older one's answer came to memory meanwhile.
                is_asked = said is not None and not said.error
                views.append(View(ErrorCode.NONE, read.state, read.extents, is_asked))
            elif said is not None and (said.error or said.extents):
                views.append(said)
            else:
                unknown.append(index)
                views.append(_UNKNOWN)
        return views, unknown

    async def _refresh_ends(
        self, queries: Sequence[FetchPartitionQuery], bytes_max: int, note: FetchNote
    ) -> MetadataError | None:
        """Ask the store what follows the known ends of the logs that memory knows; the error if it can't be asked."""
        places = []
        for query in queries:
            end_offset = self._tail.end_offset(query.log_id)
            if end_offset is not None:
                places.append(
                    ExtentQuery(
                        query.log_id, end_offset, min(query.bytes_max, bytes_max), _share_of_extents(queries)
                    )
                )
        asked_at = asyncio.get_running_loop().time()
        try:
            reads = await self._ask_index(places, note)
        except MetadataError as error:
            return error
        for place, read in zip(places, reads, strict=True):
            if read.state is None:
                self._tail.forget(place.log_id)
            self._tail.fill(read, asked_at)
        return None

    async def _look_again(self, query: FetchPartitionQuery, note: FetchNote) -> View:
        self._tail.forget(query.log_id)
        [view] = await self._ask([query], self._limits.bytes_max, note)
        return view

    async def _ask(
        self, queries: Sequence[FetchPartitionQuery], bytes_max: int, note: FetchNote
    ) -> list[View]:
        """What the store says of these partitions now: of each no more than its share of the answer, if all have some.

        The index of all that a thousand of them might give would be many times larger than what fits into an answer.
        """
        share_bytes = min(bytes_max, max(bytes_max // len(queries), _ASK_BYTES_MIN))
        extents_max = _share_of_extents(queries)
        places = [
            ExtentQuery(query.log_id, query.offset, min(query.bytes_max, share_bytes), extents_max)
            for query in queries
        ]
        asked_at = asyncio.get_running_loop().time()
        try:
            reads = await self._ask_index(places, note)
        except MetadataError as error:
            self._metadata_failed(error)
            return [View(ErrorCode.KAFKA_STORAGE_ERROR, asked=True) for _ in queries]
        return [self._judge(query, read, asked_at) for query, read in zip(queries, reads, strict=True)]

    async def _ask_index(self, places: Sequence[ExtentQuery], note: FetchNote) -> Sequence[LogRead]:
        began_at = asyncio.get_running_loop().time()
        try:
            return await self._refresher.ask(places)
        finally:
            note.index_s += asyncio.get_running_loop().time() - began_at

    def _judge(self, query: FetchPartitionQuery, read: LogRead, asked_at: float) -> View:
        """Turn the store's answer for one partition into a view. Only here is an offset found out of range."""
        if read.state is None:
            self._tail.forget(query.log_id)
            return View(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, asked=True)
        state = self._tail.fill(read, asked_at) or read.state
        # Memory may know a later end, but a start that others have told of is no reason to refuse.
        if not read.state.start_offset <= query.offset <= state.next_offset:
            return View(ErrorCode.OFFSET_OUT_OF_RANGE, asked=True)
        if query.offset < read.state.next_offset and not _covers(read.extents, query.offset):
            logger.error("log %d: the index has no extent for offset %d", query.log_id, query.offset)
            self.counters.missing_objects += 1
            return View(ErrorCode.KAFKA_STORAGE_ERROR, asked=True)
        return View(ErrorCode.NONE, state, read.extents, asked=True)

    def _metadata_failed(self, error: MetadataError) -> None:
        self.counters.metadata_failures += 1
        logger.warning("the metadata store can't answer a fetch: %s", error)


class _Watch:
    """What a fetch that may wait goes by; times are the loop's."""

    __slots__ = ("deadline", "look_at", "mark")

    def __init__(self, mark: int, deadline: float) -> None:
        self.mark = mark
        """How many hints there had been when it last asked the store."""
        self.deadline = deadline
        self.look_at = math.inf
        """When it asks again although it was told of nothing."""


_UNKNOWN = View(ErrorCode.KAFKA_STORAGE_ERROR)


def _unless_known(view: View) -> View:
    """A view when the store can't be asked: what is known remains true, what is not there can't be told."""
    return view if view.error or view.extents else _UNKNOWN


def _share_of_extents(queries: Sequence[FetchPartitionQuery]) -> int:
    """How many extents of each partition the index is asked for."""
    return max(_ASK_EXTENTS_MIN, _ASK_EXTENTS_MAX // len(queries))


def _is_all(view: View) -> bool:
    """Whether a view goes up to the end of its log."""
    return view.state is None or not view.extents or view.extents[-1].end_offset >= view.state.next_offset


def _is_cut(query: FetchPartitionQuery, view: View, read_committed: bool) -> bool:
    """Whether the store has more for the answer than it was asked for: to wait for that would be in vain."""
    if not view.asked or not view.extents:
        return False
    if view.extents[-1].end_offset >= view.end_offset(read_committed):
        return False
    return sum(extent.size_bytes for extent in view.extents) < query.bytes_max


def _covers(extents: Sequence[Extent], offset: int) -> bool:
    return bool(extents) and extents[0].base_offset <= offset < extents[0].end_offset


def _is_enough(
    queries: Sequence[FetchPartitionQuery], views: Sequence[View], bytes_min: int, read_committed: bool
) -> bool:
    """Whether the answer may go out: an error among the partitions, `bytes_min` bytes, or more than was asked for."""
    if bytes_min <= 0 or any(view.error for view in views):
        return True
    if _has_bytes(queries, views, bytes_min, read_committed):
        return True
    return any(_is_cut(query, view, read_committed) for query, view in zip(queries, views, strict=True))


def _has_bytes(
    queries: Sequence[FetchPartitionQuery], views: Sequence[View], bytes_min: int, read_committed: bool
) -> bool:
    """Whether so many bytes are there."""
    missing = bytes_min
    for query, view in zip(queries, views, strict=True):
        missing -= available_bytes(query, view, read_committed, missing)
        if missing <= 0:
            return True
    return False


def _room(
    queries: Sequence[FetchPartitionQuery], views: Sequence[View], read_committed: bool, enough: int
) -> tuple[dict[LogId, int], int]:
    """How many bytes each log may yet add to the answer, and how many are there already."""
    room: dict[LogId, int] = {}
    total = 0
    for query, view in zip(queries, views, strict=True):
        available = available_bytes(query, view, read_committed, enough)
        room[query.log_id] = room.get(query.log_id, 0) + max(query.bytes_max - available, 0)
        total += available
    return room, total

"""The merge job: keeps the segments few and large, and the data of each log together.

A pass merges the lowest level that is due, until none is. A merge of an upper level takes minutes and is cut into
portions of one output segment each; where a lower level falls due meanwhile, that goes first. Between merges it looks
for segments of which little is alive. Nothing in memory is needed to go on after a crash.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from warp.clock import Clock
from warp.ids import IdSource, LogId
from warp.lifecycle.levels import TOP_LEVEL, MergeDebt, MergeLimits, is_due
from warp.lifecycle.merge_debt import measured_debt
from warp.lifecycle.merge_plan import Portion, climb, rewrite, settle, settled_logs
from warp.lifecycle.merge_rows import MergeRows, rows_of
from warp.lifecycle.merge_work import LogName, MergeCounters, PortionWorker, SwapStore
from warp.lifecycle.model import TopicLife
from warp.lifecycle.output import FOOTER_ROW_BYTES
from warp.lifecycle.reading import ConsideratePace, Quarantine
from warp.lifecycle.spans import span_ms_of
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, SegmentRow, SegmentTotals
from warp.objectstore.base import ObjectStore

PAGE_SEGMENTS = 1000
LOGS_PER_STEP = 2000

REWRITTEN = TOP_LEVEL + 1
"""Ranks what is only written anew, behind all levels."""


class MergeStore(SwapStore, Protocol):
    """The part of the metadata store that merging needs."""

    async def segment_totals(self) -> list[SegmentTotals]: ...

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]: ...

    async def mark_dead_among(self, lease: Lease | None, segment_ids: Sequence[int]) -> int: ...


@dataclass(slots=True)
class _Merge:
    """A merge that has begun. `rank` says what goes first: the lowest."""

    rank: int
    segment_ids: list[int]
    rows: MergeRows
    names: Mapping[LogId, LogName]
    portions: Iterator[Portion | None]


class MergeJob:
    """Merges segments under a lease. `policies` are the topics as they are at present: the same object if unchanged."""

    def __init__(
        self,
        store: MergeStore,
        objects: ObjectStore,
        clock: Clock,
        ids: IdSource,
        policies: Callable[[], Sequence[TopicLife]],
        pace: ConsideratePace,
        *,
        limits: MergeLimits | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.limits = limits or MergeLimits()
        self.quarantine = quarantine or Quarantine(store)
        self._store = store
        self._clock = clock
        self._policies = policies
        self._work = PortionWorker(store, objects, clock, ids, pace, self.limits, self.quarantine)
        self._sparse = SparseScan(store, self.limits)
        self._debt = MergeDebt()
        self._lease: Lease | None = None
        self._open: list[_Merge] = []
        self._fruitless: set[int] = set()
        self._looked_s = float("-inf")
        self._named: Sequence[TopicLife] | None = None
        """What `_log_names` were made from."""
        self._log_names: Mapping[LogId, LogName] = {}

    @property
    def debt(self) -> MergeDebt:
        """How far merging is behind, as of the last look; means something while this agent holds the job."""
        return self._debt

    @property
    def counters(self) -> MergeCounters:
        """What has been done here."""
        return self._work.counters

    @property
    def held_bytes(self) -> int:
        """Bytes of segments in memory."""
        return self._work.held.now

    @property
    def held_bytes_peak(self) -> int:
        """The most bytes of segments that were in memory at a time."""
        return self._work.held.peak

    async def run(self, lease: Lease) -> None:
        """Merge until nothing is due, or for `pass_s`. Raises MetadataError and ObjectStoreError."""
        if lease != self._lease:
            self._open, self._lease = [], lease
        self._fruitless.clear()
        self._work.logs_dropped.clear()
        self._looked_s = float("-inf")
        ends_s = self._clock.monotonic() + self.limits.pass_s
        try:
            while await self._step(lease) and self._clock.monotonic() < ends_s:
                pass
            await self._work.finish()
        except BaseException:
            self._open = []
            await self._work.abandon()
            raise

    async def _step(self, lease: Lease) -> bool:
        """Do a bounded piece of work. False: there is none."""
        now_s = self._clock.monotonic()
        if not self._open or now_s >= self._looked_s + self.limits.look_s:
            self._looked_s = now_s
            await self._look()
        if not self._open:
            return False
        merge = self._open[-1]
        portion = await _next(merge.portions)
        if portion is None:
            await self._work.finish()
            self._open.pop()
            for start in range(0, len(merge.segment_ids), PAGE_SEGMENTS):
                emptied = merge.segment_ids[start : start + PAGE_SEGMENTS]
                await self._store.mark_dead_among(lease, emptied)
            self.counters.merges += 1
            return True
        portion.leave_out(self._work.logs_dropped)
        if portion.rows:
            await self._work.carry_out(lease, portion, merge.names)
        return True

    async def _look(self) -> None:
        """See how much there is on each level, and begin what is to go first."""
        totals = await self._store.segment_totals()
        self._debt = await measured_debt(self._store, totals, self.limits)
        rank = self._open[-1].rank if self._open else REWRITTEN + 1
        for level, segments, size_bytes in sorted(totals):
            if level < rank and is_due(level, segments, size_bytes, self.limits):
                # What is still on its way into the index would be read as it no longer is.
                await self._work.finish()
                merge = await self._begin(level)
                if merge is not None:
                    self._open = [held for held in self._open if held.rank != REWRITTEN] + [merge]
                    return
        if rank > REWRITTEN:
            names = await self._names()
            sparse = await self._sparse.next(names)
            if sparse:
                rows, taken = await self._read_rows(sparse, names)
                if not rows.count:
                    # All of it is of logs that others have changed in this pass: the scan would find it for ever.
                    return
                portions = rewrite(rows, sparse[0].level, self.limits)
                self._open.append(_Merge(REWRITTEN, taken, rows, names, portions))

    async def _begin(self, level: int) -> _Merge | None:
        """Choose the oldest segments of a level and read what is in them; None when it is not worth it."""
        segments = await self._oldest(level)
        size_bytes = sum(row.size_bytes for row in segments)
        if not is_due(level, len(segments), size_bytes, self.limits):
            return None
        names = await self._names()
        rows, taken = await self._read_rows(segments, names)
        if not rows.count:
            self._fruitless.update(taken)
            return None
        settled = settled_logs(rows.log_bytes, self.limits)
        on_top = settle(rows, settled, self.limits) if settled else iter(())
        portions = chain(on_top, climb(rows, level, settled, self.limits))
        self.counters.segments_read += len(taken)
        return _Merge(level, taken, rows, names, portions)

    async def _oldest(self, level: int) -> list[SegmentRow]:
        """Segments of a level, up to twice of what makes it due."""
        found: list[SegmentRow] = []
        size_bytes = after_id = 0
        while True:
            page = await self._store.oldest_segments(level, PAGE_SEGMENTS, after_id)
            for row in page:
                if row.segment_id in self._fruitless:
                    continue
                is_first = not found
                size_bytes += row.size_bytes
                if not is_first and size_bytes > 2 * self.limits.due_bytes[level]:
                    return found
                found.append(row)
                if len(found) >= 16 * self.limits.due_segments[level]:
                    return found
            if len(page) < PAGE_SEGMENTS:
                return found
            after_id = page[-1].segment_id

    async def _read_rows(
        self, segments: Sequence[SegmentRow], names: Mapping[LogId, LogName]
    ) -> tuple[MergeRows, list[int]]:
        """Index rows of as many of the segments as there is room for, and the ids of these segments."""
        room = max(1, (self.limits.rows_max - sum(merge.rows.count for merge in self._open)) // 2)
        rows = MergeRows(segments)
        taken: list[int] = []
        async for part, found in rows_of(self._store, segments):
            left_alone = self._work.logs_dropped
            rows.add([row for row in found if row.log_id not in left_alone], names)
            taken += [segment.segment_id for segment in part]
            if part and rows.count >= room:
                break
        return rows, taken

    async def _names(self) -> Mapping[LogId, LogName]:
        """All logs that there are; made anew where the topics have changed alone."""
        policies = self._policies()
        if policies is not self._named:
            names: dict[LogId, LogName] = {}
            next_step = LOGS_PER_STEP
            for topic in policies:
                span_ms = span_ms_of(topic)
                for partition, log_id in enumerate(topic.logs):
                    names[log_id] = LogName(topic.topic_id, topic.name, partition, span_ms)
                if len(names) >= next_step:
                    next_step = len(names) + LOGS_PER_STEP
                    await asyncio.sleep(0)
            self._log_names, self._named = names, policies
        return self._log_names


class SparseScan:
    """Walks through the segments above level 0 and finds those of which little is alive, neighbours together.

    Retention and compaction take single logs out of segments that others still need. Writing the rest anew bounds what
    the bucket holds in vain. Of the top level it finds those too that are small, when there are many.
    """

    def __init__(self, store: MergeStore, limits: MergeLimits) -> None:
        self._store = store
        self._limits = limits
        self._level = 1
        self._after_id = 0
        self._found: list[SegmentRow] = []
        self._small: list[SegmentRow] = []
        self._live_bytes = 0

    async def next(self, names: Mapping[LogId, LogName]) -> list[SegmentRow]:
        """Look at some segments. Those to be written anew now, if there are enough; all of one level."""
        page = await self._store.oldest_segments(
            self._level, self._limits.sparse_segments_max, self._after_id
        )
        live: dict[int, int] = {}
        extents: Counter[int | None] = Counter()
        async for _, rows in rows_of(self._store, page):
            _add_live_bytes(live, rows, names)
            extents.update(row.segment_id for row in rows)
        for segment in page:
            live_bytes = live.get(segment.segment_id, 0)
            if live_bytes and live_bytes < self._limits.sparse_ratio * segment.size_bytes:
                self._found.append(segment)
                self._live_bytes += live_bytes
            elif (
                live_bytes
                and self._level == TOP_LEVEL
                and self._is_small(live_bytes, extents[segment.segment_id])
            ):
                self._small.append(segment)
        is_end = len(page) < self._limits.sparse_segments_max
        if is_end:
            self._level, self._after_id = self._level % TOP_LEVEL + 1, 0
        else:
            self._after_id = page[-1].segment_id
        found, self._found = self._found, []
        if len(self._small) >= self._limits.due_small_segments:
            found, self._small = sorted(found + self._small), []
        if is_end:
            self._small = []
        elif not self._is_enough(found):
            self._found = found
            return []
        self._live_bytes = 0
        return found

    def _is_small(self, live_bytes: int, extents: int) -> bool:
        """Small, and not because of as many extents as an output may have: such segments can't be made fewer."""
        return live_bytes < self._limits.small_segment_bytes and extents < self._limits.swap_rows_max // 2

    def _is_enough(self, found: Sequence[SegmentRow]) -> bool:
        return self._live_bytes >= self._limits.output_bytes or len(found) >= self._limits.due_small_segments


def _add_live_bytes(live: dict[int, int], rows: Sequence[IndexRow], names: Mapping[LogId, LogName]) -> None:
    """Add what known logs' extents take, by segment, with their part of the footer: small ones have little else."""
    for row in rows:
        if row.segment_id is not None and row.log_id in names:
            taken = row.size_bytes + FOOTER_ROW_BYTES + len(names[row.log_id].topic)
            live[row.segment_id] = live.get(row.segment_id, 0) + taken


async def _next(portions: Iterator[Portion | None]) -> Portion | None:
    """The next portion, found in steps; None at the end."""
    for portion in portions:
        if portion is not None:
            return portion
        await asyncio.sleep(0)
    return None

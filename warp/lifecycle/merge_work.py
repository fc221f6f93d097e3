"""Carries out a portion of a merge: its extents are read, checked, written as one segment, and swapped into the index.

A crash at any point loses nothing: up to the swap the index does not know the new segment, which is left to the sweep,
and of each log the swap is one transaction. It also answers for what was decided from old rows: a log of which any has
changed is left as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from warp.clock import Clock
from warp.errors import OutcomeUnknown
from warp.ids import IdSource, LogId, TopicId
from warp.lifecycle.levels import MergeLimits
from warp.lifecycle.merge_plan import Portion
from warp.lifecycle.merge_read import HeldBytes, MergeIndex, PortionReader
from warp.lifecycle.output import SealedOutput, SegmentWriter
from warp.lifecycle.reading import (
    BadExtent,
    CheckedBatches,
    ConsideratePace,
    ExtentMoved,
    ExtentSource,
    Quarantine,
    QuarantineStore,
)
from warp.lifecycle.swap_parts import swap_parts
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, NewExtent, NewSegment, Swap, SwapRefused, SwapResult
from warp.objectstore.base import ObjectStore, PatientParts

SWAP_ATTEMPTS = 5

ROWS_PER_STEP = 8
BYTES_PER_STEP = 256 * 1024
"""After so much the event loop gets its turn: a produce request needs about five turns."""

_log = logging.getLogger("warp.jobs")


class LogName(NamedTuple):
    """What a footer says of a log, and how its data is cut."""

    topic_id: TopicId
    topic: str
    partition: int
    span_ms: int | None = None
    """Not in the footer: how long a time one extent may span."""


class SwapStore(MergeIndex, QuarantineStore, Protocol):
    """The part of the metadata store in which segments are swapped."""

    async def swap(self, lease: Lease | None, change: Swap) -> SwapResult: ...


@dataclass(slots=True)
class MergeCounters:
    """What merging has done in this agent."""

    merges: int = 0
    segments_read: int = 0
    segments_written: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    extents_removed: int = 0
    extents_added: int = 0
    logs_dropped: int = 0
    """Logs whose swap was dropped, because something else had changed their extents."""
    swaps_refused: int = 0


class _Built(NamedTuple):
    """A segment that is ready to be stored, and the extents that it takes the place of."""

    output: SealedOutput
    removed: list[IndexRow]


class _LargeOutput:
    """Several segments that go into one swap."""

    def __init__(self, level: int, size_max: int) -> None:
        self.segments: list[NewSegment] = []
        self.extents: list[NewExtent] = []
        self._level = level
        self._size_max = size_max
        self.writer = SegmentWriter(level, size_max=size_max)

    def seal(self, key: str, created_ms: int) -> SealedOutput:
        """The next segment; the writer is a fresh one then."""
        output = self.writer.seal(key, created_ms, len(self.segments))
        self.segments.append(output.segment)
        self.extents += output.extents
        self.writer = SegmentWriter(self._level, size_max=self._size_max)
        return output


class PortionWorker:
    """Carries out portions in order. While one is being stored, the next is read and built.

    Whoever uses it calls `finish` at the end, or `abandon`. `logs_dropped` are those to be left alone for a while.
    """

    def __init__(
        self,
        store: SwapStore,
        objects: ObjectStore,
        clock: Clock,
        ids: IdSource,
        pace: ConsideratePace,
        limits: MergeLimits,
        quarantine: Quarantine,
    ) -> None:
        self.counters = MergeCounters()
        self.held = HeldBytes()
        self.logs_dropped: set[LogId] = set()
        self._store = store
        self._objects = objects
        self._clock = clock
        self._ids = ids
        self._pace = pace
        self._limits = limits
        self._quarantine = quarantine
        self._source = ExtentSource(objects, store, pace)
        self._storing: asyncio.Task[None] | None = None

    async def carry_out(self, lease: Lease, portion: Portion, names: Mapping[LogId, LogName]) -> None:
        """Do the work of one portion; what remains when this returns is done by `finish`.

        Raises MetadataError (LeaseLost among them) and ObjectStoreError, also those of the portion before.
        """
        if portion.size_bytes > self._limits.output_bytes:
            await self.finish()
            await self._carry_out_large(lease, portion.rows[0], portion.level, names)
            return
        built = await self._build(lease, portion, names)
        if built is None:
            await self.finish()
            return
        size_bytes = built.output.segment.size_bytes
        self.held.take(size_bytes)
        try:
            await self.finish()
        except BaseException:
            self.held.give(size_bytes)
            raise
        self._storing = asyncio.ensure_future(self._store_one(lease, built))
        # However it ends: a task that is stopped early never runs its own lines.
        self._storing.add_done_callback(lambda _: self.held.give(size_bytes))

    async def finish(self) -> None:
        """Wait until the last portion is in the index. Raises as `carry_out` does."""
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing

    async def abandon(self) -> None:
        """Stop what still goes on: its output is left to the sweep."""
        storing, self._storing = self._storing, None
        if storing is not None:
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)

    async def _build(self, lease: Lease, portion: Portion, names: Mapping[LogId, LogName]) -> _Built | None:
        """The portion's segment; None when nothing of it could be read."""
        writer = SegmentWriter(portion.level, size_max=self._limits.output_bytes)
        removed: list[IndexRow] = []
        bad: list[BadExtent] = []
        reader = PortionReader(self._source, self._store, self.held, self._limits.gaps_bytes)
        try:
            await reader.read(portion.rows)
            async for row, found in self._each(reader, portion.rows, bad):
                self.held.take(row.size_bytes)
                removed.append(row)
                self._add(writer, row, found, names[row.log_id])
            writer.close_extent()
        except BaseException:
            self.held.give(sum(row.size_bytes for row in removed))
            raise
        finally:
            reader.release()
        self.held.give(sum(row.size_bytes for row in removed))
        if bad:
            await self._quarantine.add(lease, bad)
        if writer.is_empty:
            return None
        return _Built(writer.seal(self._ids.segment_key(), self._clock.time_ms()), removed)

    async def _each(
        self, reader: PortionReader, rows: Sequence[IndexRow], bad: list[BadExtent]
    ) -> AsyncIterator[tuple[IndexRow, CheckedBatches]]:
        """The extents that can be read, in steps; those that never will be go to `bad`."""
        rows_since = bytes_since = 0
        began_s = self._pace.now_s()
        for row in rows:
            try:
                yield row, await reader.take(row)
            except BadExtent as error:
                bad.append(error)
            except ExtentMoved as error:
                _log.debug("merging leaves out what has changed: %s", error)
            rows_since, bytes_since = rows_since + 1, bytes_since + row.size_bytes
            if rows_since >= ROWS_PER_STEP or bytes_since >= BYTES_PER_STEP:
                rows_since = bytes_since = 0
                await self._pace.turn(began_s)
                began_s = self._pace.now_s()

    def _add(self, writer: SegmentWriter, row: IndexRow, found: CheckedBatches, name: LogName) -> None:
        writer.add(
            name.topic_id,
            name.topic,
            name.partition,
            row.log_id,
            found.base_offset,
            found.end_offset,
            found.data,
            found.record_count,
            found.first_timestamp_ms,
            found.max_timestamp_ms,
            name.span_ms,
        )
        self.counters.read_bytes += len(found.data)

    async def _store_one(self, lease: Lease, built: _Built) -> None:
        output = built.output
        await self._put(output)
        await self._swap(lease, Swap([output.segment], built.removed, output.extents))

    async def _carry_out_large(
        self, lease: Lease, row: IndexRow, level: int, names: Mapping[LogId, LogName]
    ) -> None:
        """An extent that is larger than an output: read in windows, into as many segments as it takes, one swap."""
        output = _LargeOutput(level, self._limits.output_bytes)
        held_bytes = 0
        try:
            async for window in self._source.windows(row):
                self.held.take(len(window.data))
                held_bytes += len(window.data)
                self._add(output.writer, row, window, names[row.log_id])
                if output.writer.is_full:
                    await self._put(output.seal(self._ids.segment_key(), self._clock.time_ms()))
                    self.held.give(held_bytes)
                    held_bytes = 0
            if not output.writer.is_empty:
                await self._put(output.seal(self._ids.segment_key(), self._clock.time_ms()))
        except ExtentMoved as error:
            _log.debug("merging leaves out what has changed: %s", error)
            return
        except BadExtent as error:
            await self._quarantine.add(lease, [error])
            return
        finally:
            self.held.give(held_bytes)
        await self._swap(lease, Swap(output.segments, [row], output.extents))

    async def _put(self, output: SealedOutput) -> None:
        await self._pace.spend(output.segment.size_bytes)
        await self._objects.put(
            output.segment.key, PatientParts(output.parts, output.parts.crc32c, self._pace.bytes_per_s)
        )
        self.counters.segments_written += 1
        self.counters.written_bytes += output.segment.size_bytes

    async def _swap(self, lease: Lease, change: Swap) -> None:
        """Put the new in the place of the old, part by part. Refused or dropped, the new is left to the sweep."""
        is_begun = False
        for part in swap_parts(change, self._limits.swap_part_rows_max):
            began_s = self._pace.now_s()
            try:
                result = await self._swap_surely(lease, replace(part, is_begun=is_begun))
            except SwapRefused as error:
                self.counters.swaps_refused += 1
                _log.warning("a merged segment comes too late: %s", error)
                return
            is_begun = is_begun or bool(result.swapped)
            self._count_swapped(part, result)
            await self._pace.turn(began_s)

    def _count_swapped(self, change: Swap, result: SwapResult) -> None:
        self.counters.extents_removed += sum(row.log_id in result.swapped for row in change.removed)
        self.counters.extents_added += sum(extent.log_id in result.swapped for extent in change.added)
        self.counters.logs_dropped += len(result.dropped)
        self.logs_dropped |= result.dropped

    async def _swap_surely(self, lease: Lease, change: Swap) -> SwapResult:
        for attempt in range(SWAP_ATTEMPTS - 1):
            try:
                return await self._store.swap(lease, change)
            except OutcomeUnknown as error:
                _log.warning("asking again what has become of a swap: %s", error)
                await asyncio.sleep(self._limits.swap_pause_s * 2**attempt)
        return await self._store.swap(lease, change)

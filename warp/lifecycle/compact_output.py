"""What compaction writes: new segments, each swapped into the index for the extents that it was made of.

One segment takes what several small logs have left, so that each of them does not cost a PUT. A log's extents are
swapped in the order of their offsets. That matters for tombstones: one gets its delete horizon only once everything
that it supersedes is gone from the index, or goes in the same transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from warp._compaction import Compacted
from warp.clock import Clock
from warp.errors import OutcomeUnknown
from warp.ids import IdSource, LogId
from warp.lifecycle.compact_plan import CompactedLog, CompactionLimits, output_level
from warp.lifecycle.output import SegmentWriter
from warp.lifecycle.reading import Pace
from warp.lifecycle.spans import span_ms_of
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, NewSegment, Swap, SwapRefused, SwapResult
from warp.metadata.model import NO_TIMESTAMP
from warp.objectstore.base import ObjectStore

_log = logging.getLogger("warp.jobs")

T = TypeVar("T")

INLINE_BYTES_MAX = 64 * 1024
"""What is larger is worked on in a thread, where the native parts let the interpreter lock go; so the event loop is
never held for longer than a few milliseconds."""
ASKED_MAX = 5
"""How often a swap of unknown outcome is asked for again before the pass ends."""
ASK_PAUSE_S = 0.2
SETTLED_PARTS = 4
"""An output below this part of its largest size is a small one."""


async def in_thread(work: Callable[[], T], size_bytes: int) -> T:
    """What `work`, on so many bytes, gives: done here if they are few, otherwise in a thread."""
    if size_bytes <= INLINE_BYTES_MAX:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)


@dataclass(slots=True)
class CompactionCounters:
    """What has been done so far, for metrics."""

    passes_over_logs: int = 0
    records_dropped: int = 0
    records_kept: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    segments_written: int = 0
    swaps_dropped: int = 0
    """Logs that others had changed before what was made of them could be swapped in."""
    full_maps: int = 0
    """Passes that had to stop because the map of keys was full; the next one goes on there."""


class SwapStore(Protocol):
    """The part of the metadata store that swaps."""

    async def swap(self, lease: Lease | None, change: Swap) -> SwapResult: ...


@dataclass(slots=True)
class _Share:
    """A log's part in the output at hand."""

    removed: list[IndexRow]
    on_end: Callable[[bool], None]
    """Told whether the log's part was swapped in."""
    clean_offset: int | None = None


class CompactionOutput:
    """Collects what is kept of logs, and stores and swaps it whenever a segment is full, and at `flush`."""

    def __init__(
        self,
        store: SwapStore,
        objects: ObjectStore,
        clock: Clock,
        ids: IdSource,
        pace: Pace,
        lease: Lease,
        limits: CompactionLimits,
        counters: CompactionCounters,
    ) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._ids = ids
        self._pace = pace
        self._lease = lease
        self._limits = limits
        self._counters = counters
        self._writer = self._new_writer()
        self._shares: dict[LogId, _Share] = {}
        self._rows = 0
        """Of logs and of extents, that the next swap changes."""

    def _new_writer(self) -> SegmentWriter:
        return SegmentWriter(1, size_max=self._limits.output_bytes)

    def is_full(self, part: int = 1) -> bool:
        """Whether it is time to flush; sooner with `part`, a divisor of the size."""
        is_large = self._writer.size_bytes * part >= self._limits.output_bytes
        return is_large or self._writer.is_full or self._rows * part >= self._limits.rows_max

    def begin(self, log: CompactedLog, on_end: Callable[[bool], None]) -> None:
        """A log is about to add to the output at hand. `on_end(is_swapped)` is called once that was flushed."""
        if log.log_id not in self._shares:
            self._shares[log.log_id] = _Share([], on_end)
            self._rows += 1

    def add(self, log: CompactedLog, row: IndexRow, base_offset: int, kept: Compacted) -> None:
        """Add what is kept of an extent, or of a part of it."""
        untimed = kept.max_timestamp_ms == NO_TIMESTAMP
        self._writer.add(
            log.topic.topic_id,
            log.topic.name,
            log.partition,
            log.log_id,
            base_offset,
            kept.end_offset,
            kept.batches,
            kept.record_count,
            kept.first_timestamp_ms,
            row.max_timestamp_ms if untimed else kept.max_timestamp_ms,
            span_ms_of(log.topic),
        )

    def replace(self, log: CompactedLog, row: IndexRow) -> None:
        """All that is kept of an extent was added: it is to be removed."""
        self._shares[log.log_id].removed.append(row)
        self._rows += 1

    def finish(self, log: CompactedLog, clean_offset: int) -> None:
        """The log is compacted up to there, once what was added is swapped in."""
        self._shares[log.log_id].clean_offset = clean_offset

    def spoil(self, log: CompactedLog) -> None:
        """What the log has added to the output at hand can't be swapped in. It adds no more before the next flush."""
        share = self._shares.pop(log.log_id, None)
        if share is not None:
            share.on_end(False)

    async def flush(self) -> None:
        """Store and swap in what was added.

        Raises MetadataError and its kinds, and ObjectStoreError: then nothing has changed, or all of it.
        """
        writer, self._writer = self._writer, self._new_writer()
        shares, self._shares, self._rows = self._shares, {}, 0
        removed = [row for share in shares.values() for row in share.removed]
        clean = {log_id: s.clean_offset for log_id, s in shares.items() if s.clean_offset is not None}
        if not removed and not clean:
            return
        change = Swap([], [], [], clean)
        if removed:
            settled_bytes = self._limits.output_bytes // SETTLED_PARTS
            writer.level = output_level(removed, writer.size_bytes, settled_bytes)
            key, now_ms = self._ids.segment_key(), self._clock.time_ms()
            sealed = await in_thread(partial(writer.seal, key, now_ms), writer.size_bytes)
            added = [extent for extent in sealed.extents if extent.log_id in shares]
            change = Swap([sealed.segment], removed, added, clean)
            del writer
            await self._pace.spend(sealed.segment.size_bytes)
            await self._objects.put(sealed.segment.key, sealed.parts)
            self._count(sealed.segment)
            del sealed
        result = await self._swap(change)
        for log_id, share in shares.items():
            is_swapped = log_id in result.swapped
            self._counters.swaps_dropped += not is_swapped
            share.on_end(is_swapped)

    def _count(self, segment: NewSegment) -> None:
        self._counters.segments_written += 1
        self._counters.written_bytes += segment.size_bytes

    async def _swap(self, change: Swap) -> SwapResult:
        """Swap, and ask again under the same key while the outcome is unknown."""
        for asked in range(ASKED_MAX):
            try:
                return await self._store.swap(self._lease, change)
            except SwapRefused as error:
                # The sweep took the object for one that nobody wants: it was slow, and is done again.
                _log.warning("what was compacted is not swapped in: %s", error)
                logs = {row.log_id for row in change.removed} | set(change.clean_offsets)
                return SwapResult(frozenset(), frozenset(logs))
            except OutcomeUnknown:
                if asked == ASKED_MAX - 1:
                    raise
                await asyncio.sleep(ASK_PAUSE_S)
        raise AssertionError("the last time returns or raises")

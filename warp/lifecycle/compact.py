"""Log compaction by key: of each key the newest record is kept, in its place, with its offset.

The job looks at all logs whose topics' policies name compact, takes those that are dirty enough or have waited for too
long, the dirtiest first, and makes one pass over each (`warp.lifecycle.compact_log`). How far a log is compacted stands
in its row and stays there whatever becomes of the topic's policy: below that offset there is one record of each key,
and that remains true while nobody compacts. docs/adr/0014-compaction-by-key.md has the reasons for all of this.

Sources: KIP-58 and KIP-354 (lags), KIP-534 (delete horizons), and Kafka's topic configs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from warp._records import parse_header
from warp.clock import Clock
from warp.ids import IdSource, LogId
from warp.lifecycle.ages import SteadyTime
from warp.lifecycle.compact_log import ExtentStore, LogPass, Progress, Span
from warp.lifecycle.compact_output import CompactionCounters, CompactionOutput, SwapStore
from warp.lifecycle.compact_plan import (
    CompactedLog,
    CompactionLimits,
    Dirt,
    Memory,
    dirt_of,
    first_too_young,
    is_dirty_enough,
    lags_too_long,
    may_lag_too_long,
    youngest_ms,
)
from warp.lifecycle.model import TopicLife
from warp.lifecycle.reading import BadExtent, ExtentMoved, ExtentSource, Pace, Quarantine, QuarantineStore
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, LogDirt
from warp.metadata.model import NO_TIMESTAMP, LogState
from warp.objectstore.base import ObjectStore

SECRET_BYTES = 16
"""Of the hash of keys."""


class CompactionStore(ExtentStore, QuarantineStore, SwapStore, Protocol):
    """The part of the metadata store that is needed here; `warp.metadata.life_store` says what each does."""

    async def log_dirt(self, log_ids: Sequence[LogId]) -> list[LogDirt]: ...

    async def log_states(self, log_ids: Sequence[LogId]) -> Mapping[LogId, LogState]: ...


class _Due(NamedTuple):
    """A log that may be compacted now, and whether that is because of its lag."""

    log: CompactedLog
    dirt: Dirt
    stored_clean_offset: int
    is_late: bool


class Compaction:
    """The job. Without a clock that can be trusted (`is_clock_trusted`) it does nothing."""

    def __init__(
        self,
        store: CompactionStore,
        objects: ObjectStore,
        clock: Clock,
        ids: IdSource,
        policies: Callable[[], Sequence[TopicLife]],
        pace: Pace,
        *,
        limits: CompactionLimits | None = None,
        time: SteadyTime | None = None,
        is_clock_trusted: Callable[[], bool] = lambda: True,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.counters = CompactionCounters()
        self.quarantine = quarantine or Quarantine(store)
        self._store = store
        self._objects = objects
        self._clock = clock
        self._ids = ids
        self._policies = policies
        self._pace = pace
        self._limits = limits or CompactionLimits()
        self._time = time or SteadyTime(clock)
        self._is_clock_trusted = is_clock_trusted
        self._source = ExtentSource(objects, store, pace)
        self._known: dict[LogId, Memory] = {}
        self._first_dirty: dict[LogId, tuple[int, int]] = {}
        """Per log the clean offset and the time of the first record after it."""

    async def run(self, lease: Lease) -> None:
        """One pass. Raises MetadataError and its kinds, and ObjectStoreError: what was swapped in by then stays."""
        if not self._is_clock_trusted():
            return
        now_ms = self._time.time_ms()
        due = await self._due(lease, now_ms)
        output = CompactionOutput(
            self._store,
            self._objects,
            self._clock,
            self._ids,
            self._pace,
            lease,
            self._limits,
            self.counters,
        )
        dropped = await self._compact_all(due, output, lease, now_ms, shares=True)
        # Others have changed these meanwhile. Now each is swapped in as soon as it is written.
        await self._compact_all(dropped, output, lease, now_ms, shares=False)

    async def _compact_all(
        self, due: Sequence[_Due], output: CompactionOutput, lease: Lease, now_ms: int, *, shares: bool
    ) -> list[_Due]:
        """A pass over each log; those of which the last part was dropped at the end."""
        passes: list[tuple[_Due, Progress, Memory]] = []
        for each in due:
            span = await self._span(each, now_ms)
            if span is None:
                continue
            log_pass = LogPass(
                self._store,
                self._source,
                self.quarantine,
                output,
                each.log,
                span,
                lease,
                now_ms,
                self._ids.random_bytes(SECRET_BYTES),
                self._limits,
                self.counters,
                shares=shares,
            )
            memory = await log_pass.run()
            if memory is not None:
                passes.append((each, log_pass.progress, memory))
            del log_pass  # and its map
            if output.is_full():
                await output.flush()
        await output.flush()
        for each, progress, memory in passes:
            if not progress.is_dropped:
                self._known[each.log.log_id] = memory
        return [each for each, progress, _ in passes if progress.is_dropped]

    # Which logs

    async def _due(self, lease: Lease, now_ms: int) -> list[_Due]:
        """The logs that want a pass, those that are late and then the dirtiest first."""
        logs = {
            log_id: CompactedLog(log_id, partition, topic)
            for topic in self._policies()
            if topic.compacts
            for partition, log_id in enumerate(topic.logs)
        }
        self._known = {log_id: memory for log_id, memory in self._known.items() if log_id in logs}
        self._first_dirty = {log_id: time for log_id, time in self._first_dirty.items() if log_id in logs}
        log_ids = sorted(logs)
        due: list[_Due] = []
        for start in range(0, len(log_ids), self._limits.logs_max):
            for found in await self._store.log_dirt(log_ids[start : start + self._limits.logs_max]):
                each = await self._judge(lease, logs[found.log_id], found, now_ms)
                if each is not None:
                    due.append(each)
            await asyncio.sleep(0)
        return sorted(due, key=lambda each: (not each.is_late, -each.dirt.ratio, each.log.log_id))

    async def _judge(self, lease: Lease, log: CompactedLog, found: LogDirt, now_ms: int) -> _Due | None:
        dirt = dirt_of(found, await self._memory(log.log_id))
        if dirt.clean_offset >= found.next_offset or dirt.dirty_bytes <= 0:
            return None
        is_late = False
        if may_lag_too_long(found, dirt, log.topic):
            first_ms = await self._first_dirty_ms(lease, log, dirt.clean_offset)
            is_late = lags_too_long(first_ms, log.topic, now_ms)
        if not is_late and not is_dirty_enough(dirt, log.topic):
            return None
        return _Due(log, dirt, found.clean_offset, is_late)

    async def _memory(self, log_id: LogId) -> Memory | None:
        """What is known of a log, unless extents have become readable that were not."""
        memory = self._known.get(log_id)
        if memory is not None and memory.unread:
            quarantined = await self._store.quarantined_of_log(log_id)
            if not memory.unread <= {each.end_offset for each in quarantined}:
                del self._known[log_id]
                return None
        return memory

    async def _first_dirty_ms(self, lease: Lease, log: CompactedLog, clean_offset: int) -> int:
        """The time of the first record that was never compacted; -1 when it is not to be had."""
        offset, first_ms = self._first_dirty.get(log.log_id, (-1, NO_TIMESTAMP))
        if offset == clean_offset:
            return first_ms
        quarantined = {each.end_offset for each in await self._store.quarantined_of_log(log.log_id)}
        rows = await self._store.extents_of_log(log.log_id, clean_offset, self._limits.rows_max)
        for row in rows:
            if row.segment_id is None or row.end_offset in quarantined:
                continue
            try:
                first_ms = await self._first_ms(row, clean_offset)
            except ExtentMoved:
                return NO_TIMESTAMP
            except BadExtent as bad:
                await self.quarantine.add(lease, [bad])
                continue
            self._first_dirty[log.log_id] = (clean_offset, first_ms)
            return first_ms
        return NO_TIMESTAMP

    async def _first_ms(self, row: IndexRow, clean_offset: int) -> int:
        """The base timestamp of the first batch of an extent that ends after an offset, or the extent's own time."""
        async for window in self._source.windows(row, self._limits.window_bytes):
            self.counters.read_bytes += len(window.data)
            position, offset = 0, window.base_offset
            while position < len(window.data) and window.end_offset > clean_offset:
                header = parse_header(window.data, position)
                position += header.size_bytes
                offset += header.last_offset_delta + 1
                if offset > clean_offset and header.record_count:
                    return row.max_timestamp_ms if header.base_timestamp < 0 else header.base_timestamp
        return row.max_timestamp_ms

    # How much of one

    async def _span(self, due: _Due, now_ms: int) -> Span | None:
        """What may be compacted of a log at this moment; None when it is too little."""
        log, dirt = due.log, due.dirt
        state = (await self._store.log_states([log.log_id])).get(log.log_id)
        if state is None:
            return None
        clean_offset = max(dirt.clean_offset, state.start_offset)
        until, dirty_bytes = await self._bound(log, clean_offset, state.last_stable_offset, now_ms)
        if until <= clean_offset:
            return None
        if until < state.next_offset:
            # What has to wait is no part of the log in this.
            dirty_bytes = min(dirty_bytes, dirt.dirty_bytes)
            bounded = Dirt(clean_offset, dirty_bytes, dirt.total_bytes - dirt.dirty_bytes + dirty_bytes)
            if not due.is_late and not is_dirty_enough(bounded, log.topic):
                return None
        return Span(state.start_offset, clean_offset, until, state.next_offset - 1, due.stored_clean_offset)

    async def _bound(self, log: CompactedLog, clean_offset: int, until: int, now_ms: int) -> tuple[int, int]:
        """Up to where records may be compacted, and how many bytes the extents have that lie before."""
        bound_ms = youngest_ms(log.topic, now_ms)
        offset, size_bytes = clean_offset, 0
        while offset < until:
            rows = await self._store.extents_of_log(log.log_id, offset, self._limits.rows_max)
            young = first_too_young(rows, bound_ms)
            if young is not None:
                until = min(until, young.base_offset)
            size_bytes += sum(row.size_bytes for row in rows if row.base_offset < until)
            if not rows or young is not None:
                break
            offset = rows[-1].end_offset
            await asyncio.sleep(0)
        return until, size_bytes

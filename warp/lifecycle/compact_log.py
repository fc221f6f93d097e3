"""One pass over one log: note the newest offset of each key in the dirty part, then write the log without the rest.

The map of keys has a fixed size. Where it is full the dirty part ends for this pass, in the middle of a batch if need
be, and the next pass goes on there; so any number of keys is compacted in bounded memory, and each pass gets further.

What others do to the log meanwhile is noticed in the swap. The map stays true whatever becomes of the extents, so the
pass goes on with them as they are now. An extent that can't be read is passed over: what it holds supersedes nothing,
and stays. A tombstone behind it must stay as well, without a horizon, because there may be something in the extent that
it has to go on hiding once the extent can be read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from warp._compaction import Compacted, KeyMap, compact_batches, note_keys
from warp._records import InvalidBatch
from warp.ids import LogId
from warp.lifecycle.compact_output import CompactionCounters, CompactionOutput, in_thread
from warp.lifecycle.compact_plan import CompactedLog, CompactionLimits, Memory, clean_until, joinable
from warp.lifecycle.reading import BadExtent, CheckedBatches, ExtentMoved, ExtentSource, Quarantine
from warp.lifecycle.spans import span_ms_of
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, Quarantined
from warp.metadata.model import NO_TIMESTAMP

_log = logging.getLogger("warp.jobs")

T = TypeVar("T")

SLOT_BYTES = 48
"""What a key takes in a map that is no larger than it has to be."""


class ExtentStore(Protocol):
    """The part of the metadata store that knows a log's extents."""

    async def extents_of_log(self, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]: ...

    async def quarantined_of_log(self, log_id: LogId) -> list[Quarantined]: ...


class Place(NamedTuple):
    """An offset of a log, and how many bytes its extents have up to there."""

    offset: int
    size_bytes: int


class Span(NamedTuple):
    """What a pass is about: offsets of a log.

    Keys are noted from `clean_offset` up to `until_offset`. Nothing at or above `last_offset` is dropped: Kafka never
    drops the newest record, and there are clients that wait for it. `stored_clean_offset` is what the store says.
    """

    start_offset: int
    clean_offset: int
    until_offset: int
    last_offset: int
    stored_clean_offset: int


@dataclass(slots=True)
class Progress:
    """How far a pass has come: what it leaves behind while its last part waits in the output.

    Up to `done` everything is swapped in, or stays as it is; up to `added` it will once the output is. `is_dropped`
    says that the last part could not be swapped in.
    """

    done: Place
    added: Place
    is_dropped: bool = False

    def settle(self, row: IndexRow) -> None:
        """An extent stays as it is."""
        is_all_done = self.added == self.done
        self.added = Place(row.end_offset, self.added.size_bytes + row.size_bytes)
        if is_all_done:
            self.done = self.added

    def ended(self, is_swapped: bool) -> None:
        """What was added up to now is swapped in, or it never will be."""
        if is_swapped:
            self.done = self.added
        else:
            self.is_dropped = True


class LogPass:
    """A pass over one log. With `shares`, a small last part of it waits in the output for others to join it."""

    def __init__(
        self,
        store: ExtentStore,
        source: ExtentSource,
        quarantine: Quarantine,
        output: CompactionOutput,
        log: CompactedLog,
        span: Span,
        lease: Lease,
        now_ms: int,
        secret: bytes,
        limits: CompactionLimits,
        counters: CompactionCounters,
        *,
        shares: bool,
    ) -> None:
        self._store = store
        self._source = source
        self._quarantine = quarantine
        self._output = output
        self._log = log
        self._span = span
        self._lease = lease
        self._now_ms = now_ms
        self._horizon_ms = min(now_ms + log.topic.delete_retention_ms, 2**63 - 1)
        self._limits = limits
        self._counters = counters
        self._secret = secret
        self._keys = self._new_map()
        self._unread: dict[int, IndexRow] = {}
        """Extents that can't be read, by end offset."""
        self._quarantined: frozenset[int] = frozenset()
        self._has_gap = False
        """Whether something before the extent at hand could not be judged."""
        start = Place(span.start_offset, 0)
        self.progress = Progress(start, start)
        self._shares = shares
        self._read_bytes = 0
        self._begun = -1
        """The extent, by its end offset, of which keys were noted last."""

    def _new_map(self) -> KeyMap:
        """A map as large as it may have to be, and no larger than it may be."""
        keys_max = self._span.until_offset - self._span.clean_offset
        return KeyMap(min(self._limits.map_bytes, SLOT_BYTES * (keys_max + 1)), self._secret)

    async def run(self) -> Memory | None:
        """Compact; what is to be remembered of the log, unless `progress` says later that it was dropped.

        None when nothing was noted, or others changed the log over and over again. Raises MetadataError and its kinds,
        and ObjectStoreError.
        """
        self._quarantined = await self._quarantined_now()
        until = await self._note()
        while until is None:
            self._keys = self._new_map()
            until = await self._note()
        if until <= self._span.clean_offset:
            return None
        if not await self._filter_all(until):
            _log.info("log %d changes faster than it is compacted; it is left for later", self._log.log_id)
            return None
        self._counters.passes_over_logs += 1
        unread = frozenset(row.end_offset for row in self._unread_before(until))
        return Memory(self._clean_offset(until), until, unread, self.progress.added.size_bytes)

    def _unread_before(self, until: int) -> list[IndexRow]:
        return [row for row in self._unread.values() if row.base_offset < until]

    def _clean_offset(self, until: int) -> int:
        return clean_until(until, self._span.stored_clean_offset, self._unread_before(until))

    async def _quarantined_now(self) -> frozenset[int]:
        found = await self._store.quarantined_of_log(self._log.log_id)
        return frozenset(each.end_offset for each in found)

    # Noting

    async def _note(self) -> int | None:
        """Note the keys of the dirty part; up to which offset they are noted.

        None when keys were noted that should not have been, because their extent can't be read after all: then all has
        to be done again without it.
        """
        span = self._span
        offset = span.clean_offset
        while offset < span.until_offset:
            rows = await self._rows(offset, span.until_offset)
            if not rows:
                break
            for row in rows:
                try:
                    noted = await self._note_extent(row, offset)
                except ExtentMoved:
                    break
                except BadExtent as bad:
                    await self._pass_over(bad)
                    if self._begun == row.end_offset:
                        return None
                    noted = row.end_offset
                if noted < min(row.end_offset, span.until_offset):
                    self._counters.full_maps += 1
                    return noted
                offset = row.end_offset
        return min(offset, span.until_offset)

    async def _note_extent(self, row: IndexRow, from_offset: int) -> int:
        """The offset up to which an extent is noted. Raises BadExtent and ExtentMoved."""
        if row.segment_id is None or self._is_unread(row):
            return row.end_offset
        async for window in self._source.windows(row, self._limits.window_bytes):
            self._count(window)
            if window.end_offset <= from_offset:
                continue
            self._begun = row.end_offset
            noted = await self._native(row, window, partial(self._note_window, window, from_offset))
            if noted < window.end_offset:
                return noted
        return row.end_offset

    def _note_window(self, window: CheckedBatches, from_offset: int) -> int:
        return note_keys(
            window.data,
            window.base_offset,
            self._keys,
            from_offset=from_offset,
            until_offset=self._span.until_offset,
            decompressed_bytes_max=self._limits.decompressed_bytes_max,
        )

    # Writing

    async def _filter_all(self, until: int) -> bool:
        """Write the log up to an offset; False when others keep changing it."""
        tries, progress = 0, self.progress
        while True:
            before = progress.added = progress.done
            is_through = await self._filter_from(until, 4**tries)
            if is_through:
                self._output.begin(self._log, progress.ended)
                self._output.finish(self._log, self._clean_offset(until))
                if self._shares and tries == 0 and self._read_bytes <= self._limits.output_bytes:
                    # Small enough to be done all over again, should it be dropped.
                    return True
            await self._output.flush()
            if is_through and not progress.is_dropped:
                return True
            progress.is_dropped = False
            tries = 0 if progress.done.offset > before.offset else tries + 1
            if tries >= self._limits.tries_max:
                return False
            self._quarantined = await self._quarantined_now()

    async def _filter_from(self, until: int, part: int) -> bool:
        """Go through extents from where the pass has come to; False when others are found to have changed the log."""
        position = self.progress.done.offset
        if position == self._span.start_offset:
            self._has_gap = False
        while position < until:
            rows = await self._rows(position, until)
            if not rows:
                return True
            unread = frozenset(self._unread) | self._quarantined
            small = joinable(rows, unread, span_ms_of(self._log.topic))
            if rows[0].base_offset < position and self.progress.added != self.progress.done:
                # Joined meanwhile with what waits in the output, which is of no use any more.
                return False
            for row in rows:
                if not await self._filter_extent(row, until, row.end_offset in small):
                    return False
                position = row.end_offset
                if self._output.is_full(part):
                    await self._output.flush()
                if self.progress.is_dropped:
                    return False
        return True

    async def _filter_extent(self, row: IndexRow, until: int, is_joined: bool) -> bool:
        """Write what is kept of an extent, if it has to be written anew. False: begin again where all is done."""
        if row.segment_id is None or self._is_unread(row):
            self._has_gap |= row.segment_id is not None
            self.progress.settle(row)
            return True
        held: list[tuple[int, Compacted]] = []
        is_added, held_bytes, kept_bytes = False, 0, 0
        try:
            async for window, kept in self._compacted(row, until):
                held.append((window.base_offset, kept))
                held_bytes += len(kept.batches)
                kept_bytes += len(kept.batches)
                is_changed = kept.dropped_count > 0 or kept.horizon_count > 0
                if is_joined or is_added or is_changed or held_bytes > self._limits.window_bytes:
                    await self._add(row, held)
                    is_added = True
                    held.clear()
        except (BadExtent, ExtentMoved) as error:
            if isinstance(error, BadExtent):
                await self._pass_over(error)
            if is_added:
                self._output.spoil(self._log)
            return False
        if is_added:
            self._output.replace(self._log, row)
            added_bytes = self.progress.added.size_bytes + kept_bytes
            self.progress.added = Place(row.end_offset, added_bytes)
        else:
            self.progress.settle(row)
        return True

    async def _compacted(self, row: IndexRow, until: int) -> AsyncIterator[tuple[CheckedBatches, Compacted]]:
        """An extent window by window, with what is kept of each. Raises BadExtent and ExtentMoved."""
        async for window in self._source.windows(row, self._limits.window_bytes):
            self._count(window)
            kept = await self._native(row, window, partial(self._compact_window, window, until))
            self._has_gap |= kept.is_transactional
            self._counters.records_dropped += kept.dropped_count
            self._counters.records_kept += kept.record_count
            yield window, kept

    def _compact_window(self, window: CheckedBatches, until: int) -> Compacted:
        return compact_batches(
            window.data,
            window.base_offset,
            self._keys,
            until_offset=min(until, self._span.last_offset),
            now_ms=self._now_ms,
            horizon_ms=NO_TIMESTAMP if self._has_gap else self._horizon_ms,
            decompressed_bytes_max=self._limits.decompressed_bytes_max,
        )

    async def _add(self, row: IndexRow, held: Sequence[tuple[int, Compacted]]) -> None:
        self._output.begin(self._log, self.progress.ended)
        for base_offset, kept in held:
            add = partial(self._output.add, self._log, row, base_offset, kept)
            await in_thread(add, len(kept.batches))

    # Both

    async def _rows(self, from_offset: int, until: int) -> list[IndexRow]:
        """The next extents that begin before `until`, to be gone through before the loop is let go of again."""
        await asyncio.sleep(0)
        rows = await self._store.extents_of_log(self._log.log_id, from_offset, self._limits.rows_max)
        return [row for row in rows if row.base_offset < until]

    def _is_unread(self, row: IndexRow) -> bool:
        """Whether an extent is passed over because nobody can read it."""
        if row.end_offset in self._quarantined:
            self._unread[row.end_offset] = row
        return row.end_offset in self._unread

    async def _native(self, row: IndexRow, window: CheckedBatches, work: partial[T]) -> T:
        """What the native core makes of a window. Raises BadExtent."""
        try:
            return await in_thread(work, len(window.data))
        except InvalidBatch as error:
            raise BadExtent(row, f"a batch from offset {window.base_offset} on: {error}") from error

    def _count(self, window: CheckedBatches) -> None:
        self._read_bytes += len(window.data)
        self._counters.read_bytes += len(window.data)

    async def _pass_over(self, bad: BadExtent) -> None:
        await self._quarantine.add(self._lease, [bad])
        self._unread[bad.row.end_offset] = bad.row

"""The end of segments: found dead, their objects deleted after a time of grace, their rows forgotten some time later.

A segment is dead when no extent lies in it; that is final. Reads that looked extents up before may still be under way,
and somebody may want to put an older state of the metadata back, so its object stays for a while. Only what was deleted
is marked as gone: whatever fails, a later pass begins where this one ended. The row outlives the object by the time for
which a sealed segment may still be committed; until then, a late commit of its key finds it and is refused.

How old a death is goes by two clocks (`warp.lifecycle.ages`): the wall clock, and the boot-time clock since this
process first saw the segment dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warp.clock import Clock
from warp.errors import ObjectStoreError, StartError
from warp.lifecycle.ages import JUST_NOW_MS, FirstSeen, SteadyTime, is_old
from warp.lifecycle.permit import Permit
from warp.metadata.group_model import Lease
from warp.metadata.life_model import DeadSegment
from warp.objectstore.base import ObjectStore

_log = logging.getLogger("warp.jobs")

FORGET_AFTER_S = 1_200.0
"""Longer than a sealed segment may wait for its commit (15 minutes)."""

ReadSegments = Callable[[int, DeadSegment | None], Awaitable[list[DeadSegment]]]
"""Reads so many, oldest death first, that come after one."""
Handle = Callable[[Sequence[DeadSegment]], Awaitable[None]]
"""Takes care of some."""


class SegmentStore(Protocol):
    """The part of the metadata store that is needed here; `warp.metadata.life_store` says what each does."""

    async def mark_dead(self, lease: Lease, after_id: int, limit: int) -> tuple[int, int | None]: ...

    async def dead_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]: ...

    async def mark_gone(self, lease: Lease, segment_ids: Sequence[int]) -> None: ...

    async def gone_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]: ...

    async def forget_segments(self, lease: Lease, segment_ids: Sequence[int]) -> int: ...


@dataclass(frozen=True, slots=True)
class DeadLimits:
    """Times, and bounds of one pass."""

    grace_s: float = 1_800.0
    """--delete-grace: longer than any read lasts."""
    restore_window_s: float = 0.0
    """--restore-window"""
    forget_after_s: float = FORGET_AFTER_S
    rows_max: int = 1_000
    """Rows of one step, and keys of one request to the object store."""
    looks_max: int = 1_000
    """Steps in which a pass looks for segments that have died; the next pass goes on there."""
    watched_max: int = 200_000
    """Segments whose death is watched at once, 160 bytes each at most, and as many whose end is; others wait."""
    failures_max: int = 24
    """Deletions that may fail before a pass gives up: enough to find two bad keys among a thousand."""
    pause_s: float = 600.0
    """How long an object is left alone that can't be deleted while others can."""


@dataclass(slots=True)
class DeadCounters:
    """What has been done so far, for metrics."""

    segments_died: int = 0
    segments_deleted: int = 0
    bytes_deleted: int = 0
    delete_failures: int = 0
    """Requests to delete objects that failed; each was or will be tried again."""
    rows_forgotten: int = 0


class DeadSegments:
    """The job. `may_delete` is asked before anything is deleted; where it says no, nothing is."""

    def __init__(
        self,
        store: SegmentStore,
        objects: ObjectStore,
        clock: Clock,
        may_delete: Callable[[], Awaitable[bool]],
        limits: DeadLimits | None = None,
        *,
        time: SteadyTime | None = None,
    ) -> None:
        self.counters = DeadCounters()
        self._store = store
        self._limits = limits = limits or DeadLimits()
        time = time or SteadyTime(clock)
        grace_s = limits.grace_s
        dead = Ageing(
            store.dead_segments, clock, time, limits, max(grace_s, limits.restore_window_s), grace_s
        )
        gone_s = limits.forget_after_s
        self._dead = dead
        self._gone = Ageing(store.gone_segments, clock, time, limits, gone_s, gone_s)
        self._deletion = Deletion(objects, clock, Permit(may_delete, clock), limits, self.counters)
        self._looked_to = 0

    async def run(self, lease: Lease) -> None:
        """One pass. Raises LeaseLost, another MetadataError or ObjectStoreError: what is left is done by the next."""

        async def forget(rows: Sequence[DeadSegment]) -> None:
            ids = [row.segment_id for row in rows]
            self.counters.rows_forgotten += await self._store.forget_segments(lease, ids)

        async def note_gone(rows: Sequence[DeadSegment]) -> None:
            await self._store.mark_gone(lease, [row.segment_id for row in rows])
            self.counters.segments_deleted += len(rows)
            self.counters.bytes_deleted += sum(row.size_bytes for row in rows)

        await self._mark(lease)
        await self._gone.each_due(forget)
        self._deletion.begin()
        await self._dead.each_due(lambda rows: self._deletion.delete(rows, note_gone))

    async def _mark(self, lease: Lease) -> None:
        """Find segments that have died."""
        for _ in range(self._limits.looks_max):
            died, after = await self._store.mark_dead(lease, self._looked_to, self._limits.rows_max)
            self.counters.segments_died += died
            self._looked_to = after or 0
            if after is None:
                return
            await asyncio.sleep(0)


class Ageing:
    """Segments that wait for what comes next, each until it is old enough by both clocks."""

    def __init__(
        self,
        read: ReadSegments,
        clock: Clock,
        time: SteadyTime,
        limits: DeadLimits,
        wall_s: float,
        boot_s: float,
    ) -> None:
        self._read = read
        self._time = time
        self._rows_max = limits.rows_max
        self._wall_s = wall_s
        self._boot_s = boot_s
        self._seen = FirstSeen(clock, things_max=limits.watched_max)

    async def each_due(self, handle: Handle) -> None:
        """Hand over those that are old enough, at most as many at once as a step may have. Looks at the others too."""
        now_ms = self._time.time_ms()
        self._seen.begin()
        # Those that are far from being due by wall clock need no watching yet. Deaths in the future stand last.
        young_ms = now_ms - int((self._wall_s - self._boot_s) * 1000)
        future = DeadSegment(0, "", 0, now_ms + JUST_NOW_MS)
        await self._walk(None, young_ms, now_ms, handle)
        await self._walk(future, None, now_ms, handle)
        self._seen.end()

    async def _walk(
        self, after: DeadSegment | None, until_ms: int | None, now_ms: int, handle: Handle
    ) -> None:
        while rows := await self._read(self._rows_max, after):
            after = rows[-1]
            page = [row for row in rows if until_ms is None or row.died_ms <= until_ms]
            due = [row for row in page if self._is_due(row, now_ms)]
            if due:
                await handle(due)
            # Those after them are younger; and what can't be watched will not be due.
            if len(page) < self._rows_max or self._seen.is_full:
                return
            await asyncio.sleep(0)

    def _is_due(self, row: DeadSegment, now_ms: int) -> bool:
        seen_s = self._seen.age_s(row.segment_id)
        return is_old(row.died_ms, now_ms, seen_s, wall_s=self._wall_s, boot_s=self._boot_s)


class Deletion:
    """Deletes objects in large batches, and finds those that hold up a batch."""

    def __init__(
        self, objects: ObjectStore, clock: Clock, permit: Permit, limits: DeadLimits, counters: DeadCounters
    ) -> None:
        self._objects = objects
        self._clock = clock
        self._permit = permit
        self._limits = limits
        self._counters = counters
        self._failures_left = limits.failures_max
        self._paused: dict[int, float] = {}
        """Until when segments are left alone whose objects can't be deleted."""

    def begin(self) -> None:
        """A new pass: leave to delete is asked for anew, and so much may fail again."""
        self._permit.expire()
        self._failures_left = self._limits.failures_max
        now_s = self._clock.boottime()
        self._paused = {number: until_s for number, until_s in self._paused.items() if until_s > now_s}

    async def delete(self, rows: Sequence[DeadSegment], gone: Handle) -> None:
        """Delete the objects of some segments, and hand over those of which they are certainly gone.

        Raises ObjectStoreError when the store does not answer, or too much has failed in this pass.
        """
        waiting: list[Sequence[DeadSegment]] = [[row for row in rows if row.segment_id not in self._paused]]
        while waiting:
            some = waiting.pop()
            if not some:
                continue
            if not await self._permit.is_given():
                return
            try:
                await self._objects.delete([row.key for row in some])
            except ObjectStoreError as error:
                await self._failed(some, error)
                middle = len(some) // 2
                if middle:
                    waiting += [some[middle:], some[:middle]]
                continue
            await gone(some)
            await asyncio.sleep(0)

    async def _failed(self, some: Sequence[DeadSegment], error: ObjectStoreError) -> None:
        """One key may have failed a thousand, or the store may be away: go on unless it is."""
        self._counters.delete_failures += 1
        self._failures_left -= 1
        if self._failures_left <= 0:
            raise error
        try:
            await self._objects.check()
        except (ObjectStoreError, StartError):
            raise error from None
        if len(some) == 1:
            [row] = some
            _log.warning("the object %s of a dead segment can't be deleted: %s", row.key, error)
            self._paused[row.segment_id] = self._clock.boottime() + self._limits.pause_s

"""Objects that no commit ever named: what agents and jobs uploaded before they died, and second copies of slow uploads.

A sweep lists the segments of the object store, page by page, and asks the metadata for those that are old. What they do
not know it claims: the key is inserted as a dead segment, so that a commit or swap that comes yet finds it taken, and
the object goes the way of every dead segment. So nothing depends on clocks but how many late commits are refused. All
the same an object is old only when two clocks say so: by the store's time of its last change, and because a listing by
this process, a while ago by boot time, had objects as young as it.

Objects of receipts are named by no commit either. One ends when the metadata know none any more of the segments that it
tells of, after a time that leaves room for every restore. Objects with names that are not ours are counted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from warp.clock import Clock
from warp.errors import ObjectNotFound
from warp.ids import SEGMENT_PREFIX
from warp.lifecycle.ages import SteadyTime
from warp.lifecycle.permit import Permit
from warp.log.segment import RECEIPTS_PREFIX, SegmentFormatError, read_index
from warp.metadata.group_model import Lease
from warp.objectstore.base import ObjectInfo, ObjectStore

_log = logging.getLogger("warp.jobs")

LATE_COMMIT_S = 900.0
"""How long a sealed segment may wait for its commit."""
RECEIPTS_AGE_S = 7 * 86_400.0
_NAME = re.compile(r"[a-z]+/[0-9a-f]{2}/[0-9a-f]{12}-[0-9a-f]{20}")
"""Keys of segments and receipts; see `warp.ids.IdSource.segment_key`."""


class OrphanStore(Protocol):
    """The part of the metadata store that is needed here; `warp.metadata.life_store` says what each does."""

    async def known_keys(self, keys: Sequence[str]) -> set[str]: ...

    async def claim_keys(self, lease: Lease, unknown: Sequence[tuple[str, int]]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class OrphanLimits:
    """Times, and bounds of one pass."""

    age_s: float = 3_600.0
    """--orphan-age"""
    receipts_age_s: float = RECEIPTS_AGE_S
    """The restore window, if that is longer."""
    keys_max: int = 1_000
    """Keys that are asked for, claimed or deleted together."""
    receipts_read_max: int = 1_000
    """Objects of receipts that a pass reads."""
    receipts_pause_s: float = 86_400.0
    """How long one is left alone that was read and is still needed."""
    receipts_remembered_max: int = 20_000
    """So many of these are remembered, some 200 bytes each."""


@dataclass(slots=True)
class OrphanCounters:
    """What has been done so far, for metrics."""

    orphans_claimed: int = 0
    orphan_bytes_claimed: int = 0
    receipts_deleted: int = 0
    foreign_objects: int = 0
    """Objects under our prefixes with names that are not ours, or that are not what their names say, as the last whole
    pass has found them."""


class OrphanSweep:
    """The job. `may_delete` is asked before anything is claimed or deleted; where it says no, nothing is.

    `is_clock_trusted`: can this machine's clock tell what is old? Where it can't, everything stays.
    """

    def __init__(
        self,
        store: OrphanStore,
        objects: ObjectStore,
        clock: Clock,
        may_delete: Callable[[], Awaitable[bool]],
        limits: OrphanLimits | None = None,
        *,
        time: SteadyTime | None = None,
        is_clock_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.counters = OrphanCounters()
        self._store = store
        self._objects = objects
        self._limits = limits = limits or OrphanLimits()
        self._time = time or SteadyTime(clock)
        self._permit = Permit(may_delete, clock)
        self._is_clock_trusted = is_clock_trusted
        watch_s = min(limits.age_s, LATE_COMMIT_S)
        self._segments = Listing(objects, SEGMENT_PREFIX, clock, watch_s)
        self._receipts = Listing(objects, RECEIPTS_PREFIX, clock, watch_s)
        self._reader = ReceiptsReader(store, objects, clock, limits)

    async def run(self, lease: Lease) -> None:
        """One pass. Raises LeaseLost, another MetadataError or ObjectStoreError: what is left is done by the next."""
        jump_s = max(self._limits.age_s, LATE_COMMIT_S)
        if not self._is_clock_trusted() or self._time.has_jumped_within(jump_s):
            return
        self._permit.expire()
        now_ms = self._time.time_ms()

        async def claim(page: Sequence[ObjectInfo]) -> None:
            await self._claim(lease, page)

        old_ms = now_ms - int(self._limits.age_s * 1000)
        foreign = await self._segments.each_old(now_ms, old_ms, self._limits.keys_max, claim)
        self._reader.begin()

        async def end(page: Sequence[ObjectInfo]) -> None:
            await self._delete_receipts(await self._reader.not_needed(page))

        old_ms = now_ms - int(self._limits.receipts_age_s * 1000)
        foreign += await self._receipts.each_old(now_ms, old_ms, self._limits.keys_max, end)
        self._tell_foreign(foreign + self._reader.foreign)

    async def _claim(self, lease: Lease, page: Sequence[ObjectInfo]) -> None:
        known = await self._store.known_keys([found.key for found in page])
        unknown = {found.key: found.size_bytes for found in page if found.key not in known}
        if not unknown or not await self._permit.is_given():
            return
        claimed = await self._store.claim_keys(lease, sorted(unknown.items()))
        self.counters.orphans_claimed += len(claimed)
        self.counters.orphan_bytes_claimed += sum(unknown[key] for key in claimed)
        if claimed:
            _log.info("claimed %d objects that no commit has named, %s among them", len(claimed), claimed[0])

    async def _delete_receipts(self, keys: Sequence[str]) -> None:
        if keys and await self._permit.is_given():
            await self._objects.delete(keys)
            self.counters.receipts_deleted += len(keys)

    def _tell_foreign(self, count: int) -> None:
        if count > self.counters.foreign_objects:
            _log.warning(
                "%d objects under %s and %s are not this system's; they are left alone",
                count,
                SEGMENT_PREFIX,
                RECEIPTS_PREFIX,
            )
        self.counters.foreign_objects = count


class Listing:
    """What lies under one prefix, listed again and again.

    Keeps of each listing the time of the youngest object in it, by the store's clock: everything that is no younger was
    there already.
    """

    def __init__(self, objects: ObjectStore, prefix: str, clock: Clock, watch_s: float) -> None:
        self._objects = objects
        self._prefix = prefix
        self._clock = clock
        self._watch_s = watch_s
        self._marks: deque[tuple[float, int]] = deque()
        """When listings ended, by boot time, and the youngest object of each."""

    async def each_old(
        self,
        now_ms: int,
        old_ms: int,
        count_max: int,
        handle: Callable[[Sequence[ObjectInfo]], Awaitable[None]],
    ) -> int:
        """Hand over objects that were last changed at `old_ms` or before and were there `watch_s` ago, some at a time.

        How many others there were with names that are not ours. Raises what the store and `handle` raise.
        """
        until_ms = min(old_ms, self._there_ms())
        foreign = 0
        youngest_ms = -1
        page: list[ObjectInfo] = []
        listing = self._objects.list(self._prefix)
        try:
            async for found in listing:
                if not _NAME.fullmatch(found.key):
                    foreign += 1
                    continue
                if found.modified_ms <= now_ms:
                    youngest_ms = max(youngest_ms, found.modified_ms)
                if found.modified_ms <= until_ms:
                    page.append(found)
                    if len(page) >= count_max:
                        await handle(page)
                        page = []
        finally:
            if isinstance(listing, AsyncGenerator):
                await listing.aclose()
        if page:
            await handle(page)
        self._mark(youngest_ms)
        return foreign

    def _there_ms(self) -> int:
        """Up to which time of last change objects were there long enough ago; -1: nobody knows of any."""
        long_ago_s = self._clock.boottime() - self._watch_s
        return max((youngest_ms for ended_s, youngest_ms in self._marks if ended_s <= long_ago_s), default=-1)

    def _mark(self, youngest_ms: int) -> None:
        now_s = self._clock.boottime()
        # A few suffice, and of those that are old enough the last one.
        if not self._marks or now_s - self._marks[-1][0] >= self._watch_s / 8:
            self._marks.append((now_s, youngest_ms))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - self._watch_s:
            self._marks.popleft()


class ReceiptsReader:
    """Finds out which objects of receipts are needed no more. `foreign`: what else this pass has met in their place."""

    def __init__(self, store: OrphanStore, objects: ObjectStore, clock: Clock, limits: OrphanLimits) -> None:
        self.foreign = 0
        self._store = store
        self._objects = objects
        self._clock = clock
        self._limits = limits
        self._reads_left = 0
        self._needed: dict[str, tuple[float, bool]] = {}
        """Objects that stay: when to look again, and whether they are foreign."""

    def begin(self) -> None:
        """A new pass."""
        self.foreign = 0
        self._reads_left = self._limits.receipts_read_max
        now_s = self._clock.boottime()
        self._needed = {
            key: (until_s, is_foreign)
            for key, (until_s, is_foreign) in self._needed.items()
            if until_s > now_s
        }

    async def not_needed(self, page: Sequence[ObjectInfo]) -> list[str]:
        """Those of some objects that tell of no segment that the metadata know.

        Raises ObjectStoreError and MetadataError.
        """
        over = []
        for found in page:
            if found.key in self._needed:
                self.foreign += self._needed[found.key][1]
            elif self._reads_left:
                self._reads_left -= 1
                with suppress(ObjectNotFound):
                    if await self._is_over(found.key):
                        over.append(found.key)
                await asyncio.sleep(0)
        return over

    async def _is_over(self, key: str) -> bool:
        told = await self._told(key)
        if told is not None and not await self._is_any_known(told):
            return True
        self.foreign += told is None
        self._remember(key, is_foreign=told is None)
        return False

    def _remember(self, key: str, *, is_foreign: bool) -> None:
        if len(self._needed) < self._limits.receipts_remembered_max:
            self._needed[key] = (self._clock.boottime() + self._limits.receipts_pause_s, is_foreign)

    async def _told(self, key: str) -> list[str] | None:
        """The segments that an object of receipts tells of; None when it is something else. Raises ObjectStoreError."""
        try:
            index = await read_index(self._objects, key)
        except SegmentFormatError as error:
            _log.warning("%s should hold receipts: %s", key, error)
            return None
        if index.extents:
            _log.warning("%s should hold receipts alone, and holds records", key)
            return None
        return [receipt.key for receipt in index.receipts]

    async def _is_any_known(self, keys: Sequence[str]) -> bool:
        for start in range(0, len(keys), self._limits.keys_max):
            if await self._store.known_keys(keys[start : start + self._limits.keys_max]):
                return True
        return False

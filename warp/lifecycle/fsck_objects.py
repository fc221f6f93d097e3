"""Every object of the store accounted for: named by a row, of a kind that is known, unknown, or somebody else's.

The store is listed once, in no order, and asked for its rows as it comes. Which live segments were listed is kept in a
bit for each id, so that memory stays bounded however many there are; those that were not are asked for one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from warp.clock import Clock
from warp.errors import ObjectNotFound, ObjectStoreError
from warp.ids import SEGMENT_PREFIX
from warp.lifecycle.epoch import EPOCH_PREFIX
from warp.lifecycle.fsck_report import RESTORE, Finding, Kind, Progress, Report
from warp.lifecycle.fsck_segments import MISSING, unread
from warp.log.segment import RECEIPTS_PREFIX
from warp.metadata.fsck_model import SegmentFacts
from warp.metadata.fsck_store import FsckStore, Totals
from warp.metadata.life_model import SegmentState
from warp.objectstore.base import ObjectInfo, ObjectStore

MARKER_KEY = "warp-cluster.json"
IS_MARKED = "object-store.is_marked"
"""As `warp.cluster.marker` has them."""
PROBE_PREFIX = "probe/"
"""What agents store at their start to see what the store can do, and remove again."""
KEYS_PER_PAGE = 1000
NAMED_MAX = 20
"""So many objects of a kind that is not wrong are named; the others are counted."""

_NAME = "[0-9a-f]{2}/[0-9a-f]{12}-[0-9a-f]{20}"
_SEGMENT_KEY = re.compile(SEGMENT_PREFIX + _NAME)
_RECEIPTS_KEY = re.compile(RECEIPTS_PREFIX + _NAME)


class IdSet:
    """A set of ids that are dense, a bit for each; at most `bytes_max`, beyond which ids are not taken."""

    def __init__(self, bytes_max: int = 256 * 2**20) -> None:
        self._first = 0
        self._bits = bytearray()
        self._bytes_max = bytes_max

    def add(self, number: int) -> None:
        """Take an id in, if there is room."""
        byte, bit = divmod(number, 8)
        if byte >= self._bytes_max or number < 0:
            return
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(byte + 1 - len(self._bits), 4096)))
        self._bits[byte] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        byte, bit = divmod(number, 8)
        return 0 <= byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)


class ObjectCheck:
    """Compares what the store lists with the rows. `orphan_age_ms`: from when on the sweep takes unknown objects."""

    def __init__(
        self,
        report: Report,
        store: FsckStore,
        objects: ObjectStore,
        clock: Clock,
        progress: Progress,
        *,
        orphan_age_ms: int,
    ) -> None:
        self._report = report
        self._store = store
        self._objects = objects
        self._clock = clock
        self._progress = progress
        self._orphan_age_ms = orphan_age_ms
        self._listed = IdSet()
        self._page: list[ObjectInfo] = []
        self._has_marker = False

    async def run(self, totals: Totals) -> None:
        """List the store, then ask for what was not listed. Raises MetadataError and ObjectStoreError."""
        done = 0
        async for found in self._objects.list():
            done += 1
            self._sort_in(found)
            if len(self._page) == KEYS_PER_PAGE:
                await self._look_up()
                self._progress("objects", done, max(totals.segments, done))
        await self._look_up()
        if not self._has_marker and await self._store.setting(IS_MARKED) is not None:
            text = "the store has no marker of a cluster: it is another store, or has lost objects"
            self._report.add(
                Finding(Kind.MARKER, MARKER_KEY, text, "name the store that the cluster's data is in")
            )
        await self._ask_for_unlisted(totals)

    def _sort_in(self, found: ObjectInfo) -> None:
        counts = self._report.counts
        counts["objects"] += 1
        counts["object bytes"] += found.size_bytes
        if _SEGMENT_KEY.fullmatch(found.key):
            self._page.append(found)
        elif _RECEIPTS_KEY.fullmatch(found.key):
            counts["receipts"] += 1
        elif found.key.startswith(EPOCH_PREFIX):
            counts["epochs"] += 1
        elif found.key.startswith(PROBE_PREFIX):
            counts["probe objects"] += 1
        elif found.key == MARKER_KEY:
            self._has_marker = True
        else:
            counts["foreign objects"] += 1
            if counts["foreign objects"] <= NAMED_MAX:
                self._report.note(
                    f"{found.key!r} is none of Warp's objects ({found.size_bytes} bytes); left alone"
                )

    async def _look_up(self) -> None:
        """What the metadata say of the objects of the page."""
        page, self._page = self._page, []
        if not page:
            return
        known = await self._store.segments_of([found.key for found in page], with_extents=False)
        rows = {segment.key: segment for segment in known.segments}
        for found in page:
            segment = rows.get(found.key)
            if segment is None:
                await self._unknown(found)
            elif segment.state == SegmentState.LIVE:
                self._listed.add(segment.segment_id)
                if segment.size_bytes != found.size_bytes:
                    await self._wrong_size(segment)
            elif segment.state == SegmentState.DEAD:
                self._report.counts["dead objects"] += 1
            else:
                self._report.counts["objects of gone segments"] += 1

    async def _unknown(self, found: ObjectInfo) -> None:
        age_ms = self._clock.time_ms() - found.modified_ms
        if age_ms < self._orphan_age_ms:
            # Most likely its commit is on the way.
            self._report.counts["unknown objects, young"] += 1
            return
        counts = self._report.counts
        if counts["orphans"] < KEYS_PER_PAGE and not await self._is_there(found.key):
            return
        counts["orphans"] += 1
        counts["orphan bytes"] += found.size_bytes
        if counts["orphans"] <= NAMED_MAX:
            self._report.note(
                f"{found.key} is an orphan ({found.size_bytes} bytes): agents with the role jobs will delete it"
            )

    async def _is_there(self, key: str) -> bool:
        try:
            await self._objects.head(key)
        except ObjectNotFound:
            return False
        except ObjectStoreError:
            return True
        return True

    async def _wrong_size(self, segment: SegmentFacts) -> None:
        """Look again: the object itself, and whether it still matters."""
        try:
            size_bytes = (await self._objects.head(segment.key)).size_bytes
        except ObjectNotFound:
            if await self._still_live(segment.key):
                self._report.add(Finding(Kind.OBJECT_MISSING, segment.key, MISSING, RESTORE))
            return
        except ObjectStoreError as error:
            self._report.add(unread(segment.key, error))
            return
        if size_bytes != segment.size_bytes and await self._still_live(segment.key):
            text = f"the object has {size_bytes} bytes, its row says {segment.size_bytes}"
            self._report.add(Finding(Kind.OBJECT_SIZE, segment.key, text, RESTORE))

    async def _still_live(self, key: str) -> bool:
        again: Sequence[SegmentFacts] = (await self._store.segments_of([key], with_extents=False)).segments
        return bool(again) and again[0].state == SegmentState.LIVE

    async def _ask_for_unlisted(self, totals: Totals) -> None:
        after_id = done = 0
        while True:
            page = (await self._store.segments(after_id, totals.last_segment_id, with_extents=False)).segments
            if not page:
                return
            after_id = page[-1].segment_id
            for segment in page:
                check_row(self._report, segment)
                if segment.state != SegmentState.LIVE:
                    continue
                done += 1
                if segment.segment_id not in self._listed:
                    await self._missing(segment)
            self._progress("segment rows", done, totals.segments)

    async def _missing(self, segment: SegmentFacts) -> None:
        """A live segment that the listing did not have: it may be newer than that."""
        try:
            found = await self._objects.head(segment.key)
        except ObjectNotFound:
            if await self._still_live(segment.key):
                self._report.add(Finding(Kind.OBJECT_MISSING, segment.key, MISSING, RESTORE))
        except (ObjectStoreError, ValueError) as error:
            self._report.add(unread(segment.key, error))
        else:
            if found.size_bytes != segment.size_bytes:
                await self._wrong_size(segment)


def check_row(report: Report, segment: SegmentFacts) -> None:
    """What a segment's row has to fulfil by itself, and how many there are of its kind."""
    try:
        state = SegmentState(segment.state)
    except ValueError:
        text = f"its state is {segment.state}, which this release does not know"
        report.add(
            Finding(Kind.SEGMENT_STATE, segment.key, text, "use the release that wrote it, or newer metadata")
        )
        return
    report.counts[f"{state.name.lower()} segments"] += 1
    if state is SegmentState.LIVE:
        report.counts[f"live segments, level {segment.level}"] += 1
        report.counts["live bytes"] += segment.size_bytes
        if segment.died_ms is not None:
            text = "its row says when it died, and that it is live"
            report.add(Finding(Kind.SEGMENT_STATE, segment.key, text, RESTORE))
    elif segment.died_ms is None:
        text = "its row says that it is dead, and not since when: its object is never deleted"
        report.add(Finding(Kind.SEGMENT_STATE, segment.key, text, RESTORE))
    if not segment.key.startswith(SEGMENT_PREFIX):
        text = "its key is not one of a segment"
        report.add(Finding(Kind.SEGMENT_STATE, segment.key, text, RESTORE))

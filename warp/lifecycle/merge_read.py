"""Reads the extents of a portion: neighbours of one segment in one request, several requests at a time.

Segments above level 0 are in order of logs, and so are portions: what a portion needs of a segment lies in one place
there. What can't be read as expected is read once more extent by extent, where `reading.py` finds out why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from warp.errors import ObjectNotFound, ShortObject
from warp.lifecycle.reading import (
    BadExtent,
    CheckedBatches,
    Damaged,
    ExtentMoved,
    ExtentSource,
    Index,
    checked,
)
from warp.metadata.life_model import IndexRow
from warp.objectstore.base import Buffer

GET_BYTES_MAX = 8 * 2**20
"""Of a request for several extents; a single one may be larger."""

GAP_BYTES_MAX = 64 * 1024
"""Unwanted bytes between two extents that are read rather than asking twice, while there is room for them."""

GETS_AT_ONCE = 8

_log = logging.getLogger("warp.jobs")

T = TypeVar("T")


class MergeIndex(Index, Protocol):
    """The part of the metadata store that knows where extents are."""

    async def extents_in_segments(self, segment_ids: Sequence[int]) -> list[IndexRow]: ...


class HeldBytes:
    """Counts bytes in memory: `now`, and the most that there ever were."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0

    def take(self, size_bytes: int) -> None:
        self.now += size_bytes
        self.peak = max(self.peak, self.now)

    def give(self, size_bytes: int) -> None:
        self.now -= size_bytes


class _Range(NamedTuple):
    """Extents of one segment that are read together."""

    rows: list[IndexRow]
    start: int
    end: int


class PortionReader:
    """Reads portions, one at a time. `held` counts what it has in memory until `release`.

    `gaps_bytes_max` bounds all that is read of a portion without being wanted.
    """

    def __init__(self, source: ExtentSource, index: MergeIndex, held: HeldBytes, gaps_bytes_max: int) -> None:
        self._source = source
        self._index = index
        self._held = held
        self._gaps_bytes_max = gaps_bytes_max
        self._held_bytes = 0
        self._bytes: dict[IndexRow, Buffer] = {}
        self._unread: dict[IndexRow, BadExtent | ExtentMoved | None] = {}

    async def read(self, rows: Sequence[IndexRow]) -> None:
        """Have the bytes of these extents in memory. Raises ObjectStoreError and MetadataError."""
        gate = asyncio.Semaphore(GETS_AT_ONCE)
        # Choosing these rows, planning the requests and starting them take a millisecond each.
        await asyncio.sleep(0)
        ranges = _ranges(rows, self._gaps_bytes_max)
        await asyncio.sleep(0)
        await all_of(self._fetch(part, gate) for part in ranges)

    async def take(self, row: IndexRow) -> CheckedBatches:
        """One of them, every batch checked. Raises BadExtent, ExtentMoved, and as `read` does."""
        failure = self._unread.get(row)
        if failure is not None:
            raise failure
        data = self._bytes.get(row)
        if data is not None:
            try:
                return await checked(row, data)
            except Damaged as error:
                _log.debug("reading an extent again, it may have been damaged on its way: %s", error)
        found = await self._source.read(row)
        self._hold(len(found.data))
        return found

    def release(self) -> None:
        """Forget what was read."""
        self._bytes.clear()
        self._unread.clear()
        self._held.give(self._held_bytes)
        self._held_bytes = 0

    def _hold(self, size_bytes: int) -> None:
        self._held.take(size_bytes)
        self._held_bytes += size_bytes

    async def _fetch(self, part: _Range, gate: asyncio.Semaphore) -> None:
        async with gate:
            self._hold(part.end - part.start)
            try:
                data = await self._source.get(part.rows[0].key, part.start, part.end - part.start)
            except ObjectNotFound:
                await self._look_after_missing(part.rows)
                return
            except ShortObject:
                return  # Those that are there are found one by one.
            view = memoryview(data)
            for row in part.rows:
                start = row.position - part.start
                self._bytes[row] = view[start : start + row.size_bytes]

    async def _look_after_missing(self, rows: Sequence[IndexRow]) -> None:
        """Find out with one extent what has become of an object, and tell it of all in it."""
        try:
            found = await self._source.read(rows[0])
        except (BadExtent, ExtentMoved) as error:
            segment_id = rows[0].segment_id
            assert segment_id is not None
            here = set(await self._index.extents_in_segments([segment_id]))
            reason = error.reason if isinstance(error, BadExtent) else None
            for row in rows:
                if row not in here:
                    self._unread[row] = ExtentMoved(row)
                elif reason is not None:
                    self._unread[row] = BadExtent(row, reason)
            return
        self._hold(len(found.data))
        self._bytes[rows[0]] = found.data


def _ranges(rows: Iterable[IndexRow], gaps_bytes_max: int) -> list[_Range]:
    """What to ask for: extents that lie near each other together, up to GET_BYTES_MAX."""
    ranges: list[_Range] = []
    for row in sorted(rows, key=lambda row: (row.key, row.position)):
        end = row.position + row.size_bytes
        if ranges:
            last = ranges[-1]
            gap_bytes = row.position - last.end
            is_near = 0 <= gap_bytes <= min(GAP_BYTES_MAX, gaps_bytes_max)
            if is_near and last.rows[0].key == row.key and end - last.start <= GET_BYTES_MAX:
                gaps_bytes_max -= gap_bytes
                last.rows.append(row)
                ranges[-1] = last._replace(end=end)
                continue
        ranges.append(_Range([row], row.position, end))
    return ranges


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do several things at once. When one fails the others are stopped, and nothing goes on in the background."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise

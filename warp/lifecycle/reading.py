"""Reads extents for jobs: straight from the object store, every batch checked, and what can't be read told apart.

When an extent can't be read, one of three things is the case. Its row is no longer as it was read, because another job
has moved or removed it: ExtentMoved, and there is nothing to do. Its object is missing, too short or damaged although
the index still points there: BadExtent, and the job puts it in quarantine and goes on with the rest. Or the store does
not answer: that is ObjectStoreError, says nothing about the extent, and ends the pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

from warp._records import InvalidBatch, parse_header, verify_batches, whole_batches
from warp.errors import ObjectNotFound, ShortObject, WarpError
from warp.ids import LogId
from warp.lifecycle.output import earlier
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow
from warp.metadata.model import NO_TIMESTAMP
from warp.objectstore.base import Buffer, ObjectStore

WINDOW_BYTES = 8 * 2**20
"""How much of an extent is read at a time, unless a single batch is larger."""

BYTES_PER_STEP = 2**20
"""After so many bytes the event loop gets its turn."""

_BATCH_HEADER_BYTES = 61

_log = logging.getLogger("warp.jobs")

T = TypeVar("T")


class BadExtent(WarpError):
    """The bytes that the index promises are not there: missing, cut short or damaged. `row` says where."""

    def __init__(self, row: IndexRow, reason: str) -> None:
        super().__init__(
            f"log {row.log_id}, offsets {row.base_offset} to {row.end_offset}, bytes {row.position} to "
            f"{row.position + row.size_bytes} of {row.key}: {reason}"
        )
        self.row = row
        self.reason = reason


class ExtentMoved(WarpError):
    """The index no longer holds the extent as it was read: somebody has moved it, or removed it."""

    def __init__(self, row: IndexRow) -> None:
        super().__init__(f"log {row.log_id}, offsets {row.base_offset} to {row.end_offset}: moved or removed")
        self.row = row


class Damaged(WarpError):
    """Bytes are not the batches that the index promises; says how."""


class CheckedBatches(NamedTuple):
    """Whole batches of one log whose CRCs are right, and what their headers say together.

    `max_timestamp_ms` counts batches without timestamps as what the index says of their extent.
    """

    data: Buffer
    base_offset: int
    end_offset: int
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int


class Index(Protocol):
    """The part of the metadata store that knows where extents are."""

    async def extents_of_log(self, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]: ...


class QuarantineStore(Protocol):
    """The part of the metadata store that keeps jobs away from extents."""

    async def quarantine(self, lease: Lease | None, found: Sequence[IndexRow], reason: str) -> None: ...


class Pace(Protocol):
    """Bounds how fast jobs read and write."""

    async def spend(self, size_bytes: int, /) -> None: ...


class ConsideratePace(Pace, Protocol):
    """Also says how fast, and how long at a time."""

    @property
    def bytes_per_s(self) -> float: ...

    def now_s(self) -> float: ...

    async def turn(self, began_s: float, /) -> None: ...


class ExtentSource:
    """Reads extents with one fresh look-up before anything is called bad."""

    def __init__(self, objects: ObjectStore, index: Index, pace: Pace) -> None:
        self._objects = objects
        self._index = index
        self._pace = pace

    async def read(self, row: IndexRow) -> CheckedBatches:
        """A whole extent. Raises BadExtent, ExtentMoved, ObjectStoreError and MetadataError."""
        return await self._attempt(row, partial(self._checked, row))

    async def windows(self, row: IndexRow, window_bytes: int = WINDOW_BYTES) -> AsyncIterator[CheckedBatches]:
        """An extent piece by piece, each of at most `window_bytes` or one batch. Raises as `read` does."""
        at, offset = row.position, row.base_offset
        while at < row.position + row.size_bytes:
            read = partial(self._window, row, at, offset, max(window_bytes, _BATCH_HEADER_BYTES))
            window = await self._attempt(row, read)
            at += len(window.data)
            offset = window.end_offset
            yield window

    async def is_as_read(self, row: IndexRow) -> bool:
        """Whether the index holds this very extent at present."""
        return await self._index.extents_of_log(row.log_id, row.base_offset, 1) == [row]

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """Bytes of an object, at the pace of jobs. Raises as the object store does."""
        await self._pace.spend(length)
        return await self._objects.get(key, start, length)

    async def _attempt(self, row: IndexRow, read: Callable[[], Awaitable[T]]) -> T:
        """Try, and after a failure look whether the extent is still there, and try once more."""
        reason = ""
        for is_last in (False, True):
            try:
                return await read()
            except ObjectNotFound:
                reason = "its object is missing"
            except ShortObject:
                reason = "its object ends before it does"
            except Damaged as error:
                reason = str(error)
            if not is_last and not await self.is_as_read(row):
                raise ExtentMoved(row)
        raise BadExtent(row, reason)

    async def _checked(self, row: IndexRow) -> CheckedBatches:
        return await checked(row, await self.get(row.key, row.position, row.size_bytes))

    async def _window(self, row: IndexRow, start: int, base_offset: int, window_bytes: int) -> CheckedBatches:
        """The batches from byte `start` on that fit into a window, or the one batch that is larger."""
        left_bytes = row.position + row.size_bytes - start
        data = await self.get(row.key, start, min(left_bytes, window_bytes))
        try:
            fitting_bytes = whole_batches(data, len(data), False)
            if not fitting_bytes:
                batch_bytes = parse_header(data).size_bytes
                if batch_bytes > left_bytes:
                    raise Damaged(f"the batch at byte {start} goes beyond its extent")
                data = await self.get(row.key, start, batch_bytes)
                fitting_bytes = batch_bytes
        except InvalidBatch as error:
            raise Damaged(f"no batch at byte {start}: {error}") from error
        found = memoryview(data)[:fitting_bytes]
        return await checked(row, found, start - row.position, base_offset)


async def checked(
    row: IndexRow, data: Buffer, start: int = 0, base_offset: int | None = None
) -> CheckedBatches:
    """Check the CRC of every batch, and the offsets, of some bytes of an extent; in steps.

    `data` begins `start` bytes into the extent, at a batch that has `base_offset` (that of the extent for None). Raises
    Damaged.
    """
    first = offset = row.base_offset if base_offset is None else base_offset
    position = records = 0
    first_ms = max_ms = NO_TIMESTAMP
    while position < len(data):
        try:
            totals = verify_batches(data, position, BYTES_PER_STEP)
        except InvalidBatch as error:
            raise Damaged(
                f"a batch at byte {start + position} of it, or up to 1 MiB after: {error}"
            ) from error
        position += totals.size_bytes
        offset += totals.offset_count
        records += totals.record_count
        first_ms = earlier(first_ms, totals.first_timestamp)
        untimed_ms = row.max_timestamp_ms if totals.untimed_batches else NO_TIMESTAMP
        max_ms = max(max_ms, totals.max_timestamp, untimed_ms)
        if position < len(data):
            await asyncio.sleep(0)
    if offset > row.end_offset or (start + position == row.size_bytes) != (offset == row.end_offset):
        raise Damaged(f"its offsets end at {offset}")
    return CheckedBatches(data, first, offset, records, first_ms, max_ms)


class Quarantine:
    """Puts what jobs can't read in quarantine; `extents` and `size_bytes` count what this agent has found."""

    def __init__(self, store: QuarantineStore) -> None:
        self._store = store
        self.extents = 0
        self.size_bytes = 0

    async def add(self, lease: Lease | None, found: Sequence[BadExtent]) -> None:
        """Keep jobs away from these extents, and say so in the log. Raises MetadataError."""
        for reason, group in groupby(sorted(found, key=lambda bad: bad.reason), lambda bad: bad.reason):
            rows = []
            for bad in group:
                _log.error("a job can't read an extent, which from now on all leave alone: %s", bad)
                rows.append(bad.row)
            await self._store.quarantine(lease, rows, reason)
            self.extents += len(rows)
            self.size_bytes += sum(row.size_bytes for row in rows)

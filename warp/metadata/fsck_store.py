"""What fsck reads of the metadata: every table in pages, each page from one snapshot, so that memory stays bounded.

Whatever must be seen together is read in the same snapshot: a log with all its extents, segments with theirs. A
snapshot holds nobody up; on SQLite it only keeps the write-ahead log from being cut while it lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from warp.ids import LogId, ProducerId, TopicId
from warp.metadata.fsck_model import (
    DeletedLog,
    ExtentFacts,
    LogFacts,
    OffsetFacts,
    Payload,
    PlacedExtent,
    ProducerFacts,
    QuarantinedFacts,
    SegmentFacts,
    TopicFacts,
)
from warp.metadata.session import Row, Session, load_statements

SQL = load_statements("fsck")
READ_SETTING = load_statements("settings")["read_setting"]

LOGS_PER_PAGE = 500
ROWS_PER_PAGE = 2000
EXTENTS_PER_SNAPSHOT = 20_000
"""After so many a snapshot ends at the next border of logs."""
SEGMENTS_PER_PAGE = 32
EXAMPLES_MAX = 100

_LAST_ID = 2**63 - 1


class Snapshots(Protocol):
    """The part of a database that reading needs."""

    def snapshot(self) -> AbstractAsyncContextManager[Session]: ...


class LogVisitor(Protocol):
    """Who is shown the logs in order of their ids, each with its extents in order of their offsets."""

    def begin(self, log: LogFacts) -> None: ...

    def extent(self, extent: ExtentFacts) -> None: ...

    def end(self) -> None: ...

    def stray(self, extent: ExtentFacts, deleted: DeletedLog | None) -> None:
        """An extent whose log is not among the logs; `deleted` if it is one of a deleted topic."""


class Totals(NamedTuple):
    """Logs, live segments, and the newest segment of any kind."""

    logs: int
    segments: int
    last_segment_id: int


class SegmentPage(NamedTuple):
    """Segments, and the extents in those of them that are live, from one snapshot."""

    segments: Sequence[SegmentFacts]
    extents: dict[int, list[PlacedExtent]]


class FsckStore:
    """Reads a database for fsck. All raise MetadataError."""

    def __init__(
        self,
        database: Snapshots,
        *,
        rows_per_page: int = ROWS_PER_PAGE,
        extents_per_snapshot: int = EXTENTS_PER_SNAPSHOT,
    ) -> None:
        self._database = database
        self._rows_per_page = rows_per_page
        self._extents_per_snapshot = extents_per_snapshot

    async def setting(self, name: str) -> str | None:
        """A setting of the cluster."""
        async with self._database.snapshot() as session:
            row = await session.one(READ_SETTING, name)
        return None if row is None else row[0]

    async def totals(self) -> Totals:
        """How much there is: where to end, since more may come faster than it is looked at."""
        async with self._database.snapshot() as session:
            found = [
                await session.one(SQL[name]) for name in ("count_logs", "count_segments", "last_segment")
            ]
        return Totals(*(row[0] for row in found if row is not None))

    async def walk_logs(self, after: LogId, visitor: LogVisitor) -> LogId | None:
        """Show some logs after an id, and all extents up to the last of them, from one snapshot.

        After which log to go on; None at the end.
        """
        async with self._database.snapshot() as session:
            rows = await session.all(SQL["page_of_logs"], after, LOGS_PER_PAGE)
            logs = [LogFacts(*row) for row in rows]
            is_last = len(logs) < LOGS_PER_PAGE
            end = _LAST_ID if is_last else logs[-1].log_id
            gone = await session.all(SQL["deleted_logs_between"], after, end)
            walk = _Walk(session, self._rows_per_page, after, end)
            strays = _Strays(visitor, {row[0]: DeletedLog(*row) for row in gone})
            for log in logs:
                await walk.show_before(log.log_id, strays)
                visitor.begin(log)
                await walk.show_before(LogId(log.log_id + 1), visitor)
                visitor.end()
                if walk.extents > self._extents_per_snapshot:
                    return log.log_id
            await walk.show_before(LogId(end + 1), strays)
        return None if is_last else logs[-1].log_id

    async def find_log(self, topic: str, partition: int) -> LogFacts | None:
        """The log of a partition."""
        async with self._database.snapshot() as session:
            row = await session.one(SQL["log_of_partition"], topic, partition)
        return None if row is None else LogFacts(*row)

    async def extents_of_log(self, log_id: LogId, after_offset: int, limit: int) -> list[ExtentFacts]:
        """Extents of a log that end after an offset, in order."""
        async with self._database.snapshot() as session:
            rows = await session.all(SQL["page_of_extents"], log_id, after_offset, log_id, limit)
        return [ExtentFacts(*row) for row in rows]

    async def payloads(self, after: tuple[LogId, int]) -> list[Payload]:
        """Extents that live in the index, behind one of them."""
        return [Payload(*row) for row in await self._page("payloads_of_page", *after)]

    async def topics(self, after: TopicId) -> list[TopicFacts]:
        """Topics by id, behind one."""
        return [TopicFacts(*row) for row in await self._page("topics_of_page", after)]

    async def segments(self, after_id: int, last_id: int, *, with_extents: bool) -> SegmentPage:
        """Segments by id, behind one, up to one; no more than a few where their extents are wanted too."""
        async with self._database.snapshot() as session:
            limit = SEGMENTS_PER_PAGE if with_extents else self._rows_per_page
            rows = await session.all(SQL["page_of_segments"], after_id, last_id, limit)
            return await _with_extents(session, [SegmentFacts(*row) for row in rows], with_extents)

    async def segments_of(self, keys: Sequence[str], *, with_extents: bool) -> SegmentPage:
        """Those of the segments that are known, in any state."""
        async with self._database.snapshot() as session:
            rows = await session.all(SQL["segments_by_key"], [(key,) for key in keys])
            return await _with_extents(session, [SegmentFacts(*row) for row in rows], with_extents)

    async def quarantined(self, after: tuple[LogId, int]) -> list[QuarantinedFacts]:
        """Quarantined extents, behind one."""
        return [QuarantinedFacts(*row) for row in await self._page("page_of_quarantined", *after)]

    async def producers(self, after: tuple[LogId, ProducerId]) -> list[ProducerFacts]:
        """States of producers, behind one."""
        return [ProducerFacts(*row) for row in await self._page("page_of_producers", *after)]

    async def group_offsets(self, after: tuple[int, LogId]) -> list[OffsetFacts]:
        """Committed offsets, behind one."""
        return [OffsetFacts(*row) for row in await self._page("page_of_group_offsets", *after)]

    async def members_without_group(self) -> list[tuple[int, int]]:
        """Numbers of groups that are not there, and how many members are left of each; some of them."""
        return [(row[0], row[1]) for row in await self._examples("members_without_group")]

    async def undead_logs(self) -> list[LogId]:
        """Logs that are there and count as deleted; some of them."""
        return [row[0] for row in await self._examples("undead_logs")]

    async def _page(self, name: str, *after: int | bytes) -> list[Row]:
        async with self._database.snapshot() as session:
            return await session.all(SQL[name], *after, self._rows_per_page)

    async def _examples(self, name: str) -> list[Row]:
        async with self._database.snapshot() as session:
            return await session.all(SQL[name], EXAMPLES_MAX)


class _ExtentVisitor(Protocol):
    def extent(self, extent: ExtentFacts) -> None: ...


class _Strays:
    """Passes extents on as strays."""

    def __init__(self, visitor: LogVisitor, deleted: dict[LogId, DeletedLog]) -> None:
        self._visitor = visitor
        self._deleted = deleted

    def extent(self, extent: ExtentFacts) -> None:
        self._visitor.stray(extent, self._deleted.get(extent.log_id))


class _Walk:
    """Goes through the extents of a range of logs, a page at a time."""

    def __init__(self, session: Session, rows_per_page: int, after: LogId, end: int) -> None:
        self.extents = 0
        """How many were shown."""
        self._session = session
        self._rows_per_page = rows_per_page
        self._end = end
        # Log ids begin at 1, and no extent ends at a negative offset.
        self._last: tuple[int, int] = (after, _LAST_ID)
        self._page: Iterator[ExtentFacts] = iter(())
        self._next: ExtentFacts | None = None
        self._has_more = True

    async def show_before(self, log_id: LogId, visitor: _ExtentVisitor) -> None:
        """Show what is left of the logs before one."""
        while True:
            extent = self._next or next(self._page, None)
            if extent is None:
                if not await self._read():
                    return
                continue
            if extent.log_id >= log_id:
                self._next = extent
                return
            self._next = None
            self.extents += 1
            visitor.extent(extent)

    async def _read(self) -> bool:
        if not self._has_more:
            return False
        rows = await self._session.all(SQL["page_of_extents"], *self._last, self._end, self._rows_per_page)
        page = [ExtentFacts(*row) for row in rows]
        self._has_more = len(page) == self._rows_per_page
        if page:
            self._last = (page[-1].log_id, page[-1].end_offset)
        self._page = iter(page)
        return bool(page)


async def _with_extents(session: Session, segments: list[SegmentFacts], with_extents: bool) -> SegmentPage:
    """The extents of all of them: one that counts as dead should have none."""
    found: dict[int, list[PlacedExtent]] = {segment.segment_id: [] for segment in segments}
    if with_extents and segments:
        wanted = [(segment.segment_id,) for segment in segments]
        for row in await session.all(SQL["extents_of_segments"], wanted):
            extent = PlacedExtent(*row)
            found[extent.segment_id].append(extent)
    return SegmentPage(segments, found)

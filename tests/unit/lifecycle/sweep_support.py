"""A cluster's stores for tests of the jobs that delete: metadata on SQLite, objects in memory, clocks set by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from warp._records import build_batch
from warp.ids import NO_PRODUCER_ID, NO_SEQUENCE, BrokerId, IdSource, LogId, ProducerId
from warp.lifecycle.model import TopicLife
from warp.log.segment import RECEIPTS_PREFIX, ExtentBatches, Receipt, ReceiptRun, build_segment
from warp.metadata.group_model import Lease
from warp.metadata.life_model import SegmentState
from warp.metadata.model import BatchEntry, CommitResult, NewTopic, SegmentCommit, Topic
from warp.metadata.session import Database, parse_statements
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database
from warp.objectstore.base import ObjectInfo
from warp.objectstore.memory import MemoryStore

T = TypeVar("T")
NOW_MS = 1_700_000_000_000
HOUR_S = 3_600.0
DAY_MS = 86_400_000


class TwoClocks:
    """A wall clock that a test may set, and a boot-time clock that only goes on."""

    def __init__(self) -> None:
        self.wall_ms = NOW_MS
        self.boot_s = 5_000.0

    def time_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.boot_s

    def boottime(self) -> float:
        return self.boot_s

    def pass_time(self, seconds: float) -> None:
        """Time goes by."""
        self.wall_ms += int(seconds * 1000)
        self.boot_s += seconds

    def set_by(self, seconds: float) -> None:
        """Somebody sets the wall clock, forward or back."""
        self.wall_ms += int(seconds * 1000)


class Bench:
    """Stores, and short ways to fill them and to look into them. `told` is what readers were told of log starts."""

    def __init__(self, url: str | None = None) -> None:
        self.clock = TwoClocks()
        self.ids = IdSource(self.clock, random.Random(1).randbytes)
        self.database: Database = (
            SqliteDatabase(":memory:", now_ms=self.clock.time_ms)
            if url is None
            else open_database(url, self.clock)
        )
        self.store = MetadataStore(self.database, self.clock, self.ids)
        self.objects = MemoryStore(self.clock, bytes_max=2**30)
        self.policies: list[TopicLife] = []
        self.told: list[tuple[LogId, int]] = []
        self.permission = True
        self.asked = 0

    async def may_delete(self) -> bool:
        self.asked += 1
        return self.permission

    def log_starts_at(self, log_id: LogId, offset: int) -> None:
        self.told.append((log_id, offset))

    async def lease(self, name: str = "job/test") -> Lease:
        [lease] = await self.store.take_leases([name], BrokerId(1))
        return lease

    async def new_topic(self, name: str, partitions: int = 1, **life: Any) -> Topic:
        """A topic, and how its data lives; by TopicLife's own names."""
        [topic] = await self.store.create_topics([NewTopic(name, self.ids.topic_id(), partitions, {})])
        assert isinstance(topic, Topic), topic
        self.policies.append(TopicLife(topic.topic_id, name, topic.logs, **life))
        return topic

    async def flush(
        self,
        *batches: tuple[LogId, int],
        count: int = 1,
        value: bytes = b"v",
        key: str | None = None,
        producer: int = NO_PRODUCER_ID,
        sequence: int = NO_SEQUENCE,
    ) -> CommitResult:
        """Store and commit a segment: for each (log, timestamp) a batch of `count` records."""
        key = self.ids.segment_key() if key is None else key
        size_bytes, entries = await self.upload(
            key, *batches, count=count, value=value, producer=producer, sequence=sequence
        )
        return await self.store.commit(
            [SegmentCommit(key, size_bytes, self.clock.time_ms(), entries)], self.clock.time_ms()
        )

    async def upload(
        self,
        key: str,
        *batches: tuple[LogId, int],
        count: int = 1,
        value: bytes = b"v",
        producer: int = NO_PRODUCER_ID,
        sequence: int = NO_SEQUENCE,
    ) -> tuple[int, list[BatchEntry]]:
        """Store a segment that nobody has committed yet: its size, and what its commit would say."""
        extents, entries, position = [], [], 8
        for log_id, time_ms in batches:
            data = build_batch([(b"k", value, [], time_ms)] * count)
            extents.append(
                ExtentBatches(self.ids.topic_id(), f"t{log_id}", 0, [data], count, time_ms, time_ms)
            )
            epoch = -1 if producer == NO_PRODUCER_ID else 0
            entries.append(
                BatchEntry(
                    log_id, position, len(data), count, time_ms, ProducerId(producer), epoch, sequence, False
                )
            )
            position += len(data)
        image = build_segment(extents, created_ms=self.clock.time_ms())
        await self.objects.put(key, image)
        return sum(map(len, image)), entries

    async def put_receipts(self, *told: str) -> str:
        """Store an object of receipts that tells of these segments."""
        key = RECEIPTS_PREFIX + self.ids.segment_key().removeprefix("segments/")
        receipts = [Receipt(segment, [ReceiptRun(8, 100, 0, 1)]) for segment in told]
        await self.objects.put(key, build_segment([], created_ms=self.clock.time_ms(), receipts=receipts))
        return key

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as it stands."""
        statement = parse_statements(f"-- name: of_a_test\n{sql}")["of_a_test"]
        return [tuple(row) for row in await self.database.all(statement)]

    async def state_of(self, key: str) -> SegmentState | None:
        found = await self.rows(f"select state from segments where key = '{key}'")
        return SegmentState(found[0][0]) if found else None

    async def start_of(self, log_id: LogId) -> int:
        return (await self.store.log_heads([log_id]))[0].start_offset

    async def extents(self, log_id: LogId) -> list[tuple[int, int]]:
        rows = await self.store.extents_of_log(log_id, -1, 1_000)
        return [(row.base_offset, row.end_offset) for row in rows]

    async def keys(self, prefix: str = "") -> list[str]:
        return sorted([found.key async for found in self.objects.list(prefix)])


class Boom(Exception):
    """What a test lets fail."""


class FaultPlan:
    """Lets the n-th of all calls of some things fail, before it is done or after."""

    def __init__(self, fail_at: int = 0, *, after: bool = False, error: type[Exception] = Boom) -> None:
        self.calls = 0
        self.names: list[str] = []
        self._fail_at = fail_at
        self._after = after
        self._error = error

    def watch(self, inner: Any) -> Any:
        """The same thing, of which every call is counted."""
        return _Watched(inner, self)

    def before(self, name: str) -> bool:
        """A call begins: does it fail?"""
        self.calls += 1
        self.names.append(name)
        return self.calls == self._fail_at

    async def call(self, name: str, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        fails = self.before(name)
        if fails and not self._after:
            raise self._error(name)
        result = await operation(*arguments)
        if fails:
            raise self._error(name)
        return result

    async def each(self, name: str, listing: AsyncIterator[ObjectInfo]) -> AsyncIterator[ObjectInfo]:
        async for found in listing:
            if self.before(name):
                raise self._error(name)
            yield found


class _Watched:
    def __init__(self, inner: Any, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._inner, name)
        if name == "list":
            return lambda *arguments: self._plan.each(name, operation(*arguments))
        if not callable(operation):
            return operation
        return lambda *arguments: self._plan.call(name, operation, *arguments)


def run(scenario: Callable[[Bench], Coroutine[Any, Any, T]], url: str | None = None) -> T:
    """Run a scenario on a fresh bench; its metadata on SQLite, or in the database of the URL."""

    async def main() -> T:
        bench = Bench(url)
        await bench.store.open()
        try:
            return await asyncio.wait_for(scenario(bench), 60)
        finally:
            await bench.store.close()

    return asyncio.run(main())

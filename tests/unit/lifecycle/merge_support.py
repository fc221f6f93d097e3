"""A small cluster for tests of merging: a real index on SQLite, objects in memory, and what every log should hold."""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.batches import NOW_MS
from warp._records import build_batch, iterate_records, scan_batches, verify_batch
from warp.errors import ErrorCode
from warp.ids import BrokerId, IdSource, LogId
from warp.lifecycle.levels import MergeLimits
from warp.lifecycle.merge import MergeJob
from warp.lifecycle.model import TopicLife
from warp.log.answer import FetchLimits, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.memory import MemoryBudget
from warp.log.segment import MAGIC, ExtentBatches, build_segment
from warp.log.tail import TailIndex
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, SegmentRow
from warp.metadata.model import BatchEntry, NewTopic, SegmentCommit, Topic
from warp.metadata.session import Database
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore

T = TypeVar("T")
MIB = 2**20
LEASE_NAME = "job/merge"


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(scenario, 60))


def tiny_limits(**changes: Any) -> MergeLimits:
    """Limits under which a handful of small segments is a lot."""
    values: dict[str, Any] = {
        "memory_bytes": 400_000,
        "due_bytes": (200_000, 800_000, 3_200_000),
        "due_segments": (4, 16, 16),
        "due_small_segments": 4,
        "small_segment_bytes": 2000,
        "segment_bytes_max": 50_000,
        "look_s": 0.0,
        "swap_pause_s": 0.0,
    }
    return MergeLimits(**values | changes)


class Clock:
    """Time that moves a little whenever it is looked at."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def time_ms(self) -> int:
        return NOW_MS + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        self.seconds += 0.001
        return self.seconds

    def boottime(self) -> float:
        return self.monotonic()


class Paces:
    def __init__(self) -> None:
        self.spent_bytes = 0

    async def spend(self, size_bytes: int) -> None:
        self.spent_bytes += size_bytes

    @property
    def bytes_per_s(self) -> float:
        return math.inf

    def now_s(self) -> float:
        return 0.0

    async def turn(self, began_s: float) -> None:
        await asyncio.sleep(0)


class Objects(MemoryStore):
    """Calls `before` with the name of every operation and its key; that may fail. Counts what readers hold."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, bytes_max=2**31)
        self.before: Callable[[str, str], None] = lambda name, key: None
        self.read_bytes_held = 0
        self.read_bytes_peak = 0
        self.largest_get = 0

    async def get(self, key: str, start: int, length: int) -> Buffer:  # type: ignore[override]
        self.before("get", key)
        await asyncio.sleep(0)
        self.largest_get = max(self.largest_get, length)
        found = _Counted(await super().get(key, start, length))
        self.read_bytes_held += len(found)
        self.read_bytes_peak = max(self.read_bytes_peak, self.read_bytes_held)
        weakref.finalize(found, self._forget, len(found))
        return memoryview(found)

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.before("put", key)
        await asyncio.sleep(0)
        await super().put(key, parts)

    def _forget(self, size_bytes: int) -> None:
        self.read_bytes_held -= size_bytes

    def change(self, key: str, at: int) -> None:
        """Damage one byte."""
        data, _ = self._objects[key]
        image = bytearray(data)
        image[at] ^= 0x40
        self._store(key, bytes(image))

    def cut(self, key: str, size_bytes: int) -> None:
        data, _ = self._objects[key]
        self._store(key, data[:size_bytes])


class _Counted(bytearray):
    """Bytes that can be watched."""


class Cluster:
    """Topics, their logs, and segments of random batches. `truth` holds every record that was committed."""

    def __init__(
        self,
        path: Path,
        partitions: int = 3,
        wrap: Callable[[Database], Database] = lambda d: d,
        seed: int = 1,
    ) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.ids = IdSource(self.clock, self.random.randbytes)
        self.database = wrap(SqliteDatabase(path, now_ms=self.clock.time_ms, sync=None))
        self.store = MetadataStore(self.database, self.clock, self.ids)
        self.objects = Objects(self.clock)
        self.pace = Paces()
        self.topics: list[Topic] = []
        self.truth: dict[LogId, list[tuple[int, bytes]]] = {}
        self._partitions = partitions

    async def open(self) -> None:
        await self.store.open()
        await self.new_topic("first", self._partitions)

    async def close(self) -> None:
        await self.store.close()

    async def new_topic(self, name: str, partitions: int) -> Topic:
        new = NewTopic(name, self.ids.topic_id(), partitions, {})
        [topic] = await self.store.create_topics([new])
        assert isinstance(topic, Topic)
        self.topics.append(topic)
        self.truth.update({log_id: [] for log_id in topic.logs})
        return topic

    async def lease(self, broker: int = 1) -> Lease:
        seen = (await self.store.read_leases([LEASE_NAME])).get(LEASE_NAME)
        [lease] = await self.store.take_leases_as_seen({LEASE_NAME: seen}, BrokerId(broker))
        return lease

    def policies(self) -> list[TopicLife]:
        return [TopicLife(topic.topic_id, topic.name, topic.logs) for topic in self.topics]

    def job(self, limits: MergeLimits | None = None, store: Any = None) -> MergeJob:
        return MergeJob(
            store or self.store, self.objects, self.clock, self.ids, self.policies, self.pace,
            limits=limits or tiny_limits(),
        )  # fmt: skip

    async def merge(self, limits: MergeLimits | None = None) -> MergeJob:
        """One pass of a fresh job under a fresh lease."""
        job = self.job(limits)
        await job.run(await self.lease())
        return job

    async def commit(self, batches: Mapping[LogId, Sequence[bytes]]) -> str:
        """Commit one segment of level 0; its key."""
        key = self.ids.segment_key()
        names = {
            log_id: (topic, partition) for topic in self.topics for partition, log_id in enumerate(topic.logs)
        }
        extents, entries, position = [], [], len(MAGIC)
        for log_id, run_of in batches.items():
            topic, partition = names[log_id]
            headers = [verify_batch(data) for data in run_of]
            for data, header in zip(run_of, headers, strict=True):
                count = header.last_offset_delta + 1
                entries.append(BatchEntry(log_id, position, len(data), count, header.max_timestamp))
                position += len(data)
            extents.append(
                ExtentBatches(
                    topic.topic_id,
                    topic.name,
                    partition,
                    list(run_of),
                    sum(header.record_count for header in headers),
                    min(header.base_timestamp for header in headers),
                    max(header.max_timestamp for header in headers),
                )
            )
        parts = build_segment(extents, created_ms=self.clock.time_ms())
        await super(Objects, self.objects).put(key, parts)
        size = sum(map(len, parts))
        result = await self.store.commit([SegmentCommit(key, size, NOW_MS, entries)], NOW_MS)
        for entry, outcome in zip(entries, result.outcomes[0], strict=True):
            assert outcome.error is ErrorCode.NONE
            data = b"".join(bytes(part) for part in parts)[entry.position : entry.position + entry.size_bytes]
            self.truth[entry.log_id] += [
                (outcome.base_offset + number, record.value or b"")
                for number, record in enumerate(iterate_records(data, 2**30))
            ]
        return key

    async def commit_random(self, logs: Sequence[LogId] | None = None, size_max: int = 3000) -> str:
        """A segment with some batches of some logs."""
        choice = self.random
        logs = logs or [log_id for topic in self.topics for log_id in topic.logs]
        chosen = choice.sample(list(logs), choice.randrange(1, len(logs) + 1))
        return await self.commit(
            {
                log_id: [self.batch(choice.randrange(1, size_max)) for _ in range(choice.randrange(1, 4))]
                for log_id in chosen
            }
        )

    def batch(self, size: int, records: int | None = None) -> bytes:
        records = records or self.random.randrange(1, 5)
        time_ms = NOW_MS + self.random.randrange(-1000, 1000)
        return build_batch(
            [(None, self.random.randbytes(max(1, size // records)), (), time_ms) for _ in range(records)]
        )

    # What is there

    async def read(self, log_id: LogId, offset: int, **options: Any) -> list[tuple[int, bytes]]:
        """All records from an offset on, by an agent that has just started."""
        cache = ChunkCache(self.objects, bytes_max=64 * MIB, chunk_bytes=64 * 1024)
        service = FetchService(
            self.store, cache, TailIndex(), MemoryBudget(200 * MIB), FetchLimits(), **options
        )
        found: list[tuple[int, bytes]] = []
        while True:
            answer = await service.fetch(
                [FetchPartitionQuery(log_id, offset, 20 * MIB)], bytes_max=50 * MIB, bytes_min=0, wait_ms=0
            )
            [part] = answer.partitions
            assert part.error is ErrorCode.NONE, part
            data = b"".join(part.records)
            records = [(record.offset, record.value or b"") for record in iterate_records(data, 2**30)]
            answer.release()
            found += [record for record in records if record[0] >= offset]
            if not records:
                return found
            offset = records[-1][0] + 1

    async def check(self, *, every_offset: bool = False) -> None:
        """Every log holds what was committed to it, and the index tiles it."""
        for topic in self.topics:
            for log_id in topic.logs:
                [state] = (await self.store.log_states([log_id])).values()
                truth = [record for record in self.truth[log_id] if record[0] >= state.start_offset]
                assert await self.read(log_id, state.start_offset) == truth
                await self._check_tiling(log_id, state.start_offset, state.next_offset, state.size_bytes)
                if every_offset:
                    for at in range(len(truth)):
                        found = await self.read(log_id, truth[at][0])
                        assert found == truth[at:]

    async def _check_tiling(self, log_id: LogId, start: int, end: int, size_bytes: int) -> None:
        rows = await self.rows(log_id)
        offset = start
        for row in rows:
            if row.end_offset <= start:
                continue
            assert row.base_offset <= offset, (log_id, row)
            assert offset in (start, row.base_offset), (log_id, row)
            offset = row.end_offset
        assert offset == end
        assert sum(row.size_bytes for row in rows) == size_bytes

    async def rows(self, log_id: LogId) -> list[IndexRow]:
        return await self.store.extents_of_log(log_id, 0, 100_000)

    async def levels(self) -> dict[int, list[SegmentRow]]:
        """Segments that hold something, by level."""
        found = {level: await self.store.oldest_segments(level, 100_000) for level in range(6)}
        return {level: rows for level, rows in found.items() if rows}

    async def bytes_of_segments(self) -> int:
        """The size of all segments that hold something."""
        return sum(segment.size_bytes for rows in (await self.levels()).values() for segment in rows)

    async def check_objects(self) -> None:
        """Segments above level 0 say of themselves what the index says, batch by batch."""
        for topic in self.topics:
            for log_id in topic.logs:
                for row in await self.rows(log_id):
                    if row.level == 0:
                        continue
                    data = await self.objects.get(row.key, row.position, row.size_bytes)
                    offset = row.base_offset
                    for span in scan_batches(data):
                        verify_batch(data, span.position)
                        assert span.base_offset == offset
                        offset += span.last_offset_delta + 1
                    assert offset == row.end_offset

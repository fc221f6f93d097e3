"""A cluster small enough to lose: segments with receipts as agents write them, a database to copy, a reader."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.metadata.support import TestClock
from warp._compaction import KeyMap, compact_batches
from warp._records import build_batch, iterate_records, parse_header, stamp_batches
from warp.errors import ErrorCode
from warp.ids import IdSource, LogId, ProducerId, TopicId
from warp.lifecycle.epoch import begin_epoch
from warp.lifecycle.fsck import DEEP, check
from warp.lifecycle.restore import Restore, make_plan
from warp.lifecycle.restore_plan import Plan
from warp.log.segment import MAGIC, RECEIPTS_PREFIX, ExtentBatches, Receipt, ReceiptRun, build_segment
from warp.metadata.fsck_store import FsckStore
from warp.metadata.life_model import NewExtent, NewSegment, Swap
from warp.metadata.model import BatchEntry, ExtentQuery, NewTopic, SegmentCommit, Topic
from warp.metadata.restore_store import RestoreStore
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.memory import MemoryStore

Records = list[tuple[int, str]]


class Metadata:
    """One database file, open."""

    def __init__(self, path: Path, clock: TestClock, seed: int = 1) -> None:
        self.path = path
        self.ids = IdSource(clock, random.Random(seed).randbytes)
        self.database = SqliteDatabase(path, now_ms=clock.time_ms, sync=None)
        self.store = MetadataStore(self.database, clock, self.ids)
        self.rows = RestoreStore(self.database)

    async def topics(self) -> dict[str, Topic]:
        found = await self.store.catalogue(None)
        assert found is not None
        return {topic.name: topic for topic in found.topics}


@dataclass
class Part:
    """What one batch holds: values of its records."""

    topic: Topic
    values: Sequence[str]
    partition: int = 0
    producer: int = -1
    sequence: int = -1


@dataclass
class World:
    """A bucket, and the metadata that agents write to."""

    folder: Path
    clock: TestClock = field(default_factory=TestClock)
    databases: int = 0

    def __post_init__(self) -> None:
        self.objects = MemoryStore(self.clock, bytes_max=2**30)
        self.receipts: list[Receipt] = []
        self.live = self._new()

    def _new(self) -> Metadata:
        self.databases += 1
        return Metadata(self.folder / f"{self.databases}.sqlite", self.clock, self.databases)

    async def open(self) -> None:
        await self.live.store.open()
        await begin_epoch(self.objects, self.live.store, self.live.ids, "mem://")

    async def copy(self) -> Metadata:
        """A copy of the database as it is now, open."""
        copy = self._new()
        with (
            closing(sqlite3.connect(self.live.path)) as source,
            closing(sqlite3.connect(copy.path)) as target,
        ):
            source.backup(target)
        await copy.store.open()
        return copy

    async def empty(self) -> Metadata:
        """A new database, open."""
        fresh = self._new()
        await fresh.store.open()
        return fresh

    async def topic(self, name: str, partitions: int = 1) -> Topic:
        [topic] = await self.live.store.create_topics(
            [NewTopic(name, self.live.ids.topic_id(), partitions, {"retention.ms": "1000"})]
        )
        assert isinstance(topic, Topic)
        return topic

    async def write(
        self, *parts: Part, commits: bool = True, tells: bool = True, copies: int = 0, brings: bool = True
    ) -> list[int]:
        """One segment: its base offsets. `tells`: its receipt will be written with the next one that `brings` any.

        `copies` are of hedges; without `commits` the agent dies before the commit.
        """
        self.clock.seconds += 1
        receipts = self.receipts if brings else []
        if brings:
            self.receipts = []
        batches = [_batch(part, self.clock.time_ms()) for part in parts]
        extents = [_extent(part, data) for part, data in zip(parts, batches, strict=True)]
        image = b"".join(build_segment(extents, created_ms=self.clock.time_ms(), receipts=receipts))
        key = self.live.ids.segment_key()
        await self.objects.put(key, [image])
        for _ in range(copies):
            await self.objects.put(self.live.ids.segment_key(), [image])
        if not commits:
            return []
        return await self._commit(key, len(image), parts, batches, tells=tells)

    async def _commit(
        self, key: str, size: int, parts: Sequence[Part], batches: Sequence[bytes], *, tells: bool
    ) -> list[int]:
        entries, position = [], len(MAGIC)
        for part, data in zip(parts, batches, strict=True):
            header = parse_header(data)
            entries.append(
                BatchEntry(
                    part.topic.logs[part.partition],
                    position,
                    len(data),
                    len(part.values),
                    header.max_timestamp,
                    ProducerId(part.producer),
                    header.producer_epoch,
                    part.sequence,
                )
            )
            position += len(data)
        commit = SegmentCommit(key, size, self.clock.time_ms(), entries)
        result = await self.live.store.commit([commit], self.clock.time_ms())
        runs = []
        for entry, outcome in zip(entries, result.outcomes[0], strict=True):
            assert outcome.error == ErrorCode.NONE, outcome
            if not outcome.is_duplicate:
                runs.append(
                    ReceiptRun(entry.position, entry.size_bytes, outcome.base_offset, entry.offset_count)
                )
        if tells:
            self.receipts.append(Receipt(key, runs))
        return [outcome.base_offset for outcome in result.outcomes[0]]

    async def idle(self) -> None:
        """Nothing is written for a while: receipts alone are."""
        image = build_segment([], created_ms=self.clock.time_ms(), receipts=self.receipts)
        self.receipts = []
        key = RECEIPTS_PREFIX + self.live.ids.segment_key().removeprefix("segments/")
        await self.objects.put(key, image)

    async def restore(self, metadata: Metadata) -> Plan:
        """Put a database right; what that came to."""
        plan = await make_plan(self.objects, metadata.rows)
        restore = Restore(self.objects, metadata.store, metadata.rows, metadata.ids)
        await restore.carry_out(plan, self.clock.time_ms())
        found = await self.check(metadata)
        assert not found, found
        return plan

    async def check(self, metadata: Metadata) -> list[str]:
        """What fsck has to say of a database."""
        report = await check(FsckStore(metadata.database), self.objects, self.clock, scope=DEEP)
        return [finding.line for finding in report.findings]

    async def read(self, metadata: Metadata, name: str, partition: int = 0) -> Records:
        """All records of a partition, by offset, from the log's start on; holes are passed over."""
        topic = (await metadata.topics())[name]
        return await read_log(self.objects, metadata, topic.logs[partition])


async def read_log(objects: MemoryStore, metadata: Metadata, log_id: LogId) -> Records:
    """The same of a log. Extents have to tile it."""
    [state] = (await metadata.store.log_states([log_id])).values()
    at, records = state.start_offset, []
    while at < state.next_offset:
        [read] = await metadata.store.read_extents([ExtentQuery(log_id, at, 1)])
        assert read.extents, f"nothing holds offset {at} of [{state.start_offset}, {state.next_offset})"
        for extent in read.extents:
            assert extent.base_offset <= at < extent.end_offset, "extents tile the log"
            data = extent.inline or bytes(await objects.get(extent.key, extent.position, extent.size_bytes))
            records += _records(data, extent.base_offset, extent.end_offset, at)
            at = extent.end_offset
    return records


def _records(data: bytes, base: int, end: int, from_offset: int) -> Records:
    records, position = [], 0
    while position < len(data):
        header = parse_header(data[position:])
        batch = data[position : position + header.size_bytes]
        if header.record_count:
            for record in iterate_records(batch, 2**20):
                offset = base + record.offset - header.base_offset
                if offset >= from_offset:
                    records.append((offset, (record.value or b"").decode()))
        base += header.last_offset_delta + 1
        position += header.size_bytes
    assert base == end, "batches fill their extent"
    return records


def _batch(part: Part, now_ms: int) -> bytes:
    return build_batch(
        [(None, value.encode(), [], now_ms) for value in part.values],
        producer_id=part.producer,
        producer_epoch=-1 if part.producer < 0 else 0,
        base_sequence=part.sequence,
    )


def _extent(part: Part, data: bytes) -> ExtentBatches:
    header = parse_header(data)
    return ExtentBatches(
        part.topic.topic_id,
        part.topic.name,
        part.partition,
        [data],
        len(part.values),
        header.base_timestamp,
        header.max_timestamp,
    )


async def everything(world: World, metadata: Metadata) -> Mapping[tuple[TopicId, int], Records]:
    """All records of all topics."""
    return {
        (topic.topic_id, partition): await read_log(world.objects, metadata, log_id)
        for topic in (await metadata.topics()).values()
        for partition, log_id in enumerate(topic.logs)
    }


async def merge(world: World, topic_name: str, *, level: int = 1, compacts: bool = False) -> None:
    """Put one segment of a higher level in the place of all extents of a topic's first partition.

    `compacts`: of its records, which have no keys, the last one alone is kept.
    """
    topic = (await world.live.topics())[topic_name]
    records = await world.read(world.live, topic_name)
    rows = await world.live.store.extents_of_log(topic.logs[0], 0, 1000)
    data = bytearray()
    for row in rows:
        data += await world.objects.get(row.key, row.position, row.size_bytes)
    stamp_batches(data, rows[0].base_offset)
    world.clock.seconds += 1
    latest_ms = max(row.max_timestamp_ms for row in rows)
    base, end = rows[0].base_offset, rows[-1].end_offset
    if compacts:
        kept = compact_batches(
            data, base, KeyMap(2**10, bytes(16)), until_offset=end - 1, now_ms=0, horizon_ms=-1,
            decompressed_bytes_max=2**20,
        )  # fmt: skip
        data, records = kept.batches, records[-1:]
    batches = [ExtentBatches(topic.topic_id, topic.name, 0, [data], len(records), 1, latest_ms, base, end)]
    image = build_segment(batches, created_ms=world.clock.time_ms(), level=level)
    key = world.live.ids.segment_key()
    await world.objects.put(key, image)
    size = sum(map(len, image))
    added = NewExtent(topic.logs[0], base, end, 0, 8, len(data), latest_ms)
    await world.live.store.swap(
        None, Swap([NewSegment(key, size, level, world.clock.time_ms())], rows, [added])
    )
    await world.objects.delete(sorted({row.key for row in rows}))

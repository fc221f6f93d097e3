"""What the jobs that delete do to others at work: late commits are refused, reads under way find what they look for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import append, make_unit, run_sim
from tests.unit.lifecycle.sweep_support import DAY_MS, HOUR_S, NOW_MS, Bench, run
from tests.unit.log.read_support import values_of
from warp.errors import ErrorCode
from warp.ids import BrokerId, IdSource, LogId
from warp.lifecycle.dead import DeadLimits, DeadSegments
from warp.lifecycle.orphans import OrphanLimits, OrphanSweep
from warp.lifecycle.retention import Retention
from warp.log.answer import FetchAnswer, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import Flusher
from warp.log.memory import MemoryBudget
from warp.log.tail import TailIndex
from warp.metadata.life_model import NewExtent, NewSegment, Swap
from warp.metadata.model import CommitResult, NewTopic, SegmentCommit, Topic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.memory import MemoryStore

MIB = 2**20


async def yes() -> bool:
    return True


class SlowCommits:
    """Commits whose n-th attempt (from 1) is held up for some seconds."""

    def __init__(self, store: MetadataStore, delays_s: dict[int, float]) -> None:
        self._store = store
        self._delays_s = delays_s
        self._attempts = 0

    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        self._attempts += 1
        await asyncio.sleep(self._delays_s.get(self._attempts, 0.0))
        return await self._store.commit(segments, now_ms)


def test_a_commit_that_the_sweep_was_faster_than_fails_and_its_producer_can_send_again() -> None:
    async def main(loop: SimLoop) -> None:
        clock = SimClock(loop)
        ids = IdSource(clock, random.Random(1).randbytes)
        store = MetadataStore(SqliteDatabase(":memory:", now_ms=clock.time_ms), clock, ids)
        await store.open()
        objects = MemoryStore(clock, bytes_max=2**24)
        [topic] = await store.create_topics([NewTopic("orders", ids.topic_id(), 1, {})])
        assert isinstance(topic, Topic)
        [log] = topic.logs
        [lease] = await store.take_leases(["job/test"], BrokerId(1))
        sweep = OrphanSweep(store, objects, clock, yes, OrphanLimits(age_s=60.0))
        dead = DeadSegments(store, objects, clock, yes, DeadLimits(grace_s=60.0))
        flusher = Flusher(objects, SlowCommits(store, {2: 300.0}), clock, ids)

        async def produce() -> tuple[ErrorCode, int]:
            unit = make_unit(clock, [append(log)], timeout_s=1_000.0)
            await flusher.add(unit)
            [outcome] = await unit.result
            return outcome.error, outcome.base_offset

        assert await produce() == (ErrorCode.NONE, 0)
        late = asyncio.ensure_future(produce())
        for _ in range(5):
            await sweep.run(lease)
            await dead.run(lease)
            await asyncio.sleep(70.0)
        assert (await late)[0] is ErrorCode.KAFKA_STORAGE_ERROR
        assert sweep.counters.orphans_claimed == 1
        assert await produce() == (ErrorCode.NONE, 1)
        heads = await store.log_heads([log])
        assert heads[0].next_offset == 2
        rows = await store.extents_of_log(log, -1, 10)
        await dead.run(lease)
        assert sorted({row.key for row in rows}) == [found.key async for found in objects.list("segments/")]
        await flusher.close()
        await store.close()

    run_sim(main)


class Reader:
    """A reader of its own, as at another agent: its gets may be held up."""

    def __init__(self, bench: Bench, *, grace_s: float = 1_800.0) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self._objects = bench.objects
        cache = ChunkCache(self, bytes_max=64 * MIB)  # type: ignore[arg-type]  # it only ever gets
        tail = TailIndex(age_s_max=grace_s / 2, now=bench.clock.boottime)
        self.service = FetchService(bench.store, cache, tail, MemoryBudget(64 * MIB))

    requests_are_free = True

    async def get(self, key: str, start: int, length: int) -> bytes:
        await self.gate.wait()
        return await self._objects.get(key, start, length)

    async def fetch(self, log_id: LogId, offset: int, *, bytes_min: int = 1, wait_ms: int = 0) -> FetchAnswer:
        query = FetchPartitionQuery(log_id, offset, MIB)
        return await self.service.fetch([query], bytes_max=MIB, bytes_min=bytes_min, wait_ms=wait_ms)


def values(answer: FetchAnswer) -> list[bytes]:
    return [value for _, value in values_of(answer.partitions[0].records)]


async def merge(bench: Bench, log_id: LogId) -> None:
    """Put one object in the place of all that a log has, as merging does."""
    rows = await bench.store.extents_of_log(log_id, -1, 100)
    parts = [await bench.objects.get(row.key, row.position, row.size_bytes) for row in rows]
    key = bench.ids.segment_key()
    await bench.objects.put(key, [b"WARPSEG\x01", *parts])
    size_bytes = sum(map(len, parts))
    added = NewExtent(log_id, rows[0].base_offset, rows[-1].end_offset, 0, 8, size_bytes, NOW_MS)
    lease = await bench.lease("job/merge")
    result = await bench.store.swap(lease, Swap([NewSegment(key, size_bytes + 8, 1, NOW_MS)], rows, [added]))
    assert result.swapped == {log_id}


async def bury(bench: Bench) -> None:
    """Let what is dead be deleted."""
    job, lease = DeadSegments(bench.store, bench.objects, bench.clock, yes), await bench.lease("job/dead")
    await job.run(lease)
    bench.clock.pass_time(1_800)
    await job.run(lease)
    assert job.counters.segments_deleted


def test_a_read_that_outlasts_the_grace_finds_the_records_where_they_are_now() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        for number in range(3):
            await bench.flush((log, NOW_MS), value=b"%d" % number)
        reader = Reader(bench)
        reader.gate.clear()
        read = asyncio.ensure_future(reader.fetch(log, 0))
        await asyncio.sleep(0.01)
        assert not read.done()
        await merge(bench, log)
        await bury(bench)
        assert len(await bench.keys("segments/")) == 1
        reader.gate.set()
        assert values(await read) == [b"0", b"1", b"2"]
        assert reader.service.counters.missing_objects == 0

    run(scenario)


def test_a_reader_that_knows_old_places_reads_on_through_a_merge_and_the_deletion_after_it() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        for number in range(3):
            await bench.flush((log, NOW_MS), value=b"%d" % number)
        reader, stranger = Reader(bench), Reader(bench)
        assert values(await reader.fetch(log, 0)) == [b"0", b"1", b"2"]
        await merge(bench, log)
        bench.clock.pass_time(900)
        # Within half of the grace, what it knows is good, and the objects are there for everybody.
        assert values(await reader.fetch(log, 1)) == [b"1", b"2"]
        await bury(bench)
        for offset in range(3):
            assert values(await reader.fetch(log, offset)) == [b"0", b"1", b"2"][offset:]
            assert values(await stranger.fetch(log, offset)) == [b"0", b"1", b"2"][offset:]
        assert reader.service.counters.missing_objects == 0

    run(scenario)


def test_a_reader_that_waits_at_a_deleted_offset_hears_of_it_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t", retention_ms=DAY_MS)).logs
        await bench.flush((log, NOW_MS))
        reader = Reader(bench)
        waiting = asyncio.ensure_future(reader.fetch(log, 0, bytes_min=MIB, wait_ms=50_000))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        bench.clock.pass_time(25 * HOUR_S)
        job = Retention(bench.store, bench.clock, lambda: bench.policies, reader.service.log_starts_at)
        await job.run(await bench.lease())
        [part] = (await waiting).partitions
        assert part.error is ErrorCode.OFFSET_OUT_OF_RANGE

    run(scenario)

"""The n-th PUT or commit fails, for n = 1, 2, … until a run in which none does: the promises hold each time.

Idempotent producers with several requests in flight write through the real metadata store, and resend what fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import ScriptedStore, batch_bytes, run_sim
from warp._records import iterate_records, scan_batches
from warp.errors import ErrorCode, MetadataError, MetadataUnavailable, ObjectStoreError, OutcomeUnknown
from warp.ids import IdSource, LogId
from warp.log.flush import Flusher, FlushLimits
from warp.log.model import Append, LogTarget, TopicRules
from warp.log.pacing import PacingLimits
from warp.log.produce import ProduceService
from warp.log.upload import UploadLimits
from warp.metadata.model import CommitResult, ExtentQuery, NewTopic, SegmentCommit
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore

PRODUCERS = (11, 12, 13)
ROUNDS = 8
WINDOW = 3
RETRIABLE = {
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
}
ONE_AT_A_TIME = FlushLimits(upload=UploadLimits(attempts_max=1))
MANY_SEGMENTS = FlushLimits(
    pacing=PacingLimits(flush_bytes=300, rest_ratio=0.0), upload=UploadLimits(attempts_max=1)
)

Fault = Callable[[], Exception]


class FaultyCommits:
    """The metadata store, whose n-th commit fails before or after it was applied."""

    def __init__(self, metadata: MetadataStore, number: int, fault: Fault | None, *, applied: bool) -> None:
        self._metadata = metadata
        self._number = number
        self._fault = fault
        self._applied = applied
        self.commits = 0

    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        self.commits += 1
        await asyncio.sleep(0.003)
        if self.commits == self._number and self._fault is not None:
            if self._applied:
                await self._metadata.commit(segments, now_ms)
            raise self._fault()
        return await self._metadata.commit(segments, now_ms)


class World:
    """One run: stores, a flusher, and producers that write to two partitions."""

    def __init__(self, loop: SimLoop, limits: FlushLimits) -> None:
        self.clock = SimClock(loop)
        self.ids = IdSource(self.clock, random.Random(3).randbytes)
        self.store = ScriptedStore(self.clock)
        self.metadata = MetadataStore(
            SqliteDatabase(IN_MEMORY, now_ms=self.clock.time_ms), self.clock, self.ids
        )
        self.limits = limits
        self.acknowledged: dict[tuple[LogId, str], int] = {}

    async def open(self, commits: Callable[[MetadataStore], FaultyCommits]) -> FaultyCommits:
        await self.metadata.open()
        topic_id = self.ids.topic_id()
        (topic,) = await self.metadata.create_topics([NewTopic("orders", topic_id, 2)])
        assert not isinstance(topic, ErrorCode)
        self.targets = [
            LogTarget(log, topic_id, p, "orders", TopicRules()) for p, log in enumerate(topic.logs)
        ]
        faulty = commits(self.metadata)
        self.flusher = Flusher(self.store, faulty, self.clock, self.ids, limits=self.limits)
        self.service = ProduceService(self.flusher, self.clock)
        return faulty

    async def produce(self, producer: int) -> None:
        """Send batches in order, `WINDOW` requests in flight, each to both partitions; resend those that fail."""
        waiting = list(range(ROUNDS))
        while waiting:
            sent = waiting[:WINDOW]
            staged = [(await self.service.stage(self._request(producer, n), 20_000)).outcomes for n in sent]
            failed = []
            for number, outcomes in zip(sent, staged, strict=True):
                errors = [outcome.error for outcome in await outcomes]
                for target, outcome in zip(self.targets, await outcomes, strict=True):
                    if not outcome.error:
                        self._acknowledge(target.log_id, f"{producer}/{number}", outcome.base_offset)
                assert set(errors) <= RETRIABLE | {ErrorCode.NONE}
                if any(errors):
                    failed.append(number)
            waiting = failed + waiting[WINDOW:]
            if failed:
                await asyncio.sleep(0.5)

    def _request(self, producer: int, number: int) -> list[Append]:
        value = f"{producer}/{number}".encode()
        data = batch_bytes(records=2, value=value, producer=producer, sequence=2 * number)
        return [Append(target, data) for target in self.targets]

    def _acknowledge(self, log_id: LogId, value: str, offset: int) -> None:
        assert self.acknowledged.setdefault((log_id, value), offset) == offset

    async def check(self) -> None:
        """Every acknowledged batch is there once, where it was acknowledged, and each producer's are in order."""
        for target in self.targets:
            (read,) = await self.metadata.read_extents([ExtentQuery(target.log_id, 0, 2**30)])
            stored: list[str] = []
            next_offset = 0
            for extent in read.extents:
                assert extent.base_offset == next_offset
                data = await self.store.get(extent.key, extent.position, extent.size_bytes)
                for span in scan_batches(data):
                    batch = data[span.position : span.position + span.size_bytes]
                    value = next(iter(iterate_records(batch, 2**20))).value
                    assert value is not None
                    assert self.acknowledged[target.log_id, value.decode()] == next_offset
                    stored.append(value.decode())
                    next_offset += span.record_count
                assert extent.end_offset == next_offset
            for producer in PRODUCERS:
                mine = [value for value in stored if value.startswith(f"{producer}/")]
                assert mine == [f"{producer}/{number}" for number in range(ROUNDS)]
            assert len(stored) == len(PRODUCERS) * ROUNDS


def lives_through(
    limits: FlushLimits, number: int, put: Fault | None, commit: Fault | None, applied: bool
) -> bool:
    """One run with a fault at the n-th PUT or commit; whether it came to that."""

    async def main(loop: SimLoop) -> bool:
        world = World(loop, limits)
        faulty = await world.open(lambda metadata: FaultyCommits(metadata, number, commit, applied=applied))
        if put is not None:
            world.store.faults[number] = put()
        world.store.delays_s = {n: (n * 7 % 5) * 0.01 for n in range(200)}
        await asyncio.gather(*(world.produce(producer) for producer in PRODUCERS))
        await world.check()
        assert await world.flusher.drain(60)
        await world.metadata.close()
        return (len(world.store.keys) if put is not None else faulty.commits) >= number

    return run_sim(main, seed=number)


@pytest.mark.parametrize("limits", [ONE_AT_A_TIME, MANY_SEGMENTS], ids=["one at a time", "many segments"])
@pytest.mark.parametrize(
    ("put", "commit", "applied"),
    [
        (lambda: ObjectStoreError("reset"), None, False),
        (None, lambda: MetadataUnavailable("busy"), False),
        (None, lambda: OutcomeUnknown("lost"), False),
        (None, lambda: OutcomeUnknown("lost"), True),
        (None, lambda: MetadataError("constraint failed"), False),
    ],
    ids=["put fails", "commit is refused", "commit is lost", "answer of commit is lost", "commit fails"],
)
def test_acknowledged_batches_are_there_once_and_in_order_whichever_request_fails(
    limits: FlushLimits, put: Fault | None, commit: Fault | None, applied: bool
) -> None:
    for number in range(1, 200):
        if not lives_through(limits, number, put, commit, applied):
            assert number > 3
            return
    pytest.fail("it never came to a run without a fault")

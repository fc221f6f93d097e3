"""Stand-ins and building blocks for tests of the write path: batches, requests, stores that fail as told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from tests.sim.loop import SimClock, SimLoop
from warp._records import BatchRules, ValidatedBatch, build_batch, validate_produce
from warp.errors import ErrorCode, ObjectStoreError
from warp.ids import IdSource, LogId, TopicId
from warp.log.buffer import Unit, WaitingBatch
from warp.log.flush import Flusher, FlushLimits
from warp.log.model import Append, AppendOutcome, LogTarget, TopicRules
from warp.log.observer import FlushObserver
from warp.metadata.model import BatchOutcome, CommitResult, Extent, LogState, SegmentCommit
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore

T = TypeVar("T")
RULES = TopicRules()
TOPIC = TopicId(bytes(range(16)))


def target(log: int, rules: TopicRules = RULES) -> LogTarget:
    """Partition `log` of the topic `orders`, whose log has the same number."""
    return LogTarget(LogId(log), TOPIC, log, "orders", rules)


def batch_bytes(
    *,
    records: int = 1,
    value: bytes = b"v",
    producer: int = -1,
    epoch: int = 0,
    sequence: int = -1,
    codec: int = 0,
) -> bytes:
    """A record batch as a producer sends it."""
    return build_batch(
        [(b"k", value, [], 1_000 + i) for i in range(records)],
        codec=codec,
        producer_id=producer,
        producer_epoch=-1 if producer < 0 else epoch,
        base_sequence=sequence,
    )


def validated(data: bytes) -> ValidatedBatch:
    """A batch that has passed all checks."""
    rules = BatchRules(
        max_message_bytes=2**30,
        message_timestamp_type=0,
        now_ms=1_000,
        timestamp_before_max_ms=2**62,
        timestamp_after_max_ms=2**62,
        require_key=False,
        decompressed_bytes_max=2**26,
    )
    return validate_produce(data, rules)


def append(log: int, **batch: int | bytes) -> Append:
    """One part of a Produce request."""
    return Append(target(log), batch_bytes(**batch))  # type: ignore[arg-type]  # the names are batch_bytes' own


def make_unit(clock: SimClock, appends: Sequence[Append], timeout_s: float = 30.0) -> Unit:
    """A request in which every part is fine."""
    batches = []
    for part, sent in enumerate(appends):
        batch = validated(bytes(sent.records))
        batches.append(WaitingBatch(part, sent.target, batch, batch.data))
    outcomes: list[AppendOutcome | None] = [None] * len(appends)
    result: asyncio.Future[list[AppendOutcome]] = asyncio.get_running_loop().create_future()
    now = clock.monotonic()
    return Unit(batches, outcomes, now + timeout_s, result, now)


def run_sim(main: Callable[[SimLoop], Awaitable[T]], seed: int = 0) -> T:
    """Run a coroutine on a loop of virtual time; anything that nobody caught is a failure."""
    loop = SimLoop(random.Random(seed))
    try:
        asyncio.set_event_loop(None)

        async def whole() -> T:
            return await main(loop)

        result = loop.run_until_complete(whole())
        assert loop.problems == []
        return result
    finally:
        loop.bury()


class ScriptedStore(MemoryStore):
    """A memory store whose n-th PUT (from 1) takes as long, and fails, as told."""

    def __init__(self, clock: SimClock, *, requests_are_free: bool = True) -> None:
        super().__init__(clock, bytes_max=2**30)
        self.requests_are_free = requests_are_free
        self.put_delay_s = 0.01
        self.delays_s: dict[int, float] = {}
        self.faults: dict[int, Exception] = {}
        self.fail_all: Exception | None = None
        self.keys: list[str] = []
        """Of every PUT, in order of their start."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.keys.append(key)
        number = len(self.keys)
        await asyncio.sleep(self.delays_s.get(number, self.put_delay_s))
        fault = self.faults.get(number, self.fail_all)
        if fault is not None:
            raise fault
        await super().put(key, parts)

    def images(self) -> list[bytes]:
        """The objects that are there, in order of their PUTs."""
        return [self._objects[key][0] for key in self.keys if key in self._objects]


class FakeMetadata:
    """Commits as the metadata store does, without judging producers: offsets are dense, keys make retries safe.

    `faults[n]` (from 1) makes the n-th attempt fail; `lost_answers` are applied before they fail.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.delay_s = 0.01
        self.delays_s: dict[int, float] = {}
        self.faults: dict[int, Exception] = {}
        self.lost_answers: dict[int, Exception] = {}
        self.fail_all: Exception | None = None
        self.poison: Callable[[SegmentCommit], Exception | None] = lambda segment: None
        self.verdict: Callable[[SegmentCommit, int], ErrorCode] = lambda segment, batch: ErrorCode.NONE
        self.attempts: list[list[str]] = []
        self.committed: dict[str, CommitResult] = {}
        self.ends: dict[LogId, int] = {}
        self._store = store

    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        self.attempts.append([segment.key for segment in segments])
        number = len(self.attempts)
        await asyncio.sleep(self.delays_s.get(number, self.delay_s))
        for segment in segments:
            # Durable before committed.
            assert (await self._store.head(segment.key)).size_bytes == segment.size_bytes
        faults = [self.faults.get(number, self.fail_all), *map(self.poison, segments)]
        for fault in faults:
            if fault is not None:
                raise fault
        results = [self._apply(segment) for segment in segments]
        if number in self.lost_answers:
            raise self.lost_answers[number]
        return CommitResult(
            [result.outcomes[0] for result in results],
            [extent for result in results for extent in result.extents],
            [state for result in results for state in result.logs],
        )

    def _apply(self, segment: SegmentCommit) -> CommitResult:
        if segment.key in self.committed:
            return self.committed[segment.key]
        outcomes, extents = [], []
        for place, batch in enumerate(segment.batches):
            error = self.verdict(segment, place)
            if error:
                outcomes.append(BatchOutcome(error, -1))
                continue
            base = self.ends.get(batch.log_id, 0)
            self.ends[batch.log_id] = base + batch.offset_count
            outcomes.append(BatchOutcome(ErrorCode.NONE, base, log_start_offset=0))
            extents.append(
                Extent(
                    batch.log_id,
                    base,
                    base + batch.offset_count,
                    segment.key,
                    batch.position,
                    batch.size_bytes,
                    batch.max_timestamp_ms,
                )
            )
        logs = [LogState(log_id, 0, end, end, 0) for log_id, end in sorted(self.ends.items())]
        self.committed[segment.key] = CommitResult([outcomes], extents, logs)
        return self.committed[segment.key]


class Recorder(FlushObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.images: dict[str, Sequence[Buffer]] = {}
        self.when_committed: Callable[[], None] = lambda: None

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        self.when_committed()
        self.events.append("committed")
        self.images.update(images)

    def phase_done(self, phase: str, seconds: float) -> None:
        self.events.append(phase)

    def phase_failed(self, phase: str) -> None:
        self.events.append(f"failed {phase}")


class Bench:
    """A flusher among stand-ins, on virtual time."""

    def __init__(
        self, loop: SimLoop, *, limits: FlushLimits | None = None, requests_are_free: bool = True
    ) -> None:
        self.clock = SimClock(loop)
        self.ids = IdSource(self.clock, random.Random(1).randbytes)
        self.store = ScriptedStore(self.clock, requests_are_free=requests_are_free)
        self.metadata = FakeMetadata(self.store)
        self.recorder = Recorder()
        self.flusher = Flusher(
            self.store, self.metadata, self.clock, self.ids, limits=limits, observers=[self.recorder]
        )

    async def add(self, *appends: Append, timeout_s: float = 30.0) -> Unit:
        """Put a request in line."""
        unit = make_unit(self.clock, appends, timeout_s)
        await self.flusher.add(unit)
        return unit

    async def segment(self, *appends: Append, timeout_s: float = 30.0) -> Unit:
        """Put a request in line and have it sealed, however many flushes are under way."""
        unit = await self.add(*appends, timeout_s=timeout_s)
        self.flusher._seal(self.clock.monotonic())
        return unit


def errors(outcomes: Sequence[AppendOutcome]) -> list[ErrorCode]:
    """The error of each part."""
    return [outcome.error for outcome in outcomes]


def unavailable() -> ObjectStoreError:
    """What a store says that does not answer."""
    return ObjectStoreError("connection reset")

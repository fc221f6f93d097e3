"""Logs with keys, compacted over a real index and objects in memory, and what consumers may expect to see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.batches import NOW_MS
from tests.unit.lifecycle.merge_support import Cluster
from warp._records import Record, build_batch, iterate_records, scan_batches
from warp.errors import ErrorCode
from warp.ids import BrokerId, LogId
from warp.lifecycle.ages import SteadyTime
from warp.lifecycle.compact import Compaction
from warp.lifecycle.compact_plan import CompactionLimits
from warp.lifecycle.model import TopicLife
from warp.log.answer import FetchLimits, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.memory import MemoryBudget
from warp.log.tail import TailIndex
from warp.metadata.group_model import Lease

MIB = 2**20
DAY_MS = 86_400_000
Pair = tuple[bytes | None, bytes | None]


@dataclass(frozen=True)
class Written:
    """A record as it was committed, and when."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    written_ms: int


class World(Cluster):
    """One topic of some partitions, compacted. `rules` are what differs from the defaults of TopicLife."""

    def __init__(self, path: Path, partitions: int = 1, seed: int = 1, **options: Any) -> None:
        super().__init__(path, partitions, seed=seed, **options)
        self.rules: dict[str, Any] = {"deletes": False, "compacts": True, "min_cleanable_dirty_ratio": 0.0}
        self.history: dict[LogId, list[Written]] = {}
        self.limits = CompactionLimits()
        self.time = SteadyTime(self.clock)

    @property
    def log(self) -> LogId:
        return self.topics[0].logs[0]

    def policies(self) -> list[TopicLife]:
        return [TopicLife(topic.topic_id, topic.name, topic.logs, **self.rules) for topic in self.topics]

    def pass_hours(self, hours: float) -> None:
        self.clock.seconds += hours * 3600

    async def append(
        self, *pairs: Pair, log: LogId | None = None, time_ms: int | None = None, **options: Any
    ) -> None:
        """Commit one batch, in a segment of its own, at the present."""
        await self.append_batches([(pairs, options)], log=log, time_ms=time_ms)

    async def append_batches(
        self,
        batches: Sequence[tuple[Sequence[Pair], Mapping[str, Any]]],
        log: LogId | None = None,
        time_ms: int | None = None,
    ) -> None:
        """Commit batches of a log in one segment."""
        log = self.log if log is None else log
        now_ms = self.clock.time_ms()
        stamp_ms = now_ms if time_ms is None else time_ms
        built = [
            build_batch([(key, value, (), stamp_ms) for key, value in pairs], **options)
            for pairs, options in batches
        ]
        first = (await self.store.log_states([log]))[log].next_offset
        await self.commit({log: built})
        found = self.history.setdefault(log, [])
        for pairs, _ in batches:
            for key, value in pairs:
                found.append(Written(first, key, value, stamp_ms, now_ms))
                first += 1

    def compactor(self, **changes: Any) -> Compaction:
        """A fresh job."""
        return Compaction(
            changes.pop("store", self.store), self.objects, self.clock, self.ids, self.policies, self.pace,
            limits=changes.pop("limits", self.limits), time=self.time, **changes,
        )  # fmt: skip

    async def compact(self, job: Compaction | None = None) -> Compaction:
        """One pass, by default of a fresh job, under a fresh lease."""
        job = job or self.compactor()
        await job.run(await self.job_lease())
        return job

    async def job_lease(self, broker: int = 1) -> Lease:
        seen = (await self.store.read_leases(["job/compact"])).get("job/compact")
        [lease] = await self.store.take_leases_as_seen({"job/compact": seen}, BrokerId(broker))
        return lease

    async def clean_offset(self, log: LogId | None = None) -> int:
        [found] = await self.store.log_dirt([self.log if log is None else log])
        return found.clean_offset

    # What consumers see

    async def consume(self, offset: int = 0, log: LogId | None = None) -> list[Record]:
        """All records from an offset on, as a consumer reads them that has just come."""
        cache = ChunkCache(self.objects, bytes_max=64 * MIB, chunk_bytes=64 * 1024)
        service = FetchService(self.store, cache, TailIndex(), MemoryBudget(200 * MIB), FetchLimits())
        log = self.log if log is None else log
        found: list[Record] = []
        while True:
            answer = await service.fetch(
                [FetchPartitionQuery(log, offset, 1000)], bytes_max=1000, bytes_min=0, wait_ms=0
            )
            [part] = answer.partitions
            assert part.error is ErrorCode.NONE, part
            data = b"".join(bytes(buffer) for buffer in part.records)
            answer.release()
            if not data:
                return found
            found += [record for record in iterate_records(data, MIB) if record.offset >= offset]
            last = scan_batches(data)[-1]
            offset = last.base_offset + last.last_offset_delta + 1

    async def seen(self, offset: int = 0, log: LogId | None = None) -> dict[int, Pair]:
        return {record.offset: (record.key, record.value) for record in await self.consume(offset, log)}

    async def check_log(self, log: LogId | None = None, *, is_clean: bool = False) -> None:
        """What was promised of a log holds, for a consumer from its start and from many offsets."""
        log = self.log if log is None else log
        state = (await self.store.log_states([log]))[log]
        await self._check_tiling(log, state.start_offset, state.next_offset, state.size_bytes)
        history = [w for w in self.history.get(log, []) if w.offset >= state.start_offset]
        whole = await self.consume(state.start_offset, log)
        by_offset = {w.offset: w for w in history}
        for record in whole:
            was = by_offset[record.offset]
            assert (record.key, record.value, record.timestamp) == (was.key, was.value, was.timestamp_ms)
        offsets = [record.offset for record in whole]
        assert offsets == sorted(set(offsets))
        assert not history or offsets[-1] == history[-1].offset, "the last record stays"
        self._check_kept(history, set(offsets))
        for start in range(state.start_offset, state.next_offset, 1 + len(history) // 25):
            assert [r.offset for r in await self.consume(start, log)] == [o for o in offsets if o >= start]
        if is_clean:
            self._check_clean(whole, await self.clean_offset(log))

    def _check_kept(self, history: Sequence[Written], offsets: set[int]) -> None:
        """The newest of each key is there; a tombstone until its time has passed, and then nothing that it hid."""
        newest = {w.key: w for w in history if w.key is not None}
        kept_ms = self.rules.get("delete_retention_ms", DAY_MS)
        for key, last in newest.items():
            if last.offset in offsets:
                continue
            assert last.value is None, (key, last)
            assert self.clock.time_ms() - last.written_ms >= kept_ms, "a tombstone went before its time"
            assert not offsets & {w.offset for w in history if w.key == key}, "what it hid came back"

    def _check_clean(self, records: Sequence[Record], clean_offset: int) -> None:
        """Below the clean offset there is one record of each key, and none without."""
        below = [record for record in records if record.offset < clean_offset]
        keys = [record.key for record in below if record is not records[-1]]
        assert None not in keys
        assert len(keys) == len(set(keys))


def value_of(number: int) -> bytes:
    return b"value %d" % number


__all__ = ["DAY_MS", "MIB", "NOW_MS", "Pair", "World", "Written", "value_of"]

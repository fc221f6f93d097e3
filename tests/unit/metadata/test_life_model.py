"""Random lives of a few logs, beside a plain model of what the metadata has to say after every step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.unit.metadata.life_support import index_of, merged, rows_of, states, taken
from tests.unit.metadata.support import NOW_MS, Store, batch, segment
from warp.ids import LogId
from warp.metadata.life_model import (
    IndexRow,
    LogDirt,
    LogHead,
    NewExtent,
    NewSegment,
    SegmentState,
    Swap,
    SwapRefused,
)

LIVE, DEAD, GONE = SegmentState
STEPS = 120


@dataclass(slots=True)
class ModelExtent:
    """An extent as it has to be."""

    base: int
    end: int
    key: str
    position: int
    size_bytes: int
    timestamp_ms: int
    prefix_ms: int


@dataclass(slots=True)
class ModelLog:
    """A log as it has to be."""

    start: int = 0
    end: int = 0
    clean: int = 0
    extents: list[ModelExtent] = field(default_factory=list)
    quarantined: set[int] = field(default_factory=set)
    """End offsets."""


@dataclass
class Model:
    """What is to be there, in plain Python; each step is taken by a store too, and the answers compared."""

    store: Store
    random: random.Random
    logs: dict[LogId, ModelLog]
    deleted: dict[LogId, ModelLog] = field(default_factory=dict)
    segments: dict[str, SegmentState] = field(default_factory=dict)
    read: list[list[IndexRow]] = field(default_factory=list)
    """What was read at some time; by now it may have changed."""
    largest_ms: dict[LogId, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lease = taken(self.store)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def some_log(self) -> LogId:
        return self.random.choice(sorted(self.logs))

    # Steps

    def commit(self) -> None:
        chosen = sorted(self.random.sample(sorted(self.logs), self.random.randint(1, len(self.logs))))
        key, position, batches = self.store.ids.segment_key(), 0, []
        for log_id in chosen:
            size_bytes, offsets = self.random.randint(1, 100), self.random.randint(1, 20)
            time_ms = self.random.randint(0, 1000)
            batches.append(batch(log_id, position, count=offsets, size=size_bytes, max_timestamp_ms=time_ms))
            log = self.logs[log_id]
            prefix_ms = max(time_ms, self.largest_ms.get(log_id, -1))
            self.largest_ms[log_id] = prefix_ms
            log.extents.append(
                ModelExtent(log.end, log.end + offsets, key, position, size_bytes, time_ms, prefix_ms)
            )
            log.end += offsets
            position += size_bytes
        self.store.commit([segment(key, *batches)], NOW_MS)
        self.segments[key] = LIVE

    def read_rows(self) -> None:
        self.read.append(
            rows_of(self.store, *(log for log in sorted(self.logs) if self.random.random() < 0.6))
        )
        del self.read[:-3]

    def swap(self) -> None:
        """Of something that was read: some runs of some logs, cut anew at random offsets."""
        if not self.read:
            return
        rows = [row for row in self.random.choice(self.read) if self.random.random() < 0.8]
        if not rows:
            return
        key = self.store.ids.segment_key()
        level = self.random.randint(1, 3)
        whole = merged(key, rows, level=level)
        added: list[NewExtent] = []
        for extent in whole.added:
            added += self._cut(extent)
        clean = {extent.log_id: extent.end_offset for extent in added if self.random.random() < 0.3}
        change = Swap([NewSegment(key, 1, level, NOW_MS)], whole.removed, added, clean)
        if self.random.random() < 0.1:
            assert self.store.claim_keys(self.lease, [(key, 1)]) == [key]
            self.segments[key] = DEAD
            with pytest.raises(SwapRefused):
                self.store.swap(self.lease, change)
            self.count("refused")
            return
        wanted = {row.log_id for row in rows}
        swapped = {log_id for log_id in wanted if self._is_as_read(log_id, rows)}
        for log_id in swapped:
            self._replace(log_id, rows, added, key, clean)
        if swapped:
            self.segments[key] = LIVE
        answer = self.store.swap(self.lease, change)
        assert (answer.swapped, answer.dropped) == (swapped, wanted - swapped)
        if self.random.random() < 0.3:
            assert self.store.swap(None, change) == answer
        for log_ids, what in ((swapped, "swapped"), (wanted - swapped, "dropped")):
            if log_ids:
                self.count(what)

    def _cut(self, extent: NewExtent) -> list[NewExtent]:
        length = extent.end_offset - extent.base_offset
        cuts = sorted(self.random.sample(range(1, length), min(length - 1, self.random.randint(0, 2))))
        bounds = [extent.base_offset, *(extent.base_offset + cut for cut in cuts), extent.end_offset]
        times_ms = [extent.max_timestamp_ms, self.random.randint(0, 1000), -1]
        return [
            NewExtent(
                extent.log_id, base, end, 0, base, self.random.randint(1, 50), self.random.choice(times_ms)
            )
            for base, end in pairwise(bounds)
        ]

    def _is_as_read(self, log_id: LogId, rows: list[IndexRow]) -> bool:
        log = self.logs.get(log_id)
        if log is None:
            return False
        present = {(extent.end, extent.base, extent.key, extent.position) for extent in log.extents}
        own = [row for row in rows if row.log_id == log_id]
        return all(
            (row.end_offset, row.base_offset, row.key, row.position) in present
            and row.end_offset not in log.quarantined
            for row in own
        )

    def _replace(
        self, log_id: LogId, rows: list[IndexRow], added: list[NewExtent], key: str, clean: dict[LogId, int]
    ) -> None:
        log = self.logs[log_id]
        ends = {row.end_offset for row in rows if row.log_id == log_id}
        removed = [extent for extent in log.extents if extent.end in ends]
        log.extents = [extent for extent in log.extents if extent.end not in ends]
        for new in added:
            if new.log_id == log_id:
                ends_in = next(old for old in removed if old.base < new.end_offset <= old.end)
                time_ms = ends_in.timestamp_ms if new.max_timestamp_ms == -1 else new.max_timestamp_ms
                log.extents.append(
                    ModelExtent(
                        new.base_offset,
                        new.end_offset,
                        key,
                        new.position,
                        new.size_bytes,
                        min(time_ms, ends_in.prefix_ms),
                        ends_in.prefix_ms,
                    )
                )
        log.extents.sort(key=lambda extent: extent.end)
        log.clean = max(log.clean, clean.get(log_id, 0))

    def move_start(self) -> None:
        log_id = self.some_log()
        log = self.logs[log_id]
        to = self.random.randint(0, log.end + 5)
        if self.random.random() < 0.5:
            log.start = max(log.start, min(to, log.end))
            assert self.store.advance_log_starts(self.lease, {log_id: to}) == {log_id: log.start}
        elif to <= log.end:
            log.start = max(log.start, to)
            assert self.store.delete_records({log_id: to}) == {log_id: log.start}

    def trim(self) -> None:
        chosen = [log for log in sorted(self.logs) if self.random.random() < 0.7]
        limit = self.random.randint(1, 6)
        ended = [
            (log_id, extent)
            for log_id in chosen
            for extent in self.logs[log_id].extents
            if extent.end <= self.logs[log_id].start
        ][:limit]
        for log_id, extent in ended:
            self.logs[log_id].extents.remove(extent)
            self.logs[log_id].quarantined.discard(extent.end)
        assert self.store.trim_logs(self.lease, chosen, limit) == len(ended)
        self.counts["trimmed"] = self.counts.get("trimmed", 0) + len(ended)

    def quarantine(self) -> None:
        if not self.read or not self.read[-1]:
            return
        row = self.random.choice(self.read[-1])
        self.store.quarantine(self.lease, [row], "damaged")
        log = self.logs.get(row.log_id)
        if log is not None and any(e.end == row.end_offset and e.key == row.key for e in log.extents):
            log.quarantined.add(row.end_offset)
            self.count("quarantined")

    def release(self) -> None:
        found = self.store.quarantined(100)
        assert [(one.log_id, one.end_offset) for one in found] == sorted(
            (log_id, end) for log_id, log in (self.logs | self.deleted).items() for end in log.quarantined
        )
        assert self.store.release_quarantined(found) == len(found)
        for log in (self.logs | self.deleted).values():
            log.quarantined.clear()

    def mark_dead(self) -> None:
        used = {
            extent.key
            for logs in (self.logs, self.deleted)
            for log in logs.values()
            for extent in log.extents
        }
        died = {key for key, state in self.segments.items() if state == LIVE and key not in used}
        cursor: int | None = 0
        total = 0
        while cursor is not None:
            count, cursor = self.store.mark_dead(self.lease, cursor, 7)
            total += count
        assert total == len(died)
        self.segments.update(dict.fromkeys(died, DEAD))
        self.counts["died"] = self.counts.get("died", 0) + total

    def bury(self) -> None:
        dead = self.store.dead_segments(self.random.randint(1, 5))
        self.store.mark_gone(self.lease, [one.segment_id for one in dead])
        self.segments.update({one.key: GONE for one in dead})
        gone = self.store.gone_segments(2)
        assert self.store.forget_segments(self.lease, [one.segment_id for one in gone]) == len(gone)
        for one in gone:
            del self.segments[one.key]

    def delete_topic(self) -> None:
        if len(self.logs) > 1 and self.random.random() < 0.3:
            log_id = self.some_log()
            [(topic_id,)] = self.store.rows("select topic_id from logs where log_id = $1", log_id)
            self.store.delete_topics([topic_id])
            self.deleted[log_id] = self.logs.pop(log_id)

    def clear(self) -> None:
        limit = self.random.randint(1, 8)
        removed = self.store.clear_deleted_logs(self.lease, limit)
        assert removed <= limit
        for log_id in sorted(self.deleted):
            log = self.deleted[log_id]
            while log.extents and removed:
                log.quarantined.discard(log.extents.pop(0).end)
                removed -= 1
        for log_id in sorted(self.deleted):
            if removed:
                assert not self.deleted.pop(log_id).extents
                removed -= 1
        assert removed == 0

    # What has to be there

    def check(self) -> None:
        assert states(self.store) == self.segments
        found = self.store.rows(
            "select log_id, start_offset, next_offset, clean_offset, size_bytes from logs order by 1"
        )
        assert found == [
            (log_id, log.start, log.end, log.clean, sum(extent.size_bytes for extent in log.extents))
            for log_id, log in sorted(self.logs.items())
        ]
        for log_id, log in (self.logs | self.deleted).items():
            assert index_of(self.store, log_id) == [
                (e.base, e.end, e.key, e.position, e.size_bytes, e.timestamp_ms, e.prefix_ms)
                for e in log.extents
            ]
        self.check_answers()

    def check_answers(self) -> None:
        """What jobs are told of logs, as it follows from their extents."""
        heads, dirts, to_trim = [], [], []
        for log_id, log in sorted(self.logs.items()):
            size_bytes = sum(extent.size_bytes for extent in log.extents)
            kept = [extent for extent in log.extents if extent.end > log.start]
            if len(kept) < len(log.extents):
                to_trim.append(log_id)
            first = (kept[0].end, kept[0].timestamp_ms) if kept else (-1, -1)
            heads.append(LogHead(log_id, log.start, log.end, size_bytes, *first))
            dirty = [extent for extent in kept if extent.end > log.clean]
            clean_bytes, dirty_bytes = (
                sum(extent.size_bytes for extent in extents)
                for extents in ([extent for extent in kept if extent.end <= log.clean], dirty)
            )
            first_ms = dirty[0].timestamp_ms if dirty else -1
            dirts.append(LogDirt(log_id, log.start, log.end, log.clean, clean_bytes, dirty_bytes, first_ms))
            time_ms = self.random.randint(0, 1000)
            reaching = [max(extent.base, log.start) for extent in kept if extent.prefix_ms >= time_ms]
            assert self.store.offset_reaching_time(log_id, time_ms) == (reaching[0] if reaching else log.end)
        assert self.store.log_heads(list(self.logs)) == heads
        assert self.store.log_dirt(list(self.logs)) == dirts
        assert self.store.logs_to_trim(0, 100) == (to_trim, None)


@pytest.mark.parametrize("seed", range(3))
def test_any_life_agrees_with_the_model(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    logs = [store.new_topic(f"t{number}").logs[0] for number in range(4)]
    model = Model(store, chance, {log: ModelLog() for log in logs})
    steps: list[tuple[Callable[[], None], int]] = [
        (model.commit, 8), (model.read_rows, 6), (model.swap, 8), (model.move_start, 3), (model.trim, 3),
        (model.quarantine, 1), (model.release, 1), (model.mark_dead, 2), (model.bury, 2), (model.delete_topic, 1),
        (model.clear, 1),
    ]  # fmt: skip
    for number in range(STEPS):
        [step] = chance.choices([step for step, _ in steps], [weight for _, weight in steps])
        step()
        try:
            model.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {number}: {step.__name__}: {error}") from error
    assert {"swapped", "dropped", "trimmed", "died"} <= model.counts.keys(), "the seed does not reach enough"

"""A small cluster's metadata and objects, written as agents write them, for tests that then damage them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit.metadata.support import NOW_MS, Store, Stores, sqlite_stores
from warp._records import build_batch, parse_header, stamp_batches
from warp.ids import LogId, ProducerId
from warp.lifecycle.fsck import DEEP, Scope, check
from warp.lifecycle.fsck_repair import repair
from warp.lifecycle.fsck_report import Report
from warp.lifecycle.output import SegmentWriter
from warp.log.segment import ExtentBatches, build_segment
from warp.metadata.fsck_repairs import FsckRepairs
from warp.metadata.fsck_store import FsckStore
from warp.metadata.model import BatchEntry, SegmentCommit, Topic
from warp.metadata.session import Argument, Statement, parse_statements
from warp.objectstore.memory import MemoryStore

HOUR_MS = 3_600_000


class World:
    """One topic `orders` of three partitions, and whatever tests add to it."""

    def __init__(self, stores: Stores, *, rows_per_page: int = 3) -> None:
        self.store: Store = stores.open()
        self.objects = MemoryStore(self.store.clock, bytes_max=2**28)
        self.topic: Topic = self.store.new_topic("orders", 3)
        # Small pages, so that every walk has to go on from where it was.
        self.fsck_store = FsckStore(self.store.database, rows_per_page=rows_per_page, extents_per_snapshot=5)

    @classmethod
    def on_sqlite(cls, directory: Path) -> World:
        return cls(sqlite_stores(directory / "metadata.sqlite"))

    def close(self) -> None:
        self.store.close()

    def produce(self, *batches: tuple[int, int], time_ms: int = NOW_MS, producer: int = -1) -> str:
        """Write and commit one segment: batches of (partition, records). Its key."""
        return self.store.run(self.produce_while_running(*batches, time_ms=time_ms, producer=producer))

    async def produce_while_running(
        self, *batches: tuple[int, int], time_ms: int = NOW_MS, producer: int = -1
    ) -> str:
        """The same, from a coroutine."""
        grouped: dict[int, list[bytes]] = {}
        for partition, records in batches:
            grouped.setdefault(partition, []).append(_batch(records, time_ms, producer, len(batches)))
        extents = [self._extent(partition, datas) for partition, datas in grouped.items()]
        key = self.store.ids.segment_key()
        parts = build_segment(extents, created_ms=self.store.clock.time_ms())
        await self.objects.put(key, parts)
        commit = SegmentCommit(key, sum(map(len, parts)), self.store.clock.time_ms(), self._entries(grouped))
        await self.store.metadata.commit([commit], NOW_MS)
        return key

    def merge(self, partition: int) -> str:
        """Put the extents of a log into a segment of level 1, as a swap does. Its key."""
        log_id = self.topic.logs[partition]
        writer = SegmentWriter(1, size_max=2**24)
        rows = self.rows(
            "select s.key, e.position, e.size_bytes, e.base_offset, e.end_offset, e.max_timestamp_ms from extents e "
            "cross join segments s where s.segment_id = e.segment_id and e.log_id = $1 order by e.end_offset",
            log_id,
        )
        for key, position, size, base, end, max_ms in rows:
            data = bytearray(self.store.run(self.objects.get(key, position, size)))
            stamped = _stamped(data, base)
            writer.add(
                self.topic.topic_id,
                "orders",
                partition,
                log_id,
                base,
                end,
                stamped,
                end - base,
                max_ms,
                max_ms,
            )
        key = self.store.ids.segment_key()
        sealed = writer.seal(key, NOW_MS)
        self.store.run(self.objects.put(key, sealed.parts))
        self.execute(
            "insert into segments (key, size_bytes, level, state, created_ms) values ($1, $2, 1, 0, $3)",
            key, sealed.segment.size_bytes, NOW_MS,
        )  # fmt: skip
        self.execute("delete from extents where log_id = $1", log_id)
        for extent in sealed.extents:
            self.execute(
                "insert into extents (log_id, end_offset, base_offset, segment_id, position, size_bytes, "
                "max_timestamp_ms, prefix_max_timestamp_ms) values "
                "($1, $2, $3, (select segment_id from segments where key = $4), $5, $6, $7, $7)",
                log_id, extent.end_offset, extent.base_offset, key, extent.position, extent.size_bytes,
                extent.max_timestamp_ms,
            )  # fmt: skip
        return key

    def rows(self, sql: str, *arguments: Argument) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.store.rows(sql, *arguments)
        return found

    def execute(self, sql: str, *arguments: Argument) -> None:
        """Change a table behind everybody's back; it has to change something."""
        assert self.store.run(self.store.database.execute(self.statement(sql), *arguments)) > 0, sql

    def statement(self, sql: str) -> Statement:
        """A statement as it stands."""
        return parse_statements(f"-- name: damage\n{sql}")["damage"]

    def repair(self, report: Report) -> None:
        """What --repair does with a report."""
        self.store.run(repair(report, FsckRepairs(self.store.database, extents_per_step=2)))

    def check(self, scope: Scope = DEEP) -> Report:
        """What fsck says of it all."""
        return self.store.run(check(self.fsck_store, self.objects, self.store.clock, scope=scope))

    def object(self, key: str) -> bytearray:
        size_bytes = self.store.run(self.objects.head(key)).size_bytes
        return bytearray(self.store.run(self.objects.get(key, 0, size_bytes)))

    def replace(self, key: str, data: bytes | bytearray) -> None:
        self.store.run(self.objects.put(key, [bytes(data)]))

    def remove(self, key: str) -> None:
        self.store.run(self.objects.delete([key]))

    def _extent(self, partition: int, batches: Sequence[bytes]) -> ExtentBatches:
        headers = [parse_header(data) for data in batches]
        return ExtentBatches(
            self.topic.topic_id,
            self.topic.name,
            partition,
            batches,
            sum(header.record_count for header in headers),
            min(header.base_timestamp for header in headers),
            max(header.max_timestamp for header in headers),
        )

    def _entries(self, grouped: Mapping[int, Sequence[bytes]]) -> list[BatchEntry]:
        position, entries = 8, []
        for partition, datas in grouped.items():
            for data in datas:
                header = parse_header(data)
                entries.append(
                    BatchEntry(
                        self.topic.logs[partition],
                        position,
                        len(data),
                        header.last_offset_delta + 1,
                        header.max_timestamp,
                        ProducerId(header.producer_id),
                        header.producer_epoch,
                        header.base_sequence,
                    )
                )
                position += len(data)
        return entries


def kinds(report: Report) -> list[str]:
    """The kinds of what was found, each once."""
    return sorted(report.found)


def log_of(world: World, partition: int) -> LogId:
    return world.topic.logs[partition]


def _batch(records: int, time_ms: int, producer: int, seed: int) -> bytes:
    values = [
        (b"key-%d" % number, b"value %d " % seed * 5, (), time_ms + number) for number in range(records)
    ]
    epoch, sequence = (-1, -1) if producer < 0 else (0, 0)
    return build_batch(values, producer_id=producer, producer_epoch=epoch, base_sequence=sequence)


def _stamped(data: bytearray, base_offset: int) -> bytes:
    stamp_batches(data, base_offset)
    return bytes(data)

"""fsck and the objects: damage of every kind is found, what is on its way is not taken for damage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.lifecycle.fsck_support import HOUR_MS, World, kinds, log_of
from warp.errors import ObjectStoreError
from warp.ids import LogId
from warp.lifecycle.fsck import DEEP, NORMAL, QUICK, Scope, check
from warp.lifecycle.fsck_objects import IdSet
from warp.lifecycle.fsck_report import Kind, Report
from warp.log.segment import MAGIC, build_segment
from warp.metadata.fsck_store import FsckStore
from warp.metadata.session import Session
from warp.objectstore.base import Buffer, ObjectInfo
from warp.objectstore.memory import MemoryStore

SCOPES = (QUICK, NORMAL, DEEP)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.on_sqlite(tmp_path)
    made.produce((0, 3), (1, 2), (0, 1))
    made.produce((1, 4), (2, 1), producer=7)
    made.produce((0, 2))
    yield made
    made.close()


def last_key(world: World) -> str:
    key: str = world.rows("select key from segments where segment_id = 3")[0][0]
    return key


@pytest.mark.parametrize("scope", SCOPES)
def test_an_object_that_is_gone_is_found(world: World, scope: Scope) -> None:
    world.remove(last_key(world))
    report = world.check(scope)
    assert dict(report.found) == {"object-missing": 1}
    assert report.findings[0].where == last_key(world)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("left", [0, 5, 100])
def test_an_object_that_was_cut_short_is_found(world: World, scope: Scope, left: int) -> None:
    world.replace(last_key(world), world.object(last_key(world))[:left])
    assert "object-size" in kinds(world.check(scope))


def test_an_object_that_has_grown_is_found(world: World) -> None:
    world.replace(last_key(world), world.object(last_key(world)) + b"more")
    assert kinds(world.check()) == ["object-size"]


def test_a_row_with_a_wrong_size_is_found(world: World) -> None:
    world.execute("update segments set size_bytes = size_bytes - 1 where segment_id = 3")
    assert "object-size" in kinds(world.check(QUICK))
    assert "object-damaged" in kinds(world.check(NORMAL))


def test_every_flipped_bit_is_found_by_a_deep_check(world: World) -> None:
    key = last_key(world)
    whole = world.object(key)
    # All bytes of all batches but base offset and leader epoch, which every reader stamps.
    for place in [*range(8), *range(16, 20), *range(24, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        world.replace(key, damaged)
        assert not world.check().is_clean, f"byte {place}"
    world.replace(key, whole)
    assert world.check().is_clean


def test_a_flipped_bit_of_a_batch_is_told_with_its_place(world: World) -> None:
    damaged = world.object(last_key(world))
    damaged[70] ^= 1
    world.replace(last_key(world), damaged)
    assert world.check(NORMAL).is_clean
    [finding] = world.check(DEEP).findings
    assert finding.kind is Kind.EXTENT_BYTES
    assert finding.where == f"log 1, offsets 4 to 5 in {last_key(world)}"
    assert finding.text == "the batch at its byte 0 (offset 4) is damaged: batch has a wrong CRC"


def test_wrong_offsets_in_the_batches_of_a_merged_segment_are_found(world: World) -> None:
    key = world.merge(0)
    damaged = world.object(key)
    damaged[len(MAGIC) + 7] ^= 2
    world.replace(key, damaged)
    [finding] = world.check(DEEP).findings
    assert finding.text == "the batch at its byte 0 says offset 2, not 0"


@pytest.mark.parametrize("content", [b"", b"something else", bytes(4096), b"WARPSEG\x01" + bytes(400)])
def test_foreign_bytes_under_the_key_of_a_segment_are_found(world: World, content: bytes) -> None:
    size_bytes = len(world.object(last_key(world)))
    world.replace(last_key(world), content.ljust(size_bytes, b"\0")[:size_bytes])
    assert kinds(world.check(NORMAL)) == ["object-damaged"]


def test_a_segment_under_the_key_of_another_is_found(world: World) -> None:
    first, second = (
        row[0] for row in world.rows("select key from segments where segment_id < 3 order by segment_id")
    )
    world.execute("update segments set size_bytes = $1 where segment_id = 2", len(world.object(first)))
    world.replace(second, world.object(first))
    assert "extent-foreign" in kinds(world.check(NORMAL))


def test_a_newer_format_is_told_as_such(world: World) -> None:
    damaged = world.object(last_key(world))
    damaged[-1] = 2
    world.replace(last_key(world), damaged)
    [finding] = world.check(NORMAL).findings
    assert "format version 2 is newer" in finding.text


def test_unknown_objects_are_orphans_only_once_they_are_old(world: World) -> None:
    image = build_segment([], created_ms=1)
    world.store.run(world.objects.put(world.store.ids.segment_key(), image))
    report = world.check()
    assert (report.is_clean, report.counts["unknown objects, young"], report.counts["orphans"]) == (
        True,
        1,
        0,
    )
    world.store.clock.seconds += HOUR_MS / 1000
    report = world.check()
    assert (report.is_clean, report.counts["unknown objects, young"], report.counts["orphans"]) == (
        True,
        0,
        1,
    )
    assert report.counts["orphan bytes"] == sum(map(len, image))
    assert "is an orphan" in report.notes[0]


def test_objects_of_dead_segments_and_of_other_kinds_are_counted(world: World) -> None:
    key = world.store.ids.segment_key()
    world.replace(key, b"x")
    assert world.store.claim_key(key, 1)
    receipts = world.store.ids.segment_key().replace("segments/", "receipts/")
    for other in (receipts, "probe/token/1", "notes.txt", "segments/odd", "segments/ff/zz", "receipts/aa/1"):
        world.replace(other, b"y")
    report = world.check()
    assert report.is_clean
    assert (report.counts["dead objects"], report.counts["receipts"], report.counts["foreign objects"]) == (
        1,
        1,
        4,
    )
    assert report.counts["dead segments"] == 1
    assert "'notes.txt' is none of Warp's objects" in report.notes[0]


class Busy(MemoryStore):
    """A store in which something happens at the n-th get or head."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store.clock, bytes_max=2**28)
        self._objects = world.objects._objects
        self.happens: dict[str, object] = {}
        self.fails: str | None = None

    async def get(self, key: str, start: int, length: int) -> bytes:
        await self._event(key)
        return await super().get(key, start, length)

    async def head(self, key: str) -> ObjectInfo:
        await self._event(key)
        return await super().head(key)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        if self.fails == "list":
            raise ObjectStoreError("the store is down")
        async for found in super().list(prefix):
            yield found

    async def _event(self, key: str) -> None:
        if self.fails == "get":
            raise ObjectStoreError("the store is down")
        event = self.happens.pop(key, None)
        if event is not None:
            await event()  # type: ignore[operator]


def busy_check(world: World, store: Busy, scope: Scope = DEEP) -> Report:
    return world.store.run(check(world.fsck_store, store, world.store.clock, scope=scope))


def test_a_segment_that_dies_and_goes_while_it_is_looked_at_is_no_finding(world: World) -> None:
    store = Busy(world)
    key = last_key(world)

    async def swap_and_delete() -> None:
        database = world.store.database
        async with database.transaction() as session:
            for sql in (
                "update segments set state = 1, died_ms = 1 where segment_id = 3",
                "delete from extents where segment_id = 3",
            ):
                await session.execute(world.statement(sql))
        await store.delete([key])

    store.happens[key] = swap_and_delete
    assert busy_check(world, store).findings == []


def test_an_object_that_appears_after_the_listing_is_no_finding(world: World) -> None:
    store = Busy(world)
    key = last_key(world)
    content = bytes(world.object(key))
    world.remove(key)

    async def appear() -> None:
        await store.put(key, [content])

    store.happens[key] = appear
    assert busy_check(world, store).findings == []


def test_bytes_that_were_misread_once_are_no_finding(world: World) -> None:
    store = Busy(world)
    key = last_key(world)
    content = world.object(key)
    damaged = bytearray(content)
    damaged[100] ^= 1
    world.replace(key, damaged)

    class Mends(Busy):
        gets = 0

        async def get(self, wanted: str, start: int, length: int) -> Buffer:  # type: ignore[override]
            found = await MemoryStore.get(self, wanted, start, length)
            if wanted == key and start == len(MAGIC):
                self.gets += 1
                await self.put(key, [bytes(content)])
            return found

    store = Mends(world)
    assert busy_check(world, store).findings == []
    assert store.gets == 2


@pytest.mark.parametrize("operation", ["get", "list"])
def test_a_store_that_does_not_answer_is_not_taken_for_damage(world: World, operation: str) -> None:
    store = Busy(world)
    store.fails = operation
    report = busy_check(world, store)
    assert kinds(report) == ["unread"]
    assert not report.is_whole


class Growing:
    """A database into which somebody commits before each snapshot: every page of rows is from another state."""

    def __init__(self, world: World) -> None:
        self.commits = 0
        self._world = world

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        self.commits += 1
        await self._world.produce_while_running((self.commits % 3, 2), (0, 1))
        async with self._world.store.database.snapshot() as session:
            yield session


def test_commits_during_the_check_are_no_finding(world: World) -> None:
    for _ in range(10):
        world.produce((0, 1), (1, 1), (2, 1))
    database = Growing(world)
    store = FsckStore(database, rows_per_page=3, extents_per_snapshot=5)
    report = world.store.run(check(store, world.objects, world.store.clock, scope=DEEP))
    assert report.findings == []
    assert database.commits > 20


def test_a_set_of_ids_takes_what_it_has_room_for() -> None:
    ids = IdSet(bytes_max=10_000)
    for number in (1, 8, 4096 * 8, 79_999, 80_000, -1):
        ids.add(number)
    assert [number for number in (0, 1, 7, 8, 9, 4096 * 8, 79_999, 80_000, -1) if number in ids] == [
        1, 8, 4096 * 8, 79_999,
    ]  # fmt: skip


def quarantine(world: World, log_id: LogId, end_offset: int, segment_id: int) -> None:
    world.execute(
        "insert into quarantined_extents (log_id, end_offset, segment_id, reason, found_ms) "
        "values ($1, $2, $3, 'a batch is damaged', 1)",
        log_id, end_offset, segment_id,
    )  # fmt: skip


def test_quarantined_extents_are_listed_with_why_and_whether_they_can_be_read(world: World) -> None:
    quarantine(world, log_of(world, 0), 6, 3)
    [finding] = world.check(NORMAL).findings
    assert (finding.kind, finding.text) == (Kind.QUARANTINED, "is quarantined, and can be read")
    damaged = world.object(last_key(world))
    damaged[70] ^= 1
    world.replace(last_key(world), damaged)
    [finding] = world.check(NORMAL).findings
    assert "(a batch is damaged), and still: the batch at its byte 0" in finding.text
    world.remove(last_key(world))
    assert dict(world.check(NORMAL).found) == {"object-missing": 1, "quarantined": 1}
    assert dict(world.check(QUICK).found) == {"object-missing": 1, "quarantined": 1}


def test_a_quarantined_extent_that_is_gone_is_found(world: World) -> None:
    quarantine(world, log_of(world, 0), 600, 3)
    assert kinds(world.check()) == ["quarantine-stale"]


def test_payloads_in_the_index_are_read_by_a_deep_check(world: World) -> None:
    key = last_key(world)
    data = bytes(world.object(key))
    position, size = world.rows("select position, size_bytes from extents where segment_id = 3")[0]
    payload = data[position : position + size]
    world.execute("update extents set segment_id = null, payload = $1 where segment_id = 3", payload)
    report = world.check()
    assert (report.findings, report.counts["extents in the index"]) == ([], 1)
    world.execute("update extents set payload = $1 where segment_id is null", payload[:-1] + b"x")
    assert kinds(world.check()) == ["extent-bytes"]
    world.execute("update extents set end_offset = 7 where segment_id is null")
    world.execute("update extents set payload = $1 where segment_id is null", payload)
    assert "extent-bytes" in kinds(world.check())
    world.execute("update extents set payload = null where segment_id is null")
    assert "extent-outside" in kinds(world.check())

"""Extents as jobs read them: every batch checked, and what can't be read told apart from what has moved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from tests.support.batches import NOW_MS
from warp._records import build_batch, verify_batch
from warp.clock import SystemClock
from warp.errors import ObjectStoreError
from warp.ids import LogId
from warp.lifecycle.reading import BadExtent, CheckedBatches, ExtentMoved, ExtentSource, Quarantine
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow
from warp.objectstore.memory import MemoryStore

T = TypeVar("T")
KEY = "segments/00/aa"
HEAD = b"another extent"


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(scenario, 30))


def batch(records: int, size: int, time_ms: int = NOW_MS) -> bytes:
    return build_batch([(None, bytes(size), (), time_ms) for _ in range(records)])


class Objects(MemoryStore):
    """Fails as told, and counts what is read."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), bytes_max=2**30)
        self.reads: list[tuple[int, int]] = []
        self.before_get: Callable[[], None] = lambda: None

    async def get(self, key: str, start: int, length: int) -> bytes:
        self.before_get()
        self.reads.append((start, length))
        return await super().get(key, start, length)


class Index:
    """Holds rows, and what was put in quarantine."""

    def __init__(self, rows: Sequence[IndexRow]) -> None:
        self.rows = list(rows)
        self.quarantined: list[tuple[list[IndexRow], str]] = []

    async def extents_of_log(self, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]:
        found = [row for row in self.rows if row.log_id == log_id and row.end_offset > from_offset]
        return found[:limit]

    async def quarantine(self, lease: Lease | None, found: Sequence[IndexRow], reason: str) -> None:
        self.quarantined.append((list(found), reason))


class Paces:
    def __init__(self) -> None:
        self.spent: list[int] = []

    async def spend(self, size_bytes: int) -> None:
        self.spent.append(size_bytes)


class Scene:
    """One object with one extent in it."""

    def __init__(self, batches: Sequence[bytes], max_timestamp_ms: int = NOW_MS) -> None:
        data = b"".join(batches)
        count = sum(verify_batch(one).last_offset_delta + 1 for one in batches)
        self.row = IndexRow(LogId(7), 100, 100 + count, 1, len(HEAD), len(data), max_timestamp_ms, KEY, 0)
        self.data = data
        self.objects = Objects()
        self.index = Index([self.row])
        self.pace = Paces()
        self.source = ExtentSource(self.objects, self.index, self.pace)
        self.store(HEAD + data + b"footer")

    def store(self, image: bytes) -> None:
        run(self.objects.put(KEY, [image]))

    def damage(self, at: int) -> None:
        image = bytearray(HEAD + self.data + b"footer")
        image[len(HEAD) + at] ^= 1
        self.store(bytes(image))

    def windows(self, window_bytes: int) -> list[CheckedBatches]:
        async def read() -> list[CheckedBatches]:
            return [window async for window in self.source.windows(self.row, window_bytes)]

        return run(read())


def test_an_extent_is_read_with_what_its_headers_say() -> None:
    scene = Scene([batch(3, 10, NOW_MS - 5), batch(1, 2000), batch(2, 1, NOW_MS - 9)])
    found = run(scene.source.read(scene.row))
    assert bytes(found.data) == scene.data
    assert found[1:] == (100, 106, 6, NOW_MS - 9, NOW_MS)
    assert scene.pace.spent == [len(scene.data)]


def test_batches_without_timestamps_are_as_old_as_the_index_says() -> None:
    scene = Scene([batch(1, 10, -1), batch(1, 10, 5)], max_timestamp_ms=NOW_MS)
    found = run(scene.source.read(scene.row))
    assert (found.first_timestamp_ms, found.max_timestamp_ms) == (5, NOW_MS)


@pytest.mark.parametrize("window_bytes", [1, 61, 300, 1000, 10**6])
def test_a_long_extent_is_read_in_windows_of_whole_batches(window_bytes: int) -> None:
    batches = [batch(2, size) for size in (10, 400, 30, 30, 5, 90, 2000, 10)]
    scene = Scene(batches)
    windows = scene.windows(window_bytes)
    assert b"".join(bytes(window.data) for window in windows) == scene.data
    assert [window.base_offset for window in windows[1:]] == [window.end_offset for window in windows[:-1]]
    assert (windows[0].base_offset, windows[-1].end_offset) == (100, 116)
    assert sum(window.record_count for window in windows) == 16
    whole = {len(one) for one in batches}
    assert all(len(window.data) <= window_bytes or len(window.data) in whole for window in windows)
    assert all(length <= max(window_bytes, *whole) for _, length in scene.objects.reads)


@pytest.mark.parametrize("at", [8, 12 + 4, 17, 22, 61, 100])
def test_damaged_bytes_are_found(at: int) -> None:
    scene = Scene([batch(3, 100), batch(1, 50)])
    scene.damage(at)
    with pytest.raises(BadExtent) as caught:
        run(scene.source.read(scene.row))
    assert caught.value.row == scene.row
    assert KEY in str(caught.value)
    for window_bytes in (61, 10**6):
        with pytest.raises(BadExtent):
            scene.windows(window_bytes)


def test_an_extent_whose_offsets_do_not_add_up_is_bad() -> None:
    scene = Scene([batch(3, 100), batch(1, 50)])
    for end in (103, 105):
        row = scene.row._replace(end_offset=end)
        scene.index.rows = [row]
        with pytest.raises(BadExtent, match="its offsets end at 104"):
            run(scene.source.read(row))


@pytest.mark.parametrize("image", [None, b"", HEAD, HEAD + bytes(50)])
def test_missing_and_short_objects_are_bad_after_a_look_at_the_index(image: bytes | None) -> None:
    scene = Scene([batch(3, 100)])
    if image is None:
        run(scene.objects.delete([KEY]))
    else:
        scene.store(image)
    with pytest.raises(BadExtent, match="missing" if image is None else "ends before"):
        run(scene.source.read(scene.row))
    with pytest.raises(BadExtent):
        scene.windows(100)


@pytest.mark.parametrize("now", ["gone", "elsewhere"])
def test_an_extent_that_the_index_has_elsewhere_has_moved(now: str) -> None:
    scene = Scene([batch(3, 100)])
    run(scene.objects.delete([KEY]))
    scene.index.rows = [] if now == "gone" else [scene.row._replace(segment_id=2, key="segments/00/bb")]
    with pytest.raises(ExtentMoved):
        run(scene.source.read(scene.row))


def test_what_was_damaged_on_its_way_only_is_read_again() -> None:
    scene = Scene([batch(3, 100)])
    scene.damage(70)
    seen: list[int] = []

    def repair() -> None:
        seen.append(1)
        if len(seen) == 2:
            scene.objects._store(KEY, HEAD + scene.data + b"footer")

    scene.objects.before_get = repair
    assert bytes(run(scene.source.read(scene.row)).data) == scene.data
    assert len(seen) == 2


def test_an_outage_says_nothing_about_an_extent() -> None:
    scene = Scene([batch(3, 100)])

    def fail() -> None:
        raise ObjectStoreError("no answer")

    scene.objects.before_get = fail
    with pytest.raises(ObjectStoreError, match="no answer"):
        run(scene.source.read(scene.row))
    assert scene.index.quarantined == []


def test_quarantine_is_told_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene([batch(3, 100)])
    quarantine = Quarantine(scene.index)
    rows = [scene.row._replace(log_id=LogId(log)) for log in (1, 2, 3)]
    reasons = ["missing", "damaged", "missing"]
    found = [BadExtent(row, reason) for row, reason in zip(rows, reasons, strict=True)]
    with caplog.at_level(logging.ERROR, "warp.jobs"):
        run(quarantine.add(None, found))
    assert scene.index.quarantined == [([rows[1]], "damaged"), ([rows[0], rows[2]], "missing")]
    assert (quarantine.extents, quarantine.size_bytes) == (3, 3 * scene.row.size_bytes)
    assert len(caplog.messages) == 3
    assert all(KEY in message and "log " in message for message in caplog.messages)


def test_long_extents_are_checked_in_steps() -> None:
    scene = Scene([batch(1, 100_000)] * 60)
    turns: list[int] = []

    async def count_turns() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def scenario() -> None:
        counting = asyncio.ensure_future(count_turns())
        await scene.source.read(scene.row)
        counting.cancel()
        await asyncio.wait([counting])

    run(scenario())
    assert len(turns) >= 5

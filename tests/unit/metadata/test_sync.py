"""Durability of commits: nothing is answered, or shown to anybody, before it is on the disk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.unit.metadata.support import NOW_MS, Store, batch, offsets, segment
from warp.errors import MetadataUnavailable, OutcomeUnknown, StartError
from warp.metadata import sqlite_sync
from warp.metadata.model import NewTopic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.sqlite_sync import SYNCS_BETWEEN_LOOKS, LogSync


class Disk:
    """Remembers how long the log was at each sync; can be told to fail or to wait."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: list[int] = []
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()

    def sync(self, file: int) -> None:
        self.threads.append(threading.get_ident())
        assert self.gate.wait(30)
        if self.fails:
            raise OSError(5, "Input/output error")
        self.sizes.append(os.fstat(file).st_size)


def open_store(path: Path, disk: Disk, seed: int = 1) -> Store:
    store = Store(lambda clock: SqliteDatabase(path, now_ms=clock.time_ms, sync=disk.sync), seed=seed)
    store.open()
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


def test_every_write_is_synced_once_after_its_frames_and_no_read_is(path: Path) -> None:
    disk = Disk()
    store = open_store(path, disk)
    topic = store.new_topic("t")
    [log] = topic.logs
    writes: list[Callable[[], Any]] = [
        lambda: store.commit_batches(batch(log)),
        lambda: store.set_setting("x", "1"),
        lambda: store.register_agent("a"),
        lambda: store.allocate_producer_ids(5),
        lambda: store.claim_key("k", 1),
        lambda: store.delete_records({log: 1}),
        lambda: store.create_partitions(topic.topic_id, 2),
        lambda: store.set_topic_configs(topic.topic_id, {"a": "1"}),
        lambda: store.delete_topics([topic.topic_id]),
        lambda: store.create_topics([NewTopic("u", store.ids.topic_id(), 1)]),
    ]
    for write in writes:
        disk.sizes.clear()
        before = Path(f"{path}-wal").stat().st_size
        write()
        after = Path(f"{path}-wal").stat().st_size
        assert disk.sizes == [after]
        assert after > before
    disk.sizes.clear()
    store.catalogue(None)
    store.log_states([log])
    store.read_extents([])
    store.setting("x")
    assert disk.sizes == []
    store.close()


def test_what_a_start_finds_is_synced_before_it_is_served(path: Path) -> None:
    disk = Disk()
    store = open_store(path, disk)
    assert disk.sizes, "the migrations"
    store.close()
    disk.fails = True
    with pytest.raises(StartError, match="Input/output error"):
        open_store(path, disk)


def test_a_failed_sync_ends_all_service_until_the_next_start(path: Path) -> None:
    disk = Disk()
    store = open_store(path, disk)
    [log] = store.new_topic("t").logs
    disk.fails = True
    ask = segment("k", batch(log, count=3))
    with pytest.raises(OutcomeUnknown, match="could not be synced"):
        store.commit([ask], NOW_MS)
    # The next sync might succeed without having written the pages that this one could not.
    disk.fails = False
    uses: list[Callable[[], Any]] = [
        lambda: store.commit([ask], NOW_MS),
        lambda: store.log_states([log]),
        store.check,
    ]
    for use in uses:
        with pytest.raises(MetadataUnavailable, match="restart the agent"):
            use()
    store.close()
    store = open_store(path, disk, seed=2)
    assert offsets(store.commit([ask], NOW_MS)) == [0]
    assert store.log_states([log])[log].next_offset == 3
    store.close()


@pytest.fixture
def _always_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_sync, "SLOW_SYNC_S", 0.0)


@pytest.mark.usefixtures("_always_slow")
def test_nobody_sees_a_commit_before_it_is_synced_and_the_loop_stays_free(path: Path) -> None:
    disk = Disk()
    store = open_store(path, disk)
    [log] = store.new_topic("t").logs

    async def scenario() -> None:
        disk.gate.clear()
        commit = asyncio.ensure_future(store.metadata.commit([segment("k", batch(log))], NOW_MS))
        read = asyncio.ensure_future(store.metadata.log_states([log]))
        await asyncio.sleep(0.05)
        assert not commit.done()
        assert not read.done()
        disk.gate.set()
        assert (await read)[log].next_offset == 1
        assert commit.done()

    store.run(scenario())
    assert disk.threads[-1] != threading.get_ident()
    store.close()


@pytest.mark.usefixtures("_always_slow")
def test_a_cancelled_commit_lets_nobody_in_before_it_is_synced(path: Path) -> None:
    disk = Disk()
    store = open_store(path, disk)
    [log] = store.new_topic("t").logs

    async def scenario() -> None:
        disk.gate.clear()
        commit = asyncio.ensure_future(store.metadata.commit([segment("k", batch(log))], NOW_MS))
        await asyncio.sleep(0.02)
        for _ in range(3):
            commit.cancel()
            await asyncio.sleep(0.01)
        read = asyncio.ensure_future(store.metadata.log_states([log]))
        await asyncio.sleep(0.02)
        assert not commit.done()
        assert not read.done()
        disk.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await commit
        assert (await read)[log].next_offset == 1

    store.run(scenario())
    store.close()


def run_sync(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


class Syncs:
    """A sync that takes as long as it is told, on a timer of its own, and knows which thread it ran in."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.now_s = 0.0
        self.on_the_loop: list[bool] = []
        self.log_sync = LogSync(self._sync, lambda: self.now_s)

    def _sync(self) -> None:
        self.now_s += self.takes_s
        self.on_the_loop.append(threading.current_thread() is threading.main_thread())

    async def many(self, count: int) -> list[bool]:
        self.on_the_loop.clear()
        for _ in range(count):
            await self.log_sync()
        return list(self.on_the_loop)


def test_fast_syncs_stay_on_the_loop() -> None:
    async def scenario() -> None:
        syncs = Syncs()
        syncs.takes_s = 0.001
        assert all(await syncs.many(200))
        syncs.takes_s = 0.01
        await syncs.many(1)
        syncs.takes_s = 0.001
        assert all(await syncs.many(50)), "one slow sync alone moves nothing"

    run_sync(scenario())


def test_slow_syncs_move_to_a_thread_and_back() -> None:
    async def scenario() -> None:
        syncs = Syncs()
        syncs.takes_s = 0.02
        await syncs.many(10)
        assert syncs.log_sync.typical_s >= sqlite_sync.SLOW_SYNC_S
        places = await syncs.many(3 * (SYNCS_BETWEEN_LOOKS + 1))
        assert places.count(True) == 3, "one look after so many"
        syncs.takes_s = 0.0001
        await syncs.many(20 * (SYNCS_BETWEEN_LOOKS + 1))
        assert all(await syncs.many(50))
        syncs.log_sync.close()

    run_sync(scenario())


def test_a_failure_in_the_thread_is_raised_to_the_caller() -> None:
    async def scenario() -> None:
        def fail() -> None:
            raise OSError(5, "Input/output error")

        log_sync = LogSync(fail)
        with pytest.raises(OSError, match="Input/output"):
            await log_sync()
        log_sync.close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sqlite_sync, "SLOW_SYNC_S", 0.0)
        run_sync(scenario())

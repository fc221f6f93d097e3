"""The local store beyond the common contract: what survives a crash, and what it says when it can't work."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from warp._blocks import free_bytes, set_free_bytes_max
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject, StartError, StoreFull
from warp.objectstore import direct
from warp.objectstore.base import Buffer, PatientParts
from warp.objectstore.local import FILES_MAX, INLINE_BYTES_MAX, TEMPORARY, WORKERS, LocalStore

SMALL = b"small"
LARGE = bytes(INLINE_BYTES_MAX + 1)


def open_store(directory: Path, token: str = "a1", reserve_free_bytes: int = 0) -> LocalStore:
    return LocalStore(directory, token=token, reserve_free_bytes=reserve_free_bytes)


def run(directory: Path, check: Callable[[LocalStore], Awaitable[None]], reserve_free_bytes: int = 0) -> None:
    async def whole() -> None:
        store = open_store(directory, reserve_free_bytes=reserve_free_bytes)
        await store.open()
        try:
            await check(store)
        finally:
            await store.close()

    asyncio.run(whole())


def start_error(directory: Path, reserve_free_bytes: int = 0) -> str:
    async def main() -> str:
        store = open_store(directory, reserve_free_bytes=reserve_free_bytes)
        try:
            with pytest.raises(StartError) as caught:
                await store.open()
            return str(caught.value)
        finally:
            await store.close()

    return asyncio.run(main())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Trace:
    """Notes the system calls that make an object durable, by the path of what they touch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.calls: list[str] = []
        self._root = root
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._traced_sync(getattr(os, name)))
        monkeypatch.setattr(os, "rename", self._traced_name("rename", os.rename))
        monkeypatch.setattr(os, "link", self._traced_name("link", os.link))

    def _path(self, path: str | Path) -> str:
        name = os.path.relpath(path, self._root)
        return "temporary" if name.startswith(TEMPORARY) else name

    def _traced_sync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            self.calls.append(f"sync {self._path(Path(f'/proc/self/fd/{fd}').readlink())}")
            real(fd)

        return sync

    def _traced_name(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def give_name(source: str, target: str) -> None:
            self.calls.append(f"{name} {self._path(source)} to {self._path(target)}")
            real(source, target)

        return give_name


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_a_put_forces_the_file_then_names_it_then_forces_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("a/b/first", [data])
        trace = Trace(monkeypatch, tmp_path)
        await store.put("a/b/second", [data])
        assert trace.calls == ["sync temporary", "rename temporary to a/b/second", "sync a/b"]

    run(tmp_path, check)


def test_create_forces_the_same_also_when_somebody_else_was_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("a/first", [SMALL])
        trace = Trace(monkeypatch, tmp_path)
        for _ in range(2):
            await store.create("a/second", SMALL)
        assert trace.calls == ["sync temporary", "link temporary to a/second", "sync a"] * 2

    run(tmp_path, check)


def test_new_directories_are_forced_into_their_parents_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: LocalStore) -> None:
        trace = Trace(monkeypatch, tmp_path)
        await store.put("a/b/first", [SMALL])
        assert trace.calls == [
            "sync temporary", "sync .", "sync a", "rename temporary to a/b/first", "sync a/b"
        ]  # fmt: skip
        trace.calls.clear()
        await store.put("a/c/second", [SMALL])
        assert trace.calls[:2] == ["sync temporary", "sync a"]

    run(tmp_path, check)


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize("step", ["write", "fdatasync", "rename", "fsync"])
def test_a_put_that_fails_at_any_step_raises_and_leaves_nothing_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, data: bytes
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    async def check(store: LocalStore) -> None:
        await store.put("a/first", [data])
        with monkeypatch.context() as broken:
            for name in ("write", "writev") if step == "write" else (step,):
                broken.setattr(os, name, fail)
            with pytest.raises(ObjectStoreError, match="I/O error"):
                await store.put("a/second", [data])
        assert list((tmp_path / TEMPORARY).iterdir()) == []
        assert (tmp_path / "a/second").exists() == (step == "fsync")
        await store.put("a/second", [data])

    run(tmp_path, check)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_a_full_disk_is_told_apart_from_other_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, data: bytes
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, "no space")

    async def check(store: LocalStore) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            with pytest.raises(StoreFull, match="make room"):
                await store.put("a", [data])

    run(tmp_path, check)


def test_below_the_reserve_writes_are_refused_and_deletes_still_work(tmp_path: Path) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("kept", [SMALL])
        free = os.statvfs(tmp_path)
        store._reserve_free_bytes = free.f_bavail * free.f_frsize + 2**40
        for write in (store.put("a", [SMALL]), store.put("a", [LARGE]), store.create("a", SMALL)):
            with pytest.raises(StoreFull, match="kept in reserve"):
                await write
        assert await store.get("kept", 0, 5) == SMALL
        await store.delete(["kept"])
        assert not (tmp_path / "kept").exists()
        assert list((tmp_path / TEMPORARY).iterdir()) == []

    run(tmp_path, check)


def test_leftovers_of_a_crash_are_removed_at_the_next_start_but_not_what_a_living_process_writes(
    tmp_path: Path,
) -> None:
    temporary = tmp_path / TEMPORARY
    temporary.mkdir()
    (temporary / "dead-1").write_bytes(b"half a segm")
    (temporary / "alive-1").write_bytes(b"half a")
    (temporary / "a1-7").write_bytes(b"of this very process")
    with (temporary / "alive-1").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        async def check(store: LocalStore) -> None:
            assert sorted(path.name for path in temporary.iterdir()) == ["a1-7", "alive-1"]
            assert [found.key async for found in store.list()] == []

        run(tmp_path, check)


def test_a_start_makes_the_directory(tmp_path: Path) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("k", [SMALL])

    run(tmp_path / "deep" / "objects", check)
    assert (tmp_path / "deep" / "objects" / "k").read_bytes() == SMALL


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "is not a directory" in start_error(directory)


def test_a_full_disk_is_told_at_start(tmp_path: Path) -> None:
    assert "make room" in start_error(tmp_path, reserve_free_bytes=2**60)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "give this user write access"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "make room"),
        (errno.EIO, "see whether its disk works"),
    ],
)
def test_a_directory_that_cannot_be_written_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    told = start_error(tmp_path)
    assert advice in told
    assert str(tmp_path) in told
    assert "\n" not in told


def test_an_object_cut_short_on_disk_is_short_and_one_that_was_removed_is_not_found(tmp_path: Path) -> None:
    async def check(store: LocalStore) -> None:
        for data in (SMALL, LARGE):
            await store.put("k", [data])
            os.truncate(tmp_path / "k", len(data) - 1)
            with pytest.raises(ObjectStoreError) as caught:
                await store.get("k", 0, len(data))
            assert getattr(caught.value, "data", None) == data[:-1]
            (tmp_path / "k").unlink()
            with pytest.raises(ObjectNotFound):
                await store.get("k", 0, len(data))

    run(tmp_path, check)


def test_directories_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("a/b/first", [SMALL])
        (tmp_path / "a/b/first").unlink()
        (tmp_path / "a/b").rmdir()
        with pytest.raises(ObjectStoreError, match="directory was removed"):
            await store.put("a/b/second", [SMALL])
        await store.put("a/b/second", [SMALL])
        assert await store.get("a/b/second", 0, 5) == SMALL

    run(tmp_path, check)


def test_a_put_whose_caller_has_gone_still_ends_whole_and_closes_its_files(tmp_path: Path) -> None:
    async def check(store: LocalStore) -> None:
        before = open_files()
        puts = [asyncio.ensure_future(store.put(f"d/{i}", [SMALL if i % 2 else LARGE])) for i in range(100)]
        await asyncio.sleep(0)
        for put in puts:
            put.cancel()
        await asyncio.gather(*puts, return_exceptions=True)
        await store.put("last", [SMALL])
        # A call gives its turn back when its thread is done with it.
        for _ in range(FILES_MAX):
            await store._turns.acquire()
        for _ in range(FILES_MAX):
            store._turns.release()
        assert list((tmp_path / TEMPORARY).iterdir()) == []
        assert open_files() <= before
        async for found in store.list("d/"):
            assert found.size_bytes in (len(SMALL), len(LARGE))

    run(tmp_path, check)


# Writing past the page cache


@pytest.mark.parametrize(
    "size",
    [
        direct.DIRECT_BYTES_MIN,
        direct.BUFFER_BYTES - 1,
        direct.BUFFER_BYTES,
        direct.BUFFER_BYTES + 1,
        20_000_000,
    ],
)
@pytest.mark.parametrize("piece", [1_000_003, 64])
def test_large_files_are_written_byte_for_byte(tmp_path: Path, size: int, piece: int) -> None:
    data = os.urandom(2**16) * (size // 2**16 + 1)
    data = data[:size]
    parts = [data[:piece], b"", *(data[i : i + 1_000_003] for i in range(piece, size, 1_000_003))]
    writer = direct.FileWriter()
    for number in range(2):
        fd = os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT)
        writer.write(fd, parts, size)
        os.close(fd)
        assert (tmp_path / str(number)).read_bytes() == data


@pytest.mark.parametrize("refusal", ["flag", "write"])
def test_a_file_system_without_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    asked = []

    def refuse(*_: object) -> int:
        asked.append(refusal)
        raise OSError(errno.EINVAL, "Invalid argument")

    data = bytes(range(256)) * 40_000
    writer = direct.FileWriter()
    if refusal == "flag":
        real = fcntl.fcntl
        monkeypatch.setattr(fcntl, "fcntl", lambda fd, name, *rest: refuse() if rest else real(fd, name))
    else:
        monkeypatch.setattr(os, "write", refuse)
    for number in range(2):
        fd = os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT)
        writer.write(fd, [data], len(data))
        os.close(fd)
        assert (tmp_path / str(number)).read_bytes() == data
    assert len(asked) == (1 if refusal == "write" else 2)


def test_an_error_of_a_direct_write_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "write", fail)
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="I/O error"):
        direct.FileWriter().write(fd, [bytes(direct.DIRECT_BYTES_MIN)], direct.DIRECT_BYTES_MIN)
    os.close(fd)


def test_a_direct_write_that_the_kernel_cuts_short_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:4096]))
    data = os.urandom(direct.DIRECT_BYTES_MIN + 777)
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    direct.FileWriter().write(fd, [data], len(data))
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == data


def test_a_read_beyond_the_end_keeps_no_memory_alive(tmp_path: Path) -> None:
    """An exception that crossed a future would keep what was read until the next garbage collection."""

    async def check(store: LocalStore) -> None:
        await store.put("short", [bytes(200 * 1024)])
        before = free_bytes()
        found = 0
        try:
            await store.get("short", 0, 4 * 2**20)
        except ShortObject as error:
            found = len(error.data or b"")
        assert found == 200 * 1024
        # Another request, so that the thread and the loop have let go of the last one.
        await store.head("short")
        assert free_bytes() - before >= found

    set_free_bytes_max(0)
    set_free_bytes_max(32 * 2**20)
    gc.disable()
    try:
        run(tmp_path, check)
    finally:
        gc.enable()


def test_what_nobody_waits_for_is_written_in_small_pieces_with_pauses(tmp_path: Path) -> None:
    pauses: list[float] = []
    size_bytes = 3 * direct.PATIENT_BYTES + 1000
    data = os.urandom(size_bytes)
    path = tmp_path / "file"
    for bytes_per_s in (math.inf, 75e6):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            direct.FileWriter(pauses.append).write(fd, [data], size_bytes, bytes_per_s=bytes_per_s)
        finally:
            os.close(fd)
        assert path.read_bytes() == data
        if bytes_per_s == math.inf:
            assert pauses == []
    assert len(pauses) in (0, 3), "0 on a file system without direct writes"
    assert set(pauses) <= {direct.PATIENT_BYTES / 75e6}


def test_a_put_waits_neither_for_reads_nor_for_what_nobody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: LocalStore) -> None:
        await store.put("old", [LARGE])
        free = threading.Event()
        get, write = store._get, store._write_temporary

        def slow_get(key: str, start: int, length: int) -> memoryview:
            assert free.wait(30)
            return get(key, start, length)

        def slow_write(temporary: str, parts: Sequence[Buffer], size_bytes: int) -> int:
            assert not isinstance(parts, PatientParts) or free.wait(30)
            return write(temporary, parts, size_bytes)

        monkeypatch.setattr(store, "_get", slow_get)
        monkeypatch.setattr(store, "_write_temporary", slow_write)
        slow: list[asyncio.Future[object]] = [
            asyncio.ensure_future(store.get("old", 0, len(LARGE))) for _ in range(2 * WORKERS)
        ]
        parts = PatientParts([LARGE], 0, math.inf)
        slow += [asyncio.ensure_future(store.put(f"merged{number}", parts)) for number in range(3)]
        try:
            await asyncio.sleep(0)
            await store.put("small", [SMALL])
            await store.put("large", [LARGE])
            assert not any(one.done() for one in slow)
        finally:
            free.set()
            await asyncio.gather(*slow)
        assert bytes(await store.get("merged2", 0, len(LARGE))) == LARGE

    run(tmp_path, check)


def test_closing_ends_the_pauses_of_what_nobody_waits_for(tmp_path: Path) -> None:
    async def main() -> list[threading.Thread]:
        store = open_store(tmp_path)
        await store.open()
        parts = PatientParts([bytes(2 * direct.PATIENT_BYTES)], 0, direct.PATIENT_BYTES / 60)
        writing = asyncio.ensure_future(store.put("merged", parts))
        await asyncio.sleep(0.05)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await store.close()
        return [thread for thread in threading.enumerate() if thread.name.startswith("warp-disk-patient")]

    for thread in asyncio.run(main()):
        thread.join(10)
        assert not thread.is_alive(), "it would keep the process for a minute"


def test_looks_at_the_store_at_one_time_do_not_take_each_other_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: LocalStore) -> None:
        together = threading.Barrier(2, timeout=10)
        write = store._write_temporary

        def wait_for_the_other(temporary: str, parts: Sequence[Buffer], size_bytes: int) -> int:
            try:
                return write(temporary, parts, size_bytes)
            finally:
                together.wait()

        monkeypatch.setattr(store, "_write_temporary", wait_for_the_other)
        await asyncio.gather(store.check(), store.check())

    run(tmp_path, check)

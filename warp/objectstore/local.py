"""Objects as files under one local directory, whole or absent after a crash at any instant.

A put writes `.tmp/<name>`, forces it to the disk, renames it to its key, and forces the directory: so under a key there
is never a part of an object, and once `put` has returned the object survives a power cut. What a crash leaves in `.tmp`
is removed at the next start; files that a living process still writes are known by the lock that it holds on them.

Where the work runs was measured beside a loop that takes in 4 million 200-byte frames/s on 2 cores (p50/p99 in ms of a
1 MiB put): all on the loop 17/78 and every other connection stalls as long; one thread hop for each fsync 26/54, the
same through kernel AIO 20/87, because each hop waits for its turn on the loop; one hop for both fsyncs and the rename
10/22; one hop for everything 8/46. So a put is one hop, and small objects are written to the page cache before it.
Large ones go past the page cache (see `direct`).

Writes have threads of their own, so that what is produced never waits behind reads; and objects that nobody waits for
have one for all of them.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import math
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from warp._blocks import Block
from warp.data_directory import make_directory
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject, StartError, StoreFull
from warp.objectstore.base import Abilities, Buffer, ObjectInfo, PatientParts, check_key
from warp.objectstore.direct import FileWriter
from warp.objectstore.traffic import Traffic, counted

TEMPORARY = ".tmp"
INLINE_BYTES_MAX = 128 * 1024
"""Up to this size bytes are copied to and from the page cache on the loop, in about 30 µs."""
WORKERS = 4
FILES_MAX = 64
"""Operations at a time, each with at most two descriptors; the others wait."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class LocalStore:
    """An object store in a directory. One process or several may use it at once.

    `token` sets the temporary names of this process apart from others'. Below `reserve_free_bytes` of free space
    writes are refused, so that whoever deletes can still work.
    """

    requests_are_free = True

    def __init__(self, directory: Path, *, token: str, reserve_free_bytes: int) -> None:
        self.directory = directory
        self.traffic = Traffic()
        self._root = str(directory)
        self._token = token
        self._reserve_free_bytes = reserve_free_bytes
        self._numbers = itertools.count()
        self._is_closing = threading.Event()
        # Pauses end at once when the store closes: a process waits for its threads when it exits.
        self._writer = FileWriter(self._is_closing.wait)
        self._turns = asyncio.Semaphore(FILES_MAX)
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="warp-disk")
        self._writing = ThreadPoolExecutor(WORKERS, thread_name_prefix="warp-disk-write")
        self._patient = ThreadPoolExecutor(1, thread_name_prefix="warp-disk-patient")
        self._directories: set[str] = set()
        self._directories_lock = threading.Lock()

    async def open(self) -> Abilities:
        """Make the directory, remove what crashes have left, and prove that an object can be stored and removed."""
        await self._in_thread(self._check)
        return Abilities(conditional_create=True, checks_content=False)

    async def check(self) -> None:
        """The same as `open`: it costs next to nothing."""
        await self._in_thread(self._check)

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store an object; see the module for the steps. An object of the same key is replaced in one step."""
        check_key(key)
        with counted(self.traffic, "put"):
            await self._write(key, parts, exclusive=False)

    async def create(self, key: str, data: Buffer) -> bool:
        """Store an object only if the key is free: a hard link is refused when the name is taken."""
        check_key(key)
        with counted(self.traffic, "put"):
            return await self._write(key, [data], exclusive=True)

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """Read a range: on the loop if it is small and in the page cache, otherwise in a thread."""
        check_key(key)
        with counted(self.traffic, "get"):
            found = await self._read(key, start, length)
            self.traffic.received_bytes += len(found)
        if len(found) < length:
            # Not raised in the thread: a future, its exception and the frames in between would keep each other, and the
            # bytes, alive until the next garbage collection.
            raise ShortObject(f"{key}: wanted {length} bytes from {start}, there are {len(found)}", found)
        return found

    async def head(self, key: str) -> ObjectInfo:
        """Size and time of last change of an object's file."""
        check_key(key)
        with counted(self.traffic, "head"):
            return await self._in_thread(self._head, key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects. A power cut may bring them back: then they are orphans, and go the way of all orphans."""
        for key in keys:
            check_key(key)
        with counted(self.traffic, "delete"):
            await self._in_thread(self._delete, keys)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects directory by directory, each directory in order of its names."""
        self.traffic.count("list", "ok")
        pending = [""]
        while pending:
            directories, objects = await self._in_thread(self._scan, pending.pop(), prefix)
            pending += reversed(directories)
            for found in objects:
                yield found

    async def close(self) -> None:
        """Start nothing more. A thread that hangs in the kernel is not waited for."""
        self._is_closing.set()
        for threads in (self._threads, self._writing, self._patient):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, key: str, start: int, length: int) -> Buffer:
        if length <= INLINE_BYTES_MAX:
            data = self._get_cached(key, start, length)
            if data is not None:
                return data
        return await self._in_thread(self._get, key, start, length)

    async def _write(self, key: str, parts: Sequence[Buffer], *, exclusive: bool) -> bool:
        temporary = f"{self._root}/{TEMPORARY}/{self._token}-{next(self._numbers)}"
        size_bytes = sum(map(len, parts))
        self.traffic.sent_bytes += size_bytes
        if size_bytes > INLINE_BYTES_MAX:
            threads = self._patient if isinstance(parts, PatientParts) else self._writing
            await self._turns.acquire()
            return await self._hop(
                threads, self._write_and_publish, temporary, key, parts, size_bytes, exclusive
            )
        await self._turns.acquire()
        try:
            fd = self._write_temporary(temporary, parts, size_bytes)
        except OSError as error:
            self._turns.release()
            raise _mapped(error, key) from error
        except BaseException:
            self._turns.release()
            raise
        return await self._hop(self._writing, self._publish, fd, temporary, key, exclusive)

    async def _in_thread(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        await self._turns.acquire()
        return await self._hop(self._threads, call, *args, **kwargs)

    async def _hop(
        self, threads: ThreadPoolExecutor, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """Run a call that holds a turn in a thread, to its end even if the caller goes away: it closes its files."""
        assert not kwargs
        future = asyncio.get_running_loop().run_in_executor(threads, call, *args)
        future.add_done_callback(self._hopped)
        return await asyncio.shield(future)

    def _hopped(self, future: asyncio.Future[_R]) -> None:
        self._turns.release()
        if not future.cancelled():
            future.exception()

    # What follows runs in threads, but for `_get_cached` and the `_write_temporary` of small objects.

    def _write_and_publish(
        self, temporary: str, key: str, parts: Sequence[Buffer], size_bytes: int, exclusive: bool
    ) -> bool:
        try:
            fd = self._write_temporary(temporary, parts, size_bytes)
        except OSError as error:
            raise _mapped(error, key) from error
        return self._publish(fd, temporary, key, exclusive)

    def _write_temporary(self, temporary: str, parts: Sequence[Buffer], size_bytes: int) -> int:
        """Write a locked file that nobody looks at yet; its descriptor is the caller's."""
        self._require_space(size_bytes)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            bytes_per_s = parts.bytes_per_s if isinstance(parts, PatientParts) else math.inf
            self._writer.write(fd, parts, size_bytes, bytes_per_s=bytes_per_s)
        except BaseException:
            os.close(fd)
            _unlink_if_there(temporary)
            raise
        return fd

    def _publish(self, fd: int, temporary: str, key: str, exclusive: bool) -> bool:
        """Force the file to the disk, give it its name, force the name to the disk. Closes `fd` in any case.

        False when the name is taken and `exclusive` is asked for.
        """
        path = f"{self._root}/{key}"
        directory = path.rpartition("/")[0]
        renamed = False
        is_free = True
        try:
            os.fdatasync(fd)
            self._make_directory(directory)
            if exclusive:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    is_free = False
            else:
                Path(temporary).rename(path)
                renamed = True
            _fsync_directory(directory)
        except FileNotFoundError as error:
            with self._directories_lock:
                self._directories.clear()
            raise ObjectStoreError(f"{key}: its directory was removed while it was written") from error
        except OSError as error:
            raise _mapped(error, key) from error
        finally:
            os.close(fd)
            if not renamed:
                _unlink_if_there(temporary)
        return is_free

    def _require_space(self, size_bytes: int) -> None:
        free = os.statvfs(self._root)
        free_bytes = free.f_bavail * free.f_frsize
        if free_bytes - size_bytes < self._reserve_free_bytes:
            raise StoreFull(
                f"{self._root}: {free_bytes} bytes are free, and {self._reserve_free_bytes} are kept in reserve: "
                f"make room, or lower the reserve"
            )

    def _make_directory(self, path: str) -> None:
        """Make a directory and its parents durable, once in the life of this store."""
        if path == self._root or path in self._directories:
            return
        with self._directories_lock:
            parent = path.rpartition("/")[0]
            missing = [path]
            while parent != self._root and parent not in self._directories:
                missing.append(parent)
                parent = parent.rpartition("/")[0]
            for directory in reversed(missing):
                Path(directory).mkdir(mode=0o750, exist_ok=True)
                _fsync_directory(directory.rpartition("/")[0])
                self._directories.add(directory)

    def _check(self) -> None:
        temporary = self.directory / TEMPORARY
        try:
            make_directory(temporary)
            self._remove_leftovers()
            probe = f"{self._root}/{TEMPORARY}/{self._token}-{next(self._numbers)}"
            fd = self._write_temporary(probe, [b"probe"], 5)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
                _unlink_if_there(probe)
            _fsync_directory(self._root)
        except StoreFull as error:
            raise StartError(str(error)) from error
        except (NotADirectoryError, FileExistsError) as error:
            raise StartError(
                f"{error.filename or self._root} is not a directory: name a directory to keep objects in"
            ) from error
        except OSError as error:
            raise StartError(
                f"the object directory {self._root} can't be written ({os.strerror(error.errno or 0)}): "
                f"{_advice(error)}"
            ) from error

    def _remove_leftovers(self) -> None:
        """Remove temporary files of other processes that don't live any more: nobody holds a lock on them."""
        for path in sorted((self.directory / TEMPORARY).iterdir()):
            if path.name.startswith(f"{self._token}-"):
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _unlink_if_there(str(path))
            except BlockingIOError:
                continue
            finally:
                os.close(fd)

    def _get_cached(self, key: str, start: int, length: int) -> bytearray | None:
        """The range if all of it is in the page cache; None when the disk would have to be waited for."""
        data = bytearray(length)
        fd = self._open(key)
        try:
            return data if os.preadv(fd, [data], start, os.RWF_NOWAIT) == length else None
        except OSError:
            # Not cached, or a file system that can't tell: the thread reads it, and says what is really wrong.
            return None
        finally:
            os.close(fd)

    def _get(self, key: str, start: int, length: int) -> memoryview:
        """The range, as far as it is there."""
        fd = self._open(key)
        try:
            there = max(0, min(length, os.fstat(fd).st_size - start))
            data = memoryview(Block(there))
            done = 0
            while done < there:
                count = os.preadv(fd, [data[done:]], start + done)
                if count == 0:
                    break
                done += count
        except IsADirectoryError as error:
            raise ObjectNotFound(key) from error
        except OSError as error:
            raise _mapped(error, key) from error
        finally:
            os.close(fd)
        return data[:done]

    def _open(self, key: str) -> int:
        try:
            return os.open(f"{self._root}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise ObjectNotFound(key) from error
        except OSError as error:
            raise _mapped(error, key) from error

    def _head(self, key: str) -> ObjectInfo:
        try:
            found = Path(f"{self._root}/{key}").stat()
        except NotADirectoryError as error:
            raise ObjectNotFound(key) from error
        except OSError as error:
            raise _mapped(error, key) from error
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(key)
        return ObjectInfo(key, found.st_size, found.st_mtime_ns // 1_000_000)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                _unlink_if_there(f"{self._root}/{key}")
            except OSError as error:
                raise _mapped(error, key) from error

    def _scan(self, directory: str, prefix: str) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """Subdirectories and objects of one directory ("" or "a/b/") that can match the prefix."""
        try:
            return _scan(f"{self._root}/{directory}", directory, prefix)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise _mapped(error, directory) from error


def _scan(path: str, directory: str, prefix: str) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
    directories, objects = [], []
    for entry in sorted(_visible(path), key=lambda entry: entry.name):
        key = directory + entry.name
        if entry.is_dir(follow_symlinks=False):
            if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                directories.append(f"{key}/")
        elif key.startswith(prefix):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            objects.append(ObjectInfo(key, found.st_size, found.st_mtime_ns // 1_000_000))
    return directories, objects


def _visible(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield entry


def _fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_if_there(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _mapped(error: OSError, key: str) -> ObjectStoreError:
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(key)
    if error.errno in _NO_SPACE:
        return StoreFull(f"{key}: {error.strerror}: make room on the disk")
    return ObjectStoreError(f"{key}: {error.strerror or error}")


def _advice(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "give this user write access to it, or name another directory"
    if error.errno == errno.EROFS:
        return "its file system is mounted read-only"
    if error.errno in _NO_SPACE:
        return "make room on its disk"
    return "see whether its disk works, or name another directory"

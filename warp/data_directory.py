"""A data directory belongs to one agent: the lock that holds it, and says who does.

Two agents on one SQLite file would each believe in their own buffer, cache and broker id. The kernel's lock goes with
its process, however that ends, so nothing has to be cleaned up after a crash; the file's text is for people.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

from warp.errors import StartError
from warp.logs import wall_time_text

LOCK_NAME = "agent.lock"
_HOLDER_BYTES_MAX = 4096


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, where they are missing; they survive a power cut. Raises OSError.

    Without the sync of its parent a new directory, and with it everything inside, could be gone after a crash.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        if directory.is_dir():
            continue
        directory.mkdir(mode=0o750, exist_ok=True)
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


class DirectoryLock:
    """Holds a directory for this process from `acquire` to `release`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor: int | None = None

    def acquire(self, now_ms: int) -> None:
        """Make the directory if it is not there, and lock it. Raises StartError, which says who holds it."""
        path = self.directory / LOCK_NAME
        try:
            make_directory(self.directory)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except (FileExistsError, NotADirectoryError) as error:
            raise StartError(
                f"the data directory {self.directory} is not a directory; name another with --data-dir"
            ) from error
        except OSError as error:
            raise StartError(
                f"can't write the data directory {self.directory}: {error.strerror}; "
                "give this user write access to it, or name another with --data-dir"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": wall_time_text(now_ms)}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        except OSError as error:
            try:
                raise self._refusal(error, descriptor) from error
            finally:
                os.close(descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the directory go. The file stays: removing it would let two agents lock two files of one name."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _refusal(self, error: OSError, descriptor: int) -> StartError:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return StartError(
                f"the data directory {self.directory} is in use by {_holder(descriptor)}; "
                "stop that agent, or name another directory with --data-dir"
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StartError(f"the disk of the data directory {self.directory} is full; make room on it")
        return StartError(f"can't lock the data directory {self.directory}: {error.strerror}")


def _holder(descriptor: int) -> str:
    """Who the lock file says holds it: it is written just after the lock is taken, so it may be empty or old."""
    try:
        holder = json.loads(os.pread(descriptor, _HOLDER_BYTES_MAX, 0))
        return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another agent"

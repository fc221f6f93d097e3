"""Writes files past the page cache, from memory that is used again and again.

Segments are read back from the agent's own cache or not for long, so copies of them in the page cache only cost: fresh
pages to take and to zero, and their write-back. Storing 450 MB/s in segments of 4 MiB took 0.75 CPU-seconds per GB this
way, and 2.3 to 3.1 through the page cache, on a virtual machine where touching fresh memory is dear. The kernel wants
such writes aligned; the copy into an aligned buffer costs 0.1.
"""

from __future__ import annotations

import errno
import fcntl
import math
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from warp.objectstore.base import Buffer

BUFFER_BYTES = 2 * 2**20
PATIENT_BYTES = 512 * 1024
"""A file that can wait is written in pieces of this size, with pauses in which others' small writes reach the disk.
Beside 300 MB/s in such pieces storing 4 KB with two fsyncs took 0.4/0.9/5.0 ms (p50/p95/p99; alone 0.35/0.4 and 0.5 to
1.7), beside 75 MB/s 0.4/0.6 and 1.5 to 2.6; beside the same at full speed, 2.3 GB/s in pieces of 2 MiB, 5.0/7.2/8.0."""
ALIGNMENT_BYTES = 4096
DIRECT_BYTES_MIN = 256 * 1024
"""Smaller files are not worth the trouble."""

_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)
_IOV_MAX = 1024


class FileWriter:
    """Writes whole files. Safe to use from several threads: each call has a buffer of its own.

    It keeps as many buffers of `BUFFER_BYTES` as there were calls at a time.
    """

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._buffers: deque[mmap.mmap] = deque()
        self._is_direct_refused = False

    def write(
        self, fd: int, parts: Sequence[Buffer], size_bytes: int, *, bytes_per_s: float = math.inf
    ) -> None:
        """Write the parts, `size_bytes` in all, to an empty file; no faster than told. Raises OSError."""
        if size_bytes < DIRECT_BYTES_MIN or self._is_direct_refused or not _set_direct(fd, True):
            write_all(fd, parts)
            return
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            self._write_direct(fd, _Source(parts), size_bytes, buffer, bytes_per_s)
        finally:
            self._buffers.append(buffer)

    def _write_direct(
        self, fd: int, source: _Source, size_bytes: int, buffer: mmap.mmap, bytes_per_s: float
    ) -> None:
        piece_bytes = PATIENT_BYTES if bytes_per_s < math.inf else BUFFER_BYTES
        with memoryview(buffer) as view:
            for position in range(0, size_bytes, piece_bytes):
                if bytes_per_s < math.inf and position:
                    self._sleep(piece_bytes / bytes_per_s)
                length = min(piece_bytes, size_bytes - position)
                source.fill(view[:length])
                done = self._write_aligned(fd, view[: length - length % ALIGNMENT_BYTES])
                if done < length:
                    # The end of the file, or a file system that takes no direct writes after all.
                    _set_direct(fd, False)
                    write_all(fd, [view[done:length]])

    def _write_aligned(self, fd: int, data: memoryview) -> int:
        """How many bytes the kernel took past the page cache."""
        if self._is_direct_refused or not len(data):
            return 0
        try:
            return os.write(fd, data)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._is_direct_refused = True
            return 0


class _Source:
    """The bytes of parts, one piece after the other."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = deque(memoryview(part).cast("B") for part in parts if len(part))

    def fill(self, target: memoryview) -> None:
        """Copy the next bytes over all of `target`."""
        filled = 0
        while filled < len(target):
            part = self._parts[0]
            count = min(len(part), len(target) - filled)
            target[filled : filled + count] = part[:count]
            filled += count
            if count == len(part):
                self._parts.popleft()
            else:
                self._parts[0] = part[count:]


def write_all(fd: int, parts: Sequence[Buffer]) -> None:
    """Write every byte of the parts, however few a system call takes."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    first = 0
    while first < len(views):
        written = os.writev(fd, views[first : first + _IOV_MAX])
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]


def _set_direct(fd: int, direct: bool) -> bool:
    """Switch direct writes on or off; False when the file system has none."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True

"""Looks at directories: whether they can be written, how fast their disk syncs, how full it is, who holds them.

Nothing is changed but one file of our own, which loses its name as soon as it has one, so that not even a kill leaves
it behind. Nothing is locked; who holds a directory is read from the kernel's list of locks.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from warp.cli.doctor.facts import DatabaseFacts, Holder, HolderState, PlaceFacts
from warp.cli.doctor.latency import Latency
from warp.data_directory import LOCK_NAME

FSYNC_BYTES: Final = 4096
FSYNC_TIME_MAX_S: Final = 10.0
"""After this time no more samples are taken, should each take long."""
PROBE_PREFIX: Final = ".warp-doctor-"
LOCK_FILE_BYTES_MAX: Final = 4096
SQLITE_MAGIC: Final = b"SQLite format 3\0"
SQLITE_HEADER_BYTES: Final = 100
SQLITE_WAL_VERSION: Final = 2
"""Of the read and write versions in the header of a database file (its bytes 18 and 19)."""


def look_at_place(directory: Path, *, samples: int, monotonic: Callable[[], float]) -> PlaceFacts:
    """A directory, or the nearest one above it where it is not there yet. Blocks while it measures."""
    directory = directory.absolute()
    place = nearest_existing(directory)
    facts = PlaceFacts(str(directory), str(place), is_there=place == directory)
    if not place.is_dir():
        return replace(facts, refusal=f"{place} is not a directory")
    refusal, fsync = "", None
    try:
        fsync = measure_fsync(place, samples=samples, monotonic=monotonic)
    except OSError as error:
        refusal = error.strerror or str(error)
    free_bytes, free_files = free_space(place)
    return replace(
        facts,
        file_system=file_system(place),
        free_bytes=free_bytes,
        free_files=free_files,
        refusal=refusal,
        fsync=fsync,
    )


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def measure_fsync(directory: Path, *, samples: int, monotonic: Callable[[], float]) -> Latency | None:
    """Times of writing 4 KiB and forcing it to the disk, as each commit of the metadata does. Raises OSError."""
    data = os.urandom(FSYNC_BYTES)
    deadline_s = monotonic() + FSYNC_TIME_MAX_S
    times_s = []
    with tempfile.TemporaryFile(dir=directory, prefix=PROBE_PREFIX) as file:
        descriptor = file.fileno()
        # The first one makes the file durable; what is measured is the steady state of a log.
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
        for number in range(1, samples + 1):
            began_s = monotonic()
            os.pwrite(descriptor, data, number * FSYNC_BYTES)
            os.fdatasync(descriptor)
            ended_s = monotonic()
            times_s.append(ended_s - began_s)
            if ended_s > deadline_s:
                break
    return Latency.of(times_s)


def free_space(path: Path) -> tuple[int | None, int | None]:
    """Bytes and files that a user other than root may still write; None where the file system doesn't say."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system that a path is on, such as `ext4`; None where the system doesn't say.

    A line of mountinfo has the mount point in its fifth field and the kind after a dash (proc_pid_mountinfo(5)).
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = _unescaped(fields[4])
        # Later mounts hide earlier ones of the same point.
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def find_holder(directory: Path, locks: Path = Path("/proc/locks")) -> Holder:
    """Who holds a data directory. Its lock is not touched: taking it for an instant could refuse an agent its start.

    A line of /proc/locks reads `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF` (proc_locks(5)); the file system's
    number differs from the one that stat gives on some, so that the file's number and either one more fact count.
    """
    path = directory / LOCK_NAME
    try:
        found = path.stat()
        text = path.read_bytes()[:LOCK_FILE_BYTES_MAX]
    except (FileNotFoundError, NotADirectoryError):
        return Holder(HolderState.NOBODY)
    except OSError:
        return Holder(HolderState.UNKNOWN)
    pid, words = _who(text)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return Holder(HolderState.UNKNOWN, pid, words)
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or fields[1:4] != ["FLOCK", "ADVISORY", "WRITE"]:
            continue
        held_on, _, number = fields[5].rpartition(":")
        if number == str(found.st_ino) and (held_on == device or fields[4] == str(pid)):
            return Holder(HolderState.HELD, pid, words)
    return Holder(HolderState.NOBODY)


def look_at_database(path: Path) -> DatabaseFacts:
    """A database's file, read as bytes: SQLite is not asked to open it, which would take part in its locking."""
    try:
        with path.open("rb") as file:
            header = file.read(SQLITE_HEADER_BYTES)
            size_bytes = os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError):
        return DatabaseFacts(str(path), is_there=False)
    except OSError as error:
        return DatabaseFacts(str(path), is_there=True, refusal=error.strerror or str(error))
    log = Path(f"{path}-wal")
    try:
        wal_bytes = log.stat().st_size
    except OSError:
        # It comes and goes with the agent.
        wal_bytes = 0
    is_sqlite = header.startswith(SQLITE_MAGIC) and len(header) == SQLITE_HEADER_BYTES
    return DatabaseFacts(
        str(path),
        is_there=True,
        is_sqlite=is_sqlite,
        is_wal=is_sqlite and header[18] == header[19] == SQLITE_WAL_VERSION,
        size_bytes=size_bytes,
        wal_bytes=wal_bytes,
    )


def _who(text: bytes) -> tuple[int | None, str]:
    try:
        holder = json.loads(text)
        pid = int(holder["pid"])
        return pid, f"process {pid} on {holder['host']}, started {holder['started']}"
    except (ValueError, KeyError, TypeError):
        return None, "another agent"


def _unescaped(text: str) -> str:
    """Spaces and the like stand as three octal digits in the kernel's lists of mounts."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text

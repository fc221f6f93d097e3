"""Directories of the agent and their disks: the metadata's, whose fsync every commit waits for, and that of objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warp.cli.doctor.facts import DatabaseFacts, Holder, HolderState, PlaceFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.units import approximate_size

SLOW_FSYNC_S: Final = 0.010
UNEVEN_FSYNC_S: Final = 0.050
SPACE_FACTOR: Final = 4
"""Free space below so many reserves is worth a warning."""
METADATA_SPACE_BYTES: Final = 64 * 2**20
"""The write-ahead log alone may grow so large."""
FREE_FILES_MIN: Final = 10_000
WAL_BYTES_MAX: Final = 256 * 2**20

VOLATILE: Final = ("tmpfs", "ramfs")
LAYERS: Final = ("overlay", "aufs")
REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs")

_FASTER: Final = (
    "put --data-dir on a local SSD, without throttled burst credits: every commit waits for one fsync"
)


def judge_metadata(place: PlaceFacts, database: DatabaseFacts, holder: Holder) -> Iterator[Finding]:
    """Findings on the embedded metadata store and its directory."""
    yield _judge_directory(place, holder)
    if place.refusal:
        return
    yield _judge_database(database)
    yield _judge_fsync(place)
    yield from judge_file_system("metadata.file-system", place)
    yield from judge_space("metadata.space", place, METADATA_SPACE_BYTES)


def judge_file_system(check: str, place: PlaceFacts) -> Iterator[Finding]:
    """What kind of file system a directory is on, and what that means for what is kept there."""
    kind = place.file_system
    if kind is None:
        return
    measured = {"file_system": kind}
    if kind in VOLATILE:
        text = f"{kind}: in memory, so everything is gone when the machine restarts"
        yield warning(check, text, "name a directory on a disk", measured=measured)
    elif kind in LAYERS:
        text = f"{kind}: the container's own layer, which goes with the container"
        yield warning(check, text, "mount a volume there", measured=measured)
    elif kind in REMOTE:
        text = f"{kind}: on another machine, whose locks and fsyncs may not be what they promise"
        yield warning(check, text, "name a directory on a local disk", measured=measured)
    else:
        yield ok(check, kind, measured=measured)


def judge_space(check: str, place: PlaceFacts, reserve_bytes: int) -> Iterator[Finding]:
    """Free space beside what is kept in reserve."""
    if place.free_bytes is None:
        return
    free = approximate_size(place.free_bytes)
    reserve = approximate_size(reserve_bytes)
    measured = {
        "free_bytes": place.free_bytes,
        "reserve_bytes": reserve_bytes,
        "free_files": place.free_files,
    }
    if place.free_bytes < reserve_bytes:
        yield problem(
            check,
            f"{free} free, below the {reserve} needed",
            f"make room on {place.measured_at}",
            measured=measured,
        )
    elif place.free_files is not None and place.free_files < FREE_FILES_MIN:
        text = f"{free} free, but only {place.free_files} more files can be made"
        yield warning(check, text, "remove files, or use a file system with more inodes", measured=measured)
    elif place.free_bytes < SPACE_FACTOR * reserve_bytes:
        text = f"{free} free, not far above the {reserve} needed"
        yield warning(check, text, f"make room on {place.measured_at}", measured=measured)
    else:
        yield ok(check, f"{free} free", measured=measured)


def _judge_directory(place: PlaceFacts, holder: Holder) -> Finding:
    check = "metadata.directory"
    if place.refusal:
        text = f"{place.directory} can't be written: {place.refusal}"
        return problem(check, text, "give this user write access to it, or name another with --data-dir")
    if holder.state is HolderState.HELD:
        return ok(
            check,
            f"{place.directory} is in use by {holder.words}; it was not touched",
            measured={"agent_pid": holder.pid},
        )
    if not place.is_there:
        return ok(check, f"{place.directory} does not exist yet and can be made below {place.measured_at}")
    if holder.state is HolderState.UNKNOWN:
        return note(
            check, f"{place.directory} can be written; whether an agent uses it could not be found out"
        )
    return ok(check, f"{place.directory} can be written, and no agent uses it")


def _judge_database(facts: DatabaseFacts) -> Finding:
    check = "metadata.database"
    if not facts.is_there:
        return ok(check, f"{facts.path} will be made by the agent's first start")
    if facts.refusal:
        text = f"{facts.path} can't be read: {facts.refusal}"
        return problem(check, text, "give this user access to it, or run the doctor as the agent's user")
    measured = {"size_bytes": facts.size_bytes, "wal_bytes": facts.wal_bytes, "is_wal": facts.is_wal}
    # A start that was cut leaves an empty file, which SQLite takes for a new database.
    if facts.size_bytes == 0:
        return ok(check, f"{facts.path} is empty; the agent's next start fills it", measured=measured)
    if not facts.is_sqlite:
        text = f"{facts.path} is not a SQLite database"
        return problem(
            check, text, "restore it from a backup, or name another file with --metadata", measured=measured
        )
    size = approximate_size(facts.size_bytes)
    if not facts.is_wal:
        return note(check, f"{size}, not in WAL mode; the agent's next start changes that", measured=measured)
    log = approximate_size(facts.wal_bytes)
    if facts.wal_bytes > WAL_BYTES_MAX:
        text = f"{size} in WAL mode, with a write-ahead log of {log}"
        remedy = "find the program that keeps a read transaction open on this database, and end it"
        return warning(check, text, remedy, measured=measured)
    return ok(check, f"{size} in WAL mode, with {log} of write-ahead log", measured=measured)


def _judge_fsync(place: PlaceFacts) -> Finding:
    check = "metadata.fsync"
    latency = place.fsync
    if latency is None:
        return note(check, "not measured")
    measured = latency.measured()
    if latency.p50_s > SLOW_FSYNC_S:
        return warning(check, f"{latency.words()}: slow", _FASTER, measured=measured)
    if latency.p99_s > UNEVEN_FSYNC_S:
        return warning(check, f"{latency.words()}: uneven", _FASTER, measured=measured)
    return ok(check, latency.words(), measured=measured)

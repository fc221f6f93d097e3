"""What the doctor measures of disks and machines, real ones and files that look like those of others."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from warp.cli.doctor.detached import detached
from warp.cli.doctor.facts import HolderState
from warp.cli.doctor.measure.machine import look_at_machine
from warp.cli.doctor.measure.place import (
    file_system,
    find_holder,
    look_at_database,
    look_at_place,
    nearest_existing,
)
from warp.clock import SystemClock
from warp.data_directory import DirectoryLock

CLOCK = SystemClock()


def test_a_place_is_timed_and_nothing_stays_behind(tmp_path: Path) -> None:
    facts = look_at_place(tmp_path, samples=4, monotonic=time.monotonic)
    assert (facts.is_there, facts.refusal) == (True, "")
    assert facts.fsync is not None
    assert len(facts.fsync.samples_s) == 4
    assert facts.free_bytes is not None
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_yet_is_looked_at_above_and_not_made(tmp_path: Path) -> None:
    facts = look_at_place(tmp_path / "a" / "b", samples=1, monotonic=time.monotonic)
    assert (facts.is_there, facts.measured_at, facts.refusal) == (False, str(tmp_path), "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    facts = look_at_place(tmp_path / "file" / "data", samples=1, monotonic=time.monotonic)
    assert facts.refusal == f"{tmp_path / 'file'} is not a directory"


def test_a_place_that_refuses_files_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fdatasync", refuse)
    facts = look_at_place(tmp_path, samples=1, monotonic=time.monotonic)
    assert (facts.refusal, facts.fsync) == ("Read-only file system", None)


def test_slow_disks_are_sampled_less(tmp_path: Path) -> None:
    ticks = iter(range(0, 10_000, 6))
    facts = look_at_place(tmp_path, samples=1000, monotonic=lambda: float(next(ticks)))
    assert facts.fsync is not None
    assert facts.fsync.samples_s == (6.0,)


def test_the_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    point = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 8:2 / {point} rw shared:1 - xfs /dev/sdb rw\n"
        f"24 22 0:9 / {tmp_path}/other rw - tmpfs tmpfs rw\n"
        "nonsense\n"
    )
    assert file_system(tmp_path / "a b" / "c", mounts) == "xfs"
    assert file_system(tmp_path / "a", mounts) == "ext4"
    assert file_system(tmp_path / "other", mounts) == "tmpfs"
    assert file_system(tmp_path, tmp_path / "missing") is None
    assert file_system(Path("/proc")) == "proc"


def test_the_holder_of_a_directory_is_found_without_touching_its_lock(tmp_path: Path) -> None:
    assert find_holder(tmp_path / "none").state is HolderState.NOBODY
    lock = DirectoryLock(tmp_path)
    lock.acquire(0)
    held = find_holder(tmp_path)
    assert (held.state, held.pid) == (HolderState.HELD, os.getpid())
    assert held.words.startswith(f"process {os.getpid()} on ")
    lock.release()
    assert find_holder(tmp_path).state is HolderState.NOBODY


def test_a_lock_is_known_by_its_file_and_either_its_disk_or_its_process(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire(0)
    number = (tmp_path / "agent.lock").stat().st_ino
    locks = tmp_path / "locks"

    def state(text: str) -> HolderState:
        locks.write_text(text)
        return find_holder(tmp_path, locks).state

    assert state(f"1: FLOCK  ADVISORY  WRITE {os.getpid()} ff:ff:{number} 0 EOF\n") is HolderState.HELD
    assert state(f"1: FLOCK  ADVISORY  WRITE 0 ff:ff:{number} 0 EOF\n") is HolderState.NOBODY
    assert state(f"1: POSIX  ADVISORY  WRITE {os.getpid()} ff:ff:{number} 0 EOF\n") is HolderState.NOBODY
    assert state(f"1: FLOCK  ADVISORY  READ {os.getpid()} ff:ff:{number} 0 EOF\n") is HolderState.NOBODY
    assert state("nonsense\n") is HolderState.NOBODY
    assert find_holder(tmp_path, tmp_path / "missing").state is HolderState.UNKNOWN
    (tmp_path / "agent.lock").write_bytes(b"nonsense")
    assert find_holder(tmp_path, tmp_path / "missing").words == "another agent"
    lock.release()


def test_a_database_is_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    assert not look_at_database(path).is_there
    path.write_bytes(b"")
    assert (look_at_database(path).is_there, look_at_database(path).is_sqlite) == (True, False)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    facts = look_at_database(path)
    assert (facts.is_sqlite, facts.is_wal, facts.wal_bytes) == (True, False, 0)
    connection.execute("pragma journal_mode=wal")
    connection.execute("insert into t values (1)")
    connection.commit()
    facts = look_at_database(path)
    assert (facts.is_sqlite, facts.is_wal, facts.wal_bytes > 0) == (True, True, True)
    connection.close()
    path.write_bytes(b"x" * 200)
    assert not look_at_database(path).is_sqlite
    assert look_at_database(tmp_path).refusal == "Is a directory"


def test_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert nearest_existing(Path("/")) == Path("/")


# Machines


def machine(root: Path, files: dict[str, str]) -> Any:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return look_at_machine(77, root)


def test_this_machine_can_be_looked_at() -> None:
    facts = look_at_machine(os.getpid())
    assert facts.processors >= 1
    assert facts.agent_memory_bytes > 0
    assert facts.checksum in facts.checksums
    assert facts.uvloop
    assert facts.python.startswith("CPython 3.")


def test_limits_of_a_container_of_the_second_version_are_the_tightest(tmp_path: Path) -> None:
    facts = machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  1000 kB\nMemAvailable:  800 kB\nSwapTotal: 10 kB\n"
            "SwapFree: 4 kB\nHugePages_Total: 0\n",
            "proc/self/cgroup": "0::/kube/pod\n",
            "sys/fs/cgroup/kube/pod/memory.max": "max\n",
            "sys/fs/cgroup/kube/memory.max": "500000\n",
            "sys/fs/cgroup/kube/memory.current": "100000\n",
            "sys/fs/cgroup/kube/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/kube/cpu.max": "max 100000\n",
            "proc/77/statm": "100 10 5\n",
            "proc/sys/net/core/somaxconn": "128\n",
        },
    )
    assert (facts.memory_total_bytes, facts.memory_available_bytes) == (1_024_000, 819_200)
    assert (facts.memory_limit_bytes, facts.memory_limit_used_bytes) == (500_000, 100_000)
    assert (facts.processor_quota, facts.listen_queue_max) == (1.5, 128)
    assert (facts.swap_total_bytes, facts.swap_used_bytes) == (10_240, 6_144)
    assert facts.agent_memory_bytes == 10 * os.sysconf("SC_PAGE_SIZE")


def test_limits_of_a_container_of_the_first_version(tmp_path: Path) -> None:
    facts = machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n",
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "600000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "70000\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
        },
    )
    assert (facts.memory_limit_bytes, facts.memory_limit_used_bytes) == (600_000, 70_000)
    assert facts.processor_quota == 0.5


def test_what_a_system_does_not_say_is_none(tmp_path: Path) -> None:
    facts = look_at_machine(None, tmp_path)
    assert facts.memory_total_bytes is None
    assert facts.memory_limit_bytes is None
    assert facts.processor_quota is None
    assert facts.listen_queue_max is None
    assert facts.agent_memory_bytes == 0


def test_a_call_that_hangs_is_left_behind() -> None:
    def hang() -> str:
        time.sleep(0.3)
        return "late anyway"

    assert asyncio.run(detached(hang, timeout_s=0.01, late="late")) == "late"
    assert asyncio.run(detached(lambda: "in time", timeout_s=10, late="late")) == "in time"


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), TimeoutError("of its own")])
def test_what_a_call_raises_is_raised(error: Exception) -> None:
    def fail() -> str:
        raise error

    with pytest.raises(type(error), match=str(error.args[-1])):
        asyncio.run(detached(fail, timeout_s=10, late="late"))

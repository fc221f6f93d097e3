"""What the machine, the container and the user's limits allow, read from where Linux says so."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from warp import __version__, _crc32c
from warp.cli.doctor.facts import MachineFacts

MEMORY_LIMIT_NONE_BYTES = 2**60
"""A limit above this is how cgroups of the first version say that there is none."""


def look_at_machine(agent_pid: int | None, root: Path = Path("/")) -> MachineFacts:
    """Everything at once. `agent_pid` is the process of an agent that runs here, `root` where /proc and /sys are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory = _memory(root)
    groups = _groups(root)
    limit, used = _memory_limit(groups)
    swap_total, swap_free = memory.get("SwapTotal"), memory.get("SwapFree")
    return MachineFacts(
        open_files_soft=_limit(soft),
        open_files_hard=_limit(hard),
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        memory_limit_bytes=limit,
        memory_limit_used_bytes=used,
        agent_memory_bytes=_resident_bytes(root, agent_pid),
        processors=len(os.sched_getaffinity(0)),
        processor_quota=_processor_quota(groups),
        swap_total_bytes=swap_total,
        swap_used_bytes=None if swap_total is None or swap_free is None else swap_total - swap_free,
        listen_queue_max=_number(root / "proc/sys/net/core/somaxconn"),
        checksum=_crc32c.implementation(),
        checksums=_crc32c.implementations(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        uvloop=_version("uvloop"),
        sqlite=sqlite3.sqlite_version_info,
        warp=__version__,
        client_library=_version("confluent-kafka"),
    )


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _memory(root: Path) -> dict[str, int]:
    """Bytes by the names of /proc/meminfo."""
    found = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        words = amount.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _groups(root: Path) -> dict[str, list[Path]]:
    """Directories of this process's control groups, from its own up to the root, by controller; "" is version 2.

    Inside a container the path may be the host's and not be there: then the root alone is looked at.
    """
    groups: dict[str, list[Path]] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            own = top / path.lstrip("/")
            groups[controller] = [
                directory
                for directory in (own, *own.parents)
                if directory == top or directory.is_relative_to(top)
            ]
    return groups


def _memory_limit(groups: dict[str, list[Path]]) -> tuple[int | None, int | None]:
    """The tightest limit above this process, and what is used of it."""
    tightest: tuple[int | None, int | None] = (None, None)
    for controller, limit_name, used_name in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for directory in groups.get(controller, []):
            limit = _number(directory / limit_name)
            if limit is None or limit > MEMORY_LIMIT_NONE_BYTES:
                continue
            if tightest[0] is None or limit < tightest[0]:
                tightest = (limit, _number(directory / used_name))
    return tightest


def _processor_quota(groups: dict[str, list[Path]]) -> float | None:
    quotas = []
    for directory in groups.get("", []):
        words = _text(directory / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
    for directory in groups.get("cpu", []):
        quota, period = _number(directory / "cpu.cfs_quota_us"), _number(directory / "cpu.cfs_period_us")
        if quota is not None and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _resident_bytes(root: Path, pid: int | None) -> int:
    if pid is None:
        return 0
    words = _text(root / "proc" / str(pid) / "statm").split()
    return int(words[1]) * resource.getpagesize() if len(words) > 1 else 0


def _number(path: Path) -> int | None:
    """The number in a file, None when it has none, such as `max` or `-1`."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """A file's text; empty when this system doesn't have it, or keeps it from us."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""A small disk that can be full: a file system in memory, mounted for one run. It takes root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

NAME = "warp-faults"
CHUNK_BYTES = 1 << 16


def missing() -> str | None:
    """Why there can be no such disk here, None when there can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    if shutil.which("mount") is None:
        return "mount is not installed"
    with tempfile.TemporaryDirectory(prefix="warp-faults-try-") as directory:
        try:
            _mount(Path(directory), 1 << 16)
            _unmount(directory)
        except subprocess.CalledProcessError as error:
            return f"no file system can be mounted: {error.stderr.strip()}"
    return None


class SmallDisk:
    """Mounted at `path`. Use as a context manager."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        remove_left_over()
        self.path.mkdir(parents=True, exist_ok=True)
        _mount(self.path, self._size_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: nobody who still has a file open there keeps the run from cleaning up.
        _unmount(str(self.path))

    @contextmanager
    def full(self, left_bytes: int) -> Iterator[None]:
        """Nothing but so many bytes is left on it meanwhile, whoever frees some."""
        ballast = self.path / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # ENOSPC: it is full
                while True:
                    file.write(bytes(CHUNK_BYTES))
            if left_bytes:
                os.truncate(ballast, max(0, ballast.stat().st_size - left_bytes))
            yield
        finally:
            ballast.unlink(missing_ok=True)


def remove_left_over() -> None:
    """Unmount the disks of runs that were killed."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, path = line.split()[:2]
        name, _, pid = source.rpartition("-")
        if name == NAME and not Path("/proc", pid).exists():
            _unmount(path)


def _mount(path: Path, size_bytes: int) -> None:
    options, source = f"size={size_bytes},mode=700", f"{NAME}-{os.getpid()}"
    command = ["mount", "-t", "tmpfs", "-o", options, source, str(path)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _unmount(path: str) -> None:
    subprocess.run(["umount", "--lazy", path], check=True, capture_output=True, text=True)

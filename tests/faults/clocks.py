"""Wall clocks that are wrong, each of one process, and that jump while it runs. No other clock of it changes."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shift.c")
BUILT = Path(__file__).parents[2] / "build" / "faults"


def missing() -> str | None:
    """Why clocks can't be shifted here, None when they can."""
    return None if shutil.which("gcc") else "there is no gcc for the library that shifts a process's clock"


def library() -> Path:
    """The library that does it, which is built if need be."""
    path = BUILT / "clock_shift.so"
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(made), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        made.replace(path)  # others may be building it as well
    return path


class ShiftedClock:
    """The wall clock of the processes that are started with `environment`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(struct.pack("=q", 0))
        self.environment = {"LD_PRELOAD": str(library()), "CLOCK_SHIFT_FILE": str(path)}

    def shift(self, shift_ms: int) -> None:
        """Let it be wrong by so much from now on."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("=q", shift_ms))

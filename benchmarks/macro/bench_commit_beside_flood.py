"""Where should a SQLite commit run? Latency of commits beside an idle and a flooded event loop, on fast and slow disks.

`python -m benchmarks.macro.bench_commit_beside_flood [--quick]` prints Markdown tables and stores
benchmarks/results/commit_beside_flood.json. The flood is a process that keeps a uvloop server busy with 200-byte
frames; other disks are made up of memory and a preloaded library that delays fsync. Cells are interleaved: neighbours'
load hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.macro import harness
from benchmarks.macro.commit_placement import PLACEMENTS
from benchmarks.macro.harness import Table

DISKS = ((0, (1, 64)), (250, (1, 64)), (2_000, (1,)), (10_000, (1,)))
"""How long an fsync takes, in microseconds (0: as long as it does), and to how many logs the segments write."""

MEMORY_FOLDER = "/dev/shm"
"""Where a made-up disk keeps its files: a file system whose own fsync takes no time."""


def build_slow_fsync() -> Path:
    """Compile the preloaded library."""
    source = Path(__file__).with_name("slow_fsync.c")
    library = harness.BUILD / "slow_fsync.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def measure(placement: str, flood: bool, logs: int, delay_us: int, seconds: float) -> dict[str, Any]:
    """One cell, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.macro.commit_placement", placement]
    command += ["--logs", str(logs), "--seconds", str(seconds), *(["--flood"] if flood else [])]
    environment = dict(os.environ)
    if delay_us:
        environment |= {"LD_PRELOAD": str(build_slow_fsync()), "FSYNC_DELAY_US": str(delay_us)}
        environment["TMPDIR"] = MEMORY_FOLDER
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        sys.exit(f"{placement}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def percentile(values: list[float], part: float) -> float:
    """The value below which that part of the others lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def table(delay_us: int, logs_each: Sequence[int], rounds: int, seconds: float) -> Table:
    """All placements on one disk, idle and flooded."""
    cells: dict[tuple[str, int, bool], dict[str, Any]] = {}
    for _ in range(rounds):
        for logs in logs_each:
            for flood in (False, True):
                for placement in PLACEMENTS:
                    seen = measure(placement, flood, logs, delay_us, seconds)
                    kept = cells.setdefault(
                        (placement, logs, flood), {"commit_ms": [], "late_ms": [], "frames_per_second": []}
                    )
                    kept["commit_ms"] += seen["commit_ms"]
                    kept["late_ms"] += seen["late_ms"]
                    kept["frames_per_second"].append(seen["frames_per_second"])
    rows = [
        [
            placement,
            logs,
            "flooded" if flood else "idle",
            percentile(cell["commit_ms"], 0.5),
            percentile(cell["commit_ms"], 0.99),
            percentile(cell["late_ms"], 0.5),
            percentile(cell["late_ms"], 0.99),
            harness.median(cell["frames_per_second"]) / 1000 if flood else "",
        ]
        for (placement, logs, flood), cell in sorted(cells.items(), key=lambda item: (item[0][1], item[0][2]))
    ]
    disk = (
        "the disk as it is" if delay_us == 0 else f"a made-up disk whose fsync takes {delay_us / 1000:g} ms"
    )
    columns = [
        "commit runs",
        "logs",
        "loop",
        "p50 ms",
        "p99 ms",
        "timer late p50 ms",
        "p99 ms",
        "1,000 frames/s",
    ]
    return Table(f"fsync_{delay_us}_us", f"SQLite commits, {disk}", columns, rows)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test")
    arguments = parser.parse_args()
    rounds, seconds = (1, 1.0) if arguments.quick else (2, 2.0)
    tables = []
    for delay_us, logs_each in DISKS:
        tables.append(table(delay_us, logs_each, rounds, seconds))
        tables[-1].print()
    if not arguments.quick:
        print(f"\nstored in {harness.store('commit_beside_flood', tables)}")


if __name__ == "__main__":
    main()

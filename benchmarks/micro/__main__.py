"""Runs every micro benchmark, each in a process of its own: `python -m benchmarks.micro [--quick] [--no-store]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Pass the options on; 1 when any benchmark missed a target or failed."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    codes = [
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.micro.{module}", *sys.argv[1:]], check=False
        ).returncode
        for module in modules
    ]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())

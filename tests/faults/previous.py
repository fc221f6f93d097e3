"""The release before this one, as a program: agents of both serve one cluster while it is being replaced.

Its wheel lies in wheelhouse/previous; `make faults` installs it into an environment of its own.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = ROOT / "build" / "previous" / "bin"
COMMAND = (str(BIN / "python"), "-I", str(BIN / "warp"))
"""Isolated: a PYTHONPATH that leads to this release's tree does not lead that release there."""
TIMEOUT_S = 60.0


def missing() -> str | None:
    """Why there can be no agent of that release here, None when there can."""
    if (BIN / "warp").exists():
        return None
    return "the release before is not installed: `make build/previous/.stamp` does so, for CPython 3.11"


@functools.cache
def known_options() -> frozenset[str]:
    """The options that its agents take."""
    done = subprocess.run(
        [*COMMAND, "agent", "--help"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    words = (line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --"))
    return frozenset(words)


def only_known(options: Sequence[str]) -> list[str]:
    """The options, each with one value, without those that it does not take."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for name, value in pairs if name in known_options() for word in (name, value)]

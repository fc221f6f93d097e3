"""Programs that clients outside Python need: a test is skipped without one, or fails where everything has to run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def require_tool(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    return str(path)


def require_folder(path: Path, remedy: str) -> Path:
    if not path.is_dir():
        missing(f"{path.name} is missing: {remedy}")
    return path


def missing(reason: str) -> None:
    if os.environ.get("WARP_TEST_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)

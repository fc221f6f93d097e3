"""A digest of what a wheel is built from, so that wheels older than the tree can be told.

setup.py stores it in every wheel and sdist as ``warp/_build_info.json``, and tools/check_wheels.py compares.
Only the standard library is used: the build imports this module.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["BUILD_INFO", "source_digest", "source_files"]

BUILD_INFO = "warp/_build_info.json"
_BUILD_FILES = ("pyproject.toml", "setup.py")
_GENERATED_SUFFIXES = {".so", ".pyc", ".c", ".o"}


def source_files(root: Path) -> list[Path]:
    """The files, relative to `root` and sorted, that decide what is in a wheel: the package and its build files."""
    package = (path for path in (root / "warp").rglob("*") if path.is_file())
    shipped = (path.relative_to(root) for path in package if path.suffix not in _GENERATED_SUFFIXES)
    found = [path for path in shipped if "__pycache__" not in path.parts and path.as_posix() != BUILD_INFO]
    return sorted([*found, *(Path(name) for name in _BUILD_FILES)])


def source_digest(root: Path) -> str:
    """SHA-256, in hexadecimal, over names and contents of `source_files`."""
    digest = hashlib.sha256()
    for path in source_files(root):
        content = (root / path).read_bytes()
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()

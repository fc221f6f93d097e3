"""Checks that native modules are leaves: of warp they import each other, and nothing else.

import-linter reads Python files only, so this reads the import lines of .pyx, .pxd and .pyi files in its place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["main", "violations"]

_SUFFIXES = (".pyx", ".pxd", ".pyi")
_FROM = re.compile(r"^\s*from\s+([\w.]+)\s+c?import\s+\(?([\w ,*]*)", re.MULTILINE)
_IMPORT = re.compile(r"^\s*c?import\s+([\w., ]+)", re.MULTILINE)


def violations(package: Path) -> list[str]:
    """One line for each import, in the native files of `package`, of a module of `package` that is not native."""
    files = sorted(path for path in package.iterdir() if path.suffix in _SUFFIXES)
    native = {path.stem for path in files}
    return [
        f"{path}: imports {module}, which is not native"
        for path in files
        for module in _imported(path.read_text(encoding="utf-8"), package.name)
        if module not in native
    ]


def _imported(source: str, package: str) -> Iterator[str]:
    """The modules of `package` that the source names in its imports, without the package's own name."""
    for match in _FROM.finditer(source):
        module, names = match[1], match[2]
        head, _, rest = (
            f"{package}{module}".partition(".") if module.startswith(".") else module.partition(".")
        )
        if head == package:
            yield from [rest.split(".")[0]] if rest else _first_words(names)
    for match in _IMPORT.finditer(source):
        for module in _first_words(match[1]):
            head, _, rest = module.partition(".")
            if head == package:
                yield rest.split(".")[0] or package


def _first_words(names: str) -> list[str]:
    """`a as b, c` gives a and c."""
    return [name.split()[0] for name in names.split(",") if name.strip()]


def main() -> int:
    """Print the violations in warp/; 0 if there are none."""
    found = violations(Path("warp"))
    print("\n".join(found) if found else "Native modules are leaves.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

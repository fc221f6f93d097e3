"""Where inputs live: packed corpora and named finds in the repository, folders of loose ones while fuzzing.

A packed corpus is a zip archive without times, so that the same inputs give the same bytes. Every input in it is named
by its SHA-1, as libFuzzer names it.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CORPUS: Final = HERE / "corpus"
FOUND: Final = HERE / "found"

_EPOCH = (1980, 1, 1, 0, 0, 0)


def packed(target: str) -> dict[str, bytes]:
    """The inputs of a target's corpus, by name."""
    archive = CORPUS / f"{target}.zip"
    if not archive.is_file():
        return {}
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def pack(target: str, inputs: Iterable[bytes]) -> int:
    """Replace the corpus of a target; the size of the archive."""
    CORPUS.mkdir(exist_ok=True)
    archive = CORPUS / f"{target}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for name, data in sorted((name_of(data), data) for data in set(inputs)):
            opened.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return archive.stat().st_size


def found(target: str) -> dict[str, bytes]:
    """Inputs that have found something in the past, by what it was."""
    return {path.name: path.read_bytes() for path in sorted((FOUND / target).glob("*"))}


def spread(folder: Path, inputs: Iterable[bytes]) -> None:
    """Put inputs into a folder as loose files."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / name_of(data)).write_bytes(data)


def name_of(data: bytes) -> str:
    """The name of an input."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()

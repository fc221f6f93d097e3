"""Where inputs live: packed corpora and named finds in the repository, folders of loose ones while fuzzing.

A packed corpus is its inputs one after the other, each behind its size (4 bytes, big-endian), in order of their SHA-1
and compressed by xz: the same inputs give the same bytes, and small ones cost little more than themselves.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CORPUS: Final = HERE / "corpus"
FOUND: Final = HERE / "found"

_SIZE_BYTES: Final = 4


def packed(target: str) -> list[bytes]:
    """The inputs of a target's corpus."""
    archive = CORPUS / f"{target}.xz"
    if not archive.is_file():
        return []
    rest = lzma.decompress(archive.read_bytes())
    inputs = []
    while rest:
        end = _SIZE_BYTES + int.from_bytes(rest[:_SIZE_BYTES], "big")
        inputs.append(rest[_SIZE_BYTES:end])
        rest = rest[end:]
    return inputs


def pack(target: str, inputs: Iterable[bytes]) -> int:
    """Replace the corpus of a target; the size of the archive."""
    CORPUS.mkdir(exist_ok=True)
    joined = b"".join(
        len(data).to_bytes(_SIZE_BYTES, "big") + data for data in sorted(set(inputs), key=name_of)
    )
    archive = CORPUS / f"{target}.xz"
    archive.write_bytes(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME))
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

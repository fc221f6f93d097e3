"""A product that is broken on purpose, in one of the ways that tests.breakages lists: do the runs notice?

    python -m tests.faults --seed 1 --break write-under-a-lost-lease

Some of them only chance shows, and what takes a power cut no process can show: for those the other tests are there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.breakages.table import BREAKAGES
from tests.breakages.tree import Tree

NAMES = tuple(breakage.name for breakage in BREAKAGES)


@contextmanager
def broken_copy(root: Path, name: str) -> Iterator[Path]:
    """A copy of the tree that is broken so. The release before, which is not broken, is not in it.

    What runs keep is kept in the tree itself, in build/broken.
    """
    [breakage] = (each for each in BREAKAGES if each.name == name)
    with tempfile.TemporaryDirectory(prefix="warp-faults-broken-") as directory:
        tree = Tree(root, Path(directory))
        kept = root / "build" / "broken"
        kept.mkdir(parents=True, exist_ok=True)
        (tree.directory / "build").symlink_to(kept)
        with tree.broken(breakage):
            yield tree.directory

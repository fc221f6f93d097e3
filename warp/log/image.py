"""A segment in memory, in the pieces that it was written from: what a cache keeps of one that was just flushed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from warp.objectstore.base import Buffer

_PART_BYTES = 430
"""What one piece of an image costs beside its bytes: two objects for a view, one for its end, references, and the
header of the bytes. Measured; small segments are little else."""
_IMAGE_BYTES = 520
"""The same of an image: itself, its two lists, its key, and its place in the cache."""


class SegmentImage:
    """The bytes of a segment that was entered whole, in the pieces that it was written from."""

    __slots__ = ("_ends", "_parts", "held_bytes", "size_bytes")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.size_bytes = self._ends[-1] if self._ends else 0
        # A view keeps all of the frame alive that it was cut from: each counts once, and whole.
        owners = {id(part.obj): part.obj for part in self._parts}
        owned_bytes = sum(memoryview(owner).nbytes for owner in owners.values())
        self.held_bytes = owned_bytes + len(self._parts) * _PART_BYTES + _IMAGE_BYTES

    def views(self, position: int, size: int) -> list[memoryview] | None:
        """The pieces of `[position, position + size)`; None when the image ends before."""
        end = position + size
        if end > self.size_bytes:
            return None
        index = bisect_right(self._ends, position)
        part = self._parts[index]
        start = position - self._ends[index] + len(part)
        if end <= self._ends[index]:
            return [part[start : start + size]]
        views = [part[start:]]
        while end > self._ends[index]:
            index += 1
            views.append(self._parts[index])
        views[-1] = views[-1][: len(views[-1]) - (self._ends[index] - end)]
        return views

    def part_from(self, position: int) -> memoryview:
        """The rest of the piece that holds the byte at `position`, which is within the image."""
        index = bisect_right(self._ends, position)
        return self._parts[index][position - self._ends[index] :]

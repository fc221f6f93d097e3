"""What the write path tells others: the reader's tail index and cache, and whoever measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warp.metadata.model import CommitResult
from warp.objectstore.base import Buffer


class FlushObserver:
    """Does nothing; override what is of interest. Called on the loop's thread: keep it short, and don't raise."""

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        """A commit was made. `images` holds the segments' pieces by object key. Called before anybody is answered."""

    def phase_done(self, phase: str, seconds: float) -> None:
        """A segment has passed a phase of its flush: `wait` (first byte to seal), `seal`, `put`, `order`, `commit`.

        `order` is the wait of an uploaded segment for those before it.
        """

    def phase_failed(self, phase: str) -> None:
        """A segment failed for good in a phase: `put` or `commit`."""

    def sealed(self, size_bytes: int) -> None:
        """A segment of this size was sealed."""

    def validated(self, seconds: float) -> None:
        """The batches of one request were validated."""

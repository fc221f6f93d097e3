"""What this agent has committed since its last PUT, to be written with the next: so that the bucket alone tells all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from warp.log.segment import Receipt

RUNS_MAX = 100_000
"""Some 4 MiB of footer. Beyond it, while nothing can be stored, the oldest receipts are given up."""


class PendingReceipts:
    """Receipts in order of their commits, at most `runs_max` runs (each receipt counts as one more)."""

    def __init__(self, runs_max: int = RUNS_MAX) -> None:
        self._runs_max = runs_max
        self._receipts: deque[Receipt] = deque()
        self._runs = 0
        self.dropped = 0
        """Receipts that were given up for want of room."""

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def add(self, receipt: Receipt) -> None:
        """Remember the receipt of a commit."""
        self._receipts.append(receipt)
        self._runs += 1 + len(receipt.runs)
        self._shrink()

    def take(self) -> list[Receipt]:
        """All of them, to be written now."""
        receipts = list(self._receipts)
        self._receipts.clear()
        self._runs = 0
        return receipts

    def put_back(self, receipts: Iterable[Receipt]) -> None:
        """Remember again what could not be written; it is older than what came since."""
        for receipt in reversed(list(receipts)):
            self._receipts.appendleft(receipt)
            self._runs += 1 + len(receipt.runs)
        self._shrink()

    def _shrink(self) -> None:
        while self._runs > self._runs_max:
            self._runs -= 1 + len(self._receipts.popleft().runs)
            self.dropped += 1

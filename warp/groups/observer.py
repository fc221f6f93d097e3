"""What the coordinator tells those who count and measure. Each method does nothing here: take what you need."""

from __future__ import annotations


class GroupObserver:
    """Hears of what happens to groups."""

    def noted(self, event: str) -> None:
        """Something has happened to a group: one of the events in rebalance.py."""

    def committed(self, offsets: int, seconds: float) -> None:
        """A commit of offsets has been answered: how many of them are stored, and how long it took."""

"""What happened in a simulation, in order: for people to read, and as a digest to compare two runs by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Violation(AssertionError):
    """A promise was broken."""


class History:
    """Lines with their virtual time. `now` tells the time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.lines: list[str] = []
        self.violations: list[str] = []
        self.is_over = False
        self._now = now

    def add(self, actor: str, text: str) -> None:
        """Something happened. Nothing does once it is over."""
        if self.is_over:
            return
        self.lines.append(f"{self._now():10.4f} {actor:<12} {text}")

    def violate(self, promise: str, text: str) -> None:
        """A promise was broken; the simulation goes on, because what follows explains it."""
        if not self.is_over:
            self.violations.append(f"{promise}: {text}")
        self.add("CHECK", f"VIOLATION {promise}: {text}")

    def digest(self) -> str:
        """The same for equal histories."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def tail(self, count: int) -> str:
        """The last lines."""
        return "\n".join(self.lines[len(self.lines) - count :]) if count else ""

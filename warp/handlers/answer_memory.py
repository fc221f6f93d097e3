"""Memory for answers that may be large, taken from the budget that Fetch answers come out of.

An answer about groups is as large as its members have made it: metadata for a leader, offsets for a tool. Such an
answer is charged from before it is built until it has been written. Only one that holds nothing yet waits for its
share, for two that hold a part each could wait for each other; what comes after has its share at once or not at all.

Small answers are not counted, and so never wait: readers who hold all the memory there is must not keep a group's
members from learning where to begin.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from warp.handlers.context import Held
from warp.log.memory import MemoryBudget

WAIT_S_MAX = 10.0
"""How long an answer waits for its memory before its client is told to come again."""

SMALL_BYTES = 4_096
"""Answers up to this size are not worth the counting."""


class AnswerMemory:
    """The memory of one answer. As a context manager it is given back when the answer does not come about."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._uncounted_bytes = 0
        self.size_bytes = 0
        """What it holds; nothing while it is small."""

    async def take(self, size_bytes: int) -> bool:
        """Set memory aside for (a part of) the answer. False: there is none to be had in time."""
        if not self.size_bytes:
            if self._uncounted_bytes + size_bytes <= SMALL_BYTES:
                self._uncounted_bytes += size_bytes
                return True
            size_bytes += self._uncounted_bytes
        if not self._budget.try_reserve(size_bytes):
            if self.size_bytes:
                return False
            try:
                async with asyncio.timeout(WAIT_S_MAX):
                    await self._budget.reserve(size_bytes)
            except TimeoutError:
                return False
        self.size_bytes += size_bytes
        return True

    def release(self) -> None:
        """Give it back. Harmless when repeated."""
        size_bytes, self.size_bytes = self.size_bytes, 0
        self._budget.release(size_bytes)

    def held(self, response: Any) -> Held:
        """The response, which holds the memory from now on."""
        return Held(response, self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.release()


def charged(budget: MemoryBudget, response: Any, size_bytes: int) -> Any:
    """A response whose parts are in memory already, and which can't wait: its size counts until it is written."""
    if size_bytes <= SMALL_BYTES:
        return response
    budget.charge(size_bytes)
    return Held(response, lambda: budget.release(size_bytes))

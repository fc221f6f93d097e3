"""Questions to the index in the metadata store, put together: one in flight serves all that came before it.

An answer never comes from a question that was sent before the caller asked, so what it says is at least as new as
anything that was acknowledged by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from warp.errors import MetadataError
from warp.ids import LogId
from warp.metadata.model import ExtentQuery, LogRead

QUERIES_PER_READ_MAX = 1_000
EXTENTS_PER_READ_MAX = 20_000
"""Of all questions of one read together, 300 bytes each: SQLite, which runs on the loop, needs 5 to 10 µs for each."""


class ExtentIndex(Protocol):
    """What the read path asks of the metadata store."""

    async def read_extents(self, queries: Sequence[ExtentQuery]) -> Sequence[LogRead]:
        """Answers in the order of the queries, all from one snapshot. Raises MetadataError."""


Place = tuple[LogId, int]
"""A log and an offset in it."""


class _Round:
    """The questions that the next read will carry, each for as much as anybody wants, and the answer to come."""

    __slots__ = ("answers", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[Place, ExtentQuery] = {}
        self.answers: asyncio.Future[dict[Place, LogRead]] = asyncio.get_running_loop().create_future()


class Refresher:
    """Asks the index on behalf of many fetches at once."""

    def __init__(self, index: ExtentIndex) -> None:
        self.reads = 0
        self.failures = 0
        self._index = index
        self._next: _Round | None = None
        self._task: asyncio.Task[None] | None = None

    async def ask(self, queries: Sequence[ExtentQuery]) -> list[LogRead]:
        """What the store says now, in the order of the queries; an answer may hold more bytes than were asked for.

        Raises MetadataError. A caller that is cancelled disturbs nobody else.
        """
        if not queries:
            return []
        if self._next is None:
            self._next = _Round()
        current = self._next
        for query in queries:
            place = (query.log_id, query.offset)
            before = current.wanted.get(place)
            current.wanted[place] = query if before is None else _both(before, query)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        answers = await asyncio.shield(current.answers)
        return [answers[query.log_id, query.offset] for query in queries]

    async def close(self) -> None:
        """Stop; those who still wait get MetadataError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Carry round after round until nobody asks."""
        current: _Round | None = None
        try:
            while self._next is not None:
                current, self._next = self._next, None
                await self._carry(current)
        finally:
            self._task = None
            for left in (current, self._next):
                if left is not None and not left.answers.done():
                    left.answers.set_exception(MetadataError("the agent stopped asking"))
                    left.answers.exception()
            self._next = None

    async def _carry(self, current: _Round) -> None:
        queries = list(current.wanted.values())
        answers: dict[Place, LogRead] = {}
        try:
            for start in range(0, len(queries), QUERIES_PER_READ_MAX):
                part = _bounded(queries[start : start + QUERIES_PER_READ_MAX])
                self.reads += 1
                for query, read in zip(part, await self._index.read_extents(part), strict=True):
                    answers[query.log_id, query.offset] = read
                # Where the database is in this process nothing else lets the loop go.
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who asked, who let it rise
            self.failures += 1
            current.answers.set_exception(error)
            # Marked as seen: all who asked may have gone.
            current.answers.exception()
        else:
            current.answers.set_result(answers)


def _bounded(queries: Sequence[ExtentQuery]) -> list[ExtentQuery]:
    """The questions of one read, each for its share of what that may give."""
    share = EXTENTS_PER_READ_MAX // len(queries)
    return [query if query.extents_max <= share else replace(query, extents_max=share) for query in queries]


def _both(one: ExtentQuery, other: ExtentQuery) -> ExtentQuery:
    """One question in the place of two about the same log and offset."""
    bytes_max = max(one.bytes_max, other.bytes_max)
    return ExtentQuery(one.log_id, one.offset, bytes_max, max(one.extents_max, other.extents_max))

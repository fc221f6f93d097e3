"""Running a coroutine without a task for as long as it need not wait.

Most requests to produce are staged without waiting, and a task for each would cost more than the staging. Only for
coroutines that wait for plain futures: what asks for the current task (asyncio.timeout and all that is built on it)
finds none before the first wait.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Waits(Coroutine[Any, Any, T]):
    """A coroutine that has begun and waits; for a task to run, or to be awaited in one."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        """What it waits for, until that has been handed to the task."""

    def send(self, value: Any) -> Any:
        """Go on, as the task wants it."""
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            return awaited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Let an error rise where the coroutine waits."""
        self._awaited = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Give up."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # it has all that `await` uses of a generator

    def __iter__(self) -> Waits[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def begin(coroutine: Coroutine[Any, Any, T]) -> T | Waits[T]:
    """Run a coroutine up to its first wait: its result when it came so far, otherwise what is left of it."""
    try:
        awaited = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return Waits(coroutine, awaited)

"""Running a coroutine without a task for as long as it need not wait.

Most requests to produce are staged without waiting, and a task for each would cost more than the staging. Only for
coroutines that wait for plain futures: what asks for the current task (asyncio.timeout and all that is built on it)
finds none before the first wait.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine as awaitable_generator
from typing import Any, TypeVar

T = TypeVar("T")


class Waits:
    """A coroutine that has begun and waits; `rest` is for a task to run."""

    __slots__ = ("rest",)

    def __init__(self, rest: Coroutine[Any, Any, Any]) -> None:
        self.rest = rest


def begin(coroutine: Coroutine[Any, Any, T]) -> T | Waits:
    """Run a coroutine up to its first wait: its result when it came so far, otherwise what is left of it."""
    try:
        awaited = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return Waits(_finish(coroutine, awaited))


async def _finish(coroutine: Coroutine[Any, Any, T], awaited: Any) -> T:
    return await _resume(coroutine, awaited)


@awaitable_generator
def _resume(coroutine: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Hand on what the coroutine waits for, and to the coroutine what comes of it."""
    while True:
        error: BaseException | None = None
        sent = None
        try:
            sent = yield awaited
        except BaseException as thrown:  # noqa: BLE001  whatever it is, it is for the coroutine
            error = thrown
        try:
            awaited = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration as done:
            result: T = done.value
            return result

"""How much time of the loop a request takes: what its handler does between the points where it waits.

Waiting costs nobody anything, so a coroutine is measured step by step. What others do for it, threads, stores, the
commit that it shares, is not counted. It is measured only where a quota asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from warp.handlers.context import Later

if TYPE_CHECKING:
    from warp.server.dispatch import Call

Monotonic = Callable[[], float]


def metered(call: Call, handle: Callable[[Call], Any], monotonic: Monotonic) -> Any:
    """What `handle` gives for the call; its time, and that of what is left to do for the answer, is put on the call."""
    began_s = monotonic()
    result = handle(call)
    call.spent_s += monotonic() - began_s
    if isinstance(result, CoroutineType):
        return _finished(call, result, monotonic)
    return _with_answer(call, result, monotonic)


def tell_throttle(response: Any, throttle_ms: int) -> None:
    """Put into a response how long its client is held back, where that kind of response has a field for it."""
    if hasattr(response, "throttle_time_ms"):
        response.throttle_time_ms = throttle_ms


async def _finished(call: Call, coroutine: Coroutine[Any, Any, Any], monotonic: Monotonic) -> Any:
    return _with_answer(call, await _Steps(call, coroutine, monotonic), monotonic)


def _with_answer(call: Call, result: Any, monotonic: Monotonic) -> Any:
    """The result; where an answer is built later, the time that this takes counts too."""
    if type(result) is Later:
        build = result.build

        def timed(outcome: Any) -> Any:
            began_s = monotonic()
            try:
                return build(outcome)
            finally:
                call.spent_s += monotonic() - began_s

        result.build = timed
    return result


class _Steps:
    """Awaits a coroutine and measures each of its steps."""

    __slots__ = ("_call", "_coroutine", "_monotonic")

    def __init__(self, call: Call, coroutine: Coroutine[Any, Any, Any], monotonic: Monotonic) -> None:
        self._call = call
        self._coroutine = coroutine
        self._monotonic = monotonic

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has all that `await` uses of a generator

    def __iter__(self) -> _Steps:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on until the next wait."""
        began_s = self._monotonic()
        try:
            return self._coroutine.send(value)
        finally:
            self._call.spent_s += self._monotonic() - began_s

    def throw(self, *error: Any) -> Any:
        """Let an error rise where the coroutine waits."""
        began_s = self._monotonic()
        try:
            return self._coroutine.throw(*error)
        finally:
            self._call.spent_s += self._monotonic() - began_s

    def close(self) -> None:
        """Give up."""
        self._coroutine.close()

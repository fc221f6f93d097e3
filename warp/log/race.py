"""Sends a request, and a second one when the first is slow; the first of the two to succeed wins.

The loser is cancelled and left to itself: nobody waits for it, except `close`. One of the two may fail without harm to
the other; only when both have failed has the request failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from warp.clock import Clock
from warp.errors import ObjectStoreError
from warp.log.hedge import HedgeLimits, HedgePolicy

_log = logging.getLogger(__name__)

T = TypeVar("T")


class HedgeNote:
    """What became of one request, for the trace: how long the first was waited for, and who won."""

    __slots__ = ("hedged_after_s", "is_denied", "is_won")

    def __init__(self) -> None:
        self.hedged_after_s: float | None = None
        """When a second request was sent, counted from the first."""
        self.is_won = False
        """The second was the faster one."""
        self.is_denied = False
        """It was slow, and the budget did not allow a second one at once."""


def _always() -> bool:
    return True


def _nothing() -> None:
    """What happens at the end when nobody wants to know."""


class HedgedRequests:
    """Requests of one kind, to one store."""

    def __init__(self, clock: Clock, limits: HedgeLimits) -> None:
        self.policy = HedgePolicy(limits)
        self.requests = 0
        """First requests."""
        self.started = 0
        """Second requests that were sent."""
        self.won = 0
        """Of these, those that succeeded before the first."""
        self.denied = 0
        """Requests that were slow, and for which a second one was not allowed when it was due."""
        self._clock = clock
        self._limits = limits
        self._lingering: dict[int, asyncio.Task[Any]] = {}
        self._task_count = 0

    async def send(
        self,
        size_bytes: int,
        request: Callable[[], Coroutine[Any, Any, T]],
        note: HedgeNote,
        *,
        may_hedge: Callable[[], bool] = _always,
        when_both_ended: Callable[[], None] = _nothing,
    ) -> T:
        """Call `request` once, perhaps twice; returns what the faster call does.

        `may_hedge` is asked last, before the second call: what it takes for that call is given back by
        `when_both_ended`. Raises what the first call raised, when both fail.
        """
        self.requests += 1
        self.policy.began()
        began_at = self._clock.monotonic()
        calls = [asyncio.get_running_loop().create_task(request())]
        try:
            if await self._is_slow(calls[0], size_bytes, note, may_hedge):
                note.hedged_after_s = self._clock.monotonic() - began_at
                self.started += 1
                calls.append(asyncio.get_running_loop().create_task(request()))
                _when_all_ended(calls, when_both_ended)
            winner = await _first_success(calls)
            now = self._clock.monotonic()
            if calls[winner] is calls[0] or not calls[0].done():
                # Of a first call that was too slow its end is not known, only that it is not before now.
                self.policy.finished(now, size_bytes, now - began_at)
            if note.hedged_after_s is not None and winner:
                note.is_won = True
                self.won += 1
                self.policy.finished(now, size_bytes, now - began_at - note.hedged_after_s)
            return calls[winner].result()
        except asyncio.CancelledError:
            _tell_of_bugs(calls)
            raise
        finally:
            for call in calls:
                if not call.done():
                    self._let_go(call)

    async def close(self) -> None:
        """Wait until those that have lost are gone."""
        for task in list(self._lingering.values()):
            await asyncio.wait([task])

    async def _is_slow(
        self, call: asyncio.Task[Any], size_bytes: int, note: HedgeNote, may_hedge: Callable[[], bool]
    ) -> bool:
        """Whether the call takes too long and a second one is allowed. False: it has ended."""
        delay_s = self.policy.delay_s(size_bytes)
        while True:
            await asyncio.wait([call], timeout=delay_s)
            if call.done():
                return False
            if self.policy.may_spend and len(self._lingering) < self._limits.lingering_max and may_hedge():
                self.policy.spend()
                return True
            if not note.is_denied:
                note.is_denied = True
                self.denied += 1
            delay_s *= 2

    def _let_go(self, call: asyncio.Task[Any]) -> None:
        """Cancel a call that is not needed any more."""
        number = self._task_count
        self._task_count += 1
        self._lingering[number] = call

        def ended(task: asyncio.Task[Any]) -> None:
            del self._lingering[number]
            _tell_of_bug(task)

        call.add_done_callback(ended)
        call.cancel()


async def _first_success(calls: Sequence[asyncio.Task[Any]]) -> int:
    """The place of the first call to succeed; the earlier one, when both have. Raises when none does."""
    while True:
        for place, call in enumerate(calls):
            if call.done() and not call.cancelled() and call.exception() is None:
                _tell_of_bugs(calls)
                return place
        running = [call for call in calls if not call.done()]
        if not running:
            raise _failure(calls)
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)


def _failure(calls: Sequence[asyncio.Task[Any]]) -> BaseException:
    """What to raise: a bug before anything else, else what the first call has raised."""
    errors = [
        ObjectStoreError("the store gave the request up") if call.cancelled() else call.exception()
        for call in calls
    ]
    bugs = [error for error in errors if error is not None and not isinstance(error, ObjectStoreError)]
    error = bugs[0] if bugs else errors[0]
    assert error is not None, "all calls have failed"
    return error


def _when_all_ended(calls: Sequence[asyncio.Task[Any]], then: Callable[[], None]) -> None:
    left = len(calls)

    def ended(_: asyncio.Task[Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            then()

    for call in calls:
        call.add_done_callback(ended)


def _tell_of_bugs(calls: Sequence[asyncio.Task[Any]]) -> None:
    """Look at all that have ended when nobody waits for more."""
    for call in calls:
        if call.done():
            _tell_of_bug(call)


def _tell_of_bug(call: asyncio.Task[Any]) -> None:
    """Look at how a call has ended that nobody waits for: a bug must be told of though the other call has won."""
    error = None if call.cancelled() else call.exception()
    if error is not None and not isinstance(error, ObjectStoreError):
        _log.error("a request to the object store failed unexpectedly", exc_info=error)

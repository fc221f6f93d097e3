"""How much time of the loop a request is said to have taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tests.unit.server.support import Bench, HandClock, at_once, run, serial, settle
from warp.handlers.context import Later
from warp.server.dispatch import Call
from warp.server.metering import metered, tell_throttle


class FakeCall:
    """What metering knows of a call."""

    def __init__(self) -> None:
        self.spent_s = 0.0


def measured(clock: HandClock, handle: Callable[[], Any]) -> tuple[FakeCall, Any]:
    call = FakeCall()
    return call, metered(cast(Call, call), lambda _: handle(), clock.monotonic)


def test_a_handler_that_answers_at_once_is_measured() -> None:
    clock = HandClock()

    def handle() -> str:
        clock.now_s += 2
        return "answer"

    call, result = measured(clock, handle)
    assert (call.spent_s, result) == (2, "answer")


def test_waiting_costs_nothing_and_each_step_counts() -> None:
    async def test() -> None:
        clock = HandClock()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handle() -> str:
            clock.now_s += 1
            result = await future
            clock.now_s += 3
            return result

        call, coroutine = measured(clock, handle)
        task = asyncio.get_running_loop().create_task(coroutine)
        await asyncio.sleep(0)
        clock.now_s += 100
        future.set_result("answer")
        assert await task == "answer"
        assert call.spent_s == 4

    run(test)


def test_an_error_passes_through_and_its_way_counts() -> None:
    async def test() -> None:
        clock = HandClock()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handle() -> None:
            try:
                await future
            finally:
                clock.now_s += 5

        call, coroutine = measured(clock, handle)
        task = asyncio.get_running_loop().create_task(coroutine)
        await asyncio.sleep(0)
        future.set_exception(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await task
        assert call.spent_s == 5

    run(test)


def test_a_request_can_be_given_up_while_it_is_measured() -> None:
    async def test() -> None:
        clock = HandClock()

        async def handle() -> None:
            await asyncio.get_running_loop().create_future()

        _, coroutine = measured(clock, handle)
        task = asyncio.get_running_loop().create_task(coroutine)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_building_an_answer_later_counts(is_coroutine: bool) -> None:
    async def test() -> None:
        clock = HandClock()

        def build(outcome: str) -> str:
            clock.now_s += 7
            return outcome

        later = Later(asyncio.get_running_loop().create_future(), build)

        async def wait() -> Later:
            return later

        call, result = measured(clock, wait if is_coroutine else lambda: later)
        if isinstance(result, Awaitable):
            result = await result
        assert result is later
        assert result.build("answer") == "answer"
        assert call.spent_s == 7

    run(test)


@pytest.mark.parametrize("is_authenticated", [True, False])
def test_nobody_is_held_back_for_what_was_asked_before_authentication(is_authenticated: bool) -> None:
    async def test() -> None:
        bench = Bench()
        bench.quotas.load({'{"user":null}': '{"request_percentage":1e-9}'})
        peer = bench.connect()
        peer.connection.client.is_authenticated = is_authenticated
        peer.send((1, serial()))
        await settle()
        bench.clock.now_s += 1
        bench.end("serial")
        await settle()
        assert peer.answered() == [1]
        assert peer.is_paused() is False
        # Waiting costs nothing; this handler takes its time on the loop.
        bench.at_once_takes_s = 1.0
        peer.send((2, at_once()))
        await settle()
        assert peer.answered() == [1, 2]
        assert peer.is_paused() is is_authenticated

    run(test)


def test_a_response_without_the_field_is_left_alone() -> None:
    class Bare:
        __slots__ = ()

    tell_throttle(Bare(), 5)

"""Coroutines that run without a task until they wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warp.handlers.inline import Waits, begin


def rest_of(started: Any) -> Any:
    assert isinstance(started, Waits)
    return started


def test_a_coroutine_that_does_not_wait_is_done_at_once() -> None:
    async def quick() -> int:
        return 7

    assert begin(quick()) == 7


def test_an_exception_before_the_first_wait_rises_at_once() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin(broken())


@pytest.mark.parametrize("is_early", [True, False])
def test_what_is_left_goes_on_in_a_task(is_early: bool) -> None:
    async def main() -> None:
        first = asyncio.get_running_loop().create_future()
        second = asyncio.get_running_loop().create_future()
        steps: list[object] = []

        async def slow() -> str:
            steps.append(await first)
            steps.append(await second)
            steps.append(asyncio.current_task())
            return "done"

        started = begin(slow())
        assert steps == []
        if is_early:
            first.set_result(1)
        task = asyncio.create_task(rest_of(started))
        await asyncio.sleep(0)
        if not is_early:
            first.set_result(1)
        await asyncio.sleep(0)
        second.set_result(2)
        assert await task == "done"
        assert steps == [1, 2, task]

    asyncio.run(main())


def test_failures_of_what_is_waited_for_reach_the_coroutine() -> None:
    async def main() -> None:
        first = asyncio.get_running_loop().create_future()

        async def careful() -> str:
            try:
                await first
            except ValueError:
                return "caught"
            return "not reached"

        started = begin(careful())
        first.set_exception(ValueError())
        assert await rest_of(started) == "caught"

    asyncio.run(main())


def test_what_is_left_may_be_awaited_by_another_coroutine() -> None:
    async def main() -> None:
        first = asyncio.get_running_loop().create_future()

        async def slow() -> int:
            return int(await first) + 1

        async def outer(started: Any) -> int:
            return int(await started) + 1

        task = asyncio.create_task(outer(rest_of(begin(slow()))))
        await asyncio.sleep(0)
        first.set_result(1)
        assert await task == 3

    asyncio.run(main())


@pytest.mark.parametrize("steps_before", [0, 1, 2])
def test_cancelling_the_task_cancels_what_the_coroutine_waits_for(steps_before: int) -> None:
    async def main() -> None:
        first = asyncio.get_running_loop().create_future()
        ended: list[str] = []

        async def waiting() -> None:
            try:
                await first
            finally:
                ended.append("cleaned up")

        task = asyncio.create_task(rest_of(begin(waiting())))
        for _ in range(steps_before):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        assert ended == ["cleaned up"]

    asyncio.run(main())

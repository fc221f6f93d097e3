"""Memory shared out in order of asking."""

from __future__ import annotations

import asyncio

import pytest

from warp.log.memory import MemoryBudget


def test_what_fits_is_had_at_once_and_given_back() -> None:
    budget = MemoryBudget(100)
    assert budget.try_reserve(60)
    assert not budget.try_reserve(41)
    assert budget.try_reserve(40)
    assert budget.used_bytes == 100
    budget.release(60)
    assert budget.try_reserve(60)


def test_more_than_all_is_granted_when_nothing_else_is_held() -> None:
    budget = MemoryBudget(100)
    assert budget.try_reserve(1)
    assert not budget.try_reserve(500)
    budget.release(1)
    assert budget.try_reserve(500)
    assert not budget.try_reserve(1)


def test_waiters_are_served_in_order_and_not_overtaken() -> None:
    async def main() -> None:
        budget = MemoryBudget(100)
        assert budget.try_reserve(90)
        served: list[int] = []

        async def ask(size: int) -> None:
            await budget.reserve(size)
            served.append(size)

        tasks = [asyncio.ensure_future(ask(size)) for size in (50, 5, 60, 1)]
        await asyncio.sleep(0)
        assert budget.waiting == 4
        assert not budget.try_reserve(1)
        assert served == []
        budget.release(90)
        await asyncio.sleep(0)
        assert served == [50, 5]
        budget.release(50)
        await asyncio.gather(*tasks)
        assert served == [50, 5, 60, 1]
        assert budget.used_bytes == 66

    asyncio.run(main())


def test_a_cancelled_waiter_holds_nothing_and_lets_the_next_one_in() -> None:
    async def main() -> None:
        budget = MemoryBudget(100)
        assert budget.try_reserve(50)
        large = asyncio.ensure_future(budget.reserve(80))
        small = asyncio.ensure_future(budget.reserve(20))
        await asyncio.sleep(0)
        large.cancel()
        await asyncio.wait([large])
        await small
        assert budget.used_bytes == 70
        assert budget.waiting == 0

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_just_after_it_was_granted_gives_it_back() -> None:
    async def main() -> None:
        budget = MemoryBudget(100)
        assert budget.try_reserve(100)
        waiter = asyncio.ensure_future(budget.reserve(100))
        behind = asyncio.ensure_future(budget.reserve(30))
        await asyncio.sleep(0)
        budget.release(100)
        waiter.cancel()
        await asyncio.wait([waiter])
        await behind
        assert waiter.cancelled()
        assert budget.used_bytes == 30

    asyncio.run(main())


@pytest.mark.parametrize("size", [-1, 11])
def test_giving_back_what_was_not_had_is_a_bug(size: int) -> None:
    budget = MemoryBudget(100)
    assert budget.try_reserve(10)
    with pytest.raises(ValueError, match="released"):
        budget.release(size)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        MemoryBudget(0)

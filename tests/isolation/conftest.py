"""Sessions on one PostgreSQL database, for the tests that step them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.isolation.world import World, open_world

T = TypeVar("T")
InWorld = Callable[[Callable[[World], Awaitable[T]]], T]


@pytest.fixture
def in_world(postgres_url: str) -> InWorld[T]:
    """Run a coroutine with two stepped sessions, `a` and `b`, and a plain store, all on one database."""

    def run(test: Callable[[World], Awaitable[T]]) -> T:
        async def within() -> T:
            async with open_world(postgres_url) as world:
                return await test(world)

        return asyncio.run(within())

    return run

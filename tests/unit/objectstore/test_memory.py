"""The memory store beyond the common contract: its bound."""

from __future__ import annotations

import asyncio

import pytest

from warp.clock import SystemClock
from warp.errors import StoreFull
from warp.objectstore.memory import MemoryStore


def test_it_holds_no_more_than_its_bound_and_deletes_make_room() -> None:
    async def main() -> None:
        store = MemoryStore(SystemClock(), bytes_max=100)
        await store.put("a", [bytes(60)])
        with pytest.raises(StoreFull, match="60 of 100"):
            await store.put("b", [bytes(41)])
        await store.put("a", [bytes(30), bytes(40)])
        assert store.used_bytes == 70
        assert await store.create("b", bytes(30))
        with pytest.raises(StoreFull):
            await store.create("c", b"x")
        await store.delete(["a", "none"])
        assert store.used_bytes == 30
        await store.put("c", [bytes(70)])

    asyncio.run(main())


def test_what_is_stored_does_not_change_with_the_buffer_that_it_came_from() -> None:
    async def main() -> None:
        store = MemoryStore(SystemClock(), bytes_max=100)
        buffer = bytearray(b"before")
        await store.put("a", [memoryview(buffer)])
        buffer[:] = b"after!"
        assert await store.get("a", 0, 6) == b"before"

    asyncio.run(main())

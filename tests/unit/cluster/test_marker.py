"""An object store belongs to one cluster, and every agent finds out whose it is before it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from warp.clock import SystemClock
from warp.cluster.marker import MARKER_BYTES_MAX, MARKER_KEY, check_marker
from warp.errors import ObjectStoreError, StartError
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore


class Settings:
    """Those of one cluster's metadata."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def setting(self, name: str) -> str | None:
        return self.values.get(name)

    async def set_setting(self, name: str, value: str) -> None:
        self.values[name] = value


def memory_store() -> MemoryStore:
    return MemoryStore(SystemClock(), bytes_max=1_000_000)


def test_the_first_agent_marks_the_store_and_the_next_of_its_cluster_may_use_it() -> None:
    async def start_twice() -> None:
        store, settings = memory_store(), Settings()
        await check_marker(store, settings, "one", "mem://")
        await check_marker(store, settings, "one", "mem://")
        assert bytes(await store.get(MARKER_KEY, 0, 21)) == b'{"cluster_id": "one"}'

    asyncio.run(start_twice())


def test_another_store_is_refused_once_the_cluster_has_one_and_stays_as_it_is() -> None:
    async def start_twice() -> None:
        settings, other = Settings(), memory_store()
        await check_marker(memory_store(), settings, "one", "s3://a")
        with pytest.raises(StartError, match="the object store s3://b is not the one of cluster one"):
            await check_marker(other, settings, "one", "s3://b")
        assert [found async for found in other.list("")] == []

    asyncio.run(start_twice())


def test_a_store_that_was_refused_is_not_remembered_as_the_clusters() -> None:
    async def start_twice() -> None:
        settings, others = Settings(), memory_store()
        await check_marker(others, Settings(), "two", "s3://b")
        with pytest.raises(StartError):
            await check_marker(others, settings, "one", "s3://b")
        await check_marker(memory_store(), settings, "one", "s3://a")

    asyncio.run(start_twice())


def test_another_cluster_is_refused_and_changes_nothing() -> None:
    async def meet() -> str:
        store, settings = memory_store(), Settings()
        await check_marker(store, settings, "one", "mem://")
        with pytest.raises(StartError) as refused:
            await check_marker(store, Settings(), "two", "mem://")
        await check_marker(store, settings, "one", "mem://")
        return str(refused.value)

    message = asyncio.run(meet())
    assert "belongs to cluster one, but the metadata to cluster two" in message
    assert "\n" not in message


def test_of_two_clusters_that_start_at_once_one_is_refused() -> None:
    class Raced(MemoryStore):
        """Another cluster's agent comes between the look and the creation."""

        async def create(self, key: str, data: Buffer) -> bool:
            await super().create(key, b'{"cluster_id": "faster"}')
            return await super().create(key, data)

    async def race() -> None:
        store = Raced(SystemClock(), bytes_max=1_000_000)
        with pytest.raises(StartError, match="belongs to cluster faster"):
            await check_marker(store, Settings(), "slower", "mem://")

    asyncio.run(race())


class Unconditional(MemoryStore):
    """As servers are that have no conditional puts."""

    async def create(self, key: str, data: Buffer) -> bool:
        raise ObjectStoreError("501 NotImplemented")


def test_a_store_without_conditional_puts_is_marked_and_a_second_cluster_refused() -> None:
    async def meet() -> None:
        store = Unconditional(SystemClock(), bytes_max=1_000_000)
        await check_marker(store, Settings(), "one", "s3://b", is_conditional=False)
        with pytest.raises(StartError, match="belongs to cluster one"):
            await check_marker(store, Settings(), "two", "s3://b", is_conditional=False)

    asyncio.run(meet())


def test_of_two_clusters_that_start_at_once_without_conditional_puts_one_is_refused() -> None:
    async def race() -> None:
        store = Unconditional(SystemClock(), bytes_max=1_000_000)
        outcomes = await asyncio.gather(
            *(check_marker(store, Settings(), one, "s3://b", is_conditional=False) for one in ("a", "b")),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StartError"]

    asyncio.run(race())


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[]", b"{}", b'{"cluster_id": 7}', b"\xff", b" " * (MARKER_BYTES_MAX + 1)]
)
def test_rubbish_in_its_place_is_told_and_left_alone(content: bytes) -> None:
    async def meet() -> None:
        store, settings = memory_store(), Settings()
        await store.create(MARKER_KEY, content)
        with pytest.raises(StartError, match=MARKER_KEY):
            await check_marker(store, settings, "one", "mem://")
        assert (await store.head(MARKER_KEY)).size_bytes == len(content)

    asyncio.run(meet())


def _fails(method: str) -> Callable[[], MemoryStore]:
    async def fail(*_: object) -> None:
        raise ObjectStoreError("it is away")

    def build() -> MemoryStore:
        store = memory_store()
        setattr(store, method, fail)
        return store

    return build


@pytest.mark.parametrize("method", ["head", "create"])
def test_a_store_that_fails_is_a_start_error_of_one_line(method: str) -> None:
    with pytest.raises(StartError, match=r"can't tell whose object store s3://b is.*it is away"):
        asyncio.run(check_marker(_fails(method)(), Settings(), "one", "s3://b"))

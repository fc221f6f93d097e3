"""What every object store owes its callers; each test runs against each store."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of
from warp.clock import SystemClock
from warp.errors import ObjectNotFound, ShortObject
from warp.ids import IdSource
from warp.objectstore.base import KEY_LENGTH_MAX, ObjectStore, check_key
from warp.objectstore.local import INLINE_BYTES_MAX, LocalStore
from warp.objectstore.memory import MemoryStore
from warp.objectstore.traffic import RequestKind
from warp.objectstore.urls import open_object_store

Check = Callable[[ObjectStore], Awaitable[None]]
KINDS: tuple[RequestKind, ...] = ("put", "get", "head", "list", "delete")


STORES = ["local", "memory", "s3", pytest.param("rgw", marks=pytest.mark.rgw)]


def _open(request: pytest.FixtureRequest, directory: Path) -> ObjectStore:
    if request.param == "local":
        return LocalStore(directory / "objects", token="a1", reserve_free_bytes=0)
    if request.param == "memory":
        return MemoryStore(SystemClock(), bytes_max=2**26)
    server: S3Server | RgwServer = request.getfixturevalue(f"{request.param}_server")
    for name, value in environment_of(server.credentials).items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    clock = SystemClock()
    return open_object_store(server.url("some/prefix"), clock=clock, ids=IdSource(clock, os.urandom))


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Check], None]:
    """Runs a check in an event loop, with a fresh store that has been opened."""
    store = _open(request, tmp_path)

    async def whole(check: Check) -> None:
        await store.open()
        try:
            await check(store)
        finally:
            await store.close()

    return lambda check: asyncio.run(whole(check))


async def _keys(listing: AsyncIterator[object]) -> list[str]:
    return sorted([getattr(found, "key", "") async for found in listing])


def test_what_was_put_is_read_back_whole_and_in_ranges(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await store.put("segments/ab/one", [b"0123", bytearray(b"456"), memoryview(b"xx789")[2:], b""])
        assert await store.get("segments/ab/one", 0, 10) == b"0123456789"
        assert await store.get("segments/ab/one", 3, 4) == b"3456"
        assert await store.get("segments/ab/one", 9, 1) == b"9"
        assert await store.get("segments/ab/one", 10, 0) == b""
        found = await store.head("segments/ab/one")
        assert (found.key, found.size_bytes) == ("segments/ab/one", 10)
        assert found.modified_ms > 1_600_000_000_000

    run(check)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3_000_001])
def test_objects_of_every_size_survive(run: Callable[[Check], None], size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(251)), size))

    async def check(store: ObjectStore) -> None:
        await store.put("k", [data[i : i + 1_499] for i in range(0, size, 1_499)])
        assert await store.get("k", 0, size) == data
        assert await store.get("k", size // 2, size - size // 2) == data[size // 2 :]

    run(check)


def test_reading_past_the_end_hands_over_what_is_there(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await store.put("k", [b"0123456789"])
        for start, length, there in [(0, 11, b"0123456789"), (8, 4, b"89"), (10, 1, b""), (2**40, 5, b"")]:
            with pytest.raises(ShortObject) as caught:
                await store.get("k", start, length)
            assert caught.value.data == there

    run(check)


def test_reading_far_past_the_end_of_a_large_range_is_short(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await store.put("k", [bytes(INLINE_BYTES_MAX)])
        with pytest.raises(ShortObject) as caught:
            await store.get("k", 0, INLINE_BYTES_MAX + 1)
        assert caught.value.data == bytes(INLINE_BYTES_MAX)

    run(check)


def test_an_object_that_is_not_there_is_not_found(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            await store.get("segments/ab/none", 0, 1)
        with pytest.raises(ObjectNotFound):
            await store.get("segments/ab/none", 0, INLINE_BYTES_MAX + 1)
        with pytest.raises(ObjectNotFound):
            await store.head("none")

    run(check)


def test_a_part_of_a_key_is_no_key_and_a_key_is_no_directory(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await store.put("a/b/c", [b"x"])
        for key in ("a", "a/b", "a/b/c/d"):
            with pytest.raises(ObjectNotFound):
                await store.head(key)
            with pytest.raises(ObjectNotFound):
                await store.get(key, 0, 1)
            with pytest.raises(ObjectNotFound):
                await store.get(key, 0, INLINE_BYTES_MAX + 1)

    run(check)


def test_a_second_put_replaces_the_object_in_one_step(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await store.put("k", [b"old and long"])
        await store.put("k", [b"new"])
        assert (await store.head("k")).size_bytes == 3
        assert await store.get("k", 0, 3) == b"new"

    run(check)


def test_create_has_one_winner_and_leaves_the_object_as_it_was(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        wins = await asyncio.gather(*(store.create("epoch/1", b"token %d" % i) for i in range(8)))
        assert sorted(wins) == [False] * 7 + [True]
        winner = b"token %d" % wins.index(True)
        assert await store.get("epoch/1", 0, len(winner)) == winner
        assert not await store.create("epoch/1", b"later")
        assert await store.get("epoch/1", 0, len(winner)) == winner

    run(check)


def test_delete_removes_and_does_not_mind_what_is_gone(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        for key in ("a/1", "a/2", "b/1"):
            await store.put(key, [b"x"])
        await store.delete(["a/1", "a/none", "none/1"])
        assert await _keys(store.list()) == ["a/2", "b/1"]
        await store.delete([])
        await store.put("a/1", [b"again"])
        assert await store.get("a/1", 0, 5) == b"again"

    run(check)


def test_listing_finds_keys_by_prefix_within_and_across_directories(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        keys = ["segments/0a/1", "segments/0a/2", "segments/0b/1", "segments2/1", "epoch/1", "top"]
        for key in keys:
            await store.put(key, [key.encode()])
        assert await _keys(store.list()) == sorted(keys)
        assert await _keys(store.list("segments/")) == ["segments/0a/1", "segments/0a/2", "segments/0b/1"]
        assert await _keys(store.list("segments")) == sorted(k for k in keys if k.startswith("segments"))
        assert await _keys(store.list("segments/0")) == ["segments/0a/1", "segments/0a/2", "segments/0b/1"]
        assert await _keys(store.list("segments/0a/2")) == ["segments/0a/2"]
        assert await _keys(store.list("to")) == ["top"]
        assert await _keys(store.list("none/")) == []
        sizes = {found.key: found.size_bytes async for found in store.list()}
        assert sizes == {key: len(key) for key in keys}

    run(check)


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", ".tmp/x", "a/.b"),
        *("a b", "a\0b", "a\n", "é", "a\\b", "a%2fb", "a" * (KEY_LENGTH_MAX + 1), "a" * 201),
    ],
)
def test_a_key_that_is_none_is_refused_by_every_operation(run: Callable[[Check], None], key: str) -> None:
    async def check(store: ObjectStore) -> None:
        for call in (
            store.put(key, [b""]),
            store.create(key, b""),
            store.get(key, 0, 1),
            store.head(key),
            store.delete([key]),
        ):
            with pytest.raises(ValueError, match="not an object key"):
                await call
        assert await _keys(store.list()) == []

    run(check)


@given(st.text(max_size=40))
def test_a_key_that_passes_stays_inside_the_store(key: str) -> None:
    try:
        check_key(key)
    except ValueError:
        return
    path = Path("/store") / key
    assert path.resolve().is_relative_to("/store")
    assert not any(part.startswith(".") for part in key.split("/"))
    assert path.as_posix() == f"/store/{key}"


def test_many_operations_at_once_all_end(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"d{i % 7}/{i}", [b"%d" % i]) for i in range(200)))
        found = await asyncio.gather(*(store.get(f"d{i % 7}/{i}", 0, len(str(i))) for i in range(200)))
        assert [int(data) for data in found] == list(range(200))

    run(check)


def test_traffic_counts_requests_by_kind_and_outcome(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        before = {kind: store.traffic.total(kind) for kind in KINDS}
        sent, received = store.traffic.sent_bytes, store.traffic.received_bytes
        await store.put("k", [b"0123456789"])
        assert await store.get("k", 2, 5) == b"23456"
        assert (store.traffic.sent_bytes - sent, store.traffic.received_bytes - received) == (10, 5)
        with pytest.raises(ObjectNotFound):
            await store.get("none", 0, 1)
        await store.head("k")
        await store.delete(["k"])
        after = {kind: store.traffic.total(kind) - before[kind] for kind in KINDS}
        assert after == {"put": 1, "get": 2, "head": 1, "list": 0, "delete": 1}
        assert store.traffic.requests["get", "not_found"] == 1

    run(check)


def test_a_taken_key_counts_as_a_conflict_or_a_put(run: Callable[[Check], None]) -> None:
    async def check(store: ObjectStore) -> None:
        before = store.traffic.total("put")
        assert [await store.create("epoch/1", b"a"), await store.create("epoch/1", b"b")] == [True, False]
        assert store.traffic.total("put") - before == 2

    run(check)

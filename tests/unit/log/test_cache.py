"""The chunk cache: one load per chunk, bounded bytes, failures and cancellations that hurt nobody else."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.log.cache import ChunkCache
from warp.log.claims import Claims
from warp.objectstore.base import ObjectInfo

CHUNK = 100
DATA = bytes(range(250))


class GatedStore:
    """Objects in a dictionary; requests wait for `gate` and fail while `failure` is set."""

    requests_are_free = True

    def __init__(self, objects: dict[str, bytes], *, hands_over_short: bool = True) -> None:
        self.objects = objects
        self.hands_over_short = hands_over_short
        self.gets: list[tuple[str, int, int]] = []
        self.heads = 0
        self.failure: ObjectStoreError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key: str, start: int, length: int) -> bytes:
        self.gets.append((key, start, length))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if key not in self.objects:
            raise ObjectNotFound(key)
        data = self.objects[key][start : start + length]
        if len(data) < length:
            raise ShortObject(key, data if self.hands_over_short else None)
        return data

    async def head(self, key: str) -> ObjectInfo:
        self.heads += 1
        return ObjectInfo(key, len(self.objects[key]), 0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(main())


def make_cache(store: GatedStore, bytes_max: int = 10 * CHUNK) -> ChunkCache:
    return ChunkCache(store, bytes_max=bytes_max, chunk_bytes=CHUNK)  # type: ignore[arg-type]


async def read(cache: ChunkCache, key: str, position: int, size: int) -> bytes:
    return b"".join(await cache.read(key, position, size))


@pytest.mark.parametrize("hands_over_short", [True, False])
def test_every_range_is_read_as_it_stands_in_the_object(hands_over_short: bool) -> None:
    async def scenario() -> None:
        cache = make_cache(GatedStore({"a": DATA}, hands_over_short=hands_over_short))
        for position in range(0, 250, 7):
            for size in (1, 60, 100, 101, 249):
                if position + size <= 250:
                    assert await read(cache, "a", position, size) == DATA[position : position + size]
                    views = cache.views("a", position, size)
                    assert views is not None
                    assert b"".join(views) == DATA[position : position + size]
        assert cache.used_bytes == 250

    run(scenario)


def test_a_short_last_chunk_costs_one_request_when_the_store_hands_it_over() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        assert await read(make_cache(store), "a", 200, 50) == DATA[200:]
        assert len(store.gets) == 1
        assert store.heads == 0

    run(scenario)


def test_a_chunk_is_loaded_once_however_many_readers_there_are() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store)
        store.gate.clear()
        readers = [asyncio.create_task(read(cache, "a", start, 10)) for start in range(50)]
        await asyncio.sleep(0)
        store.gate.set()
        assert [await reader for reader in readers] == [DATA[s : s + 10] for s in range(50)]
        assert store.gets == [("a", 0, CHUNK)]

    run(scenario)


def test_a_cancelled_reader_leaves_the_load_to_the_others() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store)
        store.gate.clear()
        first = asyncio.create_task(read(cache, "a", 0, 10))
        second = asyncio.create_task(read(cache, "a", 5, 10))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        assert await second == DATA[5:15]
        assert first.cancelled()
        assert len(store.gets) == 1

    run(scenario)


def test_a_failed_load_is_not_remembered() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store)
        store.failure = ObjectStoreError("down")
        readers = [asyncio.create_task(read(cache, "a", 0, 10)) for _ in range(3)]
        outcomes = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(outcome, ObjectStoreError) for outcome in outcomes)
        assert (cache.failed_loads, cache.used_bytes, len(store.gets)) == (1, 0, 1)
        store.failure = None
        assert await read(cache, "a", 0, 10) == DATA[:10]

    run(scenario)


def test_a_missing_and_a_cut_object_are_told_apart_and_not_kept() -> None:
    async def scenario() -> None:
        store = GatedStore({"cut": DATA[:120]})
        cache = make_cache(store)
        with pytest.raises(ObjectNotFound):
            await cache.read("gone", 0, 10)
        with pytest.raises(ShortObject):
            await cache.read("cut", 100, 50)
        store.objects["cut"] = DATA
        assert await read(cache, "cut", 100, 50) == DATA[100:150]

    run(scenario)


def test_the_least_recently_used_chunk_goes_first() -> None:
    async def scenario() -> None:
        store = GatedStore(dict.fromkeys("abcd", DATA))
        cache = make_cache(store, bytes_max=3 * CHUNK)
        for name in "abc":
            await cache.read(name, 0, 10)
        assert cache.views("a", 0, 10) is not None
        await cache.read("d", 0, 10)
        assert cache.views("b", 0, 10) is None
        assert cache.views("a", 0, 10) is not None
        assert cache.evictions == 1

    run(scenario)


def test_the_bound_holds_at_every_moment_under_many_readers() -> None:
    async def scenario() -> None:
        names = [f"object-{number}" for number in range(20)]
        store = GatedStore(dict.fromkeys(names, DATA))
        cache = make_cache(store, bytes_max=3 * CHUNK)
        highest = 0

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, cache.used_bytes)
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        readers = [asyncio.create_task(read(cache, name, 20, 200)) for name in names for _ in range(3)]
        for reader in readers:
            assert await reader == DATA[20:220]
        watcher.cancel()
        assert highest == 3 * CHUNK
        assert cache.used_bytes <= 3 * CHUNK

    run(scenario)


def test_a_chunk_makes_no_room_before_its_reader_has_copied_from_it() -> None:
    async def scenario() -> None:
        store = GatedStore(dict.fromkeys("ab", DATA))
        cache = make_cache(store, bytes_max=CHUNK)
        first, second = [asyncio.create_task(read(cache, name, 0, 10)) for name in "ab"]
        while len(store.gets) < 2:
            assert not second.done()
            await asyncio.sleep(0)
        assert first.done()
        assert await second == DATA[:10]

    run(scenario)


def test_readers_that_wait_for_room_can_be_cancelled() -> None:
    async def scenario() -> None:
        store = GatedStore(dict.fromkeys("abc", DATA))
        cache = make_cache(store, bytes_max=CHUNK)
        store.gate.clear()
        readers = [asyncio.create_task(read(cache, name, 0, 10)) for name in "abc"]
        await asyncio.sleep(0.01)
        assert len(store.gets) == 1
        readers[1].cancel()
        await asyncio.sleep(0)
        store.gate.set()
        assert await readers[0] == DATA[:10]
        assert await readers[2] == DATA[:10]
        assert cache.used_bytes <= CHUNK

    run(scenario)


def test_a_fresh_segment_is_read_without_a_request() -> None:
    async def scenario() -> None:
        store = GatedStore({})
        cache = make_cache(store, bytes_max=10_000)
        cache.put_segment("one", DATA)
        cache.put_segment("pieces", [DATA[:3], b"", DATA[3:130], memoryview(DATA)[130:]])
        for key in ("one", "pieces"):
            for position, size in ((0, 250), (2, 2), (3, 127), (129, 2), (249, 1)):
                views = cache.views(key, position, size)
                assert views is not None
                assert b"".join(views) == DATA[position : position + size]
                assert await read(cache, key, position, size) == DATA[position : position + size]
            assert cache.views(key, 200, 51) is None
        assert store.gets == []

    run(scenario)


def test_a_segment_that_does_not_fit_is_left_out() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store, bytes_max=4 * CHUNK)
        cache.put_segment("big", DATA)
        assert (cache.refused_segments, cache.used_bytes) == (1, 0)
        store.gate.clear()
        reader = asyncio.create_task(read(cache, "a", 0, 10))
        for _ in range(3):
            await asyncio.sleep(0)
        cache.put_segment("beside the load", DATA[:100])
        assert (cache.refused_segments, cache.used_bytes) == (2, CHUNK)
        store.gate.set()
        assert await reader == DATA[:10]

    run(scenario)


def test_kept_chunks_are_joined_by_readers_and_evicted_by_nobody() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA, "b": DATA})
        cache = make_cache(store, bytes_max=3 * CHUNK)
        for chunk in (0, 1, 0, 1):
            cache.keep(("a", chunk))
        assert await read(cache, "a", 50, 100) == DATA[50:150]
        assert len(store.gets) == 2
        for _ in range(2):
            assert await read(cache, "b", 0, 250) == DATA
            assert await read(cache, "a", 50, 100) == DATA[50:150]
        assert [key for key, _, _ in store.gets].count("a") == 2
        for chunk in (0, 1, 0, 1):
            cache.stop_keeping(("a", chunk))
        assert await read(cache, "b", 0, 250) == DATA
        assert await read(cache, "a", 50, 100) == DATA[50:150]
        assert [key for key, _, _ in store.gets].count("a") > 2

    run(scenario)


def test_claims_share_what_is_neither_held_nor_needed_for_a_load() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA, "b": DATA})
        cache = make_cache(store)
        claims = Claims(cache)
        first = await claims.room(10, 1.0)
        assert first is not None
        assert first.chunks_max == 4
        assert await claims.room(1, 0.0) is None
        claims.use(first, [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)])
        assert len(first.chunk_ids) == 4
        waiting = [asyncio.ensure_future(claims.room(10, 10.0)) for _ in range(2)]
        await asyncio.sleep(0)
        claims.release(first)
        given = [await each for each in waiting]
        # Each was given one before either took more.
        assert [each.chunks_max for each in given if each] == [3, 1]
        for each in given:
            assert each is not None
            claims.release(each)
            claims.release(each)
        assert claims.claimed_chunks == 0

    run(scenario)


def test_a_cache_too_small_for_claims_keeps_nothing() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store, bytes_max=CHUNK)
        claims = Claims(cache)
        claim = await claims.room(10, 0.0)
        assert claim is not None
        claims.use(claim, [("a", 0)])
        assert (claim.chunks_max, store.gets) == (0, [])
        claims.release(claim)
        assert await read(cache, "a", 0, 250) == DATA

    run(scenario)


def test_a_short_chunk_that_is_loaded_again_counts_once() -> None:
    async def scenario() -> None:
        cache = make_cache(GatedStore({"a": DATA[:30]}))
        for _ in range(100):
            cache.keep(("a", 0))
            cache.stop_keeping(("a", 0))
            for _ in range(10):
                await asyncio.sleep(0)
            assert cache.used_bytes == 30
            with pytest.raises(ShortObject):
                await cache.read("a", 0, 80)
            assert cache.used_bytes == 0

    run(scenario)


def test_close_stops_loads_in_flight() -> None:
    async def scenario() -> None:
        store = GatedStore({"a": DATA})
        cache = make_cache(store)
        store.gate.clear()
        reader = asyncio.create_task(read(cache, "a", 0, 10))
        await asyncio.sleep(0)
        await cache.close()
        with pytest.raises(ObjectStoreError, match="closed"):
            await reader
        assert cache.used_bytes == 0

    run(scenario)


def test_a_cache_smaller_than_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="can't hold a chunk"):
        ChunkCache(GatedStore.__new__(GatedStore), bytes_max=99, chunk_bytes=100)  # type: ignore[arg-type]


def test_a_segment_counts_with_all_the_memory_that_its_pieces_keep_alive() -> None:
    async def scenario() -> None:
        cache = make_cache(GatedStore({}), bytes_max=10_000)
        frame = memoryview(bytes(5_000))
        cache.put_segment("views", [frame[10:60], frame[100:150]])
        assert 5_000 <= cache.used_bytes < 6_500
        cache.put_segment("another", [memoryview(bytes(6_000))[:1]])
        assert 6_000 <= cache.used_bytes < 7_000
        assert cache.views("views", 0, 50) is None

    run(scenario)


@pytest.mark.parametrize("pieces", [1, 3, 20])
def test_small_segments_count_for_no_less_than_the_memory_that_they_take(pieces: int) -> None:
    count = 2_000

    async def scenario() -> None:
        cache = make_cache(GatedStore({}), bytes_max=2**40)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            # As keys and pieces of a flush are: objects of their own.
            key = f"segments/{number:08x}/{number:032x}"
            cache.put_segment(key, [bytes([number % 256]) * 100 for _ in range(pieces)])
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert taken <= cache.used_bytes < 1.5 * taken

    run(scenario)

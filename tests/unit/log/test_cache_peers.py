"""The cache and the peers that it asks: the store is read once a zone, and whenever a peer is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.support.zone import PATIENT, CountingStore, until
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.log.cache import ChunkCache
from warp.log.zone import PeerLimits, StoreTimes
from warp.objectstore.base import Buffer

CHUNK = 100
DATA = bytes(range(250))


class ScriptedPeers:
    """Peers that give what a test says."""

    def __init__(self, answer: Callable[[str, int, int], Awaitable[Buffer | None]] | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int, int]] = []
        self.timeouts_s: list[float] = []
        self.cancelled = 0

    def ask(
        self, key: str, position: int, size: int, timeout_s: float
    ) -> Coroutine[Any, Any, Buffer | None] | None:
        if self.answer is None:
            return None
        self.asked.append((key, position, size))
        self.timeouts_s.append(timeout_s)
        return self._ask(self.answer(key, position, size))

    async def _ask(self, answer: Awaitable[Buffer | None]) -> Buffer | None:
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def gives_right(_key: str, position: int, size: int) -> Buffer | None:
    return DATA[position : position + size]


async def gives_nothing(_key: str, _position: int, _size: int) -> Buffer | None:
    return None


async def gives_never(_key: str, _position: int, _size: int) -> Buffer | None:
    await asyncio.Event().wait()
    return None


def make(
    peers: ScriptedPeers | None, objects: dict[str, bytes] | None = None, chunks: int = 10
) -> tuple[ChunkCache, CountingStore]:
    store = CountingStore({"a": DATA} if objects is None else objects)
    cache = ChunkCache(store, bytes_max=chunks * CHUNK, chunk_bytes=CHUNK, peers=peers)  # type: ignore[arg-type]
    return cache, store


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(main())


async def read(cache: ChunkCache, position: int, size: int, key: str = "a") -> bytes:
    return b"".join(await cache.read(key, position, size))


async def served(cache: ChunkCache, position: int, size: int, key: str = "a") -> bytes | None:
    found = await cache.serve(key, position, size)
    if found is None:
        return None
    views, hold = found
    data = b"".join(views)
    cache.let_go(hold)
    return data


def test_what_a_peer_has_is_not_asked_of_the_store_and_is_kept() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_right)
        cache, store = make(peers)
        for _ in range(3):
            assert await read(cache, 0, 250) == DATA
        assert store.gets == []
        assert peers.asked == [("a", 0, CHUNK), ("a", 100, CHUNK), ("a", 200, CHUNK)]
        assert (cache.source.peer_loads, cache.source.peer_bytes, cache.source.store_loads) == (3, 250, 0)
        assert cache.used_bytes == 250

    run(scenario)


@pytest.mark.parametrize("answer", [None, gives_nothing])
def test_without_a_peer_that_helps_the_store_is_read(answer: Any) -> None:
    async def scenario() -> None:
        cache, store = make(ScriptedPeers(answer))
        assert await read(cache, 100, 150) == DATA[100:]
        assert store.gets == [("a", 100), ("a", 200)]
        assert (cache.source.peer_loads, cache.source.store_loads, cache.source.store_bytes) == (0, 2, 150)

    run(scenario)


def test_a_bug_in_asking_costs_no_read(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(_key: str, _position: int, _size: int) -> Buffer | None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        cache, _ = make(ScriptedPeers(breaks))
        assert await read(cache, 0, 10) == DATA[:10]

    run(scenario)
    assert "failed unexpectedly" in caplog.text


def test_for_chunks_that_are_kept_the_peer_is_asked_too() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_right)
        cache, store = make(peers)
        cache.keep(("a", 0))
        cache.keep(("a", 1))
        assert await read(cache, 0, 200) == DATA[:200]
        assert (len(peers.asked), store.gets) == (2, [])

    run(scenario)


def test_that_an_object_is_too_short_is_believed_of_the_store_alone() -> None:
    async def gives_half(_key: str, position: int, size: int) -> Buffer | None:
        return DATA[position : position + size // 2]

    async def scenario() -> None:
        cache, store = make(ScriptedPeers(gives_half))
        assert await read(cache, 0, 80) == DATA[:80]
        assert store.gets == [("a", 0)]
        with pytest.raises(ShortObject):
            await read(cache, 200, 80)
        assert store.gets == [("a", 0), ("a", 200)]

    run(scenario)


def test_what_the_store_itself_says_is_asked_of_it_once() -> None:
    async def scenario() -> None:
        for peers in (None, ScriptedPeers(None), ScriptedPeers(gives_nothing)):
            cache, store = make(peers)
            with pytest.raises(ShortObject):
                await read(cache, 200, 80)
            assert store.gets == [("a", 200)]

    run(scenario)


def test_readers_that_want_less_and_more_of_a_short_answer_are_each_served() -> None:
    async def scenario() -> None:
        come = asyncio.Event()

        async def gives_half(_key: str, position: int, size: int) -> Buffer | None:
            await come.wait()
            return DATA[position : position + size // 2]

        cache, store = make(ScriptedPeers(gives_half))
        readers = [asyncio.create_task(read(cache, 0, size)) for size in (90, 40, 100, 50, 51)]
        await asyncio.sleep(0)
        come.set()
        assert [await reader for reader in readers] == [DATA[:size] for size in (90, 40, 100, 50, 51)]
        assert store.gets == [("a", 0)]
        assert cache.used_bytes == CHUNK

    run(scenario)


def test_errors_of_the_store_come_out_after_the_peer_was_of_no_use() -> None:
    async def scenario() -> None:
        cache, store = make(ScriptedPeers(gives_nothing))
        with pytest.raises(ObjectNotFound):
            await read(cache, 0, 10, "gone")
        store.failure = ObjectStoreError("down")
        with pytest.raises(ObjectStoreError, match="down"):
            await read(cache, 0, 10)
        assert (cache.failed_loads, cache.used_bytes) == (2, 0)

    run(scenario)


def test_readers_that_leave_do_not_end_the_request_to_the_peer() -> None:
    async def scenario() -> None:
        come = asyncio.Event()

        async def gives_later(_key: str, position: int, size: int) -> Buffer | None:
            await come.wait()
            return DATA[position : position + size]

        peers = ScriptedPeers(gives_later)
        cache, store = make(peers)
        first, second = (asyncio.create_task(read(cache, 0, 10)) for _ in range(2))
        await until(lambda: bool(peers.asked))
        first.cancel()
        await asyncio.wait([first])
        come.set()
        assert await second == DATA[:10]
        assert (len(peers.asked), peers.cancelled, store.gets) == (1, 0, [])

    run(scenario)


def test_closing_ends_the_request_to_the_peer() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_never)
        cache, _ = make(peers)
        reader = asyncio.create_task(read(cache, 0, 10))
        await until(lambda: bool(peers.asked))
        await cache.close()
        with pytest.raises(ObjectStoreError, match="closed"):
            await reader
        await until(lambda: peers.cancelled == 1)
        assert cache.used_bytes == 0

    run(scenario)


def test_for_a_peer_the_store_is_read_and_no_other_peer() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_never)
        cache, store = make(peers)
        assert await served(cache, 100, CHUNK) == DATA[100:200]
        assert await served(cache, 100, CHUNK) == DATA[100:200]
        assert (peers.asked, store.gets) == ([], [("a", 100)])
        assert await read(cache, 120, 10) == DATA[120:130]
        assert cache.held_bytes == 0

    run(scenario)


def test_a_peer_that_asks_for_what_this_agent_asks_a_peer_for_gets_it_from_the_store() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_never)
        cache, store = make(peers)
        reader = asyncio.create_task(read(cache, 0, 10))
        await until(lambda: bool(peers.asked))
        assert await served(cache, 0, CHUNK) == DATA[:CHUNK]
        assert await reader == DATA[:10]
        assert (peers.cancelled, store.gets) == (1, [("a", 0)])

    run(scenario)


def test_an_answer_that_comes_when_the_store_was_already_wanted_is_not_taken() -> None:
    async def scenario() -> None:
        cache, store = make(peers := ScriptedPeers(None))

        async def gives_too_late(_key: str, position: int, size: int) -> Buffer | None:
            # Before the load hears of this answer, whoever believes nobody but the store joins it.
            asyncio.get_running_loop().call_soon(cache._loads["a", 0].read_store)
            return DATA[position : position + size // 2]

        peers.answer = gives_too_late
        assert await read(cache, 0, 10) == DATA[:10]
        assert (store.gets, cache.source.peer_loads) == ([("a", 0)], 0)

    run(scenario)


def test_a_load_that_still_waits_for_memory_asks_no_peer_once_a_peer_waits_for_it() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(None)
        cache, store = make(peers, chunks=1)
        store.gate.clear()
        first = asyncio.create_task(read(cache, 0, 10))
        await until(lambda: len(store.gets) == 1)
        peers.answer = gives_never
        second = asyncio.create_task(read(cache, 100, 10))
        await asyncio.sleep(0)
        third = asyncio.create_task(served(cache, 100, CHUNK))
        await asyncio.sleep(0)
        store.gate.set()
        assert await first == DATA[:10]
        assert await second == DATA[100:110]
        assert await third in (DATA[100:200], None)  # None: there is no memory to hold it
        assert peers.asked == []

    run(scenario)


def test_many_peers_and_readers_of_a_chunk_cost_one_request() -> None:
    async def scenario() -> None:
        cache, store = make(None)
        store.gate.clear()
        wanted = [asyncio.create_task(served(cache, 0, CHUNK)) for _ in range(5)]
        readers = [asyncio.create_task(read(cache, 0, CHUNK)) for _ in range(5)]
        await asyncio.sleep(0)
        store.gate.set()
        assert {await each for each in (*wanted, *readers)} == {DATA[:CHUNK]}
        assert store.gets == [("a", 0)]

    run(scenario)


def test_a_peer_is_served_what_there_is_and_told_when_there_is_nothing() -> None:
    async def scenario() -> None:
        cache, store = make(None)
        assert await served(cache, 200, CHUNK) == DATA[200:]
        assert await served(cache, 100, 3 * CHUNK) == DATA[100:]
        assert store.gets == [("a", 200), ("a", 100)]
        with pytest.raises(ShortObject):
            await served(cache, 300, CHUNK)
        with pytest.raises(ShortObject):
            await served(cache, 250, 10)
        with pytest.raises(ObjectNotFound):
            await served(cache, 0, CHUNK, "gone")
        store.failure = ObjectStoreError("down")
        with pytest.raises(ObjectStoreError, match="down"):
            await served(cache, 0, CHUNK)
        assert cache.held_bytes == 0

    run(scenario)


def test_nothing_that_comes_after_a_gap_is_served() -> None:
    async def gives_half(_key: str, position: int, size: int) -> Buffer | None:
        return DATA[position : position + size // 2]

    async def scenario() -> None:
        cache, _ = make(ScriptedPeers(gives_half))
        assert await read(cache, 0, 50) == DATA[:50]
        assert await served(cache, 0, 200) == DATA[:50]

    run(scenario)


def test_a_range_over_chunks_of_another_size_is_served_whole() -> None:
    async def scenario() -> None:
        data = bytes(i % 251 for i in range(4 * CHUNK))
        cache, store = make(None, {"a": data})
        assert await served(cache, 50, 50) == data[50:100]
        assert await served(cache, 0, 4 * CHUNK) == data
        assert await served(cache, 100, 4 * CHUNK) == data[100:]  # the object ends with a chunk
        assert len(store.gets) == 5
        assert cache.held_bytes == 0

    run(scenario)


def test_a_fresh_segment_is_served_from_memory() -> None:
    async def scenario() -> None:
        cache, store = make(None, chunks=40)
        cache.put_segment("fresh", [b"abc", b"defg", b"h"])
        assert await served(cache, 2, 4, "fresh") == b"cdef"
        assert await served(cache, 2, CHUNK, "fresh") == b"cdefgh"
        assert store.gets == []
        assert cache.held_bytes == 0

    run(scenario)


def test_nothing_waits_for_memory_on_behalf_of_a_peer() -> None:
    async def scenario() -> None:
        cache, store = make(None, chunks=2)
        store.gate.clear()
        readers = [asyncio.create_task(read(cache, start, 10)) for start in (0, 100)]
        await until(lambda: len(store.gets) == 2)
        assert await served(cache, 200, 50) is None
        store.gate.set()
        assert [await reader for reader in readers] == [DATA[:10], DATA[100:110]]
        first = await cache.serve("a", 0, CHUNK)
        assert first is not None
        # Half of the cache is held now.
        assert await served(cache, 100, CHUNK) is None
        cache.let_go(first[1])
        assert await served(cache, 100, CHUNK) == DATA[100:200]

    run(scenario)


def test_a_range_that_can_not_be_held_whole_is_not_held_at_all() -> None:
    async def scenario() -> None:
        cache, _ = make(None, chunks=4)
        assert await served(cache, 0, 250) is None
        assert cache.held_bytes == 0
        assert await served(cache, 0, 200) == DATA[:200]

    run(scenario)


def test_a_peer_that_gives_up_leaves_nothing_held() -> None:
    async def scenario() -> None:
        cache, store = make(None)
        assert await read(cache, 0, 10) == DATA[:10]
        store.gate.clear()
        asking = asyncio.create_task(served(cache, 0, 2 * CHUNK))
        await until(lambda: len(store.gets) == 2)
        assert cache.held_bytes == CHUNK
        asking.cancel()
        await asyncio.wait([asking])
        assert cache.held_bytes == 0
        store.gate.set()
        assert await read(cache, 100, 10) == DATA[100:110]
        assert len(store.gets) == 2

    run(scenario)


def test_a_peer_may_take_twice_as_long_as_the_store_within_bounds() -> None:
    times = StoreTimes(PeerLimits())
    assert times.peer_timeout_s == 1.0
    for _ in range(300):
        times.add(0, 0.001)
    assert times.peer_timeout_s == 0.05
    for _ in range(300):
        times.add(0, 0.25)
    assert times.peer_timeout_s == 0.5
    for _ in range(300):
        times.add(0, 9)
    assert times.peer_timeout_s == 5.0


def test_the_timeout_follows_the_reads_of_the_store_alone() -> None:
    async def scenario() -> None:
        peers = ScriptedPeers(gives_nothing)
        store = CountingStore({"a": bytes(40 * CHUNK)})
        limits = PeerLimits(timeout_min_s=0, timeout_unknown_s=7, timeout_max_s=6)
        cache = ChunkCache(
            store,  # type: ignore[arg-type]
            bytes_max=40 * CHUNK, chunk_bytes=CHUNK, peers=peers, peer_limits=limits,
        )  # fmt: skip
        await read(cache, 0, 17 * CHUNK)
        assert peers.timeouts_s[:16] == [7.0] * 16
        assert peers.timeouts_s[16] < 7
        assert PATIENT.timeout_unknown_s > 7

    run(scenario)

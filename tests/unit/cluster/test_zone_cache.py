"""Agents of a zone that read through each other: one request to the store per chunk, whatever peers do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.support.zone import (
    CHUNK,
    SECRET,
    CountingStore,
    HandClock,
    Node,
    Zone,
    chunk_of,
    running,
    until,
)
from warp.agent_metrics import read_zone
from warp.cluster.peer_auth import PeerAuth
from warp.cluster.zone_cache import ZoneCache, ZoneLimits
from warp.errors import ObjectNotFound, ShortObject
from warp.log.zone import PeerLimits
from warp.metrics import Metrics

DATA = random.Random(7).randbytes(30 * CHUNK + 123)
HASTY = PeerLimits(timeout_min_s=0.02, timeout_unknown_s=0.02, timeout_max_s=0.02)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())
    uvloop.run(bounded())


def views_of(zone: Zone, own: int) -> ZoneCache:
    auth, clock = PeerAuth(SECRET), HandClock()
    return ZoneCache(lambda: zone.view(own), auth, clock, random.Random(1).randbytes, place_bytes=CHUNK)


def owners(zone_cache: ZoneCache, count: int = 200) -> list[int | None]:
    return [zone_cache.owner("a", start * CHUNK) for start in range(count)]


# ---- who owns what ----


def test_all_agents_of_a_zone_name_the_same_owners_and_share_the_chunks() -> None:
    zone = Zone()
    for broker_id in (1, 2, 3):
        zone.put(broker_id, f"127.0.0.1:{broker_id}")
    named = [owners(views_of(zone, own)) for own in (1, 2, 3)]
    assert named[0] == named[1] == named[2]
    assert all(named[0].count(broker_id) > 40 for broker_id in (1, 2, 3))


def test_one_that_comes_or_goes_moves_only_what_falls_to_it() -> None:
    zone = Zone()
    for broker_id in (1, 2, 3):
        zone.put(broker_id, f"127.0.0.1:{broker_id}")
    zone_cache = views_of(zone, 1)
    before = owners(zone_cache)
    zone.remove(3)
    after = owners(zone_cache)
    assert [b for b, a in zip(before, after, strict=True) if b != a] == [3] * before.count(3)


def test_only_agents_of_the_zone_that_live_stay_and_can_be_reached_own_chunks() -> None:
    zone = Zone()
    zone.put(1, "127.0.0.1:1")
    zone.put(2, "127.0.0.1:2")
    zone.put(3, "127.0.0.1:3", zone="b")
    zone.put(4, "127.0.0.1:4", zone=None)
    zone.put(5, "127.0.0.1:5", is_leaving=True)
    zone.put(6, None)
    zone.put(7, "nowhere")
    assert set(owners(views_of(zone, 1))) == {1, 2}
    assert set(owners(views_of(zone, 5))) == {1, 2}
    assert set(owners(views_of(zone, 3))) == {None}


def test_agents_without_a_zone_are_one_zone() -> None:
    zone = Zone()
    zone.put(1, "127.0.0.1:1", zone=None)
    zone.put(2, "127.0.0.1:2", zone=None)
    zone.put(3, "127.0.0.1:3", zone="a")
    assert set(owners(views_of(zone, 1))) == {1, 2}


def test_an_agent_that_others_cannot_reach_asks_those_that_they_can() -> None:
    zone = Zone()
    zone.put(1, None)
    zone.put(2, "127.0.0.1:2")
    assert set(owners(views_of(zone, 1))) == {2}
    assert set(owners(views_of(zone, 2))) == {None}


def test_an_agent_that_is_alone_asks_nobody() -> None:
    zone = Zone()
    zone.put(1, "127.0.0.1:1")
    assert views_of(zone, 1).ask("a", 0, CHUNK, 1.0) is None
    assert views_of(zone, 9).ask("a", 0, CHUNK, 1.0) is None


def test_chunks_of_one_place_have_one_owner_whatever_their_size() -> None:
    zone = Zone()
    for broker_id in (1, 2, 3):
        zone.put(broker_id, f"127.0.0.1:{broker_id}")
    zone_cache = views_of(zone, 1)
    assert all(
        zone_cache.owner("a", start) == zone_cache.owner("a", start + CHUNK // 2)
        for start in range(0, 50 * CHUNK, CHUNK)
    )


# ---- reading through each other ----


def test_consumers_at_three_agents_cost_one_request_per_chunk() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA, "b": DATA[::-1]})
        nodes = [Node(broker_id, zone, store, cache_chunks=100) for broker_id in (1, 2, 3)]
        async with running(zone, nodes):

            async def consume(node: Node, key: str, step: int) -> bytes:
                parts = [
                    await node.read(key, start, min(step, len(DATA) - start))
                    for start in range(0, len(DATA), step)
                ]
                return b"".join(parts)

            read = await asyncio.gather(
                *(consume(node, key, step) for node in nodes for key in "ab" for step in (700, 1000, 2500))
            )
            assert set(read) == {DATA, DATA[::-1]}
            assert len(store.gets) == len(set(store.gets)) == 62
            assert sum(node.cache.source.store_loads for node in nodes) == 62
            assert sum(node.cache.source.peer_loads for node in nodes) == 124
            assert sum(node.route.served for node in nodes) == 124
            assert sum(node.route.served_bytes for node in nodes) == 2 * 2 * len(DATA)
            assert [node.fallbacks for node in nodes] == [{}, {}, {}]
            assert [node.cache.held_bytes for node in nodes] == [0, 0, 0]

    run(scenario)


def test_caches_with_chunks_of_different_sizes_read_through_each_other() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        large, small = Node(1, zone, store), Node(2, zone, store, chunk_bytes=CHUNK // 2, cache_chunks=80)
        async with running(zone, [large, small]):
            assert await large.read("a", 0, len(DATA)) == DATA
            assert await small.read("a", 0, len(DATA)) == DATA
            assert large.cache.source.peer_loads > 0
            assert small.cache.source.peer_loads > 0
            assert (large.fallbacks, small.fallbacks) == ({}, {})
            assert sum(node.cache.source.store_bytes for node in (large, small)) == len(DATA)

    run(scenario)


def test_an_owner_that_joins_takes_over_and_one_that_leaves_is_not_asked() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore(dict.fromkeys("abc", bytes(1000 * CHUNK)))
        first, second = Node(1, zone, store), Node(2, zone, store)
        async with running(zone, [first]):
            await first.read("b", 0, 10)
            async with running(zone, [second]):
                await first.read("a", chunk_of(first, 2), 10)
                assert second.route.served == 1
                zone.put(2, str(second.http.bound), is_leaving=True)
                await first.read("c", 0, 10)
                assert first.zone_cache.owner("a", 0) is None
        assert second.route.served == 1
        assert first.fallbacks == {}

    run(scenario)


def test_agents_that_each_take_the_other_for_the_owner_both_read_the_store() -> None:
    async def scenario() -> None:
        store = CountingStore({"a": DATA})
        seen_by_first, seen_by_second = Zone(), Zone()
        first = Node(1, Zone(), store, view=lambda: seen_by_first.view(1))
        second = Node(2, Zone(), store, view=lambda: seen_by_second.view(2))
        async with running(Zone(), [first, second]):
            seen_by_first.put(1, None)
            seen_by_first.put(2, str(second.http.bound))
            seen_by_second.put(1, str(first.http.bound))
            seen_by_second.put(2, None)
            assert first.zone_cache.owner("a", 0) == 2
            assert second.zone_cache.owner("a", 0) == 1
            read = await asyncio.gather(first.read("a", 0, 50), second.read("a", 0, 50))
            assert list(read) == [DATA[:50], DATA[:50]]
            assert len(store.gets) <= 2

    run(scenario)


def test_a_missing_and_a_short_object_are_told_as_by_the_store() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({})
        nodes = [Node(1, zone, store), Node(2, zone, store)]
        async with running(zone, nodes):
            asker = nodes[0]
            start = chunk_of(asker, 2)
            with pytest.raises(ObjectNotFound):
                await asker.read("a", start, 10)
            store.objects["a"] = bytes(start)
            with pytest.raises(ShortObject):
                await asker.read("a", start, 10)
            store.objects["a"] = bytes(start + 5)
            with pytest.raises(ShortObject):
                await asker.read("a", start, 10)
            assert asker.fallbacks == {"missing": 1, "short": 1}
            assert nodes[1].refused == {"missing": 1, "short": 1}
            # Who was told so by the store as well looks again, and so does the owner.
            store.objects["a"] = bytes(start + 50)
            assert await asker.read("a", start, 10) == bytes(10)

    run(scenario)


def test_an_object_that_the_peer_says_is_gone_is_read_if_the_store_has_it() -> None:
    async def scenario() -> None:
        zone = Zone()
        full, empty = CountingStore({"a": DATA}), CountingStore({})
        asker, owner = Node(1, zone, full), Node(2, zone, empty)
        async with running(zone, [asker, owner]):
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert asker.fallbacks == {"missing": 1}

    run(scenario)


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker, owner = Node(1, zone, store), Node(2, zone, store)
        async with running(zone, [asker, owner]):
            starts = [
                start for start in range(0, 30 * CHUNK, CHUNK) if asker.zone_cache.owner("a", start) == 2
            ]
            await asker.read("a", starts[0], 10)
            for connection in list(owner.http._connections):
                connection.end()
            await asker.read("a", starts[1], 10)
            assert asker.fallbacks == {}
            assert owner.route.served == 2

    run(scenario)


def test_connections_are_used_again_and_bounded() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": bytes(100 * CHUNK)})
        asker = Node(1, zone, store, cache_chunks=100, limits=ZoneLimits(connections_max=3))
        owner = Node(2, zone, store, cache_chunks=100)
        async with running(zone, [asker, owner]):
            await asyncio.gather(*(asker.read("a", start, 10) for start in range(0, 100 * CHUNK, CHUNK)))
            assert 0 < owner.http.connection_count <= 3
            assert owner.route.served == asker.cache.source.peer_loads > 30

    run(scenario)


def test_after_closing_the_store_is_read() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker, owner = Node(1, zone, store), Node(2, zone, store)
        async with running(zone, [asker, owner]):
            start = chunk_of(asker, 2)
            asker.zone_cache.close()
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert owner.route.served == 0

    run(scenario)


def test_readers_that_leave_at_any_moment_leave_nothing_behind() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        nodes = [Node(1, zone, store), Node(2, zone, store), Node(3, zone, store)]
        async with running(zone, nodes):
            for turns in range(12):
                key = f"k{turns}"
                store.objects[key] = DATA
                readers = [asyncio.create_task(node.read(key, 0, 5 * CHUNK)) for node in nodes]
                for _ in range(turns):
                    await asyncio.sleep(0)
                readers[turns % 3].cancel()
                outcomes = await asyncio.gather(*readers, return_exceptions=True)
                assert [outcome for outcome in outcomes if isinstance(outcome, bytes)] == [
                    DATA[: 5 * CHUNK]
                ] * 2
            await until(lambda: all(node.cache.held_bytes == 0 for node in nodes))
            assert [node.fallbacks for node in nodes] == [{}, {}, {}]

    run(scenario)


def test_what_agents_read_through_each_other_is_shown() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker, owner = Node(1, zone, store), Node(2, zone, store)
        metrics = Metrics()
        read_zone(metrics, owner.cache, owner.zone_cache, owner.route)
        async with running(zone, [asker, owner]):
            start = chunk_of(asker, 2)
            await asker.read("a", start, 10)
            with pytest.raises(ObjectNotFound):
                await asker.read("gone", chunk_of(asker, 2, "gone"), 10)
            shown = metrics.render().decode().splitlines()
            assert 'warp_peer_requests_total{outcome="served"} 1.0' in shown
            assert 'warp_peer_requests_total{outcome="missing"} 1.0' in shown
            assert 'warp_peer_fallbacks_total{reason="slow"} 0.0' in shown
            assert f"warp_peer_served_bytes_total {CHUNK}.0" in shown
            assert "warp_peer_loaded_bytes_total 0.0" in shown

    run(scenario)

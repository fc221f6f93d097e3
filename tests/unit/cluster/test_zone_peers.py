"""Peers that are slow, gone, overloaded, strange or broken: each costs a request to the store, and no more."""

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
    Node,
    Zone,
    chunk_of,
    running,
    scripted,
    until,
)
from warp._crc32c import crc32c
from warp.cluster.peer_auth import PeerAuth
from warp.errors import ObjectStoreError
from warp.log.zone import PeerLimits

DATA = random.Random(7).randbytes(30 * CHUNK + 123)
HASTY = PeerLimits(timeout_min_s=0.02, timeout_unknown_s=0.02, timeout_max_s=0.02)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())
    uvloop.run(bounded())


def test_an_owner_whose_store_fails_is_no_reason_for_the_asker_to_fail() -> None:
    async def scenario() -> None:
        zone = Zone()
        good, bad = CountingStore({"a": DATA}), CountingStore({"a": DATA})
        bad.failure = ObjectStoreError("down")
        asker, owner = Node(1, zone, good), Node(2, zone, bad)
        async with running(zone, [asker, owner]):
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert (asker.fallbacks, owner.refused) == ({"refused": 1}, {"failed": 1})

    run(scenario)


def test_an_owner_that_is_slow_is_not_waited_for() -> None:
    async def scenario() -> None:
        zone = Zone()
        fast, slow = CountingStore({"a": DATA}), CountingStore({"a": DATA})
        slow.gate.clear()
        asker, owner = Node(1, zone, fast, peer_limits=HASTY), Node(2, zone, slow)
        async with running(zone, [asker, owner]):
            starts = [
                start for start in range(0, 30 * CHUNK, CHUNK) if asker.zone_cache.owner("a", start) == 2
            ]
            for start in starts[:5]:
                assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert asker.fallbacks == {"slow": 3, "left_alone": 2}
            # What the owner had begun is there for those that ask later.
            await until(lambda: len(slow.gets) == 3)
            slow.gate.set()
            await until(lambda: owner.cache.used_bytes == 3 * CHUNK and owner.http.connection_count == 0)
            assert owner.cache.held_bytes == 0

    run(scenario)


def test_a_peer_that_can_not_be_reached_is_left_alone_for_longer_each_time() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": bytes(1000 * CHUNK)})
        asker, owner = Node(1, zone, store), Node(2, zone, store)
        async with running(zone, [asker]):
            async with running(zone, [owner]):
                address = str(owner.http.bound)
            starts = iter(s for s in range(0, 1000 * CHUNK, CHUNK) if asker.zone_cache.owner("a", s) == 2)

            async def outcome() -> str:
                before = dict(asker.zone_cache.fallbacks)
                await asker.read("a", next(starts), 10)
                return next(r for r, n in asker.zone_cache.fallbacks.items() if n != before[r])

            pauses_s = (1, 2, 4, 8, 16, 30, 30)
            for pause_s in pauses_s:
                assert await outcome() == "unreachable"
                asker.clock.now_s += pause_s - 0.01
                assert await outcome() == "left_alone"
                asker.clock.now_s += 0.01
            assert await outcome() == "unreachable"
            assert await outcome() == "left_alone"
            # Another process under the same name is asked at once.
            zone.put(2, address, incarnation="2")
            assert await outcome() == "unreachable"
        assert len(store.gets) == 17

    run(scenario)


def test_a_peer_that_answers_again_is_forgiven() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": bytes(100 * CHUNK)})
        asker, owner = Node(1, zone, store), Node(2, zone, store)
        async with running(zone, [asker, owner]):
            starts = iter(s for s in range(0, 100 * CHUNK, CHUNK) if asker.zone_cache.owner("a", s) == 2)
            for denied, pause_s in ((1, 1), (2, 2)):
                owner.clock.wall_ms += 121_000
                await asker.read("a", next(starts), 10)
                assert asker.fallbacks == {"denied": denied}
                owner.clock.wall_ms -= 121_000
                asker.clock.now_s += pause_s
            await asker.read("a", next(starts), 10)
            assert (owner.route.served, owner.refused) == (1, {"clock": 2})
            # The next pause is a short one again.
            owner.clock.wall_ms -= 121_000
            await asker.read("a", next(starts), 10)
            owner.clock.wall_ms += 121_000
            asker.clock.now_s += 1
            await asker.read("a", next(starts), 10)
            assert (owner.route.served, asker.fallbacks) == (2, {"denied": 3})

    run(scenario)


def test_an_owner_with_too_much_to_do_is_asked_again_at_once() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker, owner = Node(1, zone, store), Node(2, zone, store, requests_max=0)
        async with running(zone, [asker, owner]):
            starts = [
                start for start in range(0, 30 * CHUNK, CHUNK) if asker.zone_cache.owner("a", start) == 2
            ]
            for start in starts[:4]:
                assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert (asker.fallbacks, owner.refused) == ({"busy": 4}, {"busy": 4})

    run(scenario)


def test_an_agent_of_another_cluster_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        caplog.clear()
        zone, store = Zone(), CountingStore({"a": DATA})
        asker, owner = Node(1, zone, store, secret=bytes(32)), Node(2, zone, store)
        async with running(zone, [asker, owner]):
            starts = [
                start for start in range(0, 30 * CHUNK, CHUNK) if asker.zone_cache.owner("a", start) == 2
            ]
            for start in starts[:3]:
                assert await asker.read("a", start, 10) == DATA[start : start + 10]
                asker.clock.now_s += 30
            assert (asker.fallbacks, owner.refused) == ({"denied": 3}, {"signature": 3})
            assert owner.cache.loads == 0
        lines = [record.message for record in caplog.records if "refused to hand out" in record.message]
        assert len(lines) == 1
        assert SECRET.hex() not in caplog.text

    run(scenario)


# ---- peers that answer nonsense ----


def answer_to(head: bytes, data: bytes, **changes: str) -> bytes:
    """A right answer, but for `changes` of its headers."""
    nonce = head.decode().partition("nonce=")[2][:24]
    checksum = crc32c(data)
    headers = {
        "content-length": str(len(data)),
        "x-warp-crc32c": str(checksum),
        "x-warp-signature": PeerAuth(SECRET).sign_answer(nonce, len(data), checksum),
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + data


def wanted(head: bytes) -> bytes:
    start = int(head.decode().partition("start=")[2].partition("&")[0])
    return DATA[start : start + CHUNK]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


NONSENSE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "closes": ("cut", lambda _head: b""),
    "no HTTP": ("bad_answer", lambda _head: b"\x00\x01garbage\r\n\r\n" * 10),
    "cut head": ("cut", lambda head: answer_to(head, wanted(head))[:30]),
    "cut body": ("cut", lambda head: answer_to(head, wanted(head))[:-1]),
    "one bit wrong": ("bad_answer", lambda head: flipped(answer_to(head, wanted(head)))),
    "another checksum": ("bad_answer", lambda head: answer_to(head, wanted(head), x_warp_crc32c="17")),
    "no number": ("bad_answer", lambda head: answer_to(head, wanted(head), x_warp_crc32c="-1")),
    "unsigned": ("bad_answer", lambda head: answer_to(head, wanted(head), x_warp_signature="")),
    "odd signature": ("bad_answer", lambda head: answer_to(head, wanted(head), x_warp_signature="\xff")),
    "another's nonce": (
        "bad_answer",
        lambda head: answer_to(head.replace(b"nonce=", b"nonce=0"), wanted(head)),
    ),
    "too long": ("bad_answer", lambda head: answer_to(head, bytes(CHUNK + 1))),
    "huge length": ("bad_answer", lambda head: answer_to(head, b"", content_length="9" * 19)),
    "empty": ("bad_answer", lambda head: answer_to(head, b"")),
    "bug": ("bad_answer", lambda _head: b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    "does not know it": ("missing", lambda _head: b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    "elsewhere": ("bad_answer", lambda _head: b"HTTP/1.1 302 Go\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_peer_that_answers_nonsense_costs_a_request_to_the_store_and_no_more(name: str) -> None:
    reason, answer = NONSENSE[name]

    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker = Node(1, zone, store)
        async with running(zone, [asker]), scripted(answer) as address:
            zone.put(2, address)
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, CHUNK) == DATA[start : start + CHUNK]
            assert asker.fallbacks == {reason: 1}
            assert store.gets == [("a", start)]
            assert asker.cache.source.peer_loads == 0

    run(scenario)


def test_the_answer_that_the_others_are_made_of_is_right() -> None:
    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker = Node(1, zone, store)
        async with running(zone, [asker]), scripted(lambda head: answer_to(head, wanted(head))) as address:
            zone.put(2, address)
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, CHUNK) == DATA[start : start + CHUNK]
            assert (asker.fallbacks, store.gets) == ({}, [])

    run(scenario)


def test_a_peer_that_never_finishes_its_answer_is_not_waited_for() -> None:
    async def trickle(head: bytes) -> bytes:
        await asyncio.sleep(3600)
        return head

    async def scenario() -> None:
        zone, store = Zone(), CountingStore({"a": DATA})
        asker = Node(1, zone, store, peer_limits=HASTY)
        async with running(zone, [asker]), scripted(trickle) as address:
            zone.put(2, address)
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert asker.fallbacks == {"slow": 1}

    run(scenario)

"""The route by which agents hand out chunks: who is served, what is refused, and that memory is given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
import uvloop

from tests.support.zone import SECRET, CountingStore, HandClock, until
from warp._crc32c import crc32c
from warp.cluster.peer_auth import Claim, PeerAuth
from warp.config_values import Address
from warp.errors import ObjectStoreError
from warp.http.app import AgentFace, App
from warp.http.chunks import ChunkRoute
from warp.http.connection import SLICE_BYTES, HttpLimits
from warp.http.messages import Request, Response
from warp.http.server import HttpServer
from warp.ids import BrokerId
from warp.log.cache import ChunkCache

MIB = 2**20
PATH = "/internal/v1/chunk"
KEY = "segments/0f/0123456789ab-00112233445566778899"
DATA = bytes(range(256)) * 16 + b"end"
AUTH = PeerAuth(SECRET)
NONCE = "00112233445566778899aabb"


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
    uvloop.run(bounded())


class Bench:
    """A route over a cache of 64 chunks."""

    def __init__(
        self, objects: dict[str, bytes] | None = None, *, chunk_bytes: int = 1024, requests_max: int = 64
    ) -> None:
        self.store = CountingStore({KEY: DATA} if objects is None else objects)
        self.cache = ChunkCache(self.store, bytes_max=64 * chunk_bytes, chunk_bytes=chunk_bytes)  # type: ignore[arg-type]
        self.clock = HandClock()
        self.route = ChunkRoute(
            self.cache, AUTH, self.clock, length_max=16 * chunk_bytes, requests_max=requests_max
        )

    def claim(self, sender: int = 3, skew_ms: int = 0) -> Claim:
        return Claim(BrokerId(sender), self.clock.time_ms() + skew_ms, NONCE)

    def query(self, start: int = 0, length: int = 1024, key: str = KEY) -> str:
        return f"key={quote(key, safe='')}&start={start}&length={length}"

    async def ask(self, query: str, *, method: str = "GET", header: str | None = None) -> Response:
        """Ask as an agent of the cluster, unless there is a header that says otherwise."""
        if header is None:
            header = AUTH.sign(method, f"{PATH}?{query}", self.claim())
        return await self.route(Request(method, PATH, query, {"authorization": header}))

    @property
    def refused(self) -> dict[str, int]:
        return {reason: count for reason, count in self.route.refused.items() if count}

    @asynccontextmanager
    async def serving(self, **limits: int) -> AsyncIterator[HttpServer]:
        async def reasons() -> list[str]:
            return []

        async def metrics() -> bytes:
            return b""

        app = App(AgentFace(dict, reasons, metrics, dict, dict, dict, dict), {PATH: self.route})
        server = HttpServer(Address("127.0.0.1", 0), HttpLimits(**limits))
        await server.bind()
        await server.start(app)
        try:
            yield server
        finally:
            await server.stop(5)

    def message(self, query: str, *lines: str, method: str = "GET") -> bytes:
        authorization = AUTH.sign(method, f"{PATH}?{query}", self.claim())
        head = [f"{method} {PATH}?{query} HTTP/1.1", "Host: x", f"Authorization: {authorization}", *lines]
        return ("\r\n".join(head) + "\r\n\r\n").encode()


async def exchange(server: HttpServer, data: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


def body_of(response: Response) -> bytes:
    return response.body + b"".join(response.parts)


def test_an_agent_of_the_cluster_gets_the_bytes_with_a_checksum_and_a_signature() -> None:
    async def test() -> None:
        bench = Bench()
        response = await bench.ask(bench.query(1024, 2048))
        data = body_of(response)
        assert (response.status, data) == (200, DATA[1024:3072])
        headers = dict(response.headers)
        assert headers["x-warp-crc32c"] == str(crc32c(data))
        assert AUTH.is_answer(headers["x-warp-signature"], NONCE, len(data), crc32c(data))
        assert bench.cache.held_bytes == 2048
        assert response.done is not None
        response.done()
        assert bench.cache.held_bytes == 0
        assert (bench.route.served, bench.route.served_bytes, bench.refused) == (1, 2048, {})

    run(test)


def test_the_end_of_an_object_is_shorter() -> None:
    async def test() -> None:
        bench = Bench()
        response = await bench.ask(bench.query(4096))
        assert (response.status, body_of(response)) == (200, b"end")

    run(test)


def test_a_fresh_segment_of_many_pieces_is_sent_in_one() -> None:
    async def test() -> None:
        bench = Bench({})
        bench.cache.put_segment(KEY, [b"%02d" % number for number in range(50)])
        response = await bench.ask(bench.query(10, 60))
        assert body_of(response) == b"".join(b"%02d" % number for number in range(5, 35))
        assert len(response.parts) == 1

    run(test)


@pytest.mark.parametrize(
    ("key", "start", "status", "reason"),
    [("gone", 0, 404, "missing"), (KEY, 5120, 416, "short"), (KEY, 10**14, 416, "short")],
)
def test_what_the_store_does_not_have_is_said_so(key: str, start: int, status: int, reason: str) -> None:
    async def test() -> None:
        bench = Bench()
        response = await bench.ask(bench.query(start, key=key))
        assert (response.status, response.done, bench.refused) == (status, None, {reason: 1})
        assert bench.cache.held_bytes == 0

    run(test)


def test_a_store_that_fails_is_told_apart_from_an_object_that_is_gone() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.failure = ObjectStoreError("down")
        assert (await bench.ask(bench.query())).status == 502
        assert bench.refused == {"failed": 1}

    run(test)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key=a",
        "key=a&start=0",
        "key=a&start=0&length=10&more=1",
        "key=a&key=b&start=0&length=10",
        "key=&start=0&length=10",
        "key=a&start=&length=10",
        "key=a&start=-1&length=10",
        "key=a&start=%2B1&length=10",
        "key=a&start=1e3&length=10",
        "key=a&start=0&length=0",
        "key=a&start=0&length=16385",
        "key=a&start=0&length=9999999999999999999999",
        "key=a&start=9999999999999999999999&length=1",
        "key=a&start=%D9%A1&length=10",
        "key=..%2Fsecrets&start=0&length=10",
        "key=segments%2F..%2F..%2Fetc%2Fpasswd&start=0&length=10",
        "key=%2Fetc%2Fpasswd&start=0&length=10",
        "key=a%2F%2Fb&start=0&length=10",
        "key=.hidden&start=0&length=10",
        "key=a%00b&start=0&length=10",
        "key=a%0D%0Ab&start=0&length=10",
        "key=%C3%A9&start=0&length=10",
        "key=a+b&start=0&length=10",
        f"key={'a' * 901}&start=0&length=10",
    ],
)
def test_what_is_not_a_range_of_an_object_never_reaches_the_store(query: str) -> None:
    async def test() -> None:
        bench = Bench()
        target = f"{PATH}?{query}" if query else PATH
        header = AUTH.sign("GET", target, bench.claim())
        response = await bench.ask(query, header=header)
        assert (response.status, bench.refused, bench.store.gets) == (400, {"bad_request": 1}, [])

    run(test)


def test_who_is_not_of_the_cluster_gets_nothing_and_is_told_nothing() -> None:
    async def test() -> None:
        bench = Bench()
        query = bench.query()
        target = f"{PATH}?{query}"
        right = AUTH.sign("GET", target, bench.claim())
        stranger = PeerAuth(bytes(32))
        refused = {
            "unsigned": [
                "",
                "Bearer x",
                right.upper(),
                right + " ",
                right[:-1],
                right.replace("agent=3", "agent=-3"),
            ],
            "signature": [
                stranger.sign("GET", target, bench.claim()),
                AUTH.sign("HEAD", target, bench.claim()),
                AUTH.sign("GET", target + "0", bench.claim()),
                right.replace("agent=3", "agent=4"),
                right.replace(NONCE, NONCE[::-1]),
                right.replace(str(bench.clock.wall_ms), str(bench.clock.wall_ms + 1)),
            ],
            "clock": [AUTH.sign("GET", target, bench.claim(skew_ms=ms)) for ms in (120_001, -120_001)],
        }
        for reason, headers in refused.items():
            for header in headers:
                before = bench.route.refused[reason]
                response = await bench.ask(query, header=header)
                assert (response.status, bench.route.refused[reason]) == (403, before + 1), header
                assert response.body == b'{"error": "Forbidden"}\n'
        assert bench.store.gets == []
        for skew_ms in (120_000, -120_000):
            header = AUTH.sign("GET", target, bench.claim(skew_ms=skew_ms))
            assert (await bench.ask(query, header=header)).status == 200

    run(test)


def test_each_sender_that_is_refused_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        caplog.clear()
        bench = Bench()
        stranger = PeerAuth(bytes(range(1, 33)))

        async def refuse(sender: int) -> None:
            header = stranger.sign("GET", f"{PATH}?{bench.query()}", bench.claim(sender))
            assert (await bench.ask(bench.query(), header=header)).status == 403

        for moment_s in (0, 30, 30, 59):
            bench.clock.now_s += moment_s
            await refuse(1)
            await refuse(2)
        lines = [record.getMessage() for record in caplog.records]
        assert [line.partition(":")[0] for line in lines] == [
            "refused to hand out chunks to agent 1",
            "refused to hand out chunks to agent 2",
        ] * 2
        caplog.clear()
        bench.clock.now_s += 60
        for sender in range(1000):
            await refuse(sender)
        assert len(caplog.records) == 64
        assert bench.route.refused["signature"] == 1008
        assert "signature=" not in caplog.text
        assert bytes(range(1, 33)).hex() not in caplog.text

    run(test)


def test_requests_at_a_time_are_bounded() -> None:
    async def test() -> None:
        bench = Bench(requests_max=2)
        bench.store.gate.clear()
        first = asyncio.create_task(bench.ask(bench.query()))
        second = asyncio.create_task(bench.ask(bench.query(1024)))
        await until(lambda: len(bench.store.gets) == 2)
        assert (await bench.ask(bench.query(2048))).status == 503
        second.cancel()
        await asyncio.wait([second])
        bench.store.gate.set()
        answer = await first
        third = await bench.ask(bench.query(2048))
        assert third.status == 200
        assert (await bench.ask(bench.query())).status == 503
        assert answer.done is not None
        answer.done()
        assert (await bench.ask(bench.query())).status == 200
        assert bench.refused == {"busy": 2}

    run(test)


def test_over_http_the_answer_is_whole_and_its_memory_given_back() -> None:
    async def test() -> None:
        data = bytes(range(256)) * 4 * 4096
        bench = Bench({KEY: data}, chunk_bytes=MIB)
        async with bench.serving() as server:
            query = bench.query(MIB, 3 * MIB)
            answer = await exchange(server, bench.message(query, "Connection: close"))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 \r\n")
            assert b"Content-Length: 3145728" in head
            assert body == data[MIB : 4 * MIB]
            assert bench.cache.held_bytes == 0
            head_only = await exchange(server, bench.message(query, "Connection: close", method="HEAD"))
            assert b"Content-Length: 3145728" in head_only
            assert head_only.endswith(b"\r\n\r\n")
            assert bench.cache.held_bytes == 0

    run(test)


def test_several_requests_use_one_connection() -> None:
    async def test() -> None:
        bench = Bench()
        async with bench.serving() as server:
            first, second = bench.query(0, 10), bench.query(10, 20)
            answer = await exchange(server, bench.message(first) + bench.message(second, "Connection: close"))
            assert answer.count(b"HTTP/1.1 200 ") == 2
            assert DATA[:10] in answer
            assert answer.endswith(DATA[10:30])

    run(test)


def test_an_asker_that_takes_nothing_is_cut_and_its_memory_given_back() -> None:
    async def test() -> None:
        bench = Bench({KEY: bytes(16 * MIB)}, chunk_bytes=MIB)
        async with bench.serving(answer_ms_max=1000) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.bound.port, limit=1)
            writer.write(bench.message(bench.query(0, 16 * MIB)))
            await until(lambda: bench.cache.held_bytes == 16 * MIB)
            [connection] = server._connections
            transport = connection._transport
            assert transport is not None
            await until(lambda: transport.get_write_buffer_size() > 0)
            assert transport.get_write_buffer_size() <= SLICE_BYTES
            await until(lambda: server.connection_count == 0)
            # The place among the requests is free again as well.
            await until(lambda: (bench.cache.held_bytes, bench.route._requests) == (0, 0))
            writer.transport.abort()

    run(test)


def test_an_asker_that_goes_away_meanwhile_leaves_nothing_held() -> None:
    async def test() -> None:
        bench = Bench({KEY: bytes(16 * MIB)}, chunk_bytes=MIB)
        async with bench.serving() as server:
            bench.store.gate.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", server.bound.port, limit=1)
            writer.write(bench.message(bench.query(0, 16 * MIB)))
            await until(lambda: len(bench.store.gets) == 1)
            writer.transport.abort()
            bench.store.gate.set()
            await until(lambda: server.connection_count == 0)
            await until(lambda: (bench.cache.held_bytes, bench.route._requests) == (0, 0))

    run(test)


def test_the_route_is_not_told_to_those_who_look_around() -> None:
    async def test() -> None:
        bench = Bench()
        async with bench.serving() as server:
            for path in ("/", "/nothing"):
                answer = await exchange(
                    server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                )
                assert b"/v1/status" in answer
                assert b"internal" not in answer
            unsigned = f"GET {PATH}?{bench.query()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert (await exchange(server, unsigned.encode())).startswith(b"HTTP/1.1 403 ")

    run(test)

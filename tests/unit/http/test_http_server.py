"""The HTTP face over real loopback sockets: answers, refusals, and the limits on size, time and number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from warp.config_values import Address
from warp.errors import StartError
from warp.http.app import AgentFace, App
from warp.http.connection import HttpLimits
from warp.http.messages import Handler, Request, Response
from warp.http.server import HttpServer


@asynccontextmanager
async def serving(handler: Handler, **limits: int) -> AsyncIterator[HttpServer]:
    server = HttpServer(Address("127.0.0.1", 0), HttpLimits(**limits))
    await server.bind()
    await server.start(handler)
    try:
        yield server
    finally:
        await server.stop(5)


async def exchange(server: HttpServer, data: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


def get(path: str, method: str = "GET", *lines: str, close: bool = True) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: x", *lines, *(["Connection: close"] if close else [])]
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
    uvloop.run(bounded())


async def echo(request: Request) -> Response:
    return Response(
        200, f"{request.method} {request.path} {request.query} ".encode() + request.body, "text/plain"
    )


def app(reasons: list[str]) -> App:
    async def reasons_not_ready() -> list[str]:
        return reasons

    async def metrics() -> bytes:
        return b"warp_x 1\n"

    return App(
        AgentFace(
            lambda: {"version": "1"},
            reasons_not_ready,
            metrics,
            lambda: {"now_ms": 7},
            lambda: {"sent_bytes": 5},
            lambda: {"agents": []},
            lambda: {"jobs": [1]},
        )
    )


def test_status_ready_and_metrics_are_answered() -> None:
    async def test() -> None:
        async with serving(app([])) as server:
            status = await exchange(server, get("/v1/status"))
            assert status.startswith(b"HTTP/1.1 200 \r\n")
            assert json.loads(status.partition(b"\r\n\r\n")[2]) == {"status": "alive", "version": "1"}
            ready = await exchange(server, get("/v1/ready"))
            assert json.loads(ready.partition(b"\r\n\r\n")[2]) == {"ready": True, "reasons": []}
            trace = await exchange(server, get("/v1/trace/last"))
            assert json.loads(trace.partition(b"\r\n\r\n")[2]) == {"now_ms": 7}
            cluster = await exchange(server, get("/v1/cluster"))
            assert json.loads(cluster.partition(b"\r\n\r\n")[2]) == {"agents": []}
            jobs = await exchange(server, get("/v1/jobs"))
            assert json.loads(jobs.partition(b"\r\n\r\n")[2]) == {"jobs": [1]}
            store = await exchange(server, get("/v1/object-store"))
            assert json.loads(store.partition(b"\r\n\r\n")[2]) == {"sent_bytes": 5}
            metrics = await exchange(server, get("/metrics"))
            assert b"text/plain; version=0.0.4" in metrics
            assert metrics.endswith(b"warp_x 1\n")
            assert b"/metrics" in await exchange(server, get("/"))

    run(test)


def test_an_agent_that_is_not_ready_answers_503_with_the_reasons() -> None:
    async def test() -> None:
        async with serving(app(["draining"])) as server:
            answer = await exchange(server, get("/v1/ready"))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"ready": False, "reasons": ["draining"]}

    run(test)


def test_unknown_paths_and_methods_are_refused() -> None:
    async def test() -> None:
        async with serving(app([])) as server:
            assert (await exchange(server, get("/v2"))).startswith(b"HTTP/1.1 404 ")
            refused = await exchange(server, get("/metrics", "POST", "Content-Length: 0"))
            assert refused.startswith(b"HTTP/1.1 405 ")
            assert b"Allow: GET, HEAD" in refused

    run(test)


def test_head_gets_the_header_alone() -> None:
    async def test() -> None:
        async with serving(app([])) as server:
            answer = await exchange(server, get("/metrics", "HEAD"))
            assert b"Content-Length: 9" in answer
            assert answer.endswith(b"\r\n\r\n")

    run(test)


def test_requests_on_one_connection_are_answered_in_order_also_when_pipelined() -> None:
    async def test() -> None:
        async with serving(echo) as server:
            body = get("/b", "POST", "Content-Length: 3", close=False) + b"xyz"
            answer = await exchange(server, get("/a?q=1", close=False) + body + get("/c"))
            bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 ")[1:]]
            assert bodies == [b"GET /a q=1 ", b"POST /b  xyz", b"GET /c  "]

    run(test)


def test_a_peer_that_waits_for_100_continue_gets_it() -> None:
    async def test() -> None:
        async with serving(echo) as server:
            head = get("/a", "POST", "Content-Length: 3", "Expect: 100-continue")
            reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
            writer.write(head)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"xyz")
            assert (await reader.read()).endswith(b"xyz")
            writer.close()

    run(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x00\x00\x10\x00\x12\x00\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000, b"413"),
    ],
)
def test_malformed_and_oversized_requests_are_answered_and_closed(data: bytes, status: bytes) -> None:
    async def test() -> None:
        async with serving(echo) as server:
            answer = await exchange(server, data)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"Connection: close" in answer

    run(test)


def test_a_handler_that_fails_is_answered_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        raise RuntimeError(request.path)

    async def test() -> None:
        async with serving(fail) as server:
            assert (await exchange(server, get("/x"))).startswith(b"HTTP/1.1 500 ")

    run(test)
    assert "an HTTP handler failed" in caplog.text


def test_a_slow_request_is_cut_with_408() -> None:
    async def test() -> None:
        async with serving(echo, request_ms_max=50) as server:
            assert (await exchange(server, b"GET / HTTP/1.1\r\nHost:")).startswith(b"HTTP/1.1 408 ")

    run(test)


def test_a_silent_connection_is_closed() -> None:
    async def test() -> None:
        async with serving(echo, idle_ms_max=50) as server:
            assert await exchange(server, b"") == b""

    run(test)


def test_a_handler_past_its_time_is_answered_503() -> None:
    async def hang(_request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def test() -> None:
        async with serving(hang, handler_ms_max=50) as server:
            assert (await exchange(server, get("/"))).startswith(b"HTTP/1.1 503 ")

    run(test)


def test_a_peer_that_does_not_take_its_answer_is_dropped() -> None:
    async def big(_request: Request) -> Response:
        return Response(200, bytes(64 * 1024 * 1024), "application/octet-stream")

    async def test() -> None:
        async with serving(big, answer_ms_max=50) as server:
            _reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port, limit=1)
            writer.write(get("/"))
            await until(lambda: server.connection_count == 1)
            await until(lambda: server.connection_count == 0)
            writer.close()

    run(test)


def test_connections_above_the_limit_are_closed_at_once() -> None:
    async def test() -> None:
        async with serving(echo, connections_max=1) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
            writer.write(get("/", close=False))
            await reader.readuntil(b"GET /")
            assert await exchange(server, b"") == b""
            assert server.refused == 1
            writer.close()
            await until(lambda: server.connection_count == 0)
            assert (await exchange(server, get("/"))).startswith(b"HTTP/1.1 200 ")

    run(test)


def test_stop_ends_idle_connections_lets_answers_finish_and_cuts_what_hangs() -> None:
    async def test() -> None:
        release = asyncio.Event()
        entered = asyncio.Semaphore(0)

        async def wait(request: Request) -> Response:
            entered.release()
            if request.path == "/finish":
                await release.wait()
            else:
                await asyncio.Event().wait()
            return await echo(request)

        server = HttpServer(Address("127.0.0.1", 0))
        await server.bind()
        await server.start(wait)
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
        finishing = asyncio.create_task(exchange(server, get("/finish", close=False)))
        hanging = asyncio.create_task(exchange(server, get("/hang")))
        await entered.acquire()
        await entered.acquire()
        stopping = asyncio.create_task(server.stop(0.2))
        assert await idle.read() == b""
        idle_writer.close()
        release.set()
        assert b"Connection: close" in await finishing
        await stopping
        assert await hanging == b""

    run(test)


def test_an_address_that_is_taken_is_one_clear_line() -> None:
    async def test() -> None:
        async with serving(echo) as server:
            with pytest.raises(
                StartError, match=r"^can't serve HTTP on 127.0.0.1:\d+: Address already in use$"
            ):
                await HttpServer(server.bound).bind()
            with pytest.raises(StartError, match=r"^can't serve HTTP on nowhere.invalid:80: "):
                await HttpServer(Address("nowhere.invalid", 80)).bind()

    run(test)

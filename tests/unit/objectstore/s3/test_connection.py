"""What a connection does with a server that is slow, wrong, hostile or gone."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.s3_scripted import (
    FakeServer,
    Fault,
    Request,
    answer,
    error,
    part_of,
    raw_server,
    scripted,
)
from tests.unit.objectstore.s3.support import check, connected, run
from warp.errors import ObjectStoreError
from warp.objectstore.s3 import pool as pool_module
from warp.objectstore.s3.connection import ERROR_BODY_BYTES_MAX, HEAD_BYTES_MAX, INTERIM_ANSWERS_MAX
from warp.objectstore.s3.errors import BadAnswer, CannotConnect, Cut
from warp.objectstore.s3.store import S3Store

OK = answer(200)


def test_a_connection_is_used_again() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        for number in range(5):
            await store.put(f"k{number}", [b"abc", memoryview(b"def"), b""])
        assert [request.connection for request in server.requests] == [1] * 5
        assert {request.body for request in server.requests} == {b"abcdef"}

    check(lambda _: OK, test)


@pytest.mark.parametrize(
    "given",
    [
        answer(200, connection="close"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"HTTP/1.1 200 And another\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc",
    ],
    ids=["said close", "HTTP/1.0", "an answer that nobody asked for", "more than its length"],
)
def test_a_connection_that_may_be_out_of_step_is_not_used_again(given: bytes) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [b"x"])
        await store.put("k", [b"x"])
        assert [request.connection for request in server.requests] == [1, 2]

    check(lambda _: given, test)


def test_a_connection_that_speaks_while_idle_is_not_used_again() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [b"x"])
        server.writers[0].write(OK)
        await server.until(lambda: not server.open_connections)
        await store.put("k", [b"x"])
        assert [request.connection for request in server.requests] == [1, 2]

    check(lambda _: OK, test)


def test_a_cancelled_request_takes_its_connection_along() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("first", [b"x"])
        slow = asyncio.create_task(store.put("slow", [b"x"]))
        await server.until(lambda: len(server.requests) == 2)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        await store.put("next", [b"x"])
        assert [request.connection for request in server.requests] == [1, 1, 2]
        assert store.traffic.requests == {("put", "ok"): 2, ("put", "cut"): 1}

    check(lambda request: Fault(hangs=True) if request.key == "slow" else OK, test)


def test_a_request_that_is_cancelled_while_it_waits_for_a_connection_leaves_the_turn_to_others() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        slow = asyncio.create_task(store.put("slow", [b"x"]))
        await server.until(lambda: bool(server.requests))
        waiting = asyncio.create_task(store.put("waiting", [b"x"]))
        await asyncio.sleep(0.01)
        waiting.cancel()
        slow.cancel()
        await asyncio.gather(waiting, slow, return_exceptions=True)
        await store.put("next", [b"x"])
        assert [request.key for request in server.requests] == ["slow", "next"]

    check(lambda request: Fault(hangs=True) if request.key == "slow" else OK, test, connections=1)


def test_there_are_no_more_connections_than_are_allowed() -> None:
    most = 0

    async def test(store: S3Store, server: FakeServer) -> None:
        nonlocal most

        async def watch() -> None:
            nonlocal most
            most = max(most, server.open_connections)
            await store.put("k", [b"x"])

        await asyncio.gather(*(watch() for _ in range(40)))
        assert len(server.requests) == 40
        assert server.connections <= 3

    check(lambda _: OK, test, connections=3)
    assert most <= 3


def test_a_new_connection_for_another_attempt_does_not_come_on_top_of_an_idle_one() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        # While the one that was cut pauses, the other one is answered over a connection that is idle then.
        await asyncio.gather(store.put("cut", [b"x"]), store.put("other", [b"x"]))
        assert [request.key for request in server.requests] == ["cut", "other", "cut"]
        assert [request.connection for request in server.requests] == [1, 2, 3]
        await server.until(lambda: server.open_connections == 1)

    check(scripted(Fault(), OK, OK), test, connections=1, random=lambda: 1.0)


def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_S_MAX", 0.05)

    async def test(store: S3Store, server: FakeServer) -> None:
        await asyncio.gather(*(store.put("k", [b"x"]) for _ in range(4)))
        await server.until(lambda: not server.open_connections)

    check(lambda _: OK, test)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * (HEAD_BYTES_MAX + 20_000), "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n", "larger than the 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 10_000 + b"\r\n\r\n", "larger than|does not speak"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 999999999999\r\n\r\n", f"larger than the {ERROR_BODY_BYTES_MAX}"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"4000\r\n" + b"a" * 0x4000 + b"\r\n" * 1
            + (b"4000\r\n" + b"a" * 0x4000 + b"\r\n") * 5,
            "larger than",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 100_000, "larger than"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_ANSWERS_MAX + 1), "without end"),
    ],
    ids=[
        "another protocol", "two lengths", "negative length", "endless head", "huge body", "huge number", "huge error",
        "huge in chunks", "huge without length", "endless interim answers",
    ],
)  # fmt: skip
def test_what_a_server_may_not_send_ends_the_request_and_the_connection(given: bytes, reason: str) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(BadAnswer, match=reason):
            await store.put("k", [b"x"])
        await store.put("k", [b"x"])
        assert [request.connection for request in server.requests] == [1, 2]
        assert store.traffic.requests["put", "error"] == 1

    check(scripted(Fault(given, hangs=True), OK), test)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_answers_in_chunks_and_small_pieces_are_understood(chunk: int) -> None:
    data = bytes(range(100))
    pieces = [data[start : start + chunk] for start in range(0, 100, chunk)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = (
        b"HTTP/1.1 206 Partial Content\r\ntransfer-encoding: chunked\r\ncontent-range: bytes 0-99/100\r\n\r\n"
    )

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 100) == data
        assert await store.get("k", 0, 100) == data
        assert [request.connection for request in server.requests] == [1, 1]
        assert store.traffic.received_bytes == 200

    check(lambda _: b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + head + body, test)


def test_an_answer_that_ends_with_the_connection_is_understood() -> None:
    given = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-3/4\r\n\r\nabcd"

    async def test(store: S3Store, server: FakeServer) -> None:
        assert await store.get("k", 0, 4) == b"abcd"

    check(scripted(Fault(given)), test)


def test_silence_is_cut_after_the_read_timeout() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(Cut, match=r"PutObject k: nothing came or went for 0\.1 s"):
            await store.put("k", [b"x"])
        assert len(server.requests) == 2
        assert store.traffic.requests == {("put", "cut"): 2}
        assert store.traffic.sent_bytes == 2

    check(lambda _: Fault(hangs=True), test, read_timeout_s=0.1, attempts=2)


def test_an_answer_that_trickles_is_cut_after_some_read_timeouts() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 206 Partial Content\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def whole() -> None:
        async with raw_server(trickle) as endpoint:
            store = await connected(endpoint, read_timeout_s=0.1, attempts=1)
            with pytest.raises(Cut, match="not complete after"):
                await store.get("k", 0, 1000)
            await store.close()

    run(whole())


def test_a_server_that_takes_no_bytes_is_cut_too() -> None:
    async def whole() -> None:
        async with raw_server(lambda *_: asyncio.sleep(30), limit=1024) as endpoint:
            store = await connected(endpoint, read_timeout_s=0.1, attempts=1)
            with pytest.raises(Cut, match="nothing came or went"):
                await store.put("k", [bytes(2**25)])
            await store.close()

    run(whole())


def test_an_answer_before_the_end_of_the_body_is_taken_and_the_rest_not_sent() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(error(403, "AccessDenied"))
        await asyncio.sleep(30)

    async def whole() -> None:
        async with raw_server(early, limit=1024) as endpoint:
            store = await connected(endpoint)
            with pytest.raises(ObjectStoreError, match="403 AccessDenied"):
                await store.put("k", [bytes(2**20)] * 64)
            assert 0 < store.traffic.sent_bytes < 64 * 2**20
            await store.close()

    run(whole())


def test_a_server_that_is_done_before_it_has_all_of_a_body_is_not_believed() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await reader.read(100)
        await asyncio.Event().wait()

    async def test() -> None:
        async with raw_server(hasty, limit=1024) as endpoint:
            store = await connected(endpoint, attempts=1)
            with pytest.raises(BadAnswer, match="before all of the request was sent"):
                await store.put("k", [bytes(32 * 2**20)])
            await store.close()

    run(test())


def test_a_store_that_is_closed_makes_no_use_of_a_connection_that_comes_later() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        put = asyncio.create_task(store.put("k", [b"x"]))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(CannotConnect, match="the object store is closed"):
            await put
        assert not server.requests

    check(lambda _: OK, test, attempts=1)


def test_a_store_that_is_closed_ends_what_is_under_way() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        slow = asyncio.create_task(store.put("slow", [b"x"]))
        await server.until(lambda: bool(server.requests))
        await store.close()
        with pytest.raises(ObjectStoreError):
            await slow

    check(lambda _: Fault(hangs=True), test, attempts=1)


def test_ranges_are_received_into_memory_of_their_own() -> None:
    data = bytes(range(256)) * 4096

    async def test(store: S3Store, server: FakeServer) -> None:
        found = await asyncio.gather(*(store.get("k", start, 100_000) for start in range(0, 900_000, 9_000)))
        for index, piece in enumerate(found):
            assert piece == data[index * 9_000 : index * 9_000 + 100_000]

    def respond(request: Request) -> bytes:
        first, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        return part_of(data, first, last + 1)

    check(respond, test, connections=5)


def test_of_several_addresses_those_that_answer_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is silent, one refuses, one is the server's."""

    async def test(store: S3Store, server: FakeServer) -> None:
        port = int(server.endpoint.rpartition(":")[2])
        with socket.socket() as silent:
            silent.bind(("127.0.0.2", port))
            silent.listen(0)
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            monkeypatch.setattr(store._pool, "_resolve", resolve)
            await asyncio.gather(*(store.put("k", [b"x"]) for _ in range(4)))
            assert len(server.requests) == 4
            server.requests.clear()
            # Now it is known who answers: no attempt fails any more.
            await asyncio.gather(*(store.put("k", [b"x"]) for _ in range(8)))
            assert store.traffic.requests == {("put", "ok"): 12}
            for filler in fillers:
                filler.close()

    async def resolve() -> list[str]:
        return ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

    check(lambda _: OK, test, attempts=2, connect_timeout_s=0.2)

"""What the doctor makes of what answers, or does not, at an address."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from warp.cli.doctor.facts import BindState
from warp.cli.doctor.measure.broker import ask_broker
from warp.cli.doctor.measure.ports import local, look_at_http, look_at_listener, try_bind
from warp.cli.doctor.measure.status import ask_status
from warp.clock import SystemClock
from warp.config_values import Address

CLOCK = SystemClock()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def served(handler: Handler, ask: Callable[[Address], Awaitable[Any]]) -> Any:
    """What `ask` makes of a server that does what `handler` does."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        return await ask(address)
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def says(answer: bytes, *, closes: bool = True) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if closes:
            writer.close()

    return handler


async def as_broker(address: Address) -> Any:
    return await ask_broker(address, samples=1, monotonic=time.monotonic)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "speaks HTTP"),
        (says(b"\x15\x03\x01\x00\x02\x02\x46"), "speaks TLS"),
        (says(b""), "closes the connection"),
        (says(b"\x7f\xff\xff\xff"), "not the Kafka protocol"),
        (says(b"\x00\x00\x00\x04\x00\x00\x00\x63"), "not to what it was asked"),
        (says(b"\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00"), "not the Kafka protocol"),
        (says(b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"), "no version of Metadata"),
        (says(b"\x00\x00", closes=False), "does not answer Kafka requests"),
    ],
)
def test_what_is_no_broker_is_told_apart(
    handler: Handler, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "does not answer" in words:
        monkeypatch.setattr("warp.cli.doctor.measure.broker.ANSWER_TIMEOUT_S", 0.05)
    facts = asyncio.run(served(handler, as_broker))
    assert (facts.is_open, facts.is_broker, words in facts.refusal) == (True, False, True), facts.refusal


def test_an_address_that_nobody_has() -> None:
    async def run() -> None:
        facts = await try_bind(Address("127.0.0.1", 0))
        assert facts.state is BindState.FREE
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()
        answer = await as_broker(address)
        assert (answer.is_open, answer.refusal, answer.resolved) == (
            False,
            "Connection refused",
            ("127.0.0.1",),
        )
        assert (await ask_status(address)).refusal == "accepts no connection"
        assert (await look_at_listener(address, monotonic=time.monotonic)).state is BindState.FREE
        assert (await look_at_http(address)).state is BindState.FREE

    asyncio.run(run())


def test_addresses_that_can_not_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        # TEST-NET-1 (RFC 5737): no machine has it.
        assert (await try_bind(Address("192.0.2.1", 9092))).state is BindState.NOT_HERE
        unknown = await try_bind(Address("nowhere.invalid", 9092))
        assert (unknown.state, unknown.reason != "") == (BindState.UNKNOWN_HOST, True)
        answer = await as_broker(Address("nowhere.invalid", 9092))
        assert (answer.resolved, "nowhere.invalid has no address" in answer.refusal) == ((), True)

        def refuse(_host: str, _port: int) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr("warp.cli.doctor.measure.ports._bind", refuse)
        refused = await try_bind(Address("127.0.0.1", 80))
        assert (refused.state, refused.reason) == (BindState.PRIVILEGED, "Permission denied")

    asyncio.run(run())


def test_a_wildcard_is_reached_through_the_loopback_address() -> None:
    assert local(Address("0.0.0.0", 1)) == Address("127.0.0.1", 1)
    assert local(Address("::", 1)) == Address("::1", 1)
    assert local(Address("192.0.2.1", 1)) == Address("192.0.2.1", 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x00\x00\x00\x04nope", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "not as an agent does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not as an agent does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not as an agent does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999, "more than an agent does"),
    ],
)
def test_what_is_no_agent_behind_http(answer: bytes, words: str) -> None:
    status = asyncio.run(served(says(answer), ask_status))
    assert words in status.refusal, status.refusal


def test_http_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warp.cli.doctor.measure.status.ANSWER_TIMEOUT_S", 0.05)
    status = asyncio.run(served(says(b"HTTP/1.1", closes=False), ask_status))
    assert "does not answer within 0.05 s" in status.refusal

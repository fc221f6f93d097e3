"""Listeners: what they bind, what they tell clients, and what happens when an address can't be had."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from tests.unit.server.support import MIB, HandClock, run
from warp.errors import StartError
from warp.handlers.context import Endpoint, Services
from warp.log.memory import MemoryBudget
from warp.server.listener import ListenerConfig, Server


def server(*configs: ListenerConfig) -> Server:
    return Server(configs, cast(Services, _NoServices()), MemoryBudget(MIB), HandClock())


class _NoServices:
    """Enough for a server that is not asked anything."""

    def __init__(self) -> None:
        self.fetch: Any = self

    def stop_waiting(self) -> None:
        pass


def local(port: int = 0, advertise: Endpoint | None = None) -> ListenerConfig:
    return ListenerConfig(Endpoint("127.0.0.1", port), advertise)


def test_any_free_port_is_taken_and_told() -> None:
    async def test() -> None:
        tested = server(local(), local())
        await tested.start()
        one, two = tested.listeners
        assert one.bound.port
        assert one.bound.port != two.bound.port
        assert one.advertised == one.bound
        tested.abort()

    run(test)


def test_an_advertised_address_is_told_instead_and_may_leave_the_port_open() -> None:
    async def test() -> None:
        tested = server(local(0, Endpoint("outer.test", 1234)), local(0, Endpoint("inner.test", 0)))
        await tested.start()
        outer, inner = tested.listeners
        assert outer.advertised == Endpoint("outer.test", 1234)
        assert inner.advertised == Endpoint("inner.test", inner.bound.port)
        tested.abort()

    run(test)


def test_an_address_that_is_taken_is_one_clear_line_and_leaves_nothing_open() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            tested = server(local(), local(port))
            with pytest.raises(StartError, match=f"127.0.0.1:{port}.*in use"):
                await tested.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", tested.listeners[0].bound.port)

    run(test)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_somebody_else_is_one_clear_line(host: str) -> None:
    async def test() -> None:
        tested = server(ListenerConfig(Endpoint(host, 9092)))
        with pytest.raises(StartError, match=f"can't listen on {host}:9092"):
            await tested.start()

    run(test)


def test_no_connection_is_taken_after_the_end() -> None:
    async def test() -> None:
        tested = server(local())
        await tested.start()
        port = tested.listeners[0].bound.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not tested.connection_count:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        assert await tested.drain(5)
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert (tested.connections_opened, tested.connection_count) == (1, 0)

    run(test)


def test_addresses_are_written_as_people_write_them() -> None:
    assert str(Endpoint("127.0.0.1", 9092)) == "127.0.0.1:9092"
    assert str(Endpoint("::1", 9092)) == "[::1]:9092"

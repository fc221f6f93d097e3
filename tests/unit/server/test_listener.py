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
from warp.security.quotas.quotas import UNLIMITED
from warp.server.listener import Listener, ListenerConfig, Server, bind_all
from warp.sockets import listening_sockets


def server(*configs: ListenerConfig) -> Server:
    listeners = [Listener(config) for config in configs]
    return Server(listeners, cast(Services, _NoServices()), MemoryBudget(MIB), HandClock())


class _NoServices:
    """Enough for a server that is not asked anything."""

    def __init__(self) -> None:
        self.fetch: Any = self
        self.mechanisms = None
        self.quotas = UNLIMITED

    def stop_waiting(self) -> None:
        pass


async def start(tested: Server) -> None:
    await bind_all(tested.listeners)
    await tested.start()


def local(port: int = 0, advertise: Endpoint | None = None) -> ListenerConfig:
    return ListenerConfig(Endpoint("127.0.0.1", port), advertise)


def test_any_free_port_is_taken_and_told() -> None:
    async def test() -> None:
        tested = server(local(), local())
        await start(tested)
        one, two = tested.listeners
        assert one.bound.port
        assert one.bound.port != two.bound.port
        assert one.advertised == one.bound
        tested.abort()

    run(test)


def test_an_advertised_address_is_told_instead_and_may_leave_the_port_open() -> None:
    async def test() -> None:
        tested = server(local(0, Endpoint("outer.test", 1234)), local(0, Endpoint("inner.test", 0)))
        await start(tested)
        outer, inner = tested.listeners
        assert outer.advertised == Endpoint("outer.test", 1234)
        assert inner.advertised == Endpoint("inner.test", inner.bound.port)
        tested.abort()

    run(test)


def test_who_comes_before_the_server_waits_for_it() -> None:
    async def test() -> None:
        tested = server(local())
        await bind_all(tested.listeners)
        reader, writer = await asyncio.open_connection("127.0.0.1", tested.listeners[0].bound.port)
        assert tested.connections_opened == 0
        await tested.start()
        while not tested.connection_count:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        tested.abort()
        assert await reader.read() == b""
        writer.close()

    run(test)


def test_a_listener_that_never_served_lets_its_address_go() -> None:
    async def test() -> None:
        tested = server(local())
        await bind_all(tested.listeners)
        tested.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", tested.listeners[0].bound.port)

    run(test)


def test_a_name_of_several_addresses_gets_one_free_port_on_all() -> None:
    async def test() -> None:
        sockets = await listening_sockets("localhost", 0, 10)
        ports = {made.getsockname()[1] for made in sockets}
        for made in sockets:
            made.close()
        assert len(ports) == 1

    run(test)


def test_an_address_that_is_taken_is_one_clear_line_and_leaves_nothing_open() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            tested = server(local(), local(port))
            with pytest.raises(StartError, match=f"127.0.0.1:{port}.*in use"):
                await start(tested)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", tested.listeners[0].bound.port)

    run(test)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_somebody_else_is_one_clear_line(host: str) -> None:
    async def test() -> None:
        tested = server(ListenerConfig(Endpoint(host, 9092)))
        with pytest.raises(StartError, match=f"can't listen on {host}:9092"):
            await start(tested)

    run(test)


def test_no_connection_is_taken_after_the_end() -> None:
    async def test() -> None:
        tested = server(local())
        await start(tested)
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

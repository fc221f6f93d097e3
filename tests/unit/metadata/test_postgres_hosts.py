"""Several servers in one URL: the one that takes writes is found, whatever the others do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.postgres import PostgresServer
from tests.support.process import free_port
from warp.errors import MetadataUnavailable
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_url import parse_postgres_url

pytestmark = pytest.mark.postgres


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server whose system takes connections, and that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def run(hosts: str, url: str, test: Callable[[Connector], Awaitable[None]]) -> None:
    several = urlsplit(url)._replace(netloc="warp@", query=f"host={hosts}").geturl()
    asyncio.run(asyncio.wait_for(test(Connector(parse_postgres_url(several), timeout_s=3.0)), 60))


async def connect(connector: Connector) -> None:
    connection = await connector.connect()
    try:
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


def test_servers_that_are_away_or_silent_leave_time_for_the_one_that_serves(
    postgres_server: PostgresServer, silent: socket.socket
) -> None:
    async def test(connector: Connector) -> None:
        await connect(connector)
        silent.accept()[0].close()
        # From now on the one that serves is asked first.
        await connect(connector)
        with pytest.raises(BlockingIOError):
            silent.accept()

    hosts = f"127.0.0.1:{free_port()},{address_of(silent)},127.0.0.1:{postgres_server.port}"
    run(hosts, postgres_server.url(), test)


def test_of_several_refusals_the_one_that_says_most_is_told(
    postgres_server: PostgresServer, silent: socket.socket
) -> None:
    async def test(connector: Connector) -> None:
        with pytest.raises(MetadataUnavailable, match='database "nowhere" does not exist'):
            await connector.connect()

    hosts = f"127.0.0.1:{postgres_server.port},{address_of(silent)},127.0.0.1:{free_port()}"
    run(hosts, postgres_server.url("nowhere"), test)

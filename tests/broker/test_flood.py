"""A flood of connections that say nothing, or too little, beside a client that is known: it does not notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker, batch
from tests.broker.test_tls import asking, client_hello, connect, make_topic
from tests.support.certificates import Authority
from warp.protocol.messages.api_versions import ApiVersionsRequest

CROWD = 100


async def flood(port: int, first: bytes) -> None:
    """Open many connections, one after the other, that begin and do not go on."""
    opened: list[Client] = []
    try:
        for _ in range(CROWD):
            client = Client(*await asyncio.open_connection("127.0.0.1", port))
            opened.append(client)
            client.write(first)
    finally:
        for client in opened:
            client.writer.transport.abort()


def test_a_known_client_and_one_that_comes_later_are_served_beside_a_flood(
    with_memory_broker: RunWithBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue("alice")

    async def test(broker: Broker) -> None:
        known = await connect(broker, authority.client_context(shown))
        await make_topic(known, "kept")
        server = broker.agent.server
        hello = client_hello(authority)
        for first in (b"", hello[:40], hello):
            flooding = asyncio.ensure_future(flood(broker.port, first))
            while not flooding.done():
                assert (await known.produce("kept", batch(b"value"))).error_code == 0
                assert server.connection_count <= 40
                # Aborted ones are counted until the loop has told that they are gone.
                assert server.early_count <= 10
            await flooding
            late = await connect(broker, authority.client_context(shown))
            assert (await late.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert server.crowded_out > CROWD
        assert server.connections_refused == 0

    settings = asking(authority.issue("server"), authority)
    with_memory_broker(test, **{**settings, "connections_max": "40"})

"""A flood of wrong passwords beside clients that are known: they are served, and SCRAM lets others in meanwhile."""

from __future__ import annotations

import asyncio

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker, batch
from tests.broker.test_scram_credentials import SASL, alter, plain, sasl_client, scram, upsertion
from tests.unit.security.sasl_support import ScramClient
from warp.errors import ErrorCode
from warp.protocol import encode_request_frame
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.security.credentials import SHA_256

CROWD = 160
"""More than may wait for their password to be checked."""


async def knock(broker: Broker, number: int) -> int:
    """Try a wrong password on a connection of its own; how many answers there are before the end."""
    client = await sasl_client(broker)
    token = f"\0user-{number}\0wrong".encode()
    for request, version in (
        (SaslHandshakeRequest(mechanism="PLAIN"), 1),
        (SaslAuthenticateRequest(auth_bytes=token), 1),
    ):
        client.write(b"".join(encode_request_frame(1, "test", request, version)))
    answers = 0
    try:
        while await client.frame():
            answers += 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    return answers


async def authenticated(broker: Broker) -> Client:
    client = await sasl_client(broker)
    await client.ask(SaslHandshakeRequest(mechanism="SCRAM-SHA-256"), 1)
    exchange = ScramClient("sha256", "alice", "secret")
    first = await client.ask(SaslAuthenticateRequest(auth_bytes=exchange.first()), 2)
    final = await client.ask(SaslAuthenticateRequest(auth_bytes=exchange.final(first.auth_bytes)), 2)
    assert final.error_code == 0
    return client


def test_the_known_are_served_and_scram_lets_in_beside_a_flood_of_passwords(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        assert await alter(admin, upsertion("alice")) == {"alice": ErrorCode.NONE}
        topic = await broker.topic()
        known = await authenticated(broker)
        flood = asyncio.gather(*(knock(broker, number) for number in range(CROWD)))
        served = 0
        while not flood.done():
            assert (await known.produce(topic, batch(b"value"))).error_code == 0
            assert await scram(broker, SHA_256, "alice", "secret") == ErrorCode.NONE
            served += 1
        answers = await flood
        assert served
        # Told that it is wrong after the handshake; or, where it found no place, nothing more at all.
        assert set(answers) <= {1, 2}
        assert broker.agent.server.authentication_failures == CROWD
        assert broker.agent.server.handler_bugs == 0
        assert await plain(broker, "alice", "secret") == ErrorCode.NONE

    with_memory_broker(test, **{**SASL, "connections_max": "2000"})

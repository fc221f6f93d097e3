"""Users who have authenticated: each may what its own ACLs say, and the audit log tells who was refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest

from tests.broker.authorization import ENFORCED, allow, make_topic, put_in_force
from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.logs import extra_fields
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.credentials import SHA_256, entry_key, entry_value, make_credential

WITH_USERS = {
    **ENFORCED,
    "listen": "SASL_PLAINTEXT://127.0.0.1:0",
    "sasl_mechanisms": "PLAIN",
    "super_users": "User:root",
}
ITERATIONS = 4_096


def password_of(user: str) -> str:
    return f"{user}-7a1c0c"


async def add_user(broker: Broker, user: str) -> None:
    """A user, without asking anybody."""
    salt = user.encode()
    salted = hashlib.pbkdf2_hmac("sha256", password_of(user).encode(), salt, ITERATIONS)
    value = entry_value(make_credential(SHA_256, ITERATIONS, salt, salted))

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        return [EntryChange(entry_key(SHA_256, user), value)]

    await broker.agent.catalogue.change_entries(EntryKind.CREDENTIAL, decide)


async def log_in(broker: Broker, user: str) -> Client:
    """A connection of a user."""
    client = await broker.connect()
    assert (await client.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)).error_code == 0
    token = f"\0{user}\0{password_of(user)}".encode()
    answer = await client.ask(SaslAuthenticateRequest(auth_bytes=token), 2)
    assert answer.error_code == 0, answer.error_message
    return client


def test_each_user_may_what_its_own_acls_say(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        await make_topic(broker, "t")
        for user in ("alice", "bob", "root"):
            await add_user(broker, user)
        topic = AclResourceType.TOPIC
        await put_in_force(
            broker,
            allow(topic, AclOperation.WRITE, "t", principal="User:alice"),
            allow(topic, AclOperation.READ, "t", principal="User:bob"),
            # Nobody is this any more: all have names.
            allow(topic, AclOperation.ALL, "t", principal="User:ANONYMOUS"),
        )
        alice, bob, root = [await log_in(broker, user) for user in ("alice", "bob", "root")]
        refused = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        assert (await alice.produce("t", batch(b"v"))).error_code == 0
        assert (await alice.fetch("t")).error_code == refused
        assert (await bob.produce("t", batch(b"v"))).error_code == refused
        assert (await bob.fetch("t")).error_code == 0
        assert (await root.produce("t", batch(b"v"))).error_code == 0
        assert (await root.fetch("t")).error_code == 0
        told = [extra_fields(record) for record in caplog.records if record.name == "warp.audit"]
        assert [(each["principal"], each["api"]) for each in told] == [
            ("User:alice", "Fetch"),
            ("User:bob", "Produce"),
        ]
        assert all(each["listener"].startswith("SASL_PLAINTEXT://127.0.0.1:") for each in told)
        logged = "".join(f"{record.getMessage()} {extra_fields(record)}" for record in caplog.records)
        assert not any(password_of(user) in logged for user in ("alice", "bob", "root"))

    with caplog.at_level("DEBUG", "warp"):
        with_memory_broker(test, **WITH_USERS)

"""DescribeUserScramCredentials and AlterUserScramCredentials: errors for each user, and who gets in afterwards."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from tests.unit.security.sasl_support import ScramClient, salted
from warp.errors import ErrorCode, MetadataUnavailable
from warp.handlers.scram_credentials import ALTERATIONS_MAX
from warp.metadata.entries import EntryKind
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    DescribeScramUser,
    DescribeUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from warp.protocol.types import ScramMechanism
from warp.security.credentials import SHA_256, SHA_512, ScramHash

SASL = {
    "listen": "127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
    "sasl_mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
}
SHA_256_NUMBER, SHA_512_NUMBER = ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512
NONE = ErrorCode.NONE


def upsertion(
    name: str, password: str = "secret", scram: ScramHash = SHA_256, iterations: int = 4096, **changes: Any
) -> ScramCredentialUpsertion:
    fields: dict[str, Any] = {
        "name": name,
        "mechanism": scram.number,
        "iterations": iterations,
        "salt": b"salt",
        "salted_password": salted(scram, password, b"salt", max(1, iterations)),
    }
    return ScramCredentialUpsertion(**{**fields, **changes})


def deletion(name: str, mechanism: int = SHA_256_NUMBER) -> ScramCredentialDeletion:
    return ScramCredentialDeletion(name=name, mechanism=mechanism)


async def alter(
    client: Client, *alterations: ScramCredentialUpsertion | ScramCredentialDeletion
) -> dict[str, ErrorCode]:
    request = AlterUserScramCredentialsRequest(
        deletions=[each for each in alterations if isinstance(each, ScramCredentialDeletion)],
        upsertions=[each for each in alterations if isinstance(each, ScramCredentialUpsertion)],
    )
    results = (await client.ask(request, 0)).results
    for result in results:
        assert (result.error_message is None) is (result.error_code == NONE)
    found = {result.user: ErrorCode(result.error_code) for result in results}
    assert len(found) == len(results)
    return found


async def describe(client: Client, *names: str) -> dict[str, Any]:
    """By user its error code, or its mechanisms with their iterations."""
    users = [DescribeScramUser(name=name) for name in names]
    answer = await client.ask(DescribeUserScramCredentialsRequest(users=users or None), 0)
    assert (answer.error_code, answer.error_message) == (NONE, None)
    return {
        result.user: ErrorCode(result.error_code)
        if result.error_code
        else {info.mechanism: info.iterations for info in result.credential_infos}
        for result in answer.results
    }


async def sasl_client(broker: Broker) -> Client:
    client = await Client.connect(broker.agent.server.listeners[1].bound.port)
    broker.clients.append(client)
    return client


async def plain(broker: Broker, name: str, password: str) -> ErrorCode:
    """Authenticate by PLAIN on a new connection."""
    client = await sasl_client(broker)
    assert (await client.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)).error_code == NONE
    token = f"\0{name}\0{password}".encode()
    answer = await client.ask(SaslAuthenticateRequest(auth_bytes=token), 1)
    assert (answer.error_code == NONE) is (answer.error_message is None)
    return ErrorCode(answer.error_code)


async def scram(broker: Broker, scram_hash: ScramHash, name: str, password: str) -> ErrorCode:
    """Authenticate by SCRAM on a new connection; the server has to prove itself as well."""
    client = await sasl_client(broker)
    assert (await client.ask(SaslHandshakeRequest(mechanism=scram_hash.mechanism), 1)).error_code == NONE
    exchange = ScramClient(scram_hash.algorithm, name, password)
    first = await client.ask(SaslAuthenticateRequest(auth_bytes=exchange.first()), 2)
    assert first.error_code == NONE
    final = await client.ask(SaslAuthenticateRequest(auth_bytes=exchange.final(first.auth_bytes)), 2)
    assert final.error_code or final.auth_bytes.startswith(b"v=")
    return ErrorCode(final.error_code)


def test_a_user_is_set_described_used_and_deleted(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        name = "jürgen, the =1"
        assert await describe(admin) == {}
        assert await plain(broker, name, "secret") == ErrorCode.SASL_AUTHENTICATION_FAILED
        done = await alter(admin, upsertion(name), upsertion(name, scram=SHA_512, iterations=16_384))
        assert done == {name: NONE}
        assert await describe(admin) == {name: {SHA_256_NUMBER: 4096, SHA_512_NUMBER: 16_384}}
        assert await plain(broker, name, "secret") == NONE
        for scram_hash in (SHA_256, SHA_512):
            assert await scram(broker, scram_hash, name, "secret") == NONE
            assert await scram(broker, scram_hash, name, "guess") == ErrorCode.SASL_AUTHENTICATION_FAILED
            assert await scram(broker, scram_hash, "nobody", "secret") == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert await alter(admin, upsertion(name, "changed"), deletion(name, SHA_512_NUMBER)) == {name: NONE}
        assert await describe(admin, name) == {name: {SHA_256_NUMBER: 4096}}
        assert await plain(broker, name, "secret") == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert await plain(broker, name, "changed") == NONE
        assert await scram(broker, SHA_512, name, "secret") == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert await alter(admin, deletion(name)) == {name: NONE}
        assert await describe(admin) == {}
        assert await plain(broker, name, "changed") == ErrorCode.SASL_AUTHENTICATION_FAILED

    with_broker(test, **SASL)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (upsertion("bad", iterations=4095), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad", iterations=16_385), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad", iterations=-1), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad", salt=b""), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad", salted_password=b"short"), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(""), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad\nname"), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("x" * 1025), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion("bad", mechanism=0), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (upsertion("bad", mechanism=99), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (deletion("bad", 0), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (deletion("bad"), ErrorCode.RESOURCE_NOT_FOUND),
        (deletion("alice", SHA_512_NUMBER), ErrorCode.RESOURCE_NOT_FOUND),
    ],
)
def test_what_is_wrong_has_its_error_and_leaves_the_others_alone(
    with_memory_broker: RunWithBroker, wrong: Any, code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, upsertion("alice"))
        assert await alter(admin, wrong, upsertion("bob")) == {wrong.name: code, "bob": NONE}
        assert await describe(admin) == {"alice": {SHA_256_NUMBER: 4096}, "bob": {SHA_256_NUMBER: 4096}}

    with_memory_broker(test)


def test_a_user_and_mechanism_twice_in_one_request_is_a_duplicate(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, upsertion("alice"))
        done = await alter(admin, deletion("alice"), upsertion("alice", "other"), upsertion("bob"))
        assert done == {"alice": ErrorCode.DUPLICATE_RESOURCE, "bob": NONE}
        assert await describe(admin, "alice", "bob", "carol", "alice") == {
            "alice": ErrorCode.DUPLICATE_RESOURCE,
            "bob": {SHA_256_NUMBER: 4096},
            "carol": ErrorCode.RESOURCE_NOT_FOUND,
        }

    with_memory_broker(test)


def test_no_users_mean_all_in_order(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, *(upsertion(name) for name in ("c", "a", "b")))
        for request in (
            DescribeUserScramCredentialsRequest(users=None),
            DescribeUserScramCredentialsRequest(users=[]),
        ):
            answer = await admin.ask(request, 0)
            assert [result.user for result in answer.results] == ["a", "b", "c"]

    with_memory_broker(test)


def test_more_changes_than_one_request_may_have_are_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        many = [deletion(f"u{number}") for number in range(ALTERATIONS_MAX + 1)]
        assert set((await alter(admin, *many)).values()) == {ErrorCode.INVALID_REQUEST}
        assert set((await alter(admin, *many[1:])).values()) == {ErrorCode.RESOURCE_NOT_FOUND}
        assert await alter(admin) == {}

    with_memory_broker(test)


def test_only_who_may_alter_or_describe_the_cluster_does(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await alter(client, upsertion("alice")) == {"alice": ErrorCode.CLUSTER_AUTHORIZATION_FAILED}
        answer = await client.ask(DescribeUserScramCredentialsRequest(users=None), 0)
        assert (answer.error_code, answer.results) == (ErrorCode.CLUSTER_AUTHORIZATION_FAILED, [])
        assert not broker.agent.catalogue.entries(EntryKind.CREDENTIAL)

    with_memory_broker(test, authorization="enforce")


def test_an_outage_of_the_metadata_changes_nothing_and_is_told(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, upsertion("alice"))

        async def away(*_: Any) -> Any:
            raise MetadataUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(broker.agent.catalogue, "change_entries", away)
            patch.setattr(broker.agent.catalogue, "everything", away)
            assert await alter(admin, deletion("alice")) == {"alice": ErrorCode.REQUEST_TIMED_OUT}
            answer = await admin.ask(DescribeUserScramCredentialsRequest(users=None), 0)
            assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT
            # Who has a password gets in all the same.
            assert await plain(broker, "alice", "secret") == NONE
        assert await describe(admin) == {"alice": {SHA_256_NUMBER: 4096}}

    with_memory_broker(test, **SASL)


def test_changes_are_audited_and_attempts_counted_without_secrets(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, upsertion("alice", "hunter2-password"), upsertion("bad", iterations=1))
        await alter(admin, deletion("alice"), deletion("nobody"))
        for password in ("hunter2-password", "hunter3-password"):
            await plain(broker, "alice", password)
        text = broker.agent.metrics.render().decode()
        assert 'warp_authentications_total{mechanism="PLAIN",outcome="refused"} 2.0' in text
        assert "hunter" not in text

    with caplog.at_level(logging.DEBUG):
        with_memory_broker(test, **SASL)
    lines = [vars(record) for record in caplog.records if record.name == "warp.audit"]
    assert [line["items"] for line in lines] == [
        '"SCRAM-SHA-256 of alice set, 4096 iterations (before: none)"',
        '"SCRAM-SHA-256 of alice deleted"',
    ]
    assert {line["principal"] for line in lines} == {"User:ANONYMOUS"}
    key = salted(SHA_256, "hunter2-password", b"salt", 4096)
    for record in caplog.records:
        shown = repr({**vars(record), "message": record.getMessage()})
        for secret in ("hunter", key.hex(), repr(key)[2:-1]):
            assert secret not in shown


def test_both_apis_of_sasl_are_out_of_place_on_a_plaintext_listener(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        for version in (0, 1):
            client = await broker.connect()
            answer = await client.ask(SaslHandshakeRequest(mechanism="PLAIN"), version)
            assert (answer.error_code, answer.mechanisms) == (ErrorCode.ILLEGAL_SASL_STATE, [])
        for version in (0, 1, 2):
            client = await broker.connect()
            answer = await client.ask(SaslAuthenticateRequest(auth_bytes=b"\0a\0b"), version)
            assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
            assert answer.auth_bytes == b""

    with_memory_broker(test)


def test_passwords_are_derived_beside_the_loop(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        admin = await broker.connect()
        await alter(admin, upsertion("alice", iterations=16_384))
        attempts = [asyncio.ensure_future(plain(broker, "alice", "secret")) for _ in range(8)]
        # Meanwhile others are served.
        while not all(attempt.done() for attempt in attempts):
            assert await describe(admin, "alice")
        assert {attempt.result() for attempt in attempts} == {NONE}

    with_memory_broker(test, **SASL)

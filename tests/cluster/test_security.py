"""Users, rights and quotas of a cluster over TLS: known at all agents, in force without the database, renewed alone."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer

from tests.broker.client import Client, produce_request
from tests.broker.support import batch
from tests.broker.test_client_quotas import alter as alter_quotas, alteration
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic, run_with_clients
from tests.support.certificates import Authority, Issued
from tests.support.cluster import Cluster, eventually
from tests.support.postgres import PostgresServer
from tests.support.process import free_port
from tests.support.relay import RelayThread
from tests.unit.security.sasl_support import ScramClient
from warp.errors import ErrorCode
from warp.protocol.messages.acls import AclCreation, CreateAclsRequest, DeleteAclsFilter, DeleteAclsRequest
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from warp.protocol.types import (
    AclOperation,
    AclPatternType,
    AclPermissionType,
    AclResourceType,
    ScramMechanism,
)

pytestmark = pytest.mark.postgres

USER, PASSWORD, SALT, ITERATIONS = "alice", "right", b"salt of alice", 4096
MECHANISM = "SCRAM-SHA-256"
ALLOWED, OTHER = "allowed", "other"
LOOK_S = 0.02
PATIENCE_S = 20.0
SECURE = ("--sasl-mechanisms", MECHANISM, "--authorization", "enforce", "--super-users", "User:ANONYMOUS")
"""Administrators come by the plaintext listener of their machine."""
RETRIABLE = {
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    # From an agent that the others may take for gone by now.
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
}


@pytest.fixture
def relay(postgres_server: PostgresServer) -> Iterator[RelayThread]:
    """In front of PostgreSQL."""
    with RelayThread(postgres_server.port) as made:
        yield made


class Doors:
    """The SASL_SSL listeners of a cluster's agents, and what their clients trust."""

    def __init__(self, directory: Path, count: int) -> None:
        self.authority = Authority(directory)
        self.ports = [free_port() for _ in range(count)]
        self.shown = [self.authority.issue(f"agent-{number}") for number in range(count)]
        self.context = self.authority.client_context()

    def own_options(self) -> list[list[str]]:
        """Of each agent."""
        return [
            ["--listen", f"SASL_SSL://127.0.0.1:{port}", "--tls-certificate", str(shown.certificate),
             "--tls-key", str(shown.key)]
            for port, shown in zip(self.ports, self.shown, strict=True)
        ]  # fmt: skip

    async def dial(self, number: int) -> Client:
        """A connection to an agent, which knows nobody yet."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.ports[number], ssl=self.context))

    async def log_in(self, number: int, user: str = USER, password: str = PASSWORD) -> Client | ErrorCode:
        """A connection that has authenticated, or why it has not."""
        client = await self.dial(number)
        assert (await client.ask(SaslHandshakeRequest(mechanism=MECHANISM), 1)).error_code == 0
        scram = ScramClient("sha256", user, password)
        challenge = await client.ask(SaslAuthenticateRequest(auth_bytes=scram.first()), 2)
        answer = await client.ask(SaslAuthenticateRequest(auth_bytes=scram.final(challenge.auth_bytes)), 2)
        if answer.error_code:
            assert await client.is_closed()
            hang_up(client)
            return ErrorCode(answer.error_code)
        return client

    async def enter(self, number: int) -> Client:
        """A connection that has authenticated."""
        client = await self.log_in(number)
        assert isinstance(client, Client)
        return client


def hang_up(client: Client) -> None:
    """At once: the end of TLS would wait for the agent's."""
    client.writer.transport.abort()


async def known(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so, and say how long that took."""
    began_s = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(LOOK_S)
    print(f"{what} after {time.monotonic() - began_s:.2f} s")


async def write(client: Client, topic: str) -> tuple[ErrorCode, int]:
    """Produce a record: the code, and how long the client has to wait, in milliseconds."""
    answer = await client.ask(produce_request({topic: {0: batch(b"v" * 100)}}, timeout_ms=1_000), 9)
    code = answer.responses[0].partition_responses[0].error_code
    return ErrorCode(code), answer.throttle_time_ms


async def set_user(client: Client, *, is_deleted: bool = False, name: str = USER) -> ErrorCode:
    request = AlterUserScramCredentialsRequest(deletions=[], upsertions=[])
    if is_deleted:
        request.deletions = [ScramCredentialDeletion(name=name, mechanism=ScramMechanism.SCRAM_SHA_256)]
    else:
        request.upsertions = [
            ScramCredentialUpsertion(
                name=name,
                mechanism=ScramMechanism.SCRAM_SHA_256,
                iterations=ITERATIONS,
                salt=SALT,
                salted_password=hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, ITERATIONS),
            )
        ]
    return ErrorCode((await client.ask(request, 0)).results[0].error_code)


async def allow(client: Client, topic: str = ALLOWED) -> ErrorCode:
    creation = AclCreation(
        resource_type=AclResourceType.TOPIC,
        resource_name=topic,
        resource_pattern_type=AclPatternType.LITERAL,
        principal=f"User:{USER}",
        host="*",
        operation=AclOperation.WRITE,
        permission_type=AclPermissionType.ALLOW,
    )
    answer = await client.ask(CreateAclsRequest(creations=[creation]), 3)
    return ErrorCode(answer.results[0].error_code)


async def disallow(client: Client) -> Any:
    every = DeleteAclsFilter(
        resource_type_filter=AclResourceType.ANY,
        resource_name_filter=None,
        pattern_type_filter=AclPatternType.ANY,
        principal_filter=f"User:{USER}",
        host_filter=None,
        operation=AclOperation.ANY,
        permission_type=AclPermissionType.ANY,
    )
    return (await client.ask(DeleteAclsRequest(filters=[every]), 3)).filter_results[0]


async def set_quota(client: Client, bytes_per_s: float | None) -> ErrorCode:
    answers = await alter_quotas(client, alteration({"user": USER}, {"producer_byte_rate": bytes_per_s}))
    return ErrorCode(answers[0][0])


def test_what_one_agent_is_told_holds_at_all_without_notices_and_without_the_database(
    make_cluster: MakeCluster,
    postgres_server: PostgresServer,
    database: str,
    relay: RelayThread,
    tmp_path: Path,
) -> None:
    relay.forbid(b"LISTEN ")
    doors = Doors(tmp_path, 3)
    cluster = make_cluster(
        *SECURE,
        metadata=database.replace(f":{postgres_server.port}/", f":{relay.port}/"),
        own_options=doors.own_options(),
    )
    assert relay.cuts, "nobody hears of anything"
    for topic in (ALLOWED, OTHER):
        create_topic(cluster, topic)

    async def test(admins: list[Client]) -> None:
        await set_up_through_one_agent_each(doors, admins)
        relay.refuse()
        await go_on_without_the_database(doors, admins)
        relay.release()
        await take_back(doors, admins)

    run_with_clients(cluster, test)


async def set_up_through_one_agent_each(doors: Doors, admins: list[Client]) -> None:
    assert await doors.log_in(0) is ErrorCode.SASL_AUTHENTICATION_FAILED
    assert await set_user(admins[0]) is ErrorCode.NONE
    clients = []
    for number in range(3):

        async def gets_in(number: int = number) -> bool:
            found = await doors.log_in(number)
            if isinstance(found, Client):
                clients.append(found)
            return isinstance(found, Client)

        await known(f"agent {number} knows the user", gets_in)
    for client in clients:
        assert (await write(client, ALLOWED))[0] is ErrorCode.TOPIC_AUTHORIZATION_FAILED

    assert await allow(admins[1]) is ErrorCode.NONE
    for number, client in enumerate(clients):

        async def may_write(client: Client = client) -> bool:
            return (await write(client, ALLOWED))[0] is ErrorCode.NONE

        await known(f"agent {number} knows the ACL", may_write)
        assert (await write(client, OTHER))[0] is ErrorCode.TOPIC_AUTHORIZATION_FAILED

    assert await set_quota(admins[2], 200.0) is ErrorCode.NONE
    for number, client in enumerate(clients):

        async def is_held_back(client: Client = client) -> bool:
            code, throttle_ms = await write(client, ALLOWED)
            assert code is ErrorCode.NONE
            return throttle_ms > 0

        await known(f"agent {number} knows the quota", is_held_back)
        hang_up(client)
    assert await set_quota(admins[2], None) is ErrorCode.NONE


async def go_on_without_the_database(doors: Doors, admins: list[Client]) -> None:
    """Who is known gets in and may what it may; nobody else does, and nothing changes."""
    for number in range(3):
        client = await doors.enter(number)
        assert (await write(client, OTHER))[0] is ErrorCode.TOPIC_AUTHORIZATION_FAILED
        assert (await write(client, ALLOWED))[0] in RETRIABLE
        hang_up(client)
        for user, password in ((USER, "wrong"), ("mallory", PASSWORD)):
            assert await doors.log_in(number, user, password) is ErrorCode.SASL_AUTHENTICATION_FAILED
    answers = await asyncio.gather(
        set_user(admins[0], name="mallory"), allow(admins[1], OTHER), set_quota(admins[2], 1.0)
    )
    assert set(answers) <= RETRIABLE, answers


async def take_back(doors: Doors, admins: list[Client]) -> None:
    """Rights first, then the user itself."""
    clients = [await doors.enter(number) for number in range(3)]

    async def is_done() -> bool:
        return bool((await disallow(admins[1])).error_code == 0)

    await known("the database is there again", is_done)
    for number, client in enumerate(clients):

        async def is_refused(client: Client = client) -> bool:
            return (await write(client, ALLOWED))[0] is ErrorCode.TOPIC_AUTHORIZATION_FAILED

        await known(f"agent {number} knows that the ACL is gone", is_refused)
        hang_up(client)
    assert await set_user(admins[2], is_deleted=True) is ErrorCode.NONE
    for number in range(3):

        async def stays_out(number: int = number) -> bool:
            found = await doors.log_in(number)
            if isinstance(found, Client):
                hang_up(found)
            return not isinstance(found, Client)

        await known(f"agent {number} knows that the user is gone", stays_out)


def test_certificates_are_replaced_at_one_agent_after_the_other_while_clients_go_on(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    doors = Doors(tmp_path, 2)
    later = Authority(tmp_path, "later")
    both = tmp_path / "both.pem"
    both.write_text(doors.authority.ca.read_text() + later.ca.read_text())
    doors.context = ssl.create_default_context(cafile=str(both))
    cluster = make_cluster(*SECURE, zones=("zone-1", "zone-1"), own_options=doors.own_options())
    create_topic(cluster, ALLOWED)

    async def test(admins: list[Client]) -> None:
        assert await set_user(admins[0]) is await allow(admins[0]) is ErrorCode.NONE
        for number in range(2):

            async def may_write(number: int = number) -> bool:
                client = await doors.log_in(number)
                if not isinstance(client, Client):
                    return False
                code, _ = await write(client, ALLOWED)
                hang_up(client)
                return code is ErrorCode.NONE

            await known(f"agent {number} knows user and ACL", may_write)

    run_with_clients(cluster, test)
    failures: list[KafkaError] = []
    delivered = 0

    def told(error: KafkaError | None, message: Message) -> None:
        nonlocal delivered
        delivered += error is None
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in doors.ports),
            "security.protocol": "SASL_SSL", "sasl.mechanism": MECHANISM,
            "sasl.username": USER, "sasl.password": PASSWORD, "ssl.ca.location": str(both),
        }
    )  # fmt: skip
    sent = 0

    def is_written() -> bool:
        nonlocal sent
        producer.produce(ALLOWED, b"v", on_delivery=told)
        sent += 1
        return producer.flush(PATIENCE_S) == 0

    assert is_written()
    for number, shown in enumerate(doors.shown):
        replace(shown, later.issue(f"later-{number}"))
        eventually(lambda number=number: is_written() and shows(cluster, number), "the certificate is new")  # type: ignore[misc]
        asyncio.run(still_serves(doors, number, later))
    assert is_written()
    assert (delivered, failures) == (sent, [])


def replace(shown: Issued, new: Issued) -> None:
    shutil.copy(new.key, shown.key)
    shutil.copy(new.certificate, shown.certificate)


def shows(cluster: Cluster, number: int) -> bool:
    return any("new certificates" in line for line in cluster.agents[number].output)


async def still_serves(doors: Doors, number: int, later: Authority) -> None:
    """Also those who trust the later authority alone."""
    doors.context = later.client_context()
    client = await doors.enter(number)
    assert (await write(client, ALLOWED))[0] is ErrorCode.NONE
    hang_up(client)

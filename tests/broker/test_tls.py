"""Listeners with TLS on real sockets: requests, back-pressure, certificates of clients, handshakes that fail."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
import socket
import ssl
import struct
from pathlib import Path

import pytest
from cryptography import x509

from tests.broker.client import Client, fetch_request, joined
from tests.broker.support import MIB, Broker, RunWithBroker, batch
from tests.support.certificates import Authority, Issued
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest
from warp.security.principal import ANONYMOUS, Principal

LOGGER = "warp.server"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Issued:
    return authority.issue("server")


def settings(server: Issued, protocol: str = "SSL", **more: str) -> dict[str, str]:
    return {
        "listen": f"{protocol}://127.0.0.1:0",
        "tls_certificate": str(server.certificate),
        "tls_key": str(server.key),
        **more,
    }


def asking(server: Issued, authority: Authority, how: str = "required", **more: str) -> dict[str, str]:
    return settings(server, tls_client_auth=how, tls_client_ca=str(authority.ca), **more)


async def connect(broker: Broker, context: ssl.SSLContext) -> Client:
    """A connection with TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port, ssl=context)
    client = Client(reader, writer)
    broker.clients.append(client)
    return client


def only_principal(broker: Broker) -> Principal:
    """Of the one connection that is open."""
    (connection,) = broker.agent.server._pool._connections
    assert connection.client.is_authenticated
    return connection.client.principal


async def make_topic(client: Client, name: str) -> None:
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1, assignments=[], configs=[])
    assert (await client.ask(CreateTopicsRequest(topics=[topic]), 7)).topics[0].error_code == 0


async def no_connections(broker: Broker) -> None:
    """Wait until all are gone."""
    while broker.agent.server.connection_count:  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.001)


def test_requests_of_every_size_go_both_ways(
    with_broker: RunWithBroker, authority: Authority, server: Issued
) -> None:
    async def test(broker: Broker) -> None:
        client = await connect(broker, authority.client_context())
        assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0
        await make_topic(client, "sizes")
        written = []
        for size in (1, 1_000, 16_384, 65_536, MIB - 1_000):
            value = bytes([size % 251]) * size
            assert (await client.produce("sizes", batch(value))).error_code == 0
            written.append(value)
        data = joined((await client.fetch("sizes", partition_max_bytes=8 * MIB)).records)
        assert all(value in data for value in written)
        # Answers of every size, and after each of them something small: nothing is sent twice or left out.
        for offset, size in itertools.product(range(len(written)), (1, 70_000, 150_000, 2 * MIB)):
            limits = {"partition_max_bytes": size, "max_bytes": size}
            numbers = [client.send(fetch_request({"sizes": {0: offset}}, **limits), 12) for _ in range(3)]
            numbers.append(client.send(ApiVersionsRequest(), 0))
            for number in numbers:
                assert int.from_bytes((await client.frame())[:4], "big") == number
        assert only_principal(broker) == ANONYMOUS

    with_broker(test, **settings(server))


def test_a_reader_that_stops_and_goes_on_gets_everything_and_holds_little(
    with_broker: RunWithBroker, authority: Authority, server: Issued
) -> None:
    async def test(broker: Broker) -> None:
        client = await connect(broker, authority.client_context())
        await make_topic(client, "much")
        for number in range(8):
            await client.produce("much", batch(bytes([number]) * (MIB - 1_000)))
        slow = await connect(broker, authority.client_context())
        # The transport of the client stops reading when its own buffer is full.
        sent = [slow.send(fetch_request({"much": {0: 0}}, partition_max_bytes=8 * MIB), 12) for _ in range(4)]
        while not broker.answer_bytes:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        for connection in broker.agent.server._pool._connections:
            below = connection._transport._below  # type: ignore[attr-defined]
            assert below.get_write_buffer_size() < 256 * 1024
        for number in sent:
            answer = await slow.frame()
            assert int.from_bytes(answer[:4], "big") == number
            assert len(answer) > 7 * MIB

    with_broker(test, **settings(server))


def test_a_certificate_says_who_the_client_is(
    with_memory_broker: RunWithBroker, authority: Authority, server: Issued
) -> None:
    shown = authority.issue("alice", x509.Name.from_rfc4514_string("CN=alice,OU=Sales,O=Example,C=DE"))

    async def test(broker: Broker) -> None:
        client = await connect(broker, authority.client_context(shown))
        assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert only_principal(broker) == Principal("User", "CN=alice,OU=Sales,O=Example,C=DE")

    async def mapped(broker: Broker) -> None:
        client = await connect(broker, authority.client_context(shown))
        assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert only_principal(broker) == Principal("User", "alice@sales")

    with_memory_broker(test, **asking(server, authority))
    rules = "RULE:^CN=nobody$/x/,RULE:^CN=(.*?),OU=(.*?),.*$/$1@$2/L"
    with_memory_broker(mapped, **asking(server, authority, tls_principal_rules=rules))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(
    with_memory_broker: RunWithBroker, authority: Authority, server: Issued, version: ssl.TLSVersion
) -> None:
    shown = authority.issue("alice")

    async def test(broker: Broker) -> None:
        context = authority.client_context(shown)
        context.minimum_version = context.maximum_version = version
        client = await connect(broker, context)
        assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert only_principal(broker) == Principal("User", "CN=alice")

    with_memory_broker(test, **asking(server, authority))


def refused_clients(authority: Authority, tmp_path: Path) -> dict[str, tuple[ssl.SSLContext, str]]:
    """Contexts of clients that are not let in, and what the log says of each."""
    stranger = Authority(tmp_path, "stranger")
    other = stranger.issue("mallory")
    of_stranger = authority.client_context(other)
    expired = authority.client_context(authority.issue("late", age=dt.timedelta(days=3)))
    early = authority.client_context(authority.issue("early", age=dt.timedelta(days=-3)))
    unmapped = authority.client_context(authority.issue("nobody"))
    return {
        "without a certificate": (authority.client_context(), "shows no certificate"),
        "of another authority": (of_stranger, "unable to get local issuer certificate"),
        "expired": (expired, "certificate has expired"),
        "not yet valid": (early, "certificate is not yet valid"),
        "that no rule fits": (unmapped, "no rule of --tls-principal-rules fits"),
    }


def test_clients_without_a_good_certificate_are_refused_and_the_log_says_why(
    with_memory_broker: RunWithBroker,
    authority: Authority,
    server: Issued,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients = refused_clients(authority, tmp_path)

    async def test(broker: Broker) -> None:
        for name, (context, reason) in clients.items():
            caplog.clear()
            try:
                client = await connect(broker, context)
                client.send(ApiVersionsRequest(), 0)
                assert await client.is_closed(), name
            except ssl.SSLError:
                assert broker.agent.server.protocol_errors >= 0
            await no_connections(broker)
            # Its log lines come at most every 100 ms.
            assert reason in caplog.text, (name, caplog.text)
            await asyncio.sleep(0.11)
        assert broker.agent.server.protocol_errors == len(clients)
        good = await connect(broker, authority.client_context(authority.issue("good")))
        assert (await good.ask(ApiVersionsRequest(), 0)).error_code == 0

    with caplog.at_level(logging.WARNING, LOGGER):
        with_memory_broker(test, **asking(server, authority, tls_principal_rules="RULE:^CN=(g.*|late)$/$1/"))


def test_a_client_that_does_not_trust_the_agent_is_told_apart_in_the_log(
    with_memory_broker: RunWithBroker, server: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def shake_hands(port: int) -> None:
        context = Authority(tmp_path, "stranger").client_context()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            context.wrap_socket(plain, server_hostname="localhost")

    async def test(broker: Broker) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(shake_hands, broker.port)
        await no_connections(broker)
        assert "it does not trust the certificate of this agent" in caplog.text

    with caplog.at_level(logging.WARNING, LOGGER):
        with_memory_broker(test, **settings(server))


def test_who_speaks_something_else_is_told_apart_in_the_log(
    with_memory_broker: RunWithBroker, server: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        plain, encrypted = (listener.bound.port for listener in broker.agent.server.listeners)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
        kafka = struct.pack(">ihhih", 10, 18, 0, 1, -1)
        for port, first, reason in (
            (plain, hello, "it speaks TLS, to a listener without"),
            (plain, b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP, to a listener for Kafka"),
            (encrypted, kafka, "it does not speak TLS, to a listener with TLS"),
            (encrypted, b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP, to a listener with TLS"),
        ):
            caplog.clear()
            client = Client(*await asyncio.open_connection("127.0.0.1", port))
            client.write(first)
            try:
                while await asyncio.wait_for(client.reader.read(100), 20):
                    pass  # an alert of TLS
            except ConnectionError:
                assert port
            assert reason in caplog.text
            await client.close()
            await asyncio.sleep(0.11)

    both = settings(server)
    both["listen"] = "127.0.0.1:0,SSL://127.0.0.1:0"
    with caplog.at_level(logging.WARNING, LOGGER):
        with_memory_broker(test, **both)


@pytest.mark.parametrize("sent_bytes", [0, 1, 50, 200], ids=lambda size: f"{size} bytes of it")
def test_a_client_that_vanishes_in_the_handshake_leaves_nothing(
    with_memory_broker: RunWithBroker, authority: Authority, server: Issued, sent_bytes: int
) -> None:
    async def test(broker: Broker) -> None:
        for how in ("close", "abort"):
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            writer.write(client_hello(authority)[:sent_bytes])
            while not broker.agent.server.early_count:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.001)
            if how == "close":
                writer.close()
            else:
                writer.transport.abort()
            await no_connections(broker)
            assert broker.agent.server.early_count == 0
            del reader

    with_memory_broker(test, **settings(server))


def client_hello(authority: Authority) -> bytes:
    """The first bytes of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_handshake_that_takes_too_long_is_ended(
    with_memory_broker: RunWithBroker,
    authority: Authority,
    server: Issued,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("warp.agent_settings.ServerLimits", impatient)

    async def test(broker: Broker) -> None:
        good = await connect(broker, authority.client_context())
        assert (await good.ask(ApiVersionsRequest(), 0)).error_code == 0
        slow = Client(*await asyncio.open_connection("127.0.0.1", broker.port))
        broker.clients.append(slow)
        for byte in client_hello(authority):
            slow.write(bytes([byte]))
            await asyncio.sleep(0.01)
            if slow.reader.at_eof() or slow.writer.is_closing():
                break
        assert await slow.is_closed()
        assert "it has not authenticated in time" in caplog.text
        assert (await good.ask(ApiVersionsRequest(), 0)).error_code == 0

    with caplog.at_level(logging.WARNING, LOGGER):
        with_memory_broker(test, **settings(server))


def impatient(**limits: int) -> object:
    """Server limits under which little time is given to who is unknown."""
    from warp.server.limits import ServerLimits

    return ServerLimits(**{**limits, "authentication_ms_max": 300, "sweep_ms": 50})


def test_new_certificates_serve_new_connections_while_the_old_ones_go_on(
    with_memory_broker: RunWithBroker,
    authority: Authority,
    server: Issued,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("warp.security.tls.LOOK_INTERVAL_S", 0.02)

    async def test(broker: Broker) -> None:
        tls = broker.agent._tls.tls
        assert tls is not None
        old = await connect(broker, authority.client_context())
        assert (await old.ask(ApiVersionsRequest(), 0)).error_code == 0
        server.certificate.write_bytes(b"no certificate")
        while not tls.failures:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.005)
        still = await connect(broker, authority.client_context())
        assert (await still.ask(ApiVersionsRequest(), 0)).error_code == 0
        other = Authority(tmp_path, "other")
        other.issue("server")
        while tls.loads < 2:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.005)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(broker, authority.client_context())
        new = await connect(broker, other.client_context())
        for client in (old, still, new):
            assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0

    with_memory_broker(test, **settings(server))


def test_listeners_with_and_without_tls_serve_side_by_side(
    with_memory_broker: RunWithBroker, authority: Authority, server: Issued
) -> None:
    async def test(broker: Broker) -> None:
        plain, encrypted = broker.agent.server.listeners
        name = await broker.topic()
        client = Client(
            *await asyncio.open_connection("127.0.0.1", encrypted.bound.port, ssl=authority.client_context())
        )
        broker.clients.append(client)
        for asked, listener in ((await broker.connect(), plain), (client, encrypted)):
            answer = await asked.ask(MetadataRequest(topics=None), 1)
            assert [node.port for node in answer.brokers] == [listener.bound.port]
            assert [topic.name for topic in answer.topics] == [name]

    both = settings(server)
    both["listen"] = "127.0.0.1:0,SSL://127.0.0.1:0"
    with_memory_broker(test, **both)


def test_a_half_closed_client_still_gets_its_answers(
    with_memory_broker: RunWithBroker, authority: Authority, server: Issued
) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(65_536))
            client.write(struct.pack(">ihhih", 10, 18, 0, 7, -1))
            plain.sendall(outgoing.read())
            plain.shutdown(socket.SHUT_WR)
            while received := plain.recv(65_536):
                incoming.write(received)
            return client.read(8)

    async def test(broker: Broker) -> None:
        answer = await asyncio.to_thread(talk, broker.port)
        assert answer[4:8] == (7).to_bytes(4, "big")
        await no_connections(broker)

    with_memory_broker(test, **settings(server))

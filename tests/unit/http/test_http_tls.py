"""The HTTP face under TLS: answers, replaced certificates, client certificates, and handshakes that never end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.support.tls import Certificate
from warp.config_values import Address
from warp.http.connection import HttpLimits
from warp.http.messages import Handler, Request, Response
from warp.http.server import HttpServer
from warp.http.tls import CertificateHash, HttpTls
from warp.security.principal import USER, Principal

GET = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
    uvloop.run(bounded())


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


async def tell_peer(request: Request) -> Response:
    return Response(200, f"{request.peer.host} {request.peer.principal}".encode(), "text/plain")


@asynccontextmanager
async def serving(tls: HttpTls, handler: Handler = tell_peer, **limits: int) -> AsyncIterator[HttpServer]:
    server = HttpServer(Address("127.0.0.1", 0), HttpLimits(**limits), tls)
    await server.bind()
    await server.start(handler)
    try:
        yield server
    finally:
        await server.stop(5)


def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.ca_file))


async def ask(server: HttpServer, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.bound.port, ssl=context, server_hostname="localhost"
    )
    try:
        writer.write(GET)
        return await reader.read()
    finally:
        writer.close()


def test_requests_are_answered_over_tls_and_the_peer_is_known(certificate: Certificate) -> None:
    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context)) as server:
            assert server.scheme == "https"
            answer = await ask(server, trusting(certificate))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"127.0.0.1 None")
            while server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)

    run(test)


def test_large_answers_come_whole_and_the_connection_goes_on(certificate: Certificate) -> None:
    parts = [bytes([number]) * 700_000 for number in range(4)]

    async def large(request: Request) -> Response:
        return Response(200, b"", "application/octet-stream", parts=parts)

    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context), large) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.bound.port, ssl=trusting(certificate), server_hostname="localhost"
            )
            for _ in range(3):
                writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200" in await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(2_800_000) == b"".join(parts)
            writer.close()

    run(test)


def test_the_context_of_the_moment_is_used(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
    one, two = map(Certificate, directories)

    async def test() -> None:
        now = [one]

        def context() -> ssl.SSLContext:
            return now[0].server_context()

        async with serving(HttpTls(context)) as server:
            assert (await ask(server, trusting(one))).startswith(b"HTTP/1.1 200 ")
            now[0] = two
            assert (await ask(server, trusting(two))).startswith(b"HTTP/1.1 200 ")
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(server, trusting(one))

    run(test)


def test_a_client_certificate_says_who_asks(certificate: Certificate) -> None:
    def principal(shown: ssl.SSLObject) -> Principal | None:
        return Principal(USER, "certified") if shown.getpeercert() else None

    def context() -> ssl.SSLContext:
        made = certificate.server_context()
        made.load_verify_locations(certificate.ca_file)
        made.verify_mode = ssl.CERT_OPTIONAL
        return made

    async def test() -> None:
        async with serving(HttpTls(context, principal)) as server:
            assert (await ask(server, trusting(certificate))).endswith(b"127.0.0.1 None")
            known = trusting(certificate)
            known.load_cert_chain(certificate.ca_file, certificate.key_file)
            assert (await ask(server, known)).endswith(b"127.0.0.1 User:certified")

    run(test)


def test_a_certificate_that_names_nobody_ends_the_connection_alone(certificate: Certificate) -> None:
    def principal(shown: ssl.SSLObject) -> Principal | None:
        raise ValueError("no rule fits it")

    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context, principal)) as server:
            with contextlib.suppress(ConnectionError):
                assert await ask(server, trusting(certificate)) == b""
            while server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)

    run(test)


def test_the_hash_is_that_of_the_certificate_in_force(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
    made = [Certificate(directory) for directory in directories]
    contexts = [each.server_context() for each in made]
    contexts[1].maximum_version = ssl.TLSVersion.TLSv1_2
    certificate_hash = CertificateHash(lambda: contexts[0])
    for each in made:
        der = ssl.PEM_cert_to_DER_cert(each.ca_file.read_text())
        assert certificate_hash() == hashlib.sha256(der).hexdigest()
        assert certificate_hash() == hashlib.sha256(der).hexdigest()
        contexts.reverse()


def test_plain_requests_and_noise_are_cut_and_forgotten(certificate: Certificate) -> None:
    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context)) as server:
            for noise in (GET, bytes(100), b"\x16\x03\x01\x00\x05hello", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
                writer.write(noise)
                writer.write_eof()
                # An alert of TLS at most.
                assert not (await reader.read()).startswith(b"HTTP")
                writer.close()
            while server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
            assert (await ask(server, trusting(certificate))).startswith(b"HTTP/1.1 200 ")

    run(test)


def test_a_handshake_that_never_ends_is_cut_and_counts_as_a_connection_until_then(
    certificate: Certificate,
) -> None:
    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context), request_ms_max=300, connections_max=1) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
            while not server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
            _, second = await asyncio.open_connection("127.0.0.1", server.bound.port)
            while not server.refused:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
            second.close()
            with pytest.raises(ConnectionResetError):
                # The reset may come as an end where nothing was sent.
                assert await reader.read() or _raise_reset()
            writer.close()
            while server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)

    run(test)


def _raise_reset() -> bool:
    raise ConnectionResetError


def test_a_server_that_stops_cuts_handshakes(certificate: Certificate) -> None:
    async def test() -> None:
        context = certificate.server_context()
        async with serving(HttpTls(lambda: context)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.bound.port)
            while not server.connection_count:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
            await server.stop(5)
            assert server.connection_count == 0
            with pytest.raises(ConnectionResetError):
                assert await reader.read() or _raise_reset()
            writer.close()

    run(test)


def test_a_context_that_cannot_be_made_cuts_the_connection_alone(certificate: Certificate) -> None:
    async def test() -> None:
        contexts: list[ssl.SSLContext] = []

        def context() -> ssl.SSLContext:
            if not contexts:
                raise OSError("no certificate")
            return contexts[0]

        async with serving(HttpTls(context)) as server:
            with pytest.raises((ssl.SSLError, OSError)):
                await ask(server, trusting(certificate))
            contexts.append(certificate.server_context())
            assert (await ask(server, trusting(certificate))).startswith(b"HTTP/1.1 200 ")

    run(test)

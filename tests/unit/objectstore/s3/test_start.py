"""What is said when a bucket can't be used at start, and what the probe finds out about one that can."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import free_port
from tests.support.s3_scripted import (
    FakeServer,
    Fault,
    Request,
    Respond,
    TinyS3,
    answer,
    error,
    fake_server,
    part_of,
    raw_server,
)
from tests.support.tls import Certificate
from tests.unit.objectstore.s3.support import FixedSource, make_store, run
from warp.clock import SystemClock
from warp.errors import StartError
from warp.objectstore.base import Abilities
from warp.objectstore.s3.credentials import NONE_FOUND, Credentials

ABLE = Abilities(conditional_create=True, checks_content=True)


def opened(respond: Respond, tls: Certificate | None = None, **options: Any) -> tuple[Abilities, FakeServer]:
    async def whole() -> tuple[Abilities, FakeServer]:
        async with fake_server(respond, ssl=tls.server_context() if tls else None) as server:
            store = make_store(**{"endpoint": server.endpoint, **options})
            try:
                return await store.open(), server
            finally:
                await store.close()

    return run(whole())


def refused(respond: Respond, **options: Any) -> str:
    """The one line that a start ends with."""
    with pytest.raises(StartError) as caught:
        opened(respond, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "secret" not in text.replace("AWS_SECRET_ACCESS_KEY", "").replace("secret key", "")
    return text


# ---- the probe ----


def test_a_bucket_that_would_never_be_ready_is_not_started_with() -> None:
    tiny = TinyS3()

    def respond(request: Request) -> bytes | Fault:
        return answer(403) if request.method == "HEAD" and not request.key else tiny(request)

    text = refused(respond, prefix="p/")
    assert "allow s3:ListBucket on arn:aws:s3:::bucket also for HeadBucket" in text
    assert "StringLikeIfExists" in text
    assert not tiny.objects


def test_a_bucket_that_can_not_be_asked_for_at_the_moment_is_started_with() -> None:
    tiny = TinyS3()

    def respond(request: Request) -> bytes | Fault:
        return answer(500) if request.method == "HEAD" and not request.key else tiny(request)

    assert opened(respond)[0] == ABLE


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_bucket_is_seen_to_do_all_that_is_needed_and_left_clean(tls: bool, tmp_path: Path) -> None:
    tiny = TinyS3(objects={"other": b"object"})
    certificate = Certificate(tmp_path)
    ca_bundle = str(certificate.ca_file)
    abilities, server = opened(tiny, certificate if tls else None, prefix="p/", ca_bundle=ca_bundle)
    assert abilities == ABLE
    assert tiny.objects == {"other": b"object"}
    assert {request.key[:11] for request in server.requests if request.key} == {"p/probe/t1/"}
    assert len(server.requests) <= 9


def test_a_bucket_without_conditional_puts_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tiny = TinyS3(is_conditional=False)
    with caplog.at_level(logging.WARNING):
        abilities, _ = opened(tiny)
    assert abilities == Abilities(conditional_create=False, checks_content=True)
    assert "no conditional puts" in caplog.text
    assert not tiny.objects


@pytest.mark.parametrize("status", [400, 405, 501])
def test_a_server_that_refuses_conditional_puts_is_one_without_them(status: int) -> None:
    tiny = TinyS3()

    def respond(request: Request) -> bytes | Fault:
        return error(status, "NotImplemented") if "if-none-match" in request.headers else tiny(request)

    abilities, _ = opened(respond)
    assert abilities == Abilities(conditional_create=False, checks_content=True)


def test_a_server_that_stores_damaged_bodies_is_told_from_one_that_refuses_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiny = TinyS3(checks_content=False)
    with caplog.at_level(logging.INFO):
        abilities, _ = opened(tiny)
        assert "sign_payload=true" in caplog.text
    assert abilities == Abilities(conditional_create=True, checks_content=False)
    assert not tiny.objects


def test_a_store_that_gives_back_other_bytes_or_lists_nothing_is_not_used() -> None:
    tiny = TinyS3()
    other = bytes(1024)

    def lies(request: Request) -> bytes | Fault:
        return part_of(other, 100, 600) if request.method == "GET" and request.key else tiny(request)

    def forgets(request: Request) -> bytes | Fault:
        return TinyS3()(request) if request.method == "GET" and not request.key else tiny(request)

    assert "gives back other bytes" in refused(lies)
    assert "does not list" in refused(forgets)
    assert not tiny.objects, "also a probe that fails removes what it stored"


# ---- refusals ----


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (error(404, "NoSuchBucket"), ["there is no bucket 'bucket' at http://localhost", "create it"]),
        (
            error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"),
            ["the bucket 'bucket' is in eu-west-3, not in us-east-1; set region=eu-west-3"],
        ),
        (
            error(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"),
            ["set region=eu-west-3"],
        ),
        (answer(301), ["set region= and endpoint="]),
        (error(400, "ExpiredToken"), ["credentials have run out (ExpiredToken); renew them"]),
        (error(403, "InvalidAccessKeyId"), ["does not know the access key", "AWS_ACCESS_KEY_ID"]),
        (error(403, "SignatureDoesNotMatch"), ["does not belong to the access key", "AWS_SECRET_ACCESS_KEY"]),
        (
            error(403, "AccessDenied"),
            ["access denied; allow s3:PutObject on arn:aws:s3:::bucket/p/* to these credentials"],
        ),
        (answer(400), ["is http://localhost", "that speaks plain HTTP?"]),
        (error(405, "MethodNotAllowed"), ["405 MethodNotAllowed", "can't be used as it is"]),
        (Fault(b"SMTP ready\r\n\r\n"), ["does not speak HTTP/1.1"]),
        (Fault(), ["the server closed the connection; is http://localhost", "an S3 server"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bytes) else "",
)  # fmt: skip
def test_a_refusal_is_explained_with_its_remedy(answers: bytes | Fault, words: list[str]) -> None:
    text = refused(lambda _: answers, prefix="p/")
    assert text.startswith("object store s3://bucket/p: ")
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("refuses", "action", "resource"),
    [
        (lambda request: request.method == "GET" and request.key, "s3:GetObject", "arn:aws:s3:::bucket/p/*"),
        (
            lambda request: request.method == "GET" and not request.key,
            "s3:ListBucket",
            "arn:aws:s3:::bucket ",
        ),
        (lambda request: request.method in ("POST", "DELETE"), "s3:DeleteObject", "arn:aws:s3:::bucket/p/*"),
    ],
)
def test_the_action_that_is_not_allowed_is_named(
    refuses: Callable[[Request], bool], action: str, resource: str
) -> None:
    tiny = TinyS3()
    text = refused(
        lambda request: error(403, "AccessDenied") if refuses(request) else tiny(request), prefix="p/"
    )
    assert f"access denied; allow {action} on {resource}" in text


class ClockAt(SystemClock):
    """Shows one time."""

    def time_ms(self) -> int:
        return 1_795_342_272_000  # 2026-11-22 10:11:12 UTC


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("Sun, 22 Nov 2026 10:31:12 GMT", "clock is 1200 s behind the server's"),
        ("Sun, 22 Nov 2026 09:11:12 GMT", "clock is 3600 s ahead of the server's"),
        ("some day", "clock differs too much from the server's"),
    ],
)
def test_a_clock_that_is_wrong_is_said_to_be_by_how_much(date: str, words: str) -> None:
    text = refused(lambda _: error(403, "RequestTimeTooSkewed", date=date), clock=ClockAt())
    assert words in text
    assert "NTP" in text


# ---- the way there ----


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    text = refused(lambda _: b"", endpoint=f"http://127.0.0.1:{free_port()}", attempts=1)
    assert "no connection" in text
    assert "that the server runs" in text


def test_a_server_that_does_not_answer_the_door_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listener whose queue is full takes no more connections.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        text = refused(
            lambda _: b"",
            endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}",
            attempts=1,
            connect_timeout_s=0.2,
        )
        for other in others:
            other.close()
    assert "no connection within 0.2 s" in text
    assert "connect_timeout=" in text


def test_a_name_that_does_not_resolve_is_said_to_be_so() -> None:
    text = refused(lambda _: b"", endpoint="http://nowhere.invalid", attempts=1, connect_timeout_s=20.0)
    assert "can't resolve 'nowhere.invalid'" in text
    assert "DNS" in text


def test_a_certificate_that_nobody_vouches_for_is_refused_and_said_how_to_trust(tmp_path: Path) -> None:
    text = refused(TinyS3(), tls=Certificate(tmp_path))
    assert "its certificate is refused: self-signed certificate" in text
    assert "ca_bundle=" in text


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path, names=["elsewhere.example"])
    text = refused(TinyS3(), tls=certificate, ca_bundle=str(certificate.ca_file))
    assert "its certificate is refused" in text
    assert "localhost" in text


def test_a_server_without_tls_is_told_from_one_with(tmp_path: Path) -> None:
    async def speak_plainly(reader: Any, writer: Any) -> None:
        await reader.read(10)
        writer.write(answer(400))
        await writer.drain()

    async def whole() -> str:
        async with raw_server(speak_plainly) as endpoint:
            store = make_store(endpoint.replace("http:", "https:"), attempts=1)
            with pytest.raises(StartError) as caught:
                await store.open()
            await store.close()
            return str(caught.value)

    text = run(whole())
    assert "no TLS connection" in text
    assert "endpoint=http://" in text


def test_certificates_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    text = refused(TinyS3(), endpoint="https://localhost:1", ca_bundle=str(tmp_path / "none.pem"))
    assert "can't read the certificates in" in text


class NoSource(FixedSource):
    def load(self) -> Credentials:
        raise StartError(NONE_FOUND)


def test_missing_credentials_are_said_to_be_missing() -> None:
    text = refused(TinyS3(), source=NoSource())
    assert "no credentials for S3: set AWS_ACCESS_KEY_ID" in text

"""How the doctor judges who gets in: listeners, authorization, HTTP, and certificates."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.tls import Certificate
from warp.agent_settings import tls_settings
from warp.cli.doctor.facts import BrokerFacts, CertificateFacts, ClientFacts
from warp.cli.doctor.finding import Finding, Severity
from warp.cli.doctor.judge.clients import judge_clients
from warp.cli.doctor.judge.security import DAY_S, is_for, judge_security
from warp.cli.doctor.measure.broker import ask_broker
from warp.cli.doctor.measure.certificate import look_at_certificate
from warp.cli.doctor.measure.status import ask_status
from warp.config import AgentConfig, config_of
from warp.config_values import Address
from warp.http.messages import Request, Response, json_response
from warp.http.server import HttpServer
from warp.http.tls import HttpTls
from warp.protocol import ApiKey, encode_response_frame
from warp.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from warp.security.tls import TlsSettings

NOW_S = 1_700_000_000.0
GOOD = CertificateFacts(
    "/c.pem", "/k.pem", key_mode=0o600, begins_s=NOW_S - DAY_S, ends_s=NOW_S + 90 * DAY_S,
    names=("broker.example", "*.zone.example"), addresses=("10.0.0.1", "::1"),
)  # fmt: skip
TLS = {"tls_certificate": "/c.pem", "tls_client_ca": "/ca.pem"}


def findings(
    config: AgentConfig, certificate: CertificateFacts | None = None, told: Sequence[str] = ()
) -> dict[str, Severity]:
    hosts = [Address(host, 9092) for host in told] or [Address("broker.example", 9092)] * len(config.listen)
    found = list(judge_security(config, certificate, hosts, NOW_S))
    return {finding.check: finding.severity for finding in found}


def one(check: str, config: AgentConfig, certificate: CertificateFacts | None = None) -> Finding:
    hosts = [Address("broker.example", 9092)] * len(config.listen)
    return next(each for each in judge_security(config, certificate, hosts, NOW_S) if each.check == check)


@pytest.mark.parametrize(
    ("listen", "more", "severity", "told"),
    [
        ("127.0.0.1:9092", {}, Severity.OK, "this machine alone"),
        ("10.0.0.1:9092", {}, Severity.WARNING, "without a name"),
        ("SSL://10.0.0.1:9092", TLS, Severity.WARNING, "need no certificate"),
        ("SSL://10.0.0.1:9092", {**TLS, "tls_client_auth": "requested"}, Severity.WARNING, "need no"),
        ("SSL://10.0.0.1:9092", {**TLS, "tls_client_auth": "required"}, Severity.OK, "by certificate"),
        ("SASL_PLAINTEXT://10.0.0.1:9092", {}, Severity.WARNING, "records travel in the clear"),
        ("SASL_PLAINTEXT://10.0.0.1:9092", {"sasl_mechanisms": "PLAIN"}, Severity.WARNING, "passwords travel"),
        ("SASL_PLAINTEXT://127.0.0.1:9092", {"sasl_mechanisms": "PLAIN"}, Severity.OK, "this machine alone"),
        ("SASL_SSL://10.0.0.1:9092", {**TLS, "sasl_mechanisms": "PLAIN"}, Severity.OK, "by PLAIN"),
    ],
)  # fmt: skip
def test_listeners_are_judged_by_who_reaches_them(
    listen: str, more: dict[str, str], severity: Severity, told: str
) -> None:
    found = one("security.listener", config_of(listen=listen, **more))
    assert (found.severity, told in found.text) == (severity, True), found


@pytest.mark.parametrize(
    ("listen", "texts", "severities"),
    [
        ("127.0.0.1:9092", {}, {"security.authorization": Severity.OK}),
        ("SASL_PLAINTEXT://127.0.0.1:9092", {}, {"security.authorization": Severity.WARNING}),
        (
            "SASL_PLAINTEXT://127.0.0.1:9092",
            {"authorization": "log"},
            {"security.authorization": Severity.NOTE},
        ),
        (
            "SASL_PLAINTEXT://127.0.0.1:9092",
            {"authorization": "enforce"},
            {"security.authorization": Severity.OK, "security.super-users": Severity.WARNING},
        ),
        (
            "SASL_PLAINTEXT://127.0.0.1:9092",
            {"authorization": "enforce", "super_users": "User:admin"},
            {"security.authorization": Severity.OK, "security.super-users": Severity.OK},
        ),
        (
            "127.0.0.1:9092",
            {"authorization": "enforce", "super_users": "User:admin"},
            {"security.authorization": Severity.WARNING, "security.super-users": Severity.OK},
        ),
    ],
)
def test_authorization_is_judged_beside_what_is_known_of_clients(
    listen: str, texts: dict[str, str], severities: dict[str, Severity]
) -> None:
    found = findings(config_of(listen=listen, **texts))
    shown = {
        check: found[check] for check in found if check.split(".")[1] in ("authorization", "super-users")
    }
    assert shown == severities


@pytest.mark.parametrize(
    ("texts", "severity"),
    [
        ({}, Severity.NOTE),
        ({"listen": "SASL_PLAINTEXT://127.0.0.1:9092"}, Severity.WARNING),
        ({"http": "127.0.0.1:8080", "listen": "SASL_PLAINTEXT://127.0.0.1:9092"}, Severity.OK),
        ({"http_authentication": "required"}, Severity.WARNING),
        ({"http_authentication": "required", "http_tls": "true", **TLS}, Severity.OK),
        ({"authorization": "enforce"}, Severity.OK),
    ],
)
def test_http_is_judged_by_who_reaches_it(texts: dict[str, str], severity: Severity) -> None:
    config = config_of(**{"http": "10.0.0.1:8080", **texts})
    assert findings(config)["security.http"] is severity


@pytest.mark.parametrize(
    ("facts", "severity"),
    [
        ({}, Severity.OK),
        ({"ends_s": NOW_S + 29 * DAY_S}, Severity.WARNING),
        ({"ends_s": NOW_S}, Severity.PROBLEM),
        ({"begins_s": NOW_S + 1}, Severity.PROBLEM),
        ({"refusal": "the key is not its own"}, Severity.PROBLEM),
    ],
)
def test_certificates_are_judged_by_their_time(facts: dict[str, float], severity: Severity) -> None:
    config = config_of(listen="SSL://127.0.0.1:9092", **TLS)
    fields = {name: getattr(GOOD, name) for name in GOOD.__slots__}
    found = findings(config, CertificateFacts(**{**fields, **facts}))
    assert found["security.certificate"] is severity
    assert ("security.key-file" in found) == ("refusal" not in facts)


def test_the_certificate_has_to_be_for_what_clients_are_told() -> None:
    config = config_of(listen=["SSL://127.0.0.1:9092", "127.0.0.1:9093"], **TLS)
    assert findings(config, GOOD, ["broker.example", "x"])["security.certificate-name"] is Severity.OK
    assert findings(config, GOOD, ["other.example", "x"])["security.certificate-name"] is Severity.PROBLEM
    for host in ("broker.example", "BROKER.example.", "a.zone.example", "10.0.0.1", "::1", "0:0::1"):
        assert is_for(GOOD, host), host
    for host in (
        "example",
        "zone.example",
        ".zone.example",
        "b.a.zone.example",
        "10.0.0.2",
        "a.broker.example",
    ):
        assert not is_for(GOOD, host), host


def test_a_key_that_everybody_may_read_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("agent", age=dt.timedelta(hours=1))
    config = config_of(
        listen="SSL://127.0.0.1:9092", tls_certificate=str(issued.certificate), tls_key=str(issued.key)
    )
    settings = tls_settings(config)
    assert settings is not None
    for mode, severity in ((0o600, Severity.OK), (0o640, Severity.OK), (0o644, Severity.WARNING)):
        issued.key.chmod(mode)
        facts = look_at_certificate(settings)
        assert (facts.names, facts.addresses, facts.refusal) == (("localhost",), ("127.0.0.1",), "")
        assert facts.begins_s < time.time() < facts.ends_s
        found = {
            each.check: each for each in judge_security(config, facts, [Address("localhost", 1)], time.time())
        }
        assert found["security.key-file"].severity is severity
        assert found["security.certificate"].severity is Severity.WARNING
        assert found["security.certificate-name"].severity is Severity.OK


def test_files_that_cannot_be_used_are_told_with_the_reason(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one_of_them, other = authority.issue("one"), authority.issue("two")
    assert "is not that of" in look_at_certificate(TlsSettings(one_of_them.certificate, other.key)).refusal
    assert "can't read" in look_at_certificate(TlsSettings(tmp_path / "gone")).refusal


def test_a_listener_that_wants_authentication_is_seen_to_be_there() -> None:
    told = Address("broker.example", 9092)
    answer = BrokerFacts(told, ("10.0.0.1",), is_open=True, wants_authentication=True)
    found = list(judge_clients(ClientFacts(told, told, True, None, answer)))
    assert [(each.check, each.severity) for each in found] == [("clients.reach", Severity.OK)]
    assert "wants clients to authenticate" in found[0].text


@pytest.mark.parametrize("is_told", [True, False])
def test_a_listener_with_tls_and_sasl_is_asked_as_far_as_it_answers(tmp_path: Path, is_told: bool) -> None:
    """It answers ApiVersions, and closes at Metadata."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
            frame = await reader.readexactly(size)
            keys = [
                ApiVersion(api_key=key, min_version=0, max_version=4)
                for key in (ApiKey.METADATA, ApiKey.SASL_HANDSHAKE)
            ]
            answer = ApiVersionsResponse(error_code=0, api_keys=keys)
            correlation_id = int.from_bytes(frame[4:8], "big")
            writer.write(b"".join(encode_response_frame(correlation_id, answer, 0)))
            await reader.readexactly(4)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return
        finally:
            writer.close()

    async def ask() -> BrokerFacts:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=Certificate(tmp_path).server_context())
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await ask_broker(
                Address("127.0.0.1", port),
                samples=1,
                monotonic=time.monotonic,
                is_tls=True if is_told else None,
            )

    facts = asyncio.run(ask())
    assert (facts.is_broker, facts.is_tls, facts.wants_authentication) == (True, True, True), facts


def test_status_is_asked_over_tls(tmp_path: Path) -> None:
    async def answer(request: Request) -> Response:
        fields = {"version": "1", "cluster_id": "c", "broker_id": 3, "reasons": []}
        return json_response(200, fields)

    async def ask() -> None:
        context = Certificate(tmp_path).server_context()
        server = HttpServer(Address("127.0.0.1", 0), tls=HttpTls(lambda: context))
        await server.bind()
        await server.start(answer)
        try:
            assert (await ask_status(server.bound, is_tls=True)).broker_id == 3
            assert (await ask_status(server.bound)).refusal != ""
        finally:
            await server.stop(5)

    asyncio.run(ask())

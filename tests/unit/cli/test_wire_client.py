"""How the commands' own client reads addresses and the library's settings."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.tls import Certificate
from warp.cli.client import Client, ClientError
from warp.cli.wire_client import WireClient, _address, _check_settings, _tls
from warp.config_values import Address
from warp.errors import UsageError
from warp.protocol.messages.api_versions import ApiVersionsRequest


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("broker.example:9093", Address("broker.example", 9093)),
        (" broker.example", Address("broker.example", 9092)),
        ("SASL_SSL://broker.example:9093", Address("broker.example", 9093)),
        ("[::1]:7", Address("::1", 7)),
        ("[::1]", Address("::1", 9092)),
    ],
)
def test_addresses_are_read_as_the_library_reads_them(text: str, address: Address) -> None:
    assert _address(text) == address


@pytest.mark.parametrize("text", ["", "broker.example:", "broker.example:http", "broker.example:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        _address(text)


def test_settings_of_tls_that_are_not_understood_are_refused_where_tls_is_spoken() -> None:
    settings = {"ssl.ca.location": "a", "ssl.cipher.suites": "b", "socket.timeout.ms": "1"}
    with pytest.raises(UsageError, match=r"does not understand ssl\.cipher\.suites"):
        _check_settings(settings, uses_tls=True)
    _check_settings(settings, uses_tls=False)


def answer_of(listening: socket.socket, parts: Iterator[bytes]) -> None:
    """Take a connection and answer its first request, whatever it is, with these bytes, part by part."""
    taken, _ = listening.accept()
    with taken, contextlib.suppress(OSError):
        taken.recv(1_000)
        for part in parts:
            taken.sendall(part)
        taken.recv(1)


def slow(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        time.sleep(0.02)
        yield data[index : index + 1]


@pytest.mark.parametrize(
    ("timeout_s", "parts", "words"),
    [
        (0.1, lambda: slow((500).to_bytes(4, "big") + bytes(500)), "no answer from .* within 0.1 s"),
        (30.0, lambda: iter([b"\x7f\xff\xff\xff"]), "does not speak the Kafka protocol"),
        (30.0, lambda: iter([(5).to_bytes(4, "big") + bytes(5)]), "not to what it was asked"),
    ],
    ids=["drips", "huge", "other"],
)
def test_a_broker_that_answers_nothing_of_use_is_given_up(
    timeout_s: float, parts: Callable[[], Iterator[bytes]], words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=answer_of, args=(listening, parts()))
        server.start()
        bootstrap = f"127.0.0.1:{listening.getsockname()[1]}"
        asked = cast("Client", SimpleNamespace(options={}, timeout_s=timeout_s, bootstrap=bootstrap))
        try:
            with WireClient(asked) as client, pytest.raises(ClientError, match=words):
                client.ask(ApiVersionsRequest())
        finally:
            server.join()


def shake_hands(certificate: Certificate, options: dict[str, str]) -> None:
    """Speak TLS with a server that has this certificate, as 127.0.0.1. Raises what the client raises."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError):
            certificate.server_context().wrap_socket(theirs, server_side=True).close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        with ours:
            ours.settimeout(5)
            _tls(ours, options, Address("127.0.0.1", 9093)).close()
    finally:
        server.join()
        theirs.close()


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Certificate]:
    """Of the server, of one with another name, and of a stranger."""
    made = {}
    for who, names in (("own", ()), ("elsewhere", ("elsewhere.example",)), ("stranger", ())):
        directory = tmp_path / who
        directory.mkdir()
        made[who] = Certificate(directory, names)
    return made


def test_a_name_is_checked_unless_the_settings_say_otherwise(certificates: dict[str, Certificate]) -> None:
    trusted = {"ssl.ca.location": str(certificates["elsewhere"].ca_file)}
    with pytest.raises(ClientError, match=r"no TLS connection to 127\.0\.0\.1:9093"):
        shake_hands(certificates["elsewhere"], trusted)
    shake_hands(certificates["elsewhere"], trusted | {"ssl.endpoint.identification.algorithm": "none"})


@pytest.mark.parametrize("setting", ["ssl.ca.location", "ssl.ca.pem"])
def test_who_names_authorities_trusts_no_others(
    certificates: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["own"].ca_file))
    shake_hands(certificates["own"], {})
    stranger = certificates["stranger"].ca_file
    named = {setting: stranger.read_text() if setting == "ssl.ca.pem" else str(stranger)}
    with pytest.raises(ClientError, match="no TLS connection"):
        shake_hands(certificates["own"], named)
    shake_hands(certificates["stranger"], named)

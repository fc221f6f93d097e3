"""`warp cluster config` on listeners with TLS and SASL: the commands' own client, by the library's settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Running, Spawn, run_warp
from tests.support.tls import Certificate

USER, PASSWORD = "alice", "open sesame"
LISTENERS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


class Secured:
    """An agent with a listener of each protocol, and a user."""

    def __init__(self, directory: Path, running: Running, line: str, certificate: Certificate) -> None:
        self.directory = directory
        self.certificate = certificate
        self.addresses = dict(zip(LISTENERS, re.findall(r"127\.0\.0\.1:\d+", line), strict=False))
        running.bootstrap = self.addresses["PLAINTEXT"]

    def config(
        self, protocol: str, *, mechanism: str = "SCRAM-SHA-256", **settings: str
    ) -> tuple[int, str, str]:
        """Ask for the configs by a file of settings; underscores in names stand for dots."""
        wanted = {"security.protocol": protocol}
        if protocol.endswith("SSL"):
            wanted["ssl.ca.location"] = str(self.certificate.ca_file)
        if protocol.startswith("SASL"):
            wanted |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": PASSWORD}
        wanted |= {name.replace("_", "."): value for name, value in settings.items()}
        path = self.directory / "client.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in wanted.items() if value))
        words = ("cluster", "config", "--json", "--client-config", str(path), "--timeout", "5")
        return run_warp(*words, "--bootstrap", self.addresses[protocol])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("wire")
    certificate = Certificate(directory)
    spawn = Spawn(directory / "data")
    running = spawn.agent(
        *(word for protocol in LISTENERS for word in ("--listen", f"{protocol}://127.0.0.1:0")),
        *("--tls-certificate", str(certificate.ca_file), "--tls-key", str(certificate.key_file)),
        *("--tls-client-ca", str(certificate.ca_file)),
        *("--sasl-mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        serving=False,
    )
    found = Secured(directory, running, running.serving_line(), certificate)
    password = directory / "password"
    password.write_text(PASSWORD + "\n")
    made = run_warp(
        "user", "create", USER, "--password-file", str(password), "--bootstrap", running.bootstrap
    )
    assert made[0] == 0, made
    yield found
    assert running.stop() == 0
    running.close()


@pytest.mark.parametrize("protocol", LISTENERS)
def test_every_protocol_is_spoken(secured: Secured, protocol: str) -> None:
    assert secured.config(protocol) == (0, "[]\n", "")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_mechanism_authenticates(secured: Secured, mechanism: str) -> None:
    assert secured.config("SASL_SSL", mechanism=mechanism) == (0, "[]\n", "")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_one_line_without_it(secured: Secured, mechanism: str) -> None:
    code, output, error = secured.config("SASL_SSL", mechanism=mechanism, sasl_password="close sesame")
    assert (code, output) == (1, "")
    assert "authentication failed" in error.lower()
    assert "sesame" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("protocol", "settings", "code", "reason"),
    [
        ("SSL", {"ssl_ca_location": ""}, 1, "no TLS connection"),
        ("SSL", {"ssl_ca_location": "/nowhere.pem"}, 2, "TLS settings"),
        ("SSL", {"ssl_cipher_suites": "x"}, 2, "does not understand ssl.cipher.suites"),
        ("SSL", {"security_protocol": "PLAINTEXT"}, 1, "does security.protocol fit"),
        ("PLAINTEXT", {"security_protocol": "SSL"}, 1, "no TLS connection"),
        ("SASL_PLAINTEXT", {"security_protocol": "PLAINTEXT"}, 1, "does security.protocol fit"),
        ("SASL_PLAINTEXT", {"sasl_mechanism": "GSSAPI"}, 2, "GSSAPI"),
        ("SASL_PLAINTEXT", {"sasl_username": ""}, 2, "needs sasl.username"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    secured: Secured, protocol: str, settings: dict[str, str], code: int, reason: str
) -> None:
    found, output, error = secured.config(protocol, **settings)
    assert (found, output) == (code, "")
    assert reason in error
    assert PASSWORD not in error
    assert error.count("\n") == 1


def test_a_certificate_may_go_unchecked_by_the_settings_of_the_library(secured: Secured) -> None:
    unchecked = {"ssl_ca_location": "", "enable_ssl_certificate_verification": "false"}
    assert secured.config("SSL", **unchecked) == (0, "[]\n", "")


def test_a_client_shows_its_own_certificate(secured: Secured) -> None:
    own = {
        "ssl_certificate_location": os.fspath(secured.certificate.ca_file),
        "ssl_key_location": os.fspath(secured.certificate.key_file),
    }
    assert secured.config("SSL", **own) == (0, "[]\n", "")

"""An agent that asks who is there and what he may do, and every way to come in that clients have.

Each principal may do everything to topics and groups whose names begin with its own name, and nothing else: a client
that has come by has been taken for whom it should be. `admin`, who shows a certificate, may do everything.

Programs in other languages find the settings of a way in files: PATH.json and, in the words of Java, PATH.properties.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from tests.support.certificates import Authority, Issued
from tests.support.process import AgentProcess, free_port
from tests.unit.security.sasl_support import SigningKeys
from warp.cli.main import main

PASSWORD = 'right, ="password'
TOKEN_LIFETIME_S = 600
EMPTY: Mapping[str, Any] = MappingProxyType({})
_PROTOCOLS = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
_JAVA_MODULES = "org.apache.kafka.common.security."


@dataclass(frozen=True)
class Way:
    """How a client comes in, and who it is then."""

    name: str
    protocol: str
    principal: str
    mechanism: str | None = None
    has_certificate: bool = False


SSL = Way("ssl", "SSL", "ANONYMOUS")
MUTUAL_TLS = Way("mutual-tls", "SSL", "certified", has_certificate=True)
ADMIN = Way("admin", "SSL", "admin", has_certificate=True)
PLAIN = Way("plain", "SASL_SSL", "alice", "PLAIN")
SCRAM_256 = Way("scram-sha-256", "SASL_PLAINTEXT", "alice", "SCRAM-SHA-256")
SCRAM_512 = Way("scram-sha-512", "SASL_SSL", "alice", "SCRAM-SHA-512")
OAUTHBEARER = Way("oauthbearer", "SASL_SSL", "bearer", "OAUTHBEARER")
WAYS = (SSL, MUTUAL_TLS, PLAIN, SCRAM_256, SCRAM_512, OAUTHBEARER)
PASSWORD_WAYS = (PLAIN, SCRAM_256, SCRAM_512)


class Secured:
    """The agent with a listener of each protocol but PLAINTEXT's, whose clients may do nothing."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._keys = SigningKeys()
        key_set = directory / "keys.json"
        key_set.write_bytes(self._keys.key_set())
        self.authority = Authority(directory)
        self._certificates = {name: self.authority.issue(name) for name in ("agent", "admin", "certified")}
        self.addresses = {protocol: f"127.0.0.1:{free_port()}" for protocol in _PROTOCOLS}
        shown = self._certificates["agent"]
        listeners = [
            word
            for protocol, address in self.addresses.items()
            for word in ("--listen", f"{protocol}://{address}")
        ]
        self.process = AgentProcess(
            directory / "data", *listeners, "--tls-certificate", str(shown.certificate), "--tls-key", str(shown.key),
            "--tls-client-ca", str(self.authority.ca), "--tls-client-auth", "requested",
            "--tls-principal-rules", "RULE:^CN=([^,]+)$/$1/,DEFAULT",
            "--sasl-mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "--oauth-jwks", str(key_set), "--oauth-issuer", "https://issuer", "--oauth-audience", "warp",
            "--authorization", "enforce", "--super-users", "User:admin", "--group-rebalance-delay", "100ms", *options,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.process.start()
        self.make_user("alice")
        for principal in ("ANONYMOUS", "certified", "alice", "bearer"):
            self.allow(principal, "--prefixed", "--operation", "all", "--topic", f"{principal}-")
            self.allow(principal, "--prefixed", "--operation", "all", "--group", f"{principal}-")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def warp(self, *command: str) -> None:
        """A command of `warp` by the administrator."""
        path = self._directory / "client.properties"
        if not path.exists():
            settings = self.librdkafka(ADMIN)
            path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        assert main([*command, "--client-config", str(path)]) == 0

    def make_user(self, name: str) -> None:
        path = self._directory / "password"
        path.write_text(PASSWORD)
        self.warp("user", "create", name, "--password-file", str(path))

    def allow(self, principal: str, *what: str) -> None:
        self.warp("acl", "create", "--allow", f"User:{principal}", *what)

    def token(self, name: str = "bearer") -> str:
        now_s = int(time.time())
        return self._keys.token(sub=name, iat=now_s, exp=now_s + TOKEN_LIFETIME_S)

    def certificate(self, way: Way) -> Issued | None:
        """What the client shows."""
        return self._certificates[way.principal] if way.has_certificate else None

    def librdkafka(
        self, way: Way, user: str | None = None, more: Mapping[str, Any] = EMPTY
    ) -> dict[str, Any]:
        """Settings of librdkafka, and `more`; by the name of `user`, if it is another than the way's."""
        settings: dict[str, Any] = {
            "bootstrap.servers": self.addresses[way.protocol],
            "security.protocol": way.protocol,
        }
        if way.protocol.endswith("SSL"):
            settings["ssl.ca.location"] = str(self.authority.ca)
        if (shown := self.certificate(way)) is not None:
            settings["ssl.certificate.location"] = str(shown.certificate)
            settings["ssl.key.location"] = str(shown.key)
        if way.mechanism is not None:
            settings["sasl.mechanism"] = way.mechanism
        if way.mechanism == "OAUTHBEARER":
            settings["oauth_cb"] = lambda _: (self.token(), time.time() + TOKEN_LIFETIME_S)
        elif way.mechanism is not None:
            settings |= {"sasl.username": user or way.principal, "sasl.password": PASSWORD}
        return {**settings, **more}

    def files(self, way: Way, user: str | None = None) -> str:
        """The PATH of the files with the settings of a way."""
        path = str(self._directory / f"{way.name}-{user or way.principal}")
        Path(f"{path}.json").write_text(json.dumps(self._settings(way, user)))
        lines = [f"{name}={value}\n" for name, value in self._java(way, user).items()]
        Path(f"{path}.properties").write_text("".join(lines))
        return path

    def _settings(self, way: Way, user: str | None) -> dict[str, str]:
        found = {"protocol": way.protocol, "mechanism": way.mechanism or "", "ca": str(self.authority.ca)}
        if (shown := self.certificate(way)) is not None:
            found |= {"certificate": str(shown.certificate), "key": str(shown.key)}
        if way.mechanism == "OAUTHBEARER":
            return {**found, "token": self.token()}
        return {**found, "user": user or way.principal, "password": PASSWORD} if way.mechanism else found

    def _java(self, way: Way, user: str | None) -> dict[str, str]:
        found = {"security.protocol": way.protocol}
        if way.protocol.endswith("SSL"):
            found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.authority.ca)}
        if (shown := self.certificate(way)) is not None:
            store = self._directory / f"{way.name}-store.pem"
            store.write_bytes(shown.key.read_bytes() + shown.certificate.read_bytes())
            found |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(store)}
        if way.mechanism is None:
            return found
        found["sasl.mechanism"] = way.mechanism
        if way.mechanism == "OAUTHBEARER":
            token = self._directory / "token"
            token.write_text(self.token())
            return {
                **found,
                "sasl.jaas.config": f"{_JAVA_MODULES}oauthbearer.OAuthBearerLoginModule required;",
                "sasl.login.callback.handler.class": f"{_JAVA_MODULES}oauthbearer.OAuthBearerLoginCallbackHandler",
                "sasl.oauthbearer.token.endpoint.url": token.as_uri(),
            }
        module = "plain.PlainLoginModule" if way.mechanism == "PLAIN" else "scram.ScramLoginModule"
        password = PASSWORD.replace('"', '\\\\"')
        name = f'username="{user or way.principal}" password="{password}"'
        return {**found, "sasl.jaas.config": f"{_JAVA_MODULES}{module} required {name};"}


def topic_of(principal: str) -> str:
    """A new name that this principal may use, for a topic or a group."""
    return f"{principal}-{uuid.uuid4().hex[:12]}"

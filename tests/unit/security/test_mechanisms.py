"""The mechanisms of an agent: which are there, what is counted, what is loaded, and that nothing tells a secret."""

from __future__ import annotations

import asyncio
import base64
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.security.sasl_support import (
    SECRET,
    ScramClient,
    SigningKeys,
    bearer,
    credentials_of,
    entries_of,
    salted,
)
from warp.clock import SystemClock
from warp.config import AgentConfig, config_of
from warp.errors import UsageError
from warp.security.credential_changes import Upsertion, plan_changes
from warp.security.credentials import SHA_256, Credentials
from warp.security.mechanisms import (
    AuthenticationFailed,
    Mechanism,
    Mechanisms,
    Outcome,
    Step,
    build_mechanisms,
)
from warp.security.principal import Principal

ALL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
ROOT = Path(__file__).parents[3]


class Counted:
    """The attempts that were told of."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, Outcome]] = []

    def __call__(self, mechanism: str, outcome: Outcome) -> None:
        self.attempts.append((mechanism, outcome))


async def step(exchange: Mechanism, token: bytes) -> Step:
    found = exchange.step(token)
    return await found if inspect.isawaitable(found) else found


async def attempt(exchange: Mechanism, *tokens: bytes) -> Step | AuthenticationFailed:
    found: Step | AuthenticationFailed = Step(b"")
    for token in tokens:
        try:
            found = await step(exchange, token)
        except AuthenticationFailed as error:
            return error
    return found


def config(**options: str) -> AgentConfig:
    return config_of(**{"listen": "SASL_PLAINTEXT://127.0.0.1:0", **options})


def test_only_the_enabled_mechanisms_begin_in_the_order_of_the_configuration() -> None:
    mechanisms = Mechanisms(("SCRAM-SHA-512", "PLAIN", "PLAIN"), credentials_of({}))
    assert mechanisms.names == ("SCRAM-SHA-512", "PLAIN")
    assert mechanisms.keys_age_s is None
    for name in ("SCRAM-SHA-256", "OAUTHBEARER", "GSSAPI", "plain", "", "PLAIN\0"):
        with pytest.raises(KeyError):
            mechanisms.begin(name, os.urandom)


def test_oauthbearer_needs_to_know_where_the_keys_are() -> None:
    with pytest.raises(UsageError, match="--oauth-jwks"):
        Mechanisms(ALL, credentials_of({}))


def test_every_mechanism_lets_in_and_refuses_and_each_attempt_is_counted_once(tmp_path: Path) -> None:
    keys = SigningKeys()
    (tmp_path / "keys.json").write_bytes(keys.key_set())
    counted = Counted()
    now_s = SystemClock().time_ms() // 1000
    times: dict[str, Any] = {"iat": now_s, "exp": now_s + 600}

    async def test() -> None:
        mechanisms = build_mechanisms(
            config(
                sasl_mechanisms=",".join(ALL),
                sasl_session_max_ms="1h",
                oauth_jwks=str(tmp_path / "keys.json"),
            ),
            credentials_of({"alice": "right"}),
            SystemClock(),
            attempted=counted,
        )
        assert mechanisms.names == ALL
        assert mechanisms.keys_age_s == float("inf")
        mechanisms.start()
        try:
            for password, outcome in (("right", Outcome.OK), ("wrong", Outcome.REFUSED)):
                token = f"\0alice\0{password}".encode()
                done = await attempt(mechanisms.begin("PLAIN", os.urandom), token)
                check(done, outcome, 3_600_000)
                for name in ALL[1:3]:
                    client = ScramClient(name[-7:].replace("-", "").lower(), "alice", password)
                    exchange = mechanisms.begin(name, os.urandom)
                    first = await step(exchange, client.first())
                    check(await attempt(exchange, client.final(first.token)), outcome, 3_600_000)
                good = keys.token(**times)
                shown = good if outcome is Outcome.OK else good[:-8] + "AAAAAAAA"
                tokens = [bearer(shown)] if outcome is Outcome.OK else [bearer(shown), b"\x01"]
                check(await attempt(mechanisms.begin("OAUTHBEARER", os.urandom), *tokens), outcome, 600_000)
            for name in ALL:
                done = await attempt(mechanisms.begin(name, os.urandom), b"\xff")
                check(done, Outcome.MALFORMED)
            assert mechanisms.keys_age_s < 60
        finally:
            await mechanisms.close()

    asyncio.run(test())
    assert counted.attempts == [
        (name, outcome) for outcome in (Outcome.OK, Outcome.REFUSED, Outcome.MALFORMED) for name in ALL
    ]


def check(done: Step | AuthenticationFailed, outcome: Outcome, lifetime_ms: int = 0) -> None:
    if isinstance(done, AuthenticationFailed):
        assert done.outcome is outcome
        return
    assert outcome is Outcome.OK
    assert done.principal == Principal("User", "alice")
    assert done.lifetime_ms is not None
    assert lifetime_ms - 60_000 < done.lifetime_ms <= lifetime_ms


def test_a_password_alone_can_be_checked_and_counts_as_plain() -> None:
    counted = Counted()

    async def test() -> None:
        mechanisms = Mechanisms(("SCRAM-SHA-256",), credentials_of({"alice": "right"}), attempted=counted)
        try:
            assert await mechanisms.check_password("alice", "right") == Principal("User", "alice")
            for name, password in (("alice", "wrong"), ("bob", "right"), ("*", "right")):
                with pytest.raises(AuthenticationFailed):
                    await mechanisms.check_password(name, password)
        finally:
            await mechanisms.close()

    asyncio.run(test())
    assert [outcome for _, outcome in counted.attempts] == ["ok", "refused", "refused", "malformed"]


def test_a_session_without_a_limit_has_none() -> None:
    exchange = Mechanisms(("SCRAM-SHA-256",), credentials_of({"alice": "right"})).begin(
        "SCRAM-SHA-256", os.urandom
    )
    client = ScramClient("sha256", "alice", "right")
    first = exchange.step(client.first())
    assert isinstance(first, Step)
    done = exchange.step(client.final(first.token))
    assert isinstance(done, Step)
    assert done.lifetime_ms is None


LOADED = """
import asyncio, sys
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.config import config_of
from warp.ids import IdSource
from warp.metrics import Metrics
import os

async def main():
    clock = SystemClock()
    config = config_of(
        listen="SASL_PLAINTEXT://127.0.0.1:0", http="off", object_store="mem://", metadata="mem://",
        sasl_mechanisms=sys.argv[1], **({"oauth_jwks": sys.argv[2]} if len(sys.argv) > 2 else {}),
    )
    agent = build_agent(config, clock=clock, ids=IdSource(clock, os.urandom), metrics=Metrics())
    await agent.start()
    await agent.stop(1)

asyncio.run(main())
print([name for name in ("jwt", "cryptography") if name in sys.modules])
"""


@pytest.mark.parametrize("mechanisms", ["PLAIN,SCRAM-SHA-256,SCRAM-SHA-512", "PLAIN,OAUTHBEARER"])
def test_only_an_agent_that_takes_tokens_loads_what_checks_them(tmp_path: Path, mechanisms: str) -> None:
    (tmp_path / "keys.json").write_bytes(SigningKeys().key_set())
    command = [sys.executable, "-c", LOADED, mechanisms]
    if "OAUTHBEARER" in mechanisms:
        command.append(str(tmp_path / "keys.json"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[-1]
    if "OAUTHBEARER" in mechanisms:
        assert "jwt" in found
        assert "cryptography" in found
    else:
        assert found == "[]"


# ---- secrets ----

PASSWORD = "hunter2 is the password"


def shapes_of(secret: bytes) -> Iterator[str]:
    """How a secret could look in a text."""
    yield repr(secret)[2:-1]
    yield secret.hex()
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b16encode):
        yield encode(secret).decode().rstrip("=")


def assert_no_secret(text: str, secrets: list[bytes]) -> None:
    for secret in secrets:
        for shape in shapes_of(secret):
            assert shape not in text


def secrets_of(password: str) -> list[bytes]:
    key = salted(SHA_256, password, b"salt", 4096)
    credentials = credentials_of({"alice": password})
    found = credentials.find(SHA_256, "alice")
    assert found is not None
    return [password.encode(), key, found.stored_key, found.server_key, SECRET]


def reachable(value: Any) -> list[Any]:
    """The object, and those that it holds, a few levels deep."""
    found, level = [value], [value]
    for _ in range(3):
        level = [
            inner
            for each in level
            for inner in (vars(each).values() if hasattr(each, "__dict__") else ())
            if type(inner).__module__.startswith("warp")
        ]
        found += level
    return found


def test_no_secret_is_in_what_objects_show_of_themselves() -> None:
    credentials = credentials_of({"alice": PASSWORD})
    secrets = secrets_of(PASSWORD)
    key = salted(SHA_256, PASSWORD, b"salt", 4096)
    upsertion = Upsertion("alice", 1, 4096, b"salt", key)
    plan = plan_changes({}, [upsertion])
    mechanisms = Mechanisms(ALL[:3], credentials)
    exchange = mechanisms.begin("SCRAM-SHA-256", os.urandom)
    client = ScramClient("sha256", "alice", PASSWORD)
    exchange.step(client.first())
    shown = [
        credentials.find(SHA_256, "alice"),
        credentials.make_up(SHA_256, "alice"),
        upsertion,
        plan,
        *reachable(credentials),
        *reachable(mechanisms),
        *reachable(exchange),
    ]
    for each in shown:
        assert_no_secret(repr(each) + str(each), secrets)


@pytest.mark.parametrize("name", ALL[:3])
def test_no_secret_is_in_errors_or_logs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    credentials = credentials_of({"alice": PASSWORD})
    wrong = "correct horse battery staple"
    secrets = [*secrets_of(PASSWORD), *secrets_of(wrong)]
    errors: list[AuthenticationFailed] = []

    async def test() -> None:
        mechanisms = Mechanisms(ALL[:3], credentials)
        try:
            for user in ("alice", "nobody"):
                exchange = mechanisms.begin(name, os.urandom)
                if name == "PLAIN":
                    tokens = [f"\0{user}\0{wrong}".encode()]
                else:
                    client = ScramClient(name[-7:].replace("-", "").lower(), user, wrong)
                    first = await step(exchange, client.first())
                    tokens = [client.final(first.token)]
                    secrets.append(base64.b64decode(tokens[0].rpartition(b"p=")[2]))
                failure = await attempt(exchange, *tokens)
                assert isinstance(failure, AuthenticationFailed)
                errors.append(failure)
            for token in (
                f"alice\0{wrong}",
                f"\0alice\0{wrong}\0",
                f"{wrong}\0alice\0{wrong}",
                f"n,,n={wrong}",
            ):
                failure = await attempt(mechanisms.begin(name, os.urandom), token.encode())
                assert isinstance(failure, AuthenticationFailed)
                errors.append(failure)
        finally:
            await mechanisms.close()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(test())
    for error in errors:
        chain = f"{error!r} {error} {error.reason} {error.token!r} {error.__cause__!r} {error.__context__!r}"
        assert_no_secret(chain, secrets)
    assert_no_secret(caplog.text, secrets)


def test_a_credential_that_can_not_be_read_is_told_of_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = {key: value[:-3] for key, value in entries_of({"alice": PASSWORD}).items()}
    credentials = Credentials(SECRET)
    with caplog.at_level(logging.DEBUG):
        credentials.entries_changed(entries, ())
        assert credentials.find(SHA_256, "alice") is None
    assert "'alice' can't be read" in caplog.text
    assert_no_secret(caplog.text, secrets_of(PASSWORD))

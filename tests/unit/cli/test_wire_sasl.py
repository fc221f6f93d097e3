"""The commands' own SASL, against the agent's side of it and against servers that cheat."""

from __future__ import annotations

import base64

import pytest

from tests.unit.security.sasl_support import credentials_of
from warp.cli.wire_sasl import exchange
from warp.security.credentials import SCRAM_HASHES, ScramHash
from warp.security.exchange import AuthenticationFailed
from warp.security.scram import ScramExchange

PASSWORD = "pass=word, ü"
USER = "al=ice,b"


def random_bytes(count: int) -> bytes:
    return b"r" * count


def authenticate(scram: ScramHash, user: str, password: str) -> str:
    """Whom the agent takes the client for; the client has seen that the agent knows it."""
    server = ScramExchange(scram, credentials_of({USER: PASSWORD}), random_bytes, None)
    client = exchange(scram.mechanism, user, password, random_bytes)
    token = next(client)
    while True:
        step = server.step(token)
        try:
            token = client.send(step.token)
        except StopIteration:
            assert step.principal is not None
            return step.principal.name


@pytest.mark.parametrize("scram", SCRAM_HASHES, ids=lambda scram: scram.mechanism)
def test_the_agent_and_the_commands_agree_on_scram(scram: ScramHash) -> None:
    assert authenticate(scram, USER, PASSWORD) == USER
    for user, password in ((USER, "wrong"), ("nobody", PASSWORD)):
        with pytest.raises(AuthenticationFailed):
            authenticate(scram, user, password)


def test_plain_is_one_token() -> None:
    client = exchange("PLAIN", USER, PASSWORD, random_bytes)
    assert next(client) == f"\0{USER}\0{PASSWORD}".encode()
    with pytest.raises(StopIteration):
        client.send(b"")


NONCE = base64.b64encode(b"r" * 24).decode()


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ("r=other,s=c2FsdA==,i=4096", "nonce"),
        (f"r={NONCE},s=c2FsdA==,i=4096", "nonce"),
        (f"r={NONCE}x,s=c2FsdA==,i=0", "0 iterations"),
        (f"r={NONCE}x,s=c2FsdA==,i=4095", "4095 iterations"),
        (f"r={NONCE}x,s=c2FsdA==,i=99999999999", "99999999999 iterations"),
        (f"r={NONCE}x,s=c2FsdA==,i=-1", "-1 iterations"),
        (f"r={NONCE}x,s=c2FsdA==", " iterations"),
        (f"r={NONCE}x,s=!,i=4096", "can't be read"),
        ("", "nonce"),
    ],
)
def test_a_server_that_does_not_hold_to_the_mechanism_is_refused(challenge: str, words: str) -> None:
    client = exchange("SCRAM-SHA-256", USER, PASSWORD, random_bytes)
    next(client)
    with pytest.raises(ValueError, match=words) as refused:
        client.send(challenge.encode())
    assert PASSWORD not in str(refused.value)


def test_a_server_that_does_not_know_the_user_is_refused() -> None:
    client = exchange("SCRAM-SHA-256", USER, PASSWORD, random_bytes)
    next(client)
    client.send(f"r={NONCE}x,s=c2FsdA==,i=4096".encode())
    with pytest.raises(ValueError, match="does not know"):
        client.send(b"v=" + base64.b64encode(bytes(32)))

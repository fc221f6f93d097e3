"""SASL: exchanges of every mechanism, with tokens that are anything, or right but for a few bytes.

The input is a script: a mechanism, then tokens. Each is raw, or the one that a client with the right, or a wrong,
password would send next, with bytes changed. Whatever comes, a step gives an answer or AuthenticationFailed, and it
succeeds only for who has shown the password or a token that the issuer has signed.
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Iterable
from typing import Any, Final

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import (
    AUDIENCE,
    HEADER,
    NAMES,
    PASSWORD,
    USER,
    claims,
    run,
    shared_mechanisms,
    signed,
)
from tests.unit.security.sasl_support import NOW_S, ScramClient, bearer
from warp.security.exchange import AuthenticationFailed, Mechanism, Step
from warp.security.names import saslprep
from warp.security.principal import NAME_CHARACTERS_MAX

STEPS_MAX: Final = 5
RAW, RIGHT, WRONG = range(3)
ALGORITHMS: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class Client:
    """Makes the tokens of a script for one mechanism, and knows whether they deserve to succeed."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script
        self._scram: ScramClient | None = None
        self._server_first = b""
        self._knows_password = False
        self.deserves = False
        """Whether what was sent last shows that it is who it says it is."""

    def token(self) -> bytes:
        """The next one."""
        kind = self._script.byte() % 3
        mark(self._name, kind)
        if kind == RAW:
            made = self._script.take(self._script.number(2))
        elif self._name == "PLAIN":
            made = f"\0{USER}\0{PASSWORD if kind == RIGHT else 'wrong'}".encode()
        elif self._name == "OAUTHBEARER":
            made = self._bearer(kind)
        else:
            made = self._scram_token(kind)
        changed = self._changed(made)
        self.deserves = self._is_deserved(made, changed, kind)
        return changed

    def answered(self, token: bytes) -> None:
        """What the server says."""
        self._server_first = token

    def _bearer(self, kind: int) -> bytes:
        header, payload = self._script.take(self._script.byte()), self._script.take(self._script.byte())
        token = signed(header or HEADER, payload or json.dumps(claims()).encode())
        return bearer(token if kind == RIGHT else token[:-8] + "AAAAAAAA")

    def _scram_token(self, kind: int) -> bytes:
        if self._scram is None:
            self._knows_password = kind == RIGHT
            self._scram = ScramClient(ALGORITHMS[self._name], USER, PASSWORD if kind == RIGHT else "wrong")
            return self._scram.first()
        if not self._server_first.startswith(b"r=client-nonce"):
            return b""
        return self._scram.final(self._server_first)

    def _changed(self, token: bytes) -> bytes:
        made = bytearray(token)
        for _ in range(self._script.byte() % 4):
            at, bits = self._script.number(2), self._script.byte()
            if made:
                made[at % len(made)] ^= bits
        return bytes(made)

    def _is_deserved(self, made: bytes, changed: bytes, kind: int) -> bool:
        try:
            if self._name == "PLAIN":
                return _is_right_password(changed)
            if self._name == "OAUTHBEARER":
                return kind == RIGHT and _is_signed(changed)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False  # not even of the right form
        # Extensions and the bits that base64 leaves over may change without changing the meaning.
        return self._knows_password and kind != RAW and _scram_meaning(made) == _scram_meaning(changed)


def _is_right_password(token: bytes) -> bool:
    who, user, password = token.decode().split("\0")
    return who in ("", user) and saslprep(user) == USER and PASSWORD in (password, saslprep(password))


def _is_signed(message: bytes) -> bool:
    """Whether the token in it is signed, and says what it has to: by the rules as they stand in the documentation."""
    found = message.decode().split("\x01")
    (token,) = [pair[5:].split(" ")[-1] for pair in found if pair.startswith("auth=") and pair.strip()]
    header, payload, _ = token.strip(" ").split(".")
    said: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if signed(_decoded(header), _decoded(payload)).rpartition(".")[0] != f"{header}.{payload}":
        return False
    audiences = said["aud"] if isinstance(said["aud"], list) else [said["aud"]]
    name = said["sub"]
    return AUDIENCE in audiences and said["exp"] > NOW_S and 0 < len(name) <= NAME_CHARACTERS_MAX


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _scram_meaning(message: bytes) -> object:
    front, comma, proof = message.rpartition(b",p=")
    if not comma:
        return message
    try:
        return front, base64.b64decode(proof, validate=True)
    except ValueError:
        return message


def check(data: bytes) -> None:
    """One exchange."""
    script = Script(data)
    name = NAMES[script.byte() % len(NAMES)]
    run(_exchange(shared_mechanisms().begin(name, bytes), name, script))


async def _exchange(exchange: Mechanism, name: str, script: Script) -> None:
    client = Client(name, script)
    for number in range(STEPS_MAX):
        if not script and number:
            return
        token = client.token()
        try:
            step = await _step(exchange, token)
        except AuthenticationFailed as failure:
            mark(name, "failed", said(ValueError(failure.reason)), failure.outcome)
            _check_message(failure.message)
            continue
        if step.principal is not None:
            mark(name, "succeeded")
            assert client.deserves, "succeeded without a right"
            assert name == "OAUTHBEARER" or step.principal.name == USER
            assert step.principal.name.isprintable()
            continue
        client.answered(step.token)


def _check_message(message: str) -> None:
    """What a client is told."""
    assert PASSWORD not in message
    message.encode("utf-8")


async def _step(exchange: Mechanism, token: bytes) -> Step:
    step = exchange.step(token)
    return await step if inspect.isawaitable(step) else step


def seeds() -> Iterable[bytes]:
    """Good exchanges of every mechanism, wrong passwords, and messages with all that they may hold."""
    for number in range(2):
        yield bytes([number, RIGHT, 0, RIGHT, 0])
        yield bytes([number, WRONG, 0, RIGHT, 0])
        yield bytes([number]) + _raw(b"n,a=alice,n=alice,r=client-nonce,ext=value") + bytes([RIGHT, 0])
        yield bytes([number]) + _raw(b"n,,n=a=2Cb=3D,r=client-nonce") + _raw(b"c=biws,r=client-nonce,p=AAAA")
        yield bytes([number]) + _raw("n,,n=\u2168\u00aa,r=x,tokenauth=true".encode())
    yield bytes([2, RIGHT, 0])
    yield bytes([2, WRONG, 0])
    yield bytes([2]) + _raw(b"alice\0alice\0secret")
    yield bytes([2]) + _raw("\0\u2168\0\u00ad".encode())
    yield bytes([3, RIGHT, 0, 0, 0])
    yield bytes([3, WRONG, 0, 0, 0]) + _raw(b"\x01")
    for payload_of in (
        claims(exp=1),
        claims(aud=["a", "warp"]),
        claims(nbf=2**40),
        claims(sub=5),
        claims(exp=1e10),
    ):
        payload = json.dumps(payload_of).encode()
        yield bytes([3, RIGHT, 0, len(payload)]) + payload + b"\0"
    yield bytes([3]) + _raw(bearer(signed(HEADER, b"{}"), authorization="alice", extensions="a=b\x01"))


def _raw(token: bytes) -> bytes:
    return bytes([RAW]) + len(token).to_bytes(2, "big") + token + b"\0"


TARGET = Target(
    check,
    seeds,
    words=(
        b"n,,", b"y,,", b"p=tls-unique,,", b"n=", b",r=", b"c=biws", b",p=", b"=2C", b"=3D", b"tokenauth=true",
        b"\x01auth=Bearer ", b"\x01\x01", b'{"alg":"none"}', b'{"alg":"EdDSA"}', b'"crit":[]', b'"exp":', b'"sub":',
        b'"aud":', b"1e999", b"NaN", b"-0.0", b"\xc2\xad", b"\xe2\x85\xa8", b"\xd8\xa7", b"\0",
    ),
)  # fmt: skip

"""Users and keys that stay the same from run to run, and a loop to wait on: what several targets share."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.unit.security.sasl_support import NOW_MS, NOW_S, credentials_of
from warp.security.credentials import Credentials
from warp.security.jwks import KeySource, parse_key_set
from warp.security.mechanisms import Mechanisms
from warp.security.oauth import TokenRules, Tokens

USER: Final = "alice"
PASSWORD: Final = "secret"
AUDIENCE: Final = "warp"
RULES: Final = TokenRules(audience=AUDIENCE)
NAMES: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER")
ED_KEY: Final = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EC_KEY: Final = ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1())

T = TypeVar("T")


class Clock:
    """Stands still."""

    def time_ms(self) -> int:
        return NOW_MS

    def monotonic(self) -> float:
        return 1000.0

    def boottime(self) -> float:
        return 1000.0


@cache
def credentials() -> Credentials:
    """One user."""
    return credentials_of({USER: PASSWORD})


@cache
def derived(algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    """PBKDF2 for the one password that is right; something else, and soon, for all others."""
    if password == PASSWORD.encode():
        return hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)
    return hashlib.new(algorithm, password + salt).digest()


async def derive(algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    """See warp.security.plain.Derive."""
    return derived(algorithm, password, salt, iterations)


def key_set() -> bytes:
    """The public keys, as a JSON Web Key Set."""
    kinds: Any = jwt.algorithms
    keys = (
        {"kid": "ed", **kinds.OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True)},
        {"kid": "ec", **kinds.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)},
    )
    return json.dumps(
        {"keys": [{name: value for name, value in key.items() if name != "key_ops"} for key in keys]}
    ).encode()


def signed(header: bytes, payload: bytes) -> str:
    """A token of these parts, whatever they are, that the key has signed."""
    parts = b".".join(jwt.utils.base64url_encode(part) for part in (header, payload))
    return (parts + b"." + jwt.utils.base64url_encode(ED_KEY.sign(parts))).decode()


def claims(**changed: Any) -> Mapping[str, Any]:
    """Those of a good token, but for some."""
    return {"sub": USER, "aud": AUDIENCE, "iat": NOW_S, "exp": NOW_S + 600, **changed}


HEADER: Final = b'{"alg":"EdDSA","kid":"ed"}'


async def mechanisms() -> Mechanisms:
    """All of them, with the keys read."""
    keys = parse_key_set(key_set())
    source = KeySource(lambda: keys, "memory", Clock(), refresh_s=600)
    await source.look_again()
    tokens = Tokens(source, RULES, Clock())
    return Mechanisms(NAMES, credentials(), derive=derive, tokens=tokens)


@cache
def loop() -> asyncio.AbstractEventLoop:
    """One for all inputs."""
    return asyncio.new_event_loop()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end."""
    return loop().run_until_complete(coroutine)


@cache
def shared_mechanisms() -> Mechanisms:
    """Made once: exchanges share nothing but credentials and keys."""
    return run(mechanisms())

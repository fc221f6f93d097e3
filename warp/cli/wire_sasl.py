"""The client's side of SASL for `warp.cli.wire_client`: PLAIN and SCRAM. Pure: tokens in, tokens out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Generator
from typing import Final

MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
ITERATIONS_MIN: Final = 4_096
"""What Kafka's servers ask for at least (RFC 5802). From a proof with fewer a false one could guess the password."""
ITERATIONS_MAX: Final = 10_000_000
"""A server may ask for so many; more would keep the client busy for minutes."""

_HASHES: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_NONCE_BYTES: Final = 24
_NO_CHANNEL_BINDING: Final = "n,,"

Exchange = Generator[bytes, bytes, None]
"""Yields the client's tokens, is sent the server's; ends when the server has shown what it had to."""


def exchange(mechanism: str, user: str, password: str, random_bytes: Callable[[int], bytes]) -> Exchange:
    """One authentication. Raises ValueError for a server that does not hold to the mechanism."""
    if mechanism == "PLAIN":
        return _plain(user, password)
    return _scram(_HASHES[mechanism], user, password, random_bytes)


def _plain(user: str, password: str) -> Exchange:
    """RFC 4616."""
    yield f"\0{user}\0{password}".encode()


def _scram(name: str, user: str, password: str, random_bytes: Callable[[int], bytes]) -> Exchange:
    """RFC 5802, without channel binding; the password as it is."""

    def digest(key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, name)

    nonce = base64.b64encode(random_bytes(_NONCE_BYTES)).decode()
    escaped = user.replace("=", "=3D").replace(",", "=2C")
    first = f"n={escaped},r={nonce}"
    challenge = (yield (_NO_CHANNEL_BINDING + first).encode()).decode()
    fields = _fields(challenge)
    whole_nonce, iterations = fields.get("r", ""), fields.get("i", "")
    if not whole_nonce.startswith(nonce) or len(whole_nonce) == len(nonce):
        raise ValueError("the server's nonce is not made of the client's")
    if not iterations.isdigit() or not ITERATIONS_MIN <= int(iterations) <= ITERATIONS_MAX:
        raise ValueError(f"the server asks for {iterations[:20]} iterations")
    salted = hashlib.pbkdf2_hmac(name, password.encode(), _base64(fields.get("s", "")), int(iterations))
    binding = base64.b64encode(_NO_CHANNEL_BINDING.encode()).decode()
    last = f"c={binding},r={whole_nonce}"
    signed = f"{first},{challenge},{last}".encode()
    key = digest(salted, b"Client Key")
    signature = digest(hashlib.new(name, key).digest(), signed)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    answer = (yield f"{last},p={base64.b64encode(proof).decode()}".encode()).decode()
    shown = _base64(_fields(answer).get("v", ""))
    if not hmac.compare_digest(shown, digest(digest(salted, b"Server Key"), signed)):
        raise ValueError("the server does not know the user's credentials")


def _fields(message: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition("=") for part in message.split(","))}


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("the server's message can't be read") from None

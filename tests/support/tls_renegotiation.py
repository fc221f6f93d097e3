"""Records of TLS 1.2 that ask for a new handshake, which no TLS library sends on demand (RFC 5246, RFC 5288)."""

from __future__ import annotations

import hmac
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CIPHER = "ECDHE-ECDSA-AES256-GCM-SHA384"
_HANDSHAKE = 0x16
_VERSION = b"\x03\x03"
_RANDOM_AT = 11
"""Where the server's random bytes are in the first record that it sends."""


class Renegotiations:
    """Of a client that speaks CIPHER, has shaken hands and sent nothing since."""

    def __init__(self, key_log: Path, first_of_server: bytes) -> None:
        lines = [line.split() for line in key_log.read_text().splitlines()]
        ((client_random, secret),) = [
            tuple(map(bytes.fromhex, line[1:])) for line in lines if line[:1] == ["CLIENT_RANDOM"]
        ]
        server_random = first_of_server[_RANDOM_AT : _RANDOM_AT + 32]
        keys = _expanded(secret, b"key expansion" + server_random + client_random, 72)
        self._cipher = AESGCM(keys[:32])
        self._salt = keys[64:68]
        self._number = 1  # 0 was the last message of the handshake
        hello = _VERSION + client_random + b"\0" + b"\0\x02\xc0\x2c" + b"\x01\0"
        self._message = b"\x01" + len(hello).to_bytes(3, "big") + hello

    def next(self) -> bytes:
        """A record with a ClientHello."""
        explicit = self._number.to_bytes(8, "big")
        start = bytes([_HANDSHAKE]) + _VERSION
        known = explicit + start + len(self._message).to_bytes(2, "big")
        sealed = explicit + self._cipher.encrypt(self._salt + explicit, self._message, known)
        self._number += 1
        return start + len(sealed).to_bytes(2, "big") + sealed


def _expanded(secret: bytes, seed: bytes, size: int) -> bytes:
    """The pseudorandom function of TLS 1.2 (RFC 5246, section 5)."""
    found, last = b"", seed
    while len(found) < size:
        last = hmac.digest(secret, last, "sha384")
        found += hmac.digest(secret, last + seed, "sha384")
    return found[:size]

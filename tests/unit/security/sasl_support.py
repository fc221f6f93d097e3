"""A SCRAM client, users, and keys that sign tokens, for the tests of authentication."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from warp.security.credentials import (
    SCRAM_HASHES,
    Credentials,
    ScramHash,
    entry_key,
    entry_value,
    make_credential,
)
from warp.security.exchange import Step
from warp.security.mechanisms import Mechanism

SECRET = b"of the cluster, 32 bytes long..."
NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000


def salted(scram: ScramHash, password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac(scram.algorithm, password.encode(), salt, iterations)


def entries_of(
    users: Mapping[str, str],
    *,
    iterations: int = 4096,
    salt: bytes = b"salt",
    hashes: tuple[ScramHash, ...] = SCRAM_HASHES,
) -> dict[str, str]:
    """The entries of users with these passwords."""
    return {
        entry_key(scram, name): entry_value(
            make_credential(scram, iterations, salt, salted(scram, password, salt, iterations))
        )
        for name, password in users.items()
        for scram in hashes
    }


def credentials_of(users: Mapping[str, str], secret: bytes = SECRET, **options: Any) -> Credentials:
    """Users with these passwords."""
    credentials = Credentials(secret)
    credentials.entries_changed(entries_of(users, **options), ())
    return credentials


class ScramClient:
    """The client's side, as RFC 5802 has it; written from the RFC, without the product's code."""

    def __init__(self, algorithm: str, name: str, password: str, nonce: str = "client-nonce") -> None:
        self._algorithm = algorithm
        self._password = password
        self._first = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self._nonce = nonce
        self.server_signature = b""

    def first(self) -> bytes:
        return f"n,,{self._first}".encode()

    def final(self, server_first: bytes) -> bytes:
        text = server_first.decode()
        fields = dict(part.split("=", 1) for part in text.split(","))
        assert fields["r"].startswith(self._nonce)
        assert len(fields["r"]) >= len(self._nonce) + 16
        salt, iterations = base64.b64decode(fields["s"]), int(fields["i"])
        key = hashlib.pbkdf2_hmac(self._algorithm, self._password.encode(), salt, iterations)
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self._first},{text},{without_proof}".encode()
        client_key = hmac.digest(key, b"Client Key", self._algorithm)
        stored_key = hashlib.new(self._algorithm, client_key).digest()
        signature = hmac.digest(stored_key, signed, self._algorithm)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(key, b"Server Key", self._algorithm)
        self.server_signature = hmac.digest(server_key, signed, self._algorithm)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def scram(exchange: Mechanism, client: ScramClient) -> Step:
    """A whole exchange."""
    server_first = stepped(exchange, client.first())
    assert server_first.principal is None
    return stepped(exchange, client.final(server_first.token))


def stepped(exchange: Mechanism, token: bytes) -> Step:
    """A step that nobody has to wait for."""
    step = exchange.step(token)
    assert isinstance(step, Step)
    return step


class SigningKeys:
    """Private keys of an issuer, by id, and the set of the public ones."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ec384": ec.generate_private_key(ec.SECP384R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
        self.algorithms = {"rsa": "RS256", "ec": "ES256", "ec384": "ES384", "ed": "EdDSA"}

    def public(self, *names: str) -> list[dict[str, Any]]:
        kinds: dict[str, Any] = {
            "rsa": jwt.algorithms.RSAAlgorithm,
            "ec": jwt.algorithms.ECAlgorithm,
            "ec384": jwt.algorithms.ECAlgorithm,
            "ed": jwt.algorithms.OKPAlgorithm,
        }
        return [
            {
                "kid": name,
                "use": "sig",
                **{
                    field: value
                    for field, value in kinds[name]
                    .to_jwk(self.private[name].public_key(), as_dict=True)
                    .items()
                    if field != "key_ops"
                },
            }
            for name in names or self.private
        ]

    def key_set(self, *names: str) -> bytes:
        return json.dumps({"keys": self.public(*names)}).encode()

    def token(self, name: str = "rsa", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token signed by the key of that name; claims that are None are left out."""
        made = {
            "sub": "alice",
            "iss": "https://issuer",
            "aud": "warp",
            "iat": NOW_S,
            "exp": NOW_S + 600,
            **claims,
        }
        return jwt.encode(
            {key: value for key, value in made.items() if value is not None},
            self.private[name],
            self.algorithms[name],
            headers={"kid": name, **(header or {})},
        )


def bearer(token: str, *, authorization: str = "", extensions: str = "") -> bytes:
    """OAUTHBEARER's first message."""
    who = f"a={authorization}" if authorization else ""
    return f"n,{who},\x01auth=Bearer {token}\x01{extensions}\x01".encode()

"""SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), the server's side, without channel binding.

The client proves that it knows the password without sending it, and the server that it knows the user. A user that does
not exist is answered like one that does, by a made-up credential, and fails where a wrong password fails.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from warp.security.credentials import Credential, Credentials, ScramHash, digest
from warp.security.exchange import WRONG_CREDENTIALS, AuthenticationFailed, Step, malformed, over
from warp.security.names import prepare_name, unescape_name
from warp.security.principal import USER, Principal

MESSAGE_BYTES_MAX: Final = 16_384
NONCE_CHARACTERS_MAX: Final = 1_024
NONCE_RANDOM_BYTES: Final = 24
NO_CHANNEL_BINDING: Final = "n"

_EXTENSION = re.compile(r"[A-Za-z]+=[^\0]+")
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_DELEGATION_TOKEN = "tokenauth"


class ClientFirst(NamedTuple):
    """The client's first message."""

    header: str
    """The channel-binding header as it was sent, which the last message repeats."""
    authorization: str
    """Who the client wants to be taken for; "" for the user itself."""
    user: str
    nonce: str
    bare: str
    """The message without its header: part of what is signed."""


class ClientFinal(NamedTuple):
    """The client's last message."""

    channel_binding: bytes
    nonce: str
    proof: bytes
    without_proof: str
    """Part of what is signed."""


def parse_client_first(token: bytes) -> ClientFirst:
    """Raises ValueError, which does not quote the message."""
    text = _text(token)
    binding, authorization, bare = _split(text, 3)
    if binding != NO_CHANNEL_BINDING:
        raise ValueError("channel binding is not offered")
    if authorization and not authorization.startswith("a="):
        raise ValueError("the header is none")
    name, nonce, *extensions = _split(bare, 2, others=True)
    if name.startswith("m="):
        raise ValueError("a mandatory extension that is not known")
    if not name.startswith("n=") or not nonce.startswith("r="):
        raise ValueError("the user name or the nonce is missing")
    _check_extensions(extensions)
    return ClientFirst(
        header=f"{binding},{authorization},",
        authorization=unescape_name(authorization[2:]),
        user=unescape_name(name[2:]),
        nonce=_checked_nonce(nonce[2:]),
        bare=bare,
    )


def parse_client_final(token: bytes) -> ClientFinal:
    """Raises ValueError, which does not quote the message."""
    without_proof, comma, proof = _text(token).rpartition(",")
    if not comma or not proof.startswith("p="):
        raise ValueError("the proof is missing")
    binding, nonce, *extensions = _split(without_proof, 2, others=True)
    if not binding.startswith("c=") or not nonce.startswith("r="):
        raise ValueError("the channel binding or the nonce is missing")
    _check_extensions(extensions)
    return ClientFinal(_from_base64(binding[2:]), nonce[2:], _from_base64(proof[2:]), without_proof)


def is_proof(credential: Credential, signed: bytes, proof: bytes) -> bool:
    """Does the proof show that the client knows the password? In the same time whatever it is."""
    scram = credential.hash
    signature = hmac.digest(credential.stored_key, signed, scram.algorithm)
    if len(proof) != len(signature):
        return False
    client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
    return hmac.compare_digest(digest(scram, client_key), credential.stored_key)


class ScramExchange:
    """One exchange. `random_bytes` gives the server's half of the nonce."""

    def __init__(
        self,
        scram: ScramHash,
        credentials: Credentials,
        random_bytes: Callable[[int], bytes],
        lifetime_ms: int | None,
    ) -> None:
        self._hash = scram
        self._credentials = credentials
        self._random_bytes = random_bytes
        self._lifetime_ms = lifetime_ms
        self._first: ClientFirst | None = None
        self._user = ""
        self._is_known = False
        self._credential: Credential | None = None
        self._server_first = ""
        self._is_over = False

    def step(self, token: bytes) -> Step:
        """See Mechanism."""
        if self._is_over:
            raise over(self._hash.mechanism)
        try:
            if self._first is None:
                return self._begin(token)
            self._is_over = True
            return self._finish(self._first, token)
        except ValueError as error:
            self._is_over = True
            raise malformed(self._hash.mechanism, str(error)) from None

    def _begin(self, token: bytes) -> Step:
        first = parse_client_first(token)
        self._user = prepare_name(first.user)
        if first.authorization and prepare_name(first.authorization) != self._user:
            raise ValueError("a user can't act for another one")
        found = self._credentials.find(self._hash, self._user)
        made_up = self._credentials.make_up(self._hash, self._user)
        self._is_known = found is not None
        credential = self._credential = found or made_up
        nonce = first.nonce + base64.b64encode(self._random_bytes(NONCE_RANDOM_BYTES)).decode("ascii")
        salt = base64.b64encode(credential.salt).decode("ascii")
        self._server_first = f"r={nonce},s={salt},i={credential.iterations}"
        self._first = first._replace(nonce=nonce)
        return Step(self._server_first.encode("ascii"))

    def _finish(self, first: ClientFirst, token: bytes) -> Step:
        final = parse_client_final(token)
        if final.channel_binding != first.header.encode("utf-8"):
            raise ValueError("the channel binding is not that of the first message")
        if not hmac.compare_digest(final.nonce.encode("utf-8"), first.nonce.encode("ascii")):
            raise ValueError("the nonce is not that of this exchange")
        credential = self._credential
        assert credential is not None, "the first step has found one"
        signed = f"{first.bare},{self._server_first},{final.without_proof}".encode()
        is_right = is_proof(credential, signed, final.proof)
        # Looked up anew: an exchange may be begun before a change of the password and ended long after it.
        is_current = self._credentials.find(self._hash, self._user) == credential
        if not (is_right and self._is_known and is_current):
            problem = _problem(is_known=self._is_known, is_current=is_current)
            raise AuthenticationFailed(WRONG_CREDENTIALS, reason=f"{problem}: {self._user!r}")
        signature = base64.b64encode(hmac.digest(credential.server_key, signed, self._hash.algorithm))
        return Step(b"v=" + signature, Principal(USER, self._user), self._lifetime_ms)


def _problem(*, is_known: bool, is_current: bool) -> str:
    if not is_known:
        return "no such user"
    return "wrong password" if is_current else "the credential has changed meanwhile"


def _text(token: bytes) -> str:
    if len(token) > MESSAGE_BYTES_MAX:
        raise ValueError(f"it is longer than {MESSAGE_BYTES_MAX} bytes")
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


def _split(text: str, count: int, *, others: bool = False) -> list[str]:
    """The first parts between commas; with `others` all, otherwise the last one holds the rest."""
    parts = text.split(",") if others else text.split(",", count - 1)
    if len(parts) < count:
        raise ValueError("parts are missing")
    return parts


def _check_extensions(extensions: list[str]) -> None:
    """Those that are not known are left alone (RFC 5802, section 5.1), but for one that means another kind of user."""
    for extension in extensions:
        if not _EXTENSION.fullmatch(extension):
            raise ValueError("an extension is none")
        name, _, value = extension.partition("=")
        if name == _DELEGATION_TOKEN and value.lower() == "true":
            raise ValueError("delegation tokens are not served")


def _checked_nonce(nonce: str) -> str:
    if len(nonce) > NONCE_CHARACTERS_MAX or not _NONCE.fullmatch(nonce):
        raise ValueError("the nonce is none")
    return nonce


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("base64 that is none") from None

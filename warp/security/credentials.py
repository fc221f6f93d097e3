"""Passwords of users, as the catalogue keeps them: SCRAM's salted and iterated keys, never the password (RFC 5802).

One entry holds one user's keys for one mechanism: key `SCRAM-SHA-256/alice`, value JSON. They are read when somebody
authenticates, because that is rare compared with what reading all of them at every change would cost.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import hmac
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from warp.metadata.entries import EntryChange
from warp.protocol.types import ScramMechanism

log = logging.getLogger("warp.security")

ITERATIONS_MIN = 4_096
ITERATIONS_MAX = 16_384
ITERATIONS_DEFAULT = 8_192
SALT_BYTES_MAX = 1_024
SALT_BYTES_DEFAULT = 64
"""What the client library of `warp user create` makes."""
_UNREADABLE_TOLD_MAX = 100
"""Credentials that can't be read and that the log names, once each."""
_SAMPLE = 256
"""Credentials that are looked at to see what most look like."""


class ScramHash(NamedTuple):
    """One of the two SCRAM mechanisms."""

    mechanism: str
    """Its name in SASL."""
    number: ScramMechanism
    """Its number in Kafka's messages."""
    algorithm: str
    size_bytes: int


SHA_256: Final = ScramHash("SCRAM-SHA-256", ScramMechanism.SCRAM_SHA_256, "sha256", 32)
SHA_512: Final = ScramHash("SCRAM-SHA-512", ScramMechanism.SCRAM_SHA_512, "sha512", 64)
SCRAM_HASHES: Final = (SHA_256, SHA_512)


@dataclass(frozen=True, slots=True)
class Credential:
    """What one SCRAM mechanism knows of one user. Whoever has the keys can pretend to be this agent to the user."""

    hash: ScramHash
    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def make_credential(scram: ScramHash, iterations: int, salt: bytes, salted_password: bytes) -> Credential:
    """The credential of a password that has been salted and iterated (RFC 5802, section 3)."""
    client_key = hmac.digest(salted_password, b"Client Key", scram.algorithm)
    return Credential(
        scram,
        iterations,
        salt,
        digest(scram, client_key),
        hmac.digest(salted_password, b"Server Key", scram.algorithm),
    )


def digest(scram: ScramHash, data: bytes) -> bytes:
    """The mechanism's hash of some bytes."""
    return hashlib.new(scram.algorithm, data).digest()


def entry_key(scram: ScramHash, user: str) -> str:
    """The key of the entry for a user's credential."""
    return f"{scram.mechanism}/{user}"


def split_entry_key(key: str) -> tuple[ScramHash, str] | None:
    """Whose credential an entry is; None for one of a mechanism that this release does not know."""
    mechanism, _, user = key.partition("/")
    for scram in SCRAM_HASHES:
        if scram.mechanism == mechanism:
            return scram, user
    return None


def entry_value(credential: Credential) -> str:
    """The value of the entry for a credential."""
    return json.dumps(
        {
            "iterations": credential.iterations,
            "salt": base64.b64encode(credential.salt).decode("ascii"),
            "server_key": base64.b64encode(credential.server_key).decode("ascii"),
            "stored_key": base64.b64encode(credential.stored_key).decode("ascii"),
        },
        separators=(",", ":"),
    )


def parse_entry_value(scram: ScramHash, value: str) -> Credential:
    """The credential of an entry. Raises ValueError, which does not quote the value."""
    try:
        fields = json.loads(value)
        iterations = fields["iterations"]
        salt, stored_key, server_key = (
            base64.b64decode(fields[name], validate=True) for name in ("salt", "stored_key", "server_key")
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise ValueError("not a credential") from None
    if type(iterations) is not int or not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
        raise ValueError("iterations out of range")
    if not 0 < len(salt) <= SALT_BYTES_MAX or not len(stored_key) == len(server_key) == scram.size_bytes:
        raise ValueError("salt or keys of the wrong length")
    return Credential(scram, iterations, salt, stored_key, server_key)


def stored_iterations(scram: ScramHash, value: str) -> int | None:
    """The iterations of an entry's credential; None when that can't be read, and so is of no use to anybody."""
    try:
        return parse_entry_value(scram, value).iterations
    except ValueError:
        return None


class Shape(NamedTuple):
    """What can be seen of a credential before anybody has proved anything."""

    iterations: int
    salt_bytes: int


class Credentials:
    """The credentials of all users as this agent knows them.

    A user that does not exist gets a made-up credential, which is the same at every agent and at every time, because it
    comes from `secret`: so nobody learns by asking who exists. It looks like most of the real ones do.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._entries: Mapping[str, str] = MappingProxyType({})
        self._shapes: dict[ScramHash, Shape | None] = {}
        self._told: set[tuple[ScramHash, str]] = set()

    def entries_changed(self, entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        """The catalogue's entries of kind CREDENTIAL are these now."""
        self._entries = entries
        self._shapes = {}

    def find(self, scram: ScramHash, user: str) -> Credential | None:
        """A user's credential; None when it has none for that mechanism, or one that can't be read."""
        value = self._entries.get(entry_key(scram, user))
        if value is None:
            return None
        try:
            return parse_entry_value(scram, value)
        except ValueError as error:
            if len(self._told) < _UNREADABLE_TOLD_MAX and (scram, user) not in self._told:
                self._told.add((scram, user))
                log.warning("the %s credential of %r can't be read: %s", scram.mechanism, user, error)
            return None

    def make_up(self, scram: ScramHash, user: str) -> Credential:
        """The credential of a user that has none. No password fits it."""
        shape = self.shape(scram) or Shape(ITERATIONS_DEFAULT, SALT_BYTES_DEFAULT)
        made = self._made_up_bytes(entry_key(scram, user), shape.salt_bytes + 2 * scram.size_bytes)
        salt, keys = made[: shape.salt_bytes], made[shape.salt_bytes :]
        return Credential(scram, shape.iterations, salt, keys[: scram.size_bytes], keys[scram.size_bytes :])

    def shape(self, scram: ScramHash) -> Shape | None:
        """What most credentials of a mechanism look like; None when there are none."""
        if scram not in self._shapes:
            prefix = entry_key(scram, "")
            sample = heapq.nsmallest(_SAMPLE, (key for key in self._entries if key.startswith(prefix)))
            found = [self.find(scram, key.removeprefix(prefix)) for key in sample]
            counts = Counter(Shape(each.iterations, len(each.salt)) for each in found if each is not None)
            # The larger of two that are as frequent, so that all agents choose the same.
            self._shapes[scram] = max(counts, key=lambda shape: (counts[shape], shape), default=None)
        return self._shapes[scram]

    def _made_up_bytes(self, name: str, count: int) -> bytes:
        text = name.encode("utf-8", "surrogatepass")
        blocks: Iterator[bytes] = (
            hmac.digest(self._secret, number.to_bytes(4, "big") + text, "sha512")
            for number in range(count // 64 + 1)
        )
        return b"".join(blocks)[:count]

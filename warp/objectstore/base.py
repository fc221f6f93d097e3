"""The seam to object storage: what the log needs of a store, and nothing more.

Objects are written whole, never changed, read in byte ranges, deleted by key. Keys are `/`-separated ASCII, relative to
the store's own prefix. Stores raise `warp.errors.ObjectStoreError` and its kinds, never a library's own errors.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warp.objectstore.traffic import Traffic

Buffer = bytes | bytearray | memoryview
"""Anything that holds bytes in one piece."""

KEY_LENGTH_MAX = 900
"""S3 allows 1,024 bytes; the rest is left to a store's own prefix."""

_KEY = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,199}(/[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,199})*")


def check_key(key: str) -> None:
    """Raise ValueError unless `key` is one that every store can hold.

    No part of it is empty, begins with a dot, or needs quoting anywhere; so a key never leaves a store's own place.
    """
    if len(key) > KEY_LENGTH_MAX or not _KEY.fullmatch(key):
        raise ValueError(f"not an object key: {key[:100]!r}")


class SummedParts(list[Buffer]):
    """Parts of an object whose maker knows the CRC-32C of all of them together. Neither may change any more.

    Stores that send a checksum need not read the parts for it; and it is of the bytes as they once were checked.
    """

    def __init__(self, parts: Iterable[Buffer], crc32c: int) -> None:
        super().__init__(parts)
        self.crc32c = crc32c


class PatientParts(SummedParts):
    """Parts of an object that nobody waits for: a store may be slow with it where that lets others go first.

    `bytes_per_s` says how slow, infinite for not at all.
    """

    def __init__(self, parts: Iterable[Buffer], crc32c: int, bytes_per_s: float) -> None:
        super().__init__(parts, crc32c)
        self.bytes_per_s = bytes_per_s


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object in a listing."""

    key: str
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a store was seen to do when it was opened."""

    conditional_create: bool
    """`create` has one winner."""
    checks_content: bool
    """A body that was damaged on its way is refused."""

    def describe(self) -> str:
        """For one log line."""
        found = {
            "conditional create": self.conditional_create,
            "content checked on arrival": self.checks_content,
        }
        return ", ".join(f"{name}: {'yes' if is_able else 'no'}" for name, is_able in found.items())


class ObjectStore(Protocol):
    """An object store.

    `requests_are_free` says that requests cost nothing (local directory, memory): then nothing is saved by batching
    beyond group commit, and no request budget applies. `traffic` counts what was asked of it since it was made.
    """

    requests_are_free: bool
    traffic: Traffic

    async def open(self) -> Abilities:
        """Prove at start that the store can be used, and see what it can do.

        Raises StartError, one line with what to do, when it can't be used.
        """

    async def check(self) -> None:
        """See whether the store answers, at little cost. Raises ObjectStoreError or StartError when it doesn't."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store the parts, in order, as one object; durable on return. Their checksum is taken from SummedParts.

        Raises StoreFull, or ObjectStoreError: then the object may or may not be there.
        """

    async def create(self, key: str, data: Buffer) -> bool:
        """Store a small object only if the key is free (`If-None-Match: *`). False: somebody else was first."""

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """Read `length` bytes from `start`.

        Raises ObjectNotFound, ObjectStoreError, and ShortObject when fewer bytes are there, which hands them over.
        """

    async def head(self, key: str) -> ObjectInfo:
        """What a listing would say of one object. Raises ObjectNotFound."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; keys that are not there count as removed."""

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in no order that callers may rely on."""

    async def close(self) -> None:
        """Let go of connections and files. The store is not used afterwards."""

"""Names of things: what each id is, and how new ones are made.

New ids come from an `IdSource`, built from a clock and a source of random bytes that are passed in: the same seed gives
the same ids.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import NewType

from warp.clock import Clock

TopicId = NewType("TopicId", bytes)
"""16 bytes, a version 4 UUID; new for each incarnation of a topic."""

LogId = NewType("LogId", int)
"""The short integer that stands for one topic-partition in the metadata store. Never reused."""

BrokerId = NewType("BrokerId", int)
"""An agent's number in the Kafka protocol."""

ProducerId = NewType("ProducerId", int)
"""An idempotent producer's number. Never reused."""

NO_TOPIC_ID = TopicId(bytes(16))
NO_PRODUCER_ID = ProducerId(-1)
NO_SEQUENCE = -1
LEADER_EPOCH = 0
"""Nobody leads, so nobody is fenced: one constant epoch in Metadata, batches and answers."""

SEGMENT_PREFIX = "segments/"
SECRET_BYTES = 32
_HEX_DIGITS = frozenset("0123456789abcdef")


class IdSource:
    """Makes new ids.

    `random_bytes(n)` returns n random bytes (`os.urandom` in production, a seeded generator in tests).
    """

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._last_key_time_ms = 0

    def uuid4(self) -> bytes:
        """A random version 4 UUID (RFC 9562, section 5.4) whose base64 form does not start with a dash, as in Kafka."""
        while True:
            raw = bytearray(self._random_bytes(16))
            raw[6] = (raw[6] & 0x0F) | 0x40
            raw[8] = (raw[8] & 0x3F) | 0x80
            if not uuid_text(bytes(raw)).startswith("-"):
                return bytes(raw)

    def topic_id(self) -> TopicId:
        return TopicId(self.uuid4())

    def cluster_id(self) -> str:
        """22 characters of URL-safe base64, as Kafka's own cluster ids."""
        return uuid_text(self.uuid4())

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        return self._random_bytes(count)

    def secret(self) -> bytes:
        """SECRET_BYTES that nobody can guess."""
        return self._random_bytes(SECRET_BYTES)

    def token(self) -> str:
        return self.uuid4().hex()

    def segment_key(self) -> str:
        """A fresh key for a segment object: `segments/<2 hex>/<12 hex time>-<20 hex random>`.

        The leading hex digits are random, because object stores spread load by prefix; the rest sorts by time of
        creation (milliseconds, never going back within one source) and is unique by 80 random bits.
        """
        self._last_key_time_ms = max(self._last_key_time_ms, self._clock.time_ms())
        tail = self._random_bytes(10).hex()
        return f"{SEGMENT_PREFIX}{self._random_bytes(1).hex()}/{self._last_key_time_ms:012x}-{tail}"


def uuid_text(raw: bytes) -> str:
    """Kafka's text form of a UUID: URL-safe base64 without padding, 22 characters."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def segment_key_time_ms(key: str) -> int | None:
    """When a segment key was made, by its maker's clock; None when it is not a segment key."""
    name = key.rsplit("/", 1)[-1]
    if not key.startswith(SEGMENT_PREFIX) or len(name) != 33 or name[12] != "-":
        return None
    digits = name[:12]
    # int() would also take signs, blanks and underscores.
    return int(digits, 16) if _HEX_DIGITS.issuperset(digits) else None

"""What a soak writes, and what may go of it: the verifier is told of each record, and of these rules."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.verifier import Partition, Recorder, Rules, TopicRules
from tests.verifier.recorder import Stream as RecordedStream

KiB = 1024
LINGER_MS = 30_000
"""Retention looks every second, and takes whole extents; an agent that is killed looks later."""
TOMBSTONE_MS = 2_000
CLOCK_SKEW_MS = 500
"""All is on one machine; but an agent may look a moment before a record's time."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A topic: its configs, how many records per second and partition it gets, and what they are.

    `retention_ms` and `retention_bytes` say again what the configs say, for those who check.
    """

    name: str
    partitions: int
    rate: int
    value_bytes: int
    configs: Mapping[str, str] = field(default_factory=dict)
    keys: int = 0
    """How many keys; 0: records have none."""
    is_dense: bool = True
    """Nothing but a beginning of it may ever be missing."""
    retention_ms: int | None = None
    retention_bytes: int | None = None

    @property
    def places(self) -> list[Partition]:
        """Its partitions."""
        return [Partition(self.name, number) for number in range(self.partitions)]

    @property
    def rules(self) -> TopicRules:
        """What may be missing."""
        return TopicRules(
            is_compacted=not self.is_dense,
            retention_ms=self.retention_ms,
            retention_bytes=self.retention_bytes,
            linger_ms=LINGER_MS,
            tombstone_ms=0 if self.is_dense else TOMBSTONE_MS,
            clock_skew_ms=CLOCK_SKEW_MS,
        )


COMPACT = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(TOMBSTONE_MS),
}
KEPT = Kind("kept", 3, 150, 200)
"""All of it; a group reads it."""
KINDS = (
    KEPT,
    Kind("brief", 4, 600, 500, {"retention.ms": "4000"}, retention_ms=4000),
    Kind("sized", 2, 600, 300, {"retention.bytes": str(512 * KiB)}, retention_bytes=512 * KiB),
    Kind("trimmed", 2, 300, 200),
    Kind("latest", 2, 600, 100, COMPACT, keys=400, is_dense=False),
    Kind("both", 2, 400, 100, {**COMPACT, "cleanup.policy": "compact,delete", "retention.ms": "6000"}, keys=400,
         is_dense=False, retention_ms=6000),
    Kind("changing", 1, 200, 100, {**COMPACT, "cleanup.policy": "delete"}, keys=100, is_dense=False),
)  # fmt: skip
TOMBSTONES_OF_256 = 13


class Record(NamedTuple):
    """Key and value of a record."""

    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Stream:
    """One partition of a topic, and the one idempotent writer that writes to it."""

    kind: Kind
    partition: int
    seed: int
    recorded: RecordedStream
    """What was handed to the producer, and what became of it, as the verifier knows it."""
    acknowledged: int = 0
    _times_ms: array[int] = field(default_factory=lambda: array("q"))
    """By offset, when each record was written; 0 where nobody has said yet what stands there."""

    @property
    def name(self) -> str:
        return str(self.place)

    @property
    def place(self) -> Partition:
        """As the verifier names it."""
        return Partition(self.kind.name, self.partition)

    def record(self, number: int) -> Record:
        """The record of a number: the same whenever it is asked for."""
        digest = hashlib.blake2b(b"%d/%s/%d" % (self.seed, self.name.encode(), number)).digest()
        key = None
        if self.kind.keys:
            key = b"key-%d" % (int.from_bytes(digest[:4], "big") % self.kind.keys)
            if digest[4] < TOMBSTONES_OF_256:
                return Record(key, None)
        text = b"%d:" % number
        return Record(
            key, (text + digest * (self.kind.value_bytes // len(digest) + 1))[: self.kind.value_bytes]
        )

    def stands(self, offset: int, time_ms: int) -> None:
        """A record was acknowledged at an offset; it was written at that time."""
        missing = offset + 1 - len(self._times_ms)
        if missing > 0:
            self._times_ms.extend(array("q", [0]) * missing)
        self._times_ms[offset] = time_ms

    def overdue_ms(self, start: int, now_ms: int) -> int:
        """By how much the record at which it begins has outlived its retention; 0 where that is not known."""
        time_ms = self._times_ms[start] if 0 <= start < len(self._times_ms) else 0
        if self.kind.retention_ms is None or not time_ms:
            return 0
        return max(0, now_ms - time_ms - self.kind.retention_ms)


def streams_of(recorder: Recorder, seed: int) -> list[Stream]:
    """One for each partition of each kind."""
    return [
        Stream(kind, place.number, seed, recorder.stream(place, producer=f"writer of {place}"))
        for kind in KINDS
        for place in kind.places
    ]


def rules_of(group: str, read: Kind) -> Rules:
    """What may go of all of it; a group reads one kind to its end."""
    return Rules({kind.name: kind.rules for kind in KINDS}, groups_that_finish={group: read.places})

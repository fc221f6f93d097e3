"""What a soak writes, and what has to be there in the end: record n of a partition lies at offset n, and is known by n.

Each partition has one idempotent writer whose every record is acknowledged in the end, so nothing of the content has to
be remembered, only when each record was written.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

KiB = 1024


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


COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": "2000"}
KINDS = (
    Kind("kept", 3, 150, 200),
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
    """One partition of a topic, and when each of its records was written."""

    kind: Kind
    partition: int
    seed: int
    times_ms: array[int] = field(default_factory=lambda: array("q"))
    """By offset; of all that were handed to the producer."""
    acknowledged: int = 0
    trimmed_to: int = 0
    """DeleteRecords has said so."""
    trim_asked: int = 0
    """DeleteRecords was asked for; whether it was carried out is not known of the last one that failed."""

    @property
    def name(self) -> str:
        return f"{self.kind.name}-{self.partition}"

    def record(self, number: int) -> Record:
        """The record at an offset: the same whenever it is asked for."""
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

    def last_numbers(self) -> dict[bytes, int]:
        """Per key the last record that has it, tombstones as well."""
        return {self.record(number).key or b"": number for number in range(self.acknowledged)}


class Found(NamedTuple):
    """A record as it was read."""

    offset: int
    key: bytes | None
    value: bytes | None


def problems_of(stream: Stream, start: int, found: Sequence[Found], read_ms: int) -> list[str]:
    """What is wrong with a partition that was read from its start to its end, which began at `read_ms`.

    Retention takes whole extents, so some records may be older than it says for a while; none is taken early.
    """
    problems = [
        f"{stream.name}: offset {at.offset} holds {at.key!r}: {at.value!r:.60}"
        for at in found
        if at.offset >= stream.acknowledged or (at.key, at.value) != stream.record(at.offset)
    ][:5]
    offsets = [at.offset for at in found]
    if offsets != sorted(set(offsets)):
        problems.append(f"{stream.name}: offsets are not in order")
    problems += _problems_of_start(stream, start, read_ms)
    if stream.kind.is_dense:
        missing = sorted(set(range(start, stream.acknowledged)).difference(offsets))
        if missing:
            problems.append(f"{stream.name}: {len(missing)} records are missing from {missing[0]} on")
    else:
        problems += _problems_of_table(stream, start, found)
    return problems


def _problems_of_start(stream: Stream, start: int, read_ms: int) -> list[str]:
    """Has anything been taken that nothing claims?"""
    kind, taken = stream.kind, range(max(stream.trimmed_to, stream.trim_asked), start)
    if start < stream.trimmed_to:
        return [f"{stream.name} starts at {start}, though it was trimmed to {stream.trimmed_to}"]
    if not taken:
        return []
    if kind.retention_bytes is not None:
        kept = sum(len(stream.record(number).value or b"") for number in range(start, stream.acknowledged))
        # What is kept is counted with its headers, and compressed by nobody.
        return [f"{stream.name}: only {kept} bytes are kept"] if kept * 1.5 < kind.retention_bytes else []
    if kind.retention_ms is None:
        return [f"{stream.name} starts at {start}, and nothing says why"]
    early = [number for number in taken if stream.times_ms[number] > read_ms - kind.retention_ms]
    return [f"{stream.name}: {len(early)} records were taken early, as {early[0]}"] if early else []


def _problems_of_table(stream: Stream, start: int, found: Sequence[Found]) -> list[str]:
    """Is the last record of every key that has not been taken there, unless it is a tombstone?"""
    problems = []
    last_found = {at.key or b"": at.offset for at in found}
    last = stream.last_numbers()
    for key, number in last.items():
        is_tombstone = stream.record(number).value is None
        if last_found.get(key) == number or (is_tombstone and key not in last_found) or number < start:
            continue
        problems.append(f"{stream.name}: {key!r} ends with {last_found.get(key)}, not {number}")
    stale = [key for key, offset in last_found.items() if offset != last.get(key)]
    problems += [f"{stream.name}: {key!r} has come back" for key in stale if last.get(key, 0) < start]
    return problems[:5]

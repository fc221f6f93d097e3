"""All that was recorded, in columns: a record costs some dozens of bytes beside its content."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from tests.verifier.operations import Partition

if TYPE_CHECKING:
    from tests.verifier.recorder import Op

Content = tuple[bytes | None, bytes | None]
"""Key and value of a record."""
WHOLE_BYTES_MAX = 96
"""What is longer is kept as its beginning and a digest."""
PREFIX_BYTES = 32
DIGEST_BYTES = 16
UNKNOWN = -1
KINDS = 8


class Kind(IntEnum):
    """What an event is; its number says of what."""

    BEGAN = 0
    """An operation."""
    ENDED = 1
    SENT = 2
    """A batch of a stream."""
    RESULT = 3
    """What a stream was told of one."""
    SAW = 4
    """A record was handed out by a consumer."""
    PROCESSED = 5
    """A member of a group is done with a record."""


class Batch(NamedTuple):
    """One batch that some producer sends, perhaps several times."""

    number: int
    partition: Partition
    records: int
    """How many."""


class Contents:
    """Every content that was sent or seen, numbered from 0; equal ones have one number."""

    def __init__(self) -> None:
        self.sizes = array("q")
        """Bytes of key and value together."""
        self._numbers: dict[Content, int] = {}
        self._all: list[Content] = []

    def __len__(self) -> int:
        return len(self._all)

    def number(self, key: bytes | None, value: bytes | None) -> int:
        """The number of a content."""
        content = (_shortened(key), _shortened(value))
        number = self._numbers.setdefault(content, len(self._all))
        if number == len(self._all):
            self._all.append(content)
            self.sizes.append(len(key or b"") + len(value or b""))
        return number

    def content(self, number: int) -> Content:
        """What has this number; long ones are shortened."""
        return self._all[number]

    def key(self, number: int) -> bytes | None:
        """The key of a content."""
        return self._all[number][0]

    def is_tombstone(self, number: int) -> bool:
        """Has it no value?"""
        return self._all[number][1] is None

    def describe(self, number: int) -> str:
        """For people."""
        if number < 0:
            return "nothing"
        key, value = self._all[number]
        text = repr(value if value is None else value[:40])
        return text if key is None else f"{key[:40]!r}: {text}"


def _shortened(data: bytes | None) -> bytes | None:
    if data is None or len(data) <= WHOLE_BYTES_MAX:
        return data
    return data[:PREFIX_BYTES] + hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class Numbers:
    """Names of one kind, numbered from 0."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a name."""
        number = self._numbers.setdefault(name, len(self.all))
        if number == len(self.all):
            self.all.append(name)
        return number


class Partitions:
    """All partitions, numbered from 0."""

    def __init__(self) -> None:
        self.all: list[Partition] = []
        self._numbers: dict[Partition, int] = {}

    def number(self, partition: Partition) -> int:
        """The number of a partition."""
        number = self._numbers.setdefault(partition, len(self.all))
        if number == len(self.all):
            self.all.append(partition)
        return number


class Batches:
    """All batches, numbered from 0. `contents[first[n] : first[n] + count[n]]` are the records of batch n."""

    def __init__(self) -> None:
        self.partition = array("i")
        self.first = array("q")
        self.count = array("i")
        self.producer = array("i")
        """UNKNOWN: of none that is idempotent."""
        self.epoch = array("q")
        self.base_sequence = array("q")
        self.timestamp_ms = array("q")
        """Of the youngest record, UNKNOWN where nobody said."""
        self.contents = array("q")

    def __len__(self) -> int:
        return len(self.first)

    def add(
        self,
        partition: int,
        contents: Iterable[int],
        producer: int,
        epoch: int,
        base_sequence: int,
        timestamp_ms: int,
    ) -> int:
        """Its number."""
        first = len(self.contents)
        self.contents.extend(contents)
        self.partition.append(partition)
        self.first.append(first)
        self.count.append(len(self.contents) - first)
        self.producer.append(producer)
        self.epoch.append(epoch)
        self.base_sequence.append(base_sequence)
        self.timestamp_ms.append(timestamp_ms)
        return len(self.first) - 1

    def records(self, number: int) -> Sequence[int]:
        """The contents of a batch."""
        first = self.first[number]
        return self.contents[first : first + self.count[number]]


class Results:
    """What streams were told of their batches, in the order in which they were told."""

    def __init__(self) -> None:
        self.batch = array("q")
        self.error_code = array("h")
        self.offset = array("q")

    def add(self, batch: int, error_code: int, offset: int) -> int:
        """Its number."""
        self.batch.append(batch)
        self.error_code.append(error_code)
        self.offset.append(offset)
        return len(self.batch) - 1


class Sightings:
    """Records that were handed out, each to a reader. A record of UNKNOWN: the reader is elsewhere from here on."""

    def __init__(self) -> None:
        self.who = array("i")
        self.partition = array("i")
        self.offset = array("q")
        self.record = array("q")

    def add(self, who: int, partition: int, offset: int, record: int) -> int:
        """Its number."""
        self.who.append(who)
        self.partition.append(partition)
        self.offset.append(offset)
        self.record.append(record)
        return len(self.who) - 1


class History:
    """Everything that a recorder was told, in order: `events` are KINDS * number + Kind, `times` when each was told."""

    def __init__(self) -> None:
        self.contents = Contents()
        self.partitions = Partitions()
        self.producers = Numbers()
        self.readers = Numbers()
        self.groups = Numbers()
        self.batches = Batches()
        self.results = Results()
        self.sightings = Sightings()
        self.processed = Sightings()
        """`who` is the group; `record` is not used."""
        self.ops: list[Op] = []
        self.events = array("q")
        self.times = array("d")

    def add(self, kind: Kind, number: int, now_s: float) -> None:
        """Something has happened."""
        self.events.append(KINDS * number + kind)
        self.times.append(now_s)

    def name_of(self, batch: int) -> str:
        """A batch, for people."""
        batches = self.batches
        partition = self.partitions.all[batches.partition[batch]]
        content = (
            self.contents.describe(batches.contents[batches.first[batch]]) if batches.count[batch] else "-"
        )
        if batches.producer[batch] == UNKNOWN:
            return f"batch {content} of {partition}"
        producer = self.producers.all[batches.producer[batch]]
        epoch = f" epoch {batches.epoch[batch]}" if batches.epoch[batch] > 0 else ""
        return f"{producer}{epoch} sequence {batches.base_sequence[batch]} of {partition}: {content}"

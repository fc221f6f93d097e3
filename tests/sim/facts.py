"""What clients were told, and whether it is true: the promises, checked while the simulation runs and after it.

P1, P3, P4: at the end every log is read anew. Its offsets are dense, and its records are the only ones ever seen at
their offsets. A batch of an idempotent producer stands there at most once, in sequence; an acknowledged one exactly
once, at the offset that every answer named. P2: the two records of a paired request stand there both or not at all, at
equal places. P5 and monotone ends are checked by those who ask.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from tests.sim.history import History


class Partition(NamedTuple):
    """A topic's name and a partition of it."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


@dataclass(slots=True, eq=False)
class Batch:
    """One batch that some producer sends, perhaps several times."""

    producer: str
    partition: Partition
    number: int
    """Its place among the batches of this producer to this partition."""
    values: list[bytes]
    data: bytes
    is_idempotent: bool
    base_offset: int | None = None
    """Where it was acknowledged."""


class Facts:
    """All batches, all acknowledgements, and everything that readers saw."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.batches: list[Batch] = []
        self.pairs: list[tuple[Batch, Batch]] = []
        self.acknowledged = 0
        self.records_read = 0
        self._seen: dict[Partition, dict[int, bytes]] = defaultdict(dict)
        self._ends: dict[tuple[str, Partition], int] = {}

    def acknowledge(self, batch: Batch, base_offset: int) -> None:
        """A producer was told that a batch stands at an offset."""
        self.acknowledged += 1
        if base_offset < 0:
            self.history.violate("P1", f"{batch.producer} was acknowledged at offset {base_offset}")
        elif batch.base_offset is None:
            batch.base_offset = base_offset
        elif batch.base_offset != base_offset:
            self.history.violate(
                "P4",
                f"{batch.producer} batch {batch.number} of {batch.partition} was at {batch.base_offset}, "
                f"then at {base_offset}",
            )

    def saw(self, reader: str, partition: Partition, offset: int, value: bytes) -> None:
        """A reader got a record."""
        self.records_read += 1
        known = self._seen[partition].setdefault(offset, value)
        if known != value:
            self.history.violate(
                "P3",
                f"{reader} read {value[:40]!r} at {partition} offset {offset}, not {known[:40]!r} as before",
            )

    def saw_end(self, who: str, partition: Partition, high_watermark: int) -> None:
        """An agent, in one of its lives, named the end of a log to a reader who asks one thing after the other."""
        before = self._ends.get((who, partition), 0)
        if high_watermark < before:
            self.history.violate("P3", f"{who}: end of {partition} went from {before} to {high_watermark}")
        self._ends[who, partition] = high_watermark

    def check(self, logs: dict[Partition, list[bytes]]) -> None:
        """Hold everything against the logs as they stand at the end, complete from offset 0."""
        for partition, seen in self._seen.items():
            log = logs[partition]
            for offset, value in seen.items():
                if offset >= len(log) or log[offset] != value:
                    self.history.violate(
                        "P1", f"{value[:40]!r} was read at {partition} offset {offset}, and is gone"
                    )
        places: dict[tuple[Partition, bytes], list[int]] = defaultdict(list)
        for partition, log in logs.items():
            for offset, value in enumerate(log):
                places[partition, value].append(offset)
        for batch in self.batches:
            self._check_batch(batch, places)
        self._check_order(places)
        self._check_pairs(places)
        self._check_strangers(places)

    def _check_batch(self, batch: Batch, places: dict[tuple[Partition, bytes], list[int]]) -> None:
        found = [places.get((batch.partition, value), []) for value in batch.values]
        name = f"{batch.producer} batch {batch.number} of {batch.partition}"
        if any(len(offsets) != len(found[0]) for offsets in found):
            self.history.violate("P2", f"{name} stands there in part: {found}")
            return
        for nth in range(len(found[0])):
            first = found[0][nth]
            if [offsets[nth] for offsets in found] != list(range(first, first + len(found))):
                self.history.violate("P3", f"{name} is torn: {found}")
        if batch.is_idempotent and len(found[0]) > 1:
            self.history.violate("P4", f"{name} stands there {len(found[0])} times: {found[0]}")
        if batch.base_offset is not None and batch.base_offset not in found[0]:
            self.history.violate("P1", f"{name} was acknowledged at {batch.base_offset}, found at {found[0]}")

    def _check_order(self, places: dict[tuple[Partition, bytes], list[int]]) -> None:
        """Batches of an idempotent producer stand in the order in which they were made, without one missing between."""
        last: dict[tuple[str, Partition], tuple[int, int]] = {}
        for batch in self.batches:
            offsets = places.get((batch.partition, batch.values[0]), [])
            if not batch.is_idempotent or not offsets:
                continue
            number, offset = last.get((batch.producer, batch.partition), (-1, -1))
            if offsets[0] < offset or batch.number != number + 1:
                self.history.violate(
                    "P4",
                    f"{batch.producer}: {batch.partition}:{batch.number} at {offsets[0]} after {number} at {offset}",
                )
            last[batch.producer, batch.partition] = (batch.number, offsets[0])

    def _check_pairs(self, places: dict[tuple[Partition, bytes], list[int]]) -> None:
        for one, other in self.pairs:
            here = places.get((one.partition, one.values[0]), [])
            there = places.get((other.partition, other.values[0]), [])
            if here != there:
                self.history.violate("P2", f"the two halves of {one.values[0]!r} stand at {here} and {there}")

    def _check_strangers(self, places: dict[tuple[Partition, bytes], list[int]]) -> None:
        sent = {(batch.partition, value) for batch in self.batches for value in batch.values}
        for partition, value in places:
            if (partition, value) not in sent:
                self.history.violate("P7", f"{value[:40]!r} in {partition} was never sent")

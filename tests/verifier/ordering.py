"""Batches side by side: each producer's in sequence, each request's all or none, requests in one order (P2, P4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Set
from itertools import pairwise

from tests.verifier.context import Context
from tests.verifier.history import UNKNOWN, Batch
from tests.verifier.logs import Logs
from tests.verifier.operations import Produce, Produced
from tests.verifier.placing import Placing
from tests.verifier.producing import refused_alone
from tests.verifier.recorder import Op


class Ordering:
    """Judges where batches stand, once that is known."""

    def __init__(self, context: Context, logs: Logs, placing: Placing, in_sequence: Set[int]) -> None:
        self._context = context
        self._in_sequence = in_sequence
        self._history = context.history
        self._batches = context.history.batches
        self._logs = logs.by_partition
        self._placing = placing
        self._is_certain = {
            partition: log.is_whole
            and context.topics.has_one_life(context.history.partitions.all[partition].topic)
            for partition, log in self._logs.items()
        }
        """Of what is nowhere to be found there is surely nothing."""
        self._alone = set(self._refused_alone())
        self.requests: list[list[int]] = []
        """Batches that were stored in one transaction, each of which stands there once."""
        self._judge_producers()
        self._judge_requests()

    # Producers.

    def _judge_producers(self) -> None:
        """Batches of an idempotent producer stand in the order of their sequences, without one missing between."""
        batches = self._batches
        ordered: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for batch, producer in enumerate(batches.producer):
            if producer != UNKNOWN and batches.partition[batch] in self._logs:
                ordered[producer, batches.partition[batch]].append(
                    (batches.epoch[batch], batches.base_sequence[batch], batch)
                )
        for (_, partition), found in ordered.items():
            found.sort()
            self._judge_producer(partition, [batch for _, _, batch in found])

    def _judge_producer(self, partition: int, ordered: list[int]) -> None:
        before: int | None = None
        missing: int | None = None
        for batch in ordered:
            if not self._placing.copies[batch]:
                missing = batch if missing is None else missing
                continue
            self._context.looked("order of producers")
            if before is not None and self._place(batch) < self._place(before):
                self._out_of_order(batch, f"stands before {self._name(before)}")
            if missing is not None and self._is_gap(partition, missing, before, batch):
                self._out_of_order(batch, f"stands there without {self._name(missing)}")
            before, missing = batch, None

    def _is_gap(self, partition: int, missing: int, before: int | None, batch: int) -> bool:
        """Was a batch passed by? Not one of another epoch, or of one that nobody knows; nor one that may be gone."""
        epochs = self._batches.epoch
        if epochs[missing] != epochs[batch] or epochs[batch] == UNKNOWN:
            return False
        if not self._context.topics.has_one_life(self._history.partitions.all[partition].topic):
            return False
        log = self._logs[partition]
        begin = 0 if before is None else self._place(before)
        return UNKNOWN not in log.known[begin : self._place(batch)]

    def _out_of_order(self, batch: int, text: str) -> None:
        self._context.violate("order of producers", f"{self._name(batch)} at {self._place(batch)} {text}")

    def _place(self, batch: int) -> int:
        return self._placing.first_place[batch]

    def _name(self, batch: int) -> str:
        return self._history.name_of(batch)

    # Requests.

    def _judge_requests(self) -> None:
        """Each request is there as a whole, and of two in several partitions the same one is first in all."""
        pairs: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for op in self._history.ops:
            if isinstance(op.operation, Produce) and len(op.operation.batches) > 1:
                for together in self._together(op, op.operation):
                    self._judge_atomicity(op, together)
                    self._note_places(together, pairs)
                    numbers = [batch.number for batch in together]
                    if all(self._placing.copies[number] == 1 for number in numbers):
                        self.requests.append(numbers)
        for partitions, places in pairs.items():
            self._judge_order(partitions, places)

    def _together(self, op: Op, produce: Produce) -> Iterator[list[Batch]]:
        """Those batches of a request that have shared each of their requests; once, for the last of these."""
        timeline = self._context.timeline
        groups: dict[tuple[int, int], list[Batch]] = defaultdict(list)
        for batch in produce.batches:
            number = batch.number
            if timeline.last_op[number] == op.number and self._takes_part(number):
                groups[timeline.first_op[number], timeline.sends[number]].append(batch)
        return (group for group in groups.values() if len(group) > 1)

    def _takes_part(self, batch: int) -> bool:
        """Is it bound to the others of its request? Not what may have had an error of its own."""
        is_in_sequence = self._batches.producer[batch] == UNKNOWN or batch in self._in_sequence
        return is_in_sequence and batch not in self._alone and self._batches.partition[batch] in self._logs

    def _refused_alone(self) -> Iterator[int]:
        """Batches that were answered with errors of their own."""
        for op in self._history.ops:
            if isinstance(op.operation, Produce) and isinstance(op.answer, Produced):
                for batch in op.operation.batches:
                    placed = op.answer.parts.get(batch.partition)
                    if placed is not None and refused_alone(placed.error_code):
                        yield batch.number

    def _judge_atomicity(self, op: Op, together: list[Batch]) -> None:
        context = self._context
        if not context.rules.is_quiet:
            together = [batch for batch in together if not context.timeline.doubts[batch.number]]
        certain = [b for b in together if self._placing.copies[b.number] or self._is_clear(b)]
        if len(certain) < 2:
            return
        context.looked("requests are atomic")
        copies = [self._placing.copies[batch.number] for batch in certain]
        if len(set(copies)) > 1:
            found = ", ".join(
                f"{self._name(b.number)} {n} times" for b, n in zip(certain, copies, strict=True)
            )
            context.violate("requests are atomic", f"{op.client}: one request is there in part: {found}")

    def _is_clear(self, batch: Batch) -> bool:
        return self._is_certain.get(self._batches.partition[batch.number], False)

    def _note_places(
        self, together: list[Batch], pairs: dict[tuple[int, int], list[tuple[int, int, int]]]
    ) -> None:
        """Batches that stand there once, partition by partition."""
        placed = sorted(
            (self._batches.partition[b.number], self._place(b.number), b.number)
            for b in together
            if self._placing.copies[b.number] == 1
        )
        for (one, place, batch), (other, other_place, _) in pairwise(placed):
            pairs[one, other].append((place, other_place, batch))

    def _judge_order(self, partitions: tuple[int, int], places: list[tuple[int, int, int]]) -> None:
        check = "requests keep one order"
        places.sort()
        for (_, before, earlier), (_, after, later) in pairwise(places):
            self._context.looked(check)
            if after < before:
                one, other = map(self._context.name, partitions)
                text = f"in {one} {self._name(earlier)} is before {self._name(later)}, in {other} it is not"
                self._context.violate(check, text)

"""Answers to producers, as they happen: places, duplicates, errors that must not be, ids (P1, P2, P4)."""

from __future__ import annotations

from collections import defaultdict

from tests.verifier.context import Context
from tests.verifier.history import UNKNOWN, Batch
from tests.verifier.operations import InitProducerId, Produce, Produced, ProducerIdGiven
from tests.verifier.recorder import Op, State
from tests.verifier.timeline import is_complete
from tests.verifier.topics import AMBIGUOUS
from warp.errors import ErrorCode

Sequences = tuple[int, int, int]
"""A producer, its epoch, and a log."""
OF_ONE = frozenset(
    {
        ErrorCode.CORRUPT_MESSAGE, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.INVALID_TIMESTAMP, ErrorCode.INVALID_RECORD, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.DUPLICATE_SEQUENCE_NUMBER, ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED, ErrorCode.POLICY_VIOLATION,
    }
)  # fmt: skip
"""Errors of single batches, which take no part in their request. Whatever else befalls one befalls all of it."""
MANY = 2**31


class Producing:
    """All answers to producers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._history = context.history
        self._next: dict[Sequences, int] = defaultdict(int)
        """The first sequence that is not acknowledged, nor those before it."""
        self._ahead: dict[Sequences, dict[int, int]] = defaultdict(dict)
        """Acknowledged before those in front of them: ends by base sequence."""
        self._places: dict[int, int] = {}
        """Where batches were acknowledged, of idempotent ones that requests hold."""
        self.in_sequence: set[int] = set()
        """Batches of idempotent producers that knew of all before them when they sent them first.

        Of others a request may be refused a part of without anybody's being told.
        """
        self._ids: dict[int, str] = {}
        self._epochs: set[tuple[int, int]] = set()

    def began(self, op: Op, moment: int) -> None:
        """Note what is sent in its turn."""
        if not isinstance(op.operation, Produce):
            return
        batches = self._history.batches
        for batch in op.operation.batches:
            if (
                self._context.timeline.first_op[batch.number] == op.number
                and batches.producer[batch.number] != UNKNOWN
            ):
                sequences = self._sequences(op, batch, moment)
                if sequences is not None and batches.base_sequence[batch.number] == self._next[sequences]:
                    self.in_sequence.add(batch.number)

    def ended(self, op: Op, moment: int) -> None:
        """Judge an answer."""
        if op.state is not State.ANSWERED:
            return
        if isinstance(op.answer, Produced):
            assert isinstance(op.operation, Produce)
            self._produced(op, op.operation, op.answer, moment)
        elif isinstance(op.answer, ProducerIdGiven):
            assert isinstance(op.operation, InitProducerId)
            self._given(op, op.operation, op.answer, moment)

    def _given(self, op: Op, operation: InitProducerId, given: ProducerIdGiven, moment: int) -> None:
        """An id is given out once, and again only to whoever had it, under another epoch."""
        self._context.looked("producer ids are given once")
        is_known = given.producer_id in self._ids and operation.producer_id != given.producer_id
        if is_known or given in self._epochs:
            text = f"producer id {given.producer_id} was given to {self._ids[given.producer_id]} and to {op.client}"
            self._context.violate("producer ids are given once", text, moment)
        self._ids.setdefault(given.producer_id, op.client)
        self._epochs.add((given.producer_id, given.epoch))

    def _produced(self, op: Op, produce: Produce, answer: Produced, moment: int) -> None:
        self._context.looked("answers are of one piece")
        if not is_complete(op):
            text = f"{op.client}: the answer to {len(produce.batches)} batches has {len(answer.parts)} parts"
            self._context.violate("answers are of one piece", text, moment)
        codes = set()
        for batch in produce.batches:
            placed = answer.parts.get(batch.partition)
            if placed is None:
                continue
            is_new = self._context.timeline.first_op[batch.number] == op.number
            if is_new and not self._is_of_one(batch, placed.error_code):
                codes.add(placed.error_code)
            if placed.error_code == 0:
                self._acknowledged(op, batch, placed.base_offset, moment)
            elif placed.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
                self._out_of_order(op, batch, moment)
            elif placed.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                self._unknown(op, batch, moment)
        if 0 in codes and len(codes) > 1:
            text = f"{op.client}: one request was answered {sorted(codes)}"
            self._context.violate("answers are of one piece", text, moment)

    def _is_of_one(self, batch: Batch, code: int) -> bool:
        """Also where a batch before it is missing, for a while."""
        is_idempotent = self._history.batches.producer[batch.number] != UNKNOWN
        return code in OF_ONE or (is_idempotent and code == ErrorCode.NOT_ENOUGH_REPLICAS)

    def _acknowledged(self, op: Op, batch: Batch, offset: int | None, moment: int) -> None:
        history = self._history
        self._context.looked("acknowledgements name a place")
        if offset is not None and offset < 0:
            text = f"{op.client}: {history.name_of(batch.number)} was acknowledged at offset {offset}"
            self._context.violate("acknowledgements name a place", text, moment)
            return
        if history.batches.producer[batch.number] == UNKNOWN:
            return
        if offset is not None:
            before = self._places.setdefault(batch.number, offset)
            if self._context.timeline.sends[batch.number] > 1:
                self._context.looked("duplicates have their offsets")
            if before != offset:
                text = f"{history.name_of(batch.number)} was at {before}, then at {offset}"
                self._context.violate("duplicates have their offsets", text, moment)
        self._go_on(self._sequences(op, batch, moment), batch)

    def _sequences(self, op: Op, batch: Batch, moment: int) -> Sequences | None:
        batches, began = self._history.batches, self._context.timeline.began[op.number]
        log = self._context.topics.log(batches.partition[batch.number], began, moment)
        if log == AMBIGUOUS:
            return None
        return (batches.producer[batch.number], batches.epoch[batch.number], log)

    def _go_on(self, sequences: Sequences | None, batch: Batch) -> None:
        if sequences is None:
            return
        base = self._history.batches.base_sequence[batch.number]
        ahead = self._ahead[sequences]
        ahead[base] = (base + batch.records) % MANY
        while self._next[sequences] in ahead:
            self._next[sequences] = ahead.pop(self._next[sequences])

    def _out_of_order(self, op: Op, batch: Batch, moment: int) -> None:
        """That is true only while a batch before it is not acknowledged."""
        sequences = self._sequences(op, batch, moment)
        if sequences is None or self._history.batches.producer[batch.number] == UNKNOWN:
            return
        self._context.looked("nothing is out of order without reason")
        if self._history.batches.base_sequence[batch.number] == self._next[sequences]:
            text = f"{op.client}: {self._history.name_of(batch.number)} is out of order; all before it are acknowledged"
            self._context.violate("nothing is out of order without reason", text, moment)

    def _unknown(self, op: Op, batch: Batch, moment: int) -> None:
        self._context.looked("topics are known")
        began = self._context.timeline.began[op.number]
        if self._context.topics.is_surely_there(batch.partition.topic, began, moment):
            text = f"{op.client}: {batch.partition} is unknown to {op.agent}"
            self._context.violate("topics are known", text, moment)

    def streamed(self, result: int, moment: int) -> None:
        """What a stream was told of a batch."""
        batch, code = self._history.results.batch[result], self._history.results.error_code[result]
        if code:
            return
        self._context.looked("acknowledgements name a place")
        offset = self._history.results.offset[result]
        if offset < UNKNOWN:
            text = f"{self._history.name_of(batch)} was acknowledged at offset {offset}"
            self._context.violate("acknowledgements name a place", text, moment)


def refused_alone(error_code: int) -> bool:
    """Does such an error befall a single batch of a request, which takes no part in it then?"""
    return error_code in OF_ONE or error_code == ErrorCode.NOT_ENOUGH_REPLICAS

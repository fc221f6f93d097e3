"""When operations began and ended, and what became of every batch as far as clients were told.

A moment is the place of an event among all events: of two things it says which came first, which clocks may not.
"""

from __future__ import annotations

from array import array

from tests.verifier.history import KINDS, UNKNOWN, History, Kind
from tests.verifier.operations import Fetch, Fetched, Placed, Produce, Produced
from tests.verifier.recorder import Op, State
from warp.errors import ErrorCode

NEVER = 2**62
"""A moment after all others."""
DOUBTFUL = frozenset(
    {
        ErrorCode.UNKNOWN_SERVER_ERROR,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
"""What was sent may be stored all the same, now or later. After any other error it is not."""
NO_PLACE = -2
"""An acknowledgement that names no offset."""


def is_doubtful(error_code: int) -> bool:
    """May what was answered so be carried out nevertheless? Errors below 0 are clients' own."""
    return error_code < 0 or error_code in DOUBTFUL


class Timeline:
    """Moments of operations, and the fate of batches: columns by the numbers of operations and of batches."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.began = array("q", [NEVER]) * len(history.ops)
        self.ended = array("q", [NEVER]) * len(history.ops)
        """When its outcome was known; NEVER for those that were lost."""
        count = len(history.batches)
        self.sends = array("i", [0]) * count
        self.doubts = array("i", [0]) * count
        """Sends that may have stored it, and were not acknowledged."""
        self.first_sent = array("q", [NEVER]) * count
        self.settled = array("q", [-1]) * count
        """When it was acknowledged, or refused last; see `until`."""
        self.is_acknowledged = bytearray(count)
        self.first_op = array("q", [UNKNOWN]) * count
        self.last_op = array("q", [UNKNOWN]) * count
        self.claim_batch = array("q")
        """Acknowledgements: which batch, where, and when; of idempotent batches only the first."""
        self.claim_offset = array("q")
        self.claim_sent = array("q")
        self.claim_moment = array("q")
        self._scan()

    def until(self, batch: int) -> int:
        """The last moment at which it may have been stored."""
        return NEVER if self.doubts[batch] else self.settled[batch]

    def time_s(self, moment: int) -> float | None:
        """By the recorder's clock."""
        return self.history.times[moment] if 0 <= moment < len(self.history.times) else None

    def _scan(self) -> None:
        ops, results = self.history.ops, self.history.results
        for moment, event in enumerate(self.history.events):
            kind, number = event % KINDS, event // KINDS
            if kind == Kind.SENT:
                self._sent(number, moment)
            elif kind == Kind.RESULT:
                batch = results.batch[number]
                self._told(
                    batch, results.error_code[number], results.offset[number], self.first_sent[batch], moment
                )
            elif kind == Kind.BEGAN:
                self._began(ops[number], moment)
            elif kind == Kind.ENDED:
                self._ended(ops[number], moment)

    def _began(self, op: Op, moment: int) -> None:
        self.began[op.number] = moment
        if isinstance(op.operation, Produce):
            for batch in op.operation.batches:
                if self.first_op[batch.number] == UNKNOWN:
                    self.first_op[batch.number] = op.number
                self.last_op[batch.number] = op.number
                self._sent(batch.number, moment)

    def _ended(self, op: Op, moment: int) -> None:
        if op.state is not State.LOST:
            self.ended[op.number] = moment
        if not isinstance(op.operation, Produce) or op.state is State.LOST:
            return
        for batch in op.operation.batches:
            if op.state is State.FAILED:
                placed: Placed | None = Placed(op.error_code)
            else:
                assert isinstance(op.answer, Produced)
                placed = op.answer.parts.get(batch.partition)
            if placed is not None:
                offset = UNKNOWN if placed.base_offset is None else placed.base_offset
                self._told(batch.number, placed.error_code, offset, self.began[op.number], moment)

    def _sent(self, batch: int, moment: int) -> None:
        self.sends[batch] += 1
        self.doubts[batch] += 1
        self.first_sent[batch] = min(self.first_sent[batch], moment)

    def _told(self, batch: int, error_code: int, offset: int, sent: int, moment: int) -> None:
        is_idempotent = self.history.batches.producer[batch] != UNKNOWN
        if error_code == 0 or (is_idempotent and error_code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            self.doubts[batch] -= 1
            if not (is_idempotent and self.is_acknowledged[batch]):
                self.claim_batch.append(batch)
                self.claim_offset.append(offset if error_code == 0 and offset >= 0 else NO_PLACE)
                self.claim_sent.append(self.first_sent[batch] if is_idempotent else sent)
                self.claim_moment.append(moment)
                self.settled[batch] = moment
            self.is_acknowledged[batch] = 1
        elif not is_doubtful(error_code):
            self.doubts[batch] -= 1
            self.settled[batch] = max(self.settled[batch], moment)


def is_complete(op: Op) -> bool:
    """Does an answer have all the parts that were asked for, and no others?"""
    operation, answer = op.operation, op.answer
    if isinstance(operation, Produce) and isinstance(answer, Produced):
        return {batch.partition for batch in operation.batches} == answer.parts.keys()
    if isinstance(operation, Fetch) and isinstance(answer, Fetched):
        return operation.positions.keys() == answer.parts.keys()
    return True

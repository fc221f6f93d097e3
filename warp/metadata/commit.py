"""What a commit decides: which batches get which offsets. Pure: rows go in, outcomes and changed rows come out.

The rules for idempotent producers are Kafka's (KIP-98), with one addition for agents that serve the same partition side
by side: a gap in a producer's sequence may only mean that its predecessor is still on the way through another agent, so
for a short while it is answered with NOT_ENOUGH_REPLICAS, after which clients resend in order.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, LogId, ProducerId
from warp.metadata.model import NO_TIMESTAMP, BatchEntry, BatchOutcome

SEQUENCE_MODULUS = 1 << 31
"""Sequences are int32 and go from 2147483647 to 0."""

WINDOW_BATCHES = 5
"""How many of its last batches a producer may resend; clients keep at most five requests in flight."""

EXTENT_BYTES_MAX = 4 * 1024 * 1024
GAP_GRACE_S = 3.0
GAPS_REMEMBERED_MAX = 10_000


class WrittenBatch(NamedTuple):
    """One of a producer's last batches in a log: its sequences, first and last, and what it was answered."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    max_timestamp_ms: int


@dataclass(slots=True)
class LogRow:
    """A log as the commit found it under lock; the decision moves it on."""

    log_id: LogId
    start_offset: int
    next_offset: int
    size_bytes: int
    max_timestamp_ms: int


class ProducerKey(NamedTuple):
    """Whose sequence it is: producers count per partition."""

    log_id: LogId
    producer_id: ProducerId


class ProducerRow(NamedTuple):
    """A producer's state in one log, its last batches packed as they are stored: most commits need but the last.

    No batches: the epoch was raised by a marker, and the next sequence is 0.
    """

    epoch: int
    packed_batches: bytes

    @property
    def batches(self) -> tuple[WrittenBatch, ...]:
        """Its last batches, oldest first."""
        return unpack_batches(self.packed_batches)


class Gap(NamedTuple):
    """A batch that came before its predecessor."""

    log_id: LogId
    producer_id: ProducerId
    epoch: int
    first_sequence: int


_WRITTEN_BATCH = struct.Struct(">iiqq")
_OUTCOME = struct.Struct(">hqBq")


class GapMemory:
    """When each gap was first seen, by monotonic seconds; the oldest is forgotten when there are too many.

    `has_lasted(gap, now)` is true once a gap was first seen at least `grace_s` ago. A gap that is forgotten starts its
    grace anew: no more than a delay.
    """

    def __init__(self, grace_s: float = GAP_GRACE_S, gaps_max: int = GAPS_REMEMBERED_MAX) -> None:
        self._grace_s = grace_s
        self._gaps_max = gaps_max
        self._first_seen: OrderedDict[Gap, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._first_seen)

    def has_lasted(self, gap: Gap, now: float) -> bool:
        """Note that the gap was seen at `now`; whether its grace is over."""
        self._forget_stale(now)
        first_seen = self._first_seen.setdefault(gap, now)
        if len(self._first_seen) > self._gaps_max:
            self._first_seen.popitem(last=False)
        return now - first_seen >= self._grace_s

    def _forget_stale(self, now: float) -> None:
        # Past ten times the grace nobody resends that batch any more, so the same numbers are a new gap.
        while self._first_seen:
            gap, first_seen = next(iter(self._first_seen.items()))
            if now - first_seen <= 10 * self._grace_s:
                return
            del self._first_seen[gap]


class ExtentRow(NamedTuple):
    """A new row of the index. `segment` counts the segments of this commit from 0."""

    segment: int
    log_id: LogId
    base_offset: int
    end_offset: int
    position: int
    size_bytes: int
    max_timestamp_ms: int
    prefix_max_timestamp_ms: int


@dataclass(slots=True)
class Decision:
    """`outcomes[i][j]` belongs to batch j of segment i. Logs and producers hold the changed rows alone."""

    outcomes: list[list[BatchOutcome]] = field(default_factory=list)
    extents: list[ExtentRow] = field(default_factory=list)
    logs: dict[LogId, LogRow] = field(default_factory=dict)
    producers: dict[ProducerKey, ProducerRow] = field(default_factory=dict)


def decide(
    segments: Sequence[Sequence[BatchEntry]],
    logs: Mapping[LogId, LogRow],
    producers: Mapping[ProducerKey, ProducerRow],
    gap_has_lasted: Callable[[Gap], bool],
    now_ms: int,
) -> Decision:
    """Decide for the batches of several segments, in order; each sees what the ones before it did.

    `logs` holds the logs that exist and is moved on in place; `producers` the known states. `now_ms` stands in for the
    timestamp of extents that have none.
    """
    decision = Decision()
    states = dict(producers)
    for number, batches in enumerate(segments):
        outcomes: list[BatchOutcome] = []
        open_extent: _OpenExtent | None = None
        for batch in batches:
            log = logs.get(batch.log_id)
            if log is None:
                outcomes.append(BatchOutcome(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1))
                continue
            refused = _sequence_verdict(batch, log, states, gap_has_lasted)
            if refused is not None:
                outcomes.append(refused)
                continue
            outcomes.append(BatchOutcome(ErrorCode.NONE, log.next_offset, False, log.start_offset))
            if batch.producer_id != NO_PRODUCER_ID:
                key = ProducerKey(batch.log_id, batch.producer_id)
                states[key] = decision.producers[key] = _after(states.get(key), batch, log.next_offset)
            if open_extent is None or not open_extent.takes(batch):
                if open_extent is not None:
                    decision.extents.append(open_extent.close(number, now_ms))
                open_extent = _OpenExtent(log, batch.position)
                decision.logs[batch.log_id] = log
            open_extent.add(batch)
        if open_extent is not None:
            decision.extents.append(open_extent.close(number, now_ms))
        decision.outcomes.append(outcomes)
    return decision


class _OpenExtent:
    """The extent that grows while the accepted batches of one log lie side by side."""

    __slots__ = ("_base_offset", "_log", "_max_timestamp_ms", "_position", "_size_bytes")

    def __init__(self, log: LogRow, position: int) -> None:
        self._log = log
        self._base_offset = log.next_offset
        self._position = position
        self._size_bytes = 0
        self._max_timestamp_ms = NO_TIMESTAMP

    def takes(self, batch: BatchEntry) -> bool:
        return (
            batch.log_id == self._log.log_id
            and batch.position == self._position + self._size_bytes
            and self._size_bytes + batch.size_bytes <= EXTENT_BYTES_MAX
        )

    def add(self, batch: BatchEntry) -> None:
        self._size_bytes += batch.size_bytes
        self._max_timestamp_ms = max(self._max_timestamp_ms, batch.max_timestamp_ms)
        self._log.next_offset += batch.offset_count

    def close(self, segment: int, now_ms: int) -> ExtentRow:
        log = self._log
        timestamp_ms = now_ms if self._max_timestamp_ms == NO_TIMESTAMP else self._max_timestamp_ms
        log.max_timestamp_ms = max(log.max_timestamp_ms, timestamp_ms)
        log.size_bytes += self._size_bytes
        return ExtentRow(
            segment,
            log.log_id,
            self._base_offset,
            log.next_offset,
            self._position,
            self._size_bytes,
            timestamp_ms,
            log.max_timestamp_ms,
        )


def _sequence_verdict(
    batch: BatchEntry,
    log: LogRow,
    states: Mapping[ProducerKey, ProducerRow],
    gap_has_lasted: Callable[[Gap], bool],
) -> BatchOutcome | None:
    """Why the batch takes no new offsets (a duplicate, or an error); None when it is to be appended."""
    if batch.is_transactional:
        # No transaction is open anywhere, so this one belongs to none.
        return BatchOutcome(ErrorCode.INVALID_TXN_STATE, -1)
    if batch.producer_id == NO_PRODUCER_ID:
        return None
    state = states.get(ProducerKey(batch.log_id, batch.producer_id))
    if state is None:
        if batch.base_sequence == 0 or _gap_has_lasted(batch, gap_has_lasted):
            return None
        return BatchOutcome(ErrorCode.NOT_ENOUGH_REPLICAS, -1)
    expected = expected_sequence(state, batch.producer_epoch)
    if batch.base_sequence == expected and batch.producer_epoch >= state.epoch:
        # Next in line; no duplicate either, as a window of five batches can't go once around all sequences.
        return None
    if batch.producer_epoch == state.epoch:
        last_sequence = add_to_sequence(batch.base_sequence, batch.offset_count - 1)
        for written in state.batches:
            if written.first_sequence == batch.base_sequence and written.last_sequence == last_sequence:
                return BatchOutcome(
                    ErrorCode.NONE, written.base_offset, True, log.start_offset, written.max_timestamp_ms
                )
    elif batch.producer_epoch < state.epoch:
        return BatchOutcome(ErrorCode.INVALID_PRODUCER_EPOCH, -1)
    is_ahead = (batch.base_sequence - expected) % SEQUENCE_MODULUS < SEQUENCE_MODULUS // 2
    if is_ahead and not _gap_has_lasted(batch, gap_has_lasted):
        return BatchOutcome(ErrorCode.NOT_ENOUGH_REPLICAS, -1)
    return BatchOutcome(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)


def _gap_has_lasted(batch: BatchEntry, gap_has_lasted: Callable[[Gap], bool]) -> bool:
    return gap_has_lasted(Gap(batch.log_id, batch.producer_id, batch.producer_epoch, batch.base_sequence))


def expected_sequence(state: ProducerRow, epoch: int) -> int:
    """The sequence that the producer's next batch has to begin with."""
    if epoch != state.epoch or not state.packed_batches:
        return 0
    _, last_sequence, _, _ = _WRITTEN_BATCH.unpack_from(
        state.packed_batches, len(state.packed_batches) - _WRITTEN_BATCH.size
    )
    return add_to_sequence(last_sequence, 1)


def add_to_sequence(sequence: int, count: int) -> int:
    """The sequence `count` records on."""
    return (sequence + count) % SEQUENCE_MODULUS


def _after(state: ProducerRow | None, batch: BatchEntry, base_offset: int) -> ProducerRow:
    """A producer's state once the batch is written."""
    last_sequence = add_to_sequence(batch.base_sequence, batch.offset_count - 1)
    written = _WRITTEN_BATCH.pack(batch.base_sequence, last_sequence, base_offset, batch.max_timestamp_ms)
    if state is None or state.epoch != batch.producer_epoch:
        return ProducerRow(batch.producer_epoch, written)
    kept = state.packed_batches[-(WINDOW_BATCHES - 1) * _WRITTEN_BATCH.size :]
    return ProducerRow(state.epoch, kept + written)


def pack_batches(batches: Sequence[WrittenBatch]) -> bytes:
    """A producer's window as it is stored: per batch first and last sequence, base offset, largest timestamp."""
    return b"".join(_WRITTEN_BATCH.pack(*batch) for batch in batches)


def unpack_batches(packed: bytes) -> tuple[WrittenBatch, ...]:
    """The reverse of `pack_batches`. Raises struct.error when the bytes are not such a window."""
    return tuple(WrittenBatch(*fields) for fields in _WRITTEN_BATCH.iter_unpack(packed))


def pack_outcomes(outcomes: Sequence[BatchOutcome]) -> bytes:
    """A segment's outcomes as they are stored with it."""
    return b"".join(
        _OUTCOME.pack(outcome.error, outcome.base_offset, outcome.is_duplicate, outcome.max_timestamp_ms)
        for outcome in outcomes
    )


def unpack_outcomes(packed: bytes) -> list[tuple[ErrorCode, int, bool, int]]:
    """The reverse of `pack_outcomes`: error, base offset, whether it was a duplicate, its largest timestamp."""
    return [
        (ErrorCode(error), base_offset, bool(is_duplicate), timestamp)
        for error, base_offset, is_duplicate, timestamp in _OUTCOME.iter_unpack(packed)
    ]

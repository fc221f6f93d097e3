"""The decision, pure: by examples for each rule, and against a slow and obvious model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, strategies as st

from tests.unit.metadata.support import NOW_MS, batch, sequenced
from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, LogId, ProducerId
from warp.metadata.commit import (
    EXTENT_BYTES_MAX,
    SEQUENCE_MODULUS,
    Decision,
    Gap,
    GapMemory,
    LogRow,
    ProducerKey,
    ProducerRow,
    WrittenBatch,
    decide,
    pack_batches,
    pack_outcomes,
    unpack_batches,
    unpack_outcomes,
)
from warp.metadata.model import BatchEntry, BatchOutcome

LOG, OTHER, GONE = LogId(1), LogId(2), LogId(3)
NONE = ErrorCode.NONE
GAP = ErrorCode.NOT_ENOUGH_REPLICAS
OUT_OF_ORDER = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def decided(
    *batches: BatchEntry,
    producer: ProducerRow | None = None,
    gap_has_lasted: Callable[[Gap], bool] = lambda gap: False,
    log: LogRow | None = None,
) -> Decision:
    """Decide on one segment, with producer 7's state in LOG."""
    logs = {LOG: log or LogRow(LOG, 0, 0, 0, -1), OTHER: LogRow(OTHER, 0, 0, 0, -1)}
    states = {} if producer is None else {ProducerKey(LOG, ProducerId(7)): producer}
    return decide([batches], logs, states, gap_has_lasted, NOW_MS)


def verdicts(decision: Decision) -> list[tuple[ErrorCode, int]]:
    return [(outcome.error, outcome.base_offset) for outcome in decision.outcomes[0]]


def state(epoch: int, *windows: tuple[int, int, int]) -> ProducerRow:
    """A producer's state: (first sequence, last sequence, base offset) per batch."""
    return ProducerRow(epoch, pack_batches([WrittenBatch(*window, max_timestamp_ms=5) for window in windows]))


def test_offsets_are_dense_and_follow_the_order_of_batches() -> None:
    decision = decided(batch(LOG, count=3), batch(LOG, 100, count=2), batch(OTHER, 200), batch(LOG, 300))
    assert verdicts(decision) == [(NONE, 0), (NONE, 3), (NONE, 0), (NONE, 5)]
    assert decision.logs[LOG].next_offset == 6
    assert decision.logs[OTHER].next_offset == 1


def test_side_by_side_batches_of_one_log_share_an_extent() -> None:
    decision = decided(
        batch(LOG, 10, count=3, size=20, max_timestamp_ms=8),
        batch(LOG, 30, count=2, size=5, max_timestamp_ms=6),
        batch(OTHER, 35, size=5),
        batch(LOG, 40, size=5),
        batch(LOG, 46, size=5),
    )
    assert [(e.log_id, e.base_offset, e.end_offset, e.position, e.size_bytes) for e in decision.extents] == [
        (LOG, 0, 5, 10, 25),
        (OTHER, 0, 1, 35, 5),
        (LOG, 5, 6, 40, 5),
        (LOG, 6, 7, 46, 5),
    ]
    assert decision.extents[0].max_timestamp_ms == 8
    assert decision.logs[LOG].size_bytes == 35


def test_a_rejected_batch_in_between_splits_the_extent() -> None:
    decision = decided(batch(LOG, 0), sequenced(LOG, 9, 100), batch(LOG, 200))
    assert [e.position for e in decision.extents] == [0, 200]


def test_an_extent_ends_at_its_size_bound_unless_one_batch_is_larger() -> None:
    half = EXTENT_BYTES_MAX // 2
    decision = decided(
        batch(LOG, 0, size=half),
        batch(LOG, half, size=half),
        batch(LOG, 2 * half, size=1),
        batch(LOG, 2 * half + 1, size=3 * half),
    )
    assert [e.size_bytes for e in decision.extents] == [2 * half, 1, 3 * half]


def test_an_extent_without_timestamps_takes_the_time_of_the_commit() -> None:
    decision = decided(batch(LOG, 0), batch(OTHER, 100, max_timestamp_ms=5), batch(OTHER, 200))
    assert [e.max_timestamp_ms for e in decision.extents] == [NOW_MS, 5]


def test_prefix_maximum_never_falls() -> None:
    decision = decided(
        batch(LOG, 0, max_timestamp_ms=50),
        batch(LOG, 200, max_timestamp_ms=40),
        batch(LOG, 400, max_timestamp_ms=60),
        log=LogRow(LOG, 0, 0, 0, 45),
    )
    assert [e.prefix_max_timestamp_ms for e in decision.extents] == [50, 50, 60]
    assert decision.logs[LOG].max_timestamp_ms == 60


def test_a_log_that_is_gone_fails_its_own_batches_alone() -> None:
    decision = decided(batch(GONE), batch(LOG, 100))
    assert verdicts(decision) == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1), (NONE, 0)]
    assert GONE not in decision.logs


def test_batches_of_one_producer_in_one_commit_follow_each_other() -> None:
    decision = decided(*(sequenced(LOG, 10 * n, 100 * n, count=10) for n in range(7)))
    assert verdicts(decision) == [(NONE, 10 * n) for n in range(7)]
    kept = decision.producers[ProducerKey(LOG, ProducerId(7))].batches
    assert [(w.first_sequence, w.last_sequence, w.base_offset) for w in kept] == [
        (10 * n, 10 * n + 9, 10 * n) for n in range(2, 7)
    ]


def test_a_duplicate_gets_its_original_offset_and_leaves_no_trace() -> None:
    windows = [(n, n, 100 + n) for n in range(5)]
    for n in range(5):
        decision = decided(sequenced(LOG, n), producer=state(0, *windows))
        [outcome] = decision.outcomes[0]
        assert outcome == BatchOutcome(NONE, 100 + n, True, 0, 5)
        assert (decision.extents, decision.logs, decision.producers) == ([], {}, {})


def test_a_duplicate_within_one_commit_is_known() -> None:
    decision = decided(sequenced(LOG, 0), sequenced(LOG, 0, 100), sequenced(LOG, 1, 200))
    assert verdicts(decision) == [(NONE, 0), (NONE, 0), (NONE, 1)]
    assert [outcome.is_duplicate for outcome in decision.outcomes[0]] == [False, True, False]


def test_a_duplicate_needs_the_very_same_sequences() -> None:
    windows = state(0, (0, 4, 0), (5, 9, 5))
    assert verdicts(decided(sequenced(LOG, 5, count=4), producer=windows)) == [(OUT_OF_ORDER, -1)]
    assert verdicts(decided(sequenced(LOG, 5, count=5), producer=windows)) == [(NONE, 5)]


def test_a_duplicate_that_has_left_the_window_is_out_of_order_at_once() -> None:
    windows = state(0, *((n, n, n) for n in range(3, 8)))
    assert verdicts(decided(sequenced(LOG, 2), producer=windows)) == [(OUT_OF_ORDER, -1)]


def test_a_producer_is_known_by_its_last_five_batches() -> None:
    decision = decided(*(sequenced(LOG, n, 100 * n) for n in range(7)))
    window = decision.producers[ProducerKey(LOG, ProducerId(7))].batches
    assert [written.first_sequence for written in window] == [2, 3, 4, 5, 6]


def test_an_old_epoch_is_refused() -> None:
    decision = decided(sequenced(LOG, 0, epoch=1), producer=state(2, (0, 0, 0)))
    assert verdicts(decision) == [(ErrorCode.INVALID_PRODUCER_EPOCH, -1)]


def test_a_new_epoch_begins_at_sequence_zero() -> None:
    old = state(2, (0, 0, 0))
    decision = decided(sequenced(LOG, 0, epoch=3), producer=old)
    assert verdicts(decision) == [(NONE, 0)]
    assert decision.producers[ProducerKey(LOG, ProducerId(7))].epoch == 3
    assert len(decision.producers[ProducerKey(LOG, ProducerId(7))].batches) == 1
    assert verdicts(decided(sequenced(LOG, 1, epoch=3), producer=old)) == [(GAP, -1)]
    late = decided(sequenced(LOG, 1, epoch=3), producer=old, gap_has_lasted=lambda gap: True)
    assert verdicts(late) == [(OUT_OF_ORDER, -1)]


def test_a_state_without_batches_expects_sequence_zero() -> None:
    assert verdicts(decided(sequenced(LOG, 0), producer=state(0))) == [(NONE, 0)]
    assert verdicts(decided(sequenced(LOG, 1), producer=state(0))) == [(GAP, -1)]


def test_a_gap_may_close_before_it_is_out_of_order() -> None:
    seen = []

    def lasted(gap: Gap) -> bool:
        seen.append(gap)
        return len(seen) > 1

    known = state(0, (0, 0, 0))
    assert verdicts(decided(sequenced(LOG, 2), producer=known, gap_has_lasted=lasted)) == [(GAP, -1)]
    assert verdicts(decided(sequenced(LOG, 2), producer=known, gap_has_lasted=lasted)) == [(OUT_OF_ORDER, -1)]
    assert seen == [Gap(LOG, ProducerId(7), 0, 2)] * 2


def test_a_first_sequence_above_zero_without_state_waits_and_then_counts() -> None:
    assert verdicts(decided(sequenced(LOG, 5))) == [(GAP, -1)]
    assert verdicts(decided(sequenced(LOG, 5), gap_has_lasted=lambda gap: True)) == [(NONE, 0)]


def test_batches_after_a_failed_one_do_not_overtake_it() -> None:
    known = state(0, (0, 0, 0))
    decision = decided(sequenced(LOG, 2), sequenced(LOG, 3, 100), producer=known)
    assert verdicts(decision) == [(GAP, -1), (GAP, -1)]


def test_sequences_wrap_after_the_largest_int32() -> None:
    top = SEQUENCE_MODULUS - 1
    known = state(0, (top - 3, top - 2, 0))
    decision = decided(sequenced(LOG, top - 1, count=4), sequenced(LOG, 2, 100), producer=known)
    assert verdicts(decision) == [(NONE, 0), (NONE, 4)]
    window = decision.producers[ProducerKey(LOG, ProducerId(7))].batches
    assert [(w.first_sequence, w.last_sequence) for w in window][-2:] == [(top - 1, 1), (2, 2)]
    assert verdicts(decided(sequenced(LOG, 0), producer=state(0, (top, top, 0)))) == [(NONE, 0)]
    # One behind the wrap is old; one ahead of it is a gap.
    assert verdicts(decided(sequenced(LOG, top - 1), producer=state(0, (0, 0, 0)))) == [(OUT_OF_ORDER, -1)]
    assert verdicts(decided(sequenced(LOG, 1), producer=state(0, (top, top, 0)))) == [(GAP, -1)]


def test_a_transactional_batch_belongs_to_no_transaction() -> None:
    decision = decided(batch(LOG, transactional=True))
    assert verdicts(decision) == [(ErrorCode.INVALID_TXN_STATE, -1)]


def test_producers_of_different_logs_have_nothing_to_do_with_each_other() -> None:
    decision = decided(sequenced(LOG, 0), sequenced(OTHER, 0, 100), sequenced(LOG, 1, 200))
    assert verdicts(decision) == [(NONE, 0), (NONE, 0), (NONE, 1)]


def test_gap_memory_counts_its_grace_from_the_first_sight() -> None:
    memory = GapMemory(grace_s=3.0)
    gap = Gap(LOG, ProducerId(7), 0, 5)
    assert not memory.has_lasted(gap, 100.0)
    assert not memory.has_lasted(gap, 102.9)
    assert memory.has_lasted(gap, 103.0)
    assert not memory.has_lasted(gap._replace(first_sequence=6), 103.0)


def test_gap_memory_forgets_old_gaps_and_is_bounded() -> None:
    memory = GapMemory(grace_s=3.0, gaps_max=10)
    for sequence in range(100):
        memory.has_lasted(Gap(LOG, ProducerId(7), 0, sequence), 100.0)
    assert len(memory) == 10
    assert memory.has_lasted(Gap(LOG, ProducerId(7), 0, 99), 103.0)
    assert not memory.has_lasted(Gap(LOG, ProducerId(7), 0, 99), 131.0)
    assert len(memory) == 1


def test_packed_windows_and_outcomes_read_back() -> None:
    window = (WrittenBatch(0, 2**31 - 1, 2**62, -1), WrittenBatch(5, 6, 0, NOW_MS))
    assert unpack_batches(pack_batches(window)) == window
    outcomes = [
        BatchOutcome(NONE, 2**62, True, 0, NOW_MS),
        BatchOutcome(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
    ]
    assert unpack_outcomes(pack_outcomes(outcomes)) == [
        (NONE, 2**62, True, NOW_MS),
        (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1, False, -1),
    ]


@dataclass
class Written:
    """A batch in the model's log."""

    producer: int
    epoch: int
    sequences: list[int]
    base_offset: int


@dataclass
class Model:
    """Logs as plain lists of all batches ever written. Every rule looks through the whole list."""

    logs: dict[LogId, list[Written]] = field(default_factory=lambda: {LOG: [], OTHER: []})
    lasting: bool = False

    def append(self, entry: BatchEntry) -> tuple[ErrorCode, int, bool]:
        if entry.log_id not in self.logs:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, False
        log = self.logs[entry.log_id]
        end = sum(len(written.sequences) for written in log)
        sequences = [(entry.base_sequence + n) % SEQUENCE_MODULUS for n in range(entry.offset_count)]
        new = Written(entry.producer_id, entry.producer_epoch, sequences, end)
        if entry.producer_id == NO_PRODUCER_ID:
            log.append(new)
            return NONE, end, False
        mine = [written for written in log if written.producer == entry.producer_id]
        if not mine:
            if entry.base_sequence != 0 and not self.lasting:
                return GAP, -1, False
            log.append(new)
            return NONE, end, False
        epoch = mine[-1].epoch
        window = [written for written in mine if written.epoch == epoch][-5:]
        if entry.producer_epoch == epoch:
            for written in window:
                if (written.sequences[0], written.sequences[-1]) == (sequences[0], sequences[-1]):
                    return NONE, written.base_offset, True
        if entry.producer_epoch < epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH, -1, False
        expected = 0
        if entry.producer_epoch == epoch:
            expected = (window[-1].sequences[-1] + 1) % SEQUENCE_MODULUS
        if sequences[0] == expected:
            log.append(new)
            return NONE, end, False
        ahead = {(expected + n) % SEQUENCE_MODULUS for n in range(100)}
        if sequences[0] in ahead and not self.lasting:
            return GAP, -1, False
        return OUT_OF_ORDER, -1, False


SEQUENCES = st.one_of(st.integers(0, 12), st.integers(SEQUENCE_MODULUS - 8, SEQUENCE_MODULUS - 1))
BATCHES = st.builds(
    lambda log, producer, epoch, sequence, count, gap: (log, producer, epoch, sequence, count, gap),
    st.sampled_from([LOG, LOG, OTHER, GONE]),
    st.sampled_from([-1, 7, 7, 7, 8]),
    st.sampled_from([0, 0, 0, 1, 2]),
    # None: whatever comes next; a negative number: a resend of the batch that many back.
    st.one_of(st.none(), st.none(), st.none(), st.integers(-6, -1), SEQUENCES),
    st.integers(1, 3),
    st.sampled_from([0, 0, 0, 50]),
)


@given(st.lists(st.tuples(st.lists(st.lists(BATCHES, max_size=8), max_size=3), st.booleans()), max_size=5))
def test_decisions_agree_with_an_obvious_model(
    commits: Sequence[tuple[Sequence[Sequence[tuple[LogId, int, int, int | None, int, int]]], bool]],
) -> None:
    model = Model()
    rows = {LOG: LogRow(LOG, 0, 0, 0, -1), OTHER: LogRow(OTHER, 0, 0, 0, -1)}
    states: dict[ProducerKey, ProducerRow] = {}
    sent: dict[tuple[LogId, int], list[tuple[int, int, int]]] = {}
    covered: dict[LogId, list[tuple[int, int]]] = {LOG: [], OTHER: []}
    for drawn_segments, lasting in commits:
        model.lasting = lasting
        segments = [_entries(drawn, sent) for drawn in drawn_segments]
        before = {log_id: row.next_offset for log_id, row in rows.items()}
        decision = decide(segments, rows, states, lambda gap, lasting=lasting: lasting, NOW_MS)  # type: ignore[misc]
        for entries, outcomes in zip(segments, decision.outcomes, strict=True):
            expected = [model.append(entry) for entry in entries]
            assert [(o.error, o.base_offset, o.is_duplicate) for o in outcomes] == expected
        for extent in decision.extents:
            covered[extent.log_id].append((extent.base_offset, extent.end_offset))
            _check_extent_bytes(extent.segment, extent.position, extent.size_bytes, segments, decision)
        changed = {log_id for log_id, row in rows.items() if row.next_offset != before[log_id]}
        assert set(decision.logs) == changed
        states |= decision.producers
    for log_id, ranges in covered.items():
        ends = [0, *(end for _, end in ranges)]
        assert [base for base, _ in ranges] == ends[:-1], "extents tile the log"
        assert ends[-1] == rows[log_id].next_offset


def _entries(
    drawn: Sequence[tuple[LogId, int, int, int | None, int, int]],
    sent: dict[tuple[LogId, int], list[tuple[int, int, int]]],
) -> list[BatchEntry]:
    """Batches side by side (or with a gap of bytes), their sequences filled in from what was sent before."""
    entries = []
    position = 0
    for log_id, producer, epoch, drawn_sequence, drawn_count, gap in drawn:
        position += gap
        if producer == -1:
            entries.append(batch(log_id, position, count=drawn_count, size=10))
        else:
            before = sent.setdefault((log_id, producer), [])
            chosen = _sequences(before, epoch, drawn_sequence, drawn_count)
            before.append(chosen)
            entries.append(
                sequenced(
                    log_id, chosen[1], position, count=chosen[2], producer=producer, epoch=chosen[0], size=10
                )
            )
        position += 10
    return entries


def _sequences(
    before: Sequence[tuple[int, int, int]], epoch: int, sequence: int | None, count: int
) -> tuple[int, int, int]:
    """Epoch, first sequence and number of records of a batch."""
    if sequence is None:
        if not before:
            return epoch, 0, count
        last_epoch, last_sequence, last_count = before[-1]
        return last_epoch, (last_sequence + last_count) % SEQUENCE_MODULUS, count
    if -len(before) <= sequence < 0:
        return before[sequence]
    return epoch, sequence % SEQUENCE_MODULUS, count


def _check_extent_bytes(
    segment: int, position: int, size_bytes: int, segments: Sequence[Sequence[BatchEntry]], decision: Decision
) -> None:
    """An extent holds whole, accepted, new batches and no other byte."""
    inside = [
        (entry, outcome)
        for entry, outcome in zip(segments[segment], decision.outcomes[segment], strict=True)
        if position <= entry.position < position + size_bytes
    ]
    assert sum(entry.size_bytes for entry, _ in inside) == size_bytes
    assert all(outcome.error == NONE and not outcome.is_duplicate for _, outcome in inside)

"""A sealed segment: its bytes in their final form, and the requests that wait for its commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from warp.errors import ErrorCode
from warp.ids import LogId, ProducerId
from warp.log.buffer import NEVER, Unit, WaitingBatch, append_time_ms
from warp.log.model import LOG_APPEND_TIME, AppendOutcome
from warp.log.pacing import Hold
from warp.log.segment import MAGIC, ExtentBatches, Receipt, ReceiptRun, build_segment
from warp.log.upload import UploadNote
from warp.metadata.model import NO_TIMESTAMP, BatchEntry, BatchOutcome, SegmentCommit


class SealedBatch(NamedTuple):
    """A batch in its place in a segment, and the request that it came in."""

    unit: Unit
    part: int
    entry: BatchEntry
    append_time_ms: int
    has_append_time: bool


class SealedSegment:
    """One segment between its seal and the answers to its requests.

    It is uploading until it has a `key`. `commit()` fixes which batches ask for offsets.
    """

    __slots__ = (
        "_commit",
        "_live",
        "accepted_batches",
        "accepted_bytes",
        "batches",
        "built_at",
        "commit_attempts",
        "commit_began_at",
        "created_ms",
        "earliest_deadline",
        "held_by",
        "image",
        "is_committing",
        "is_unknown",
        "key",
        "number",
        "receipts",
        "sealed_at",
        "sealed_boottime",
        "size_bytes",
        "units",
        "upload_note",
        "uploaded_at",
    )

    def __init__(
        self,
        number: int,
        units: Sequence[Unit],
        receipts: Sequence[Receipt],
        *,
        created_ms: int,
        sealed_at: float,
        sealed_boottime: float,
        held_by: Hold | None = None,
    ) -> None:
        self.number = number
        self.units = units
        self.receipts = receipts
        self.created_ms = created_ms
        self.sealed_at = sealed_at
        self.sealed_boottime = sealed_boottime
        self.built_at = sealed_at
        self.uploaded_at: float | None = None
        self.commit_began_at: float | None = None
        self.commit_attempts = 0
        self.held_by = held_by
        """What kept the buffer from being sealed before, last."""
        self.upload_note = UploadNote()
        self.earliest_deadline = min((unit.deadline for unit in units), default=NEVER)
        self.key: str | None = None
        self.is_committing = False
        self.is_unknown = False
        """An attempt to commit may have been applied."""
        self.accepted_batches = 0
        self.accepted_bytes = 0
        groups = _by_log(units)
        self.batches = _placed(groups)
        self.image = build_segment(
            [_extent(batches) for batches in groups], created_ms=created_ms, receipts=receipts
        )
        self.size_bytes = sum(map(len, self.image))
        for unit in units:
            unit.batches = ()
        self._commit: SegmentCommit | None = None
        self._live: Sequence[SealedBatch] = ()

    @property
    def may_be_committed(self) -> bool:
        """Whether an attempt to commit it is under way, or was and nobody knows how it ended."""
        return self.is_committing or self.is_unknown

    @property
    def is_wanted(self) -> bool:
        """Whether any of its requests still waits for an answer."""
        return any(not unit.is_settled for unit in self.units)

    @property
    def waiting_units(self) -> list[Unit]:
        """Its requests that still wait for an answer."""
        return [unit for unit in self.units if not unit.is_settled]

    def commit(self) -> SegmentCommit:
        """What asks for offsets: the batches of the requests that still wait.

        The same on every call, until `forget_commit()`: an attempt whose outcome is unknown must be repeated as it was.
        """
        if self._commit is None:
            assert self.key is not None, "a segment is committed after it was uploaded"
            self._live = [batch for batch in self.batches if not batch.unit.is_settled]
            self._commit = SegmentCommit(
                self.key, self.size_bytes, self.created_ms, [batch.entry for batch in self._live]
            )
        return self._commit

    def forget_commit(self) -> None:
        """The last attempt changed nothing: requests that time out before the next one can be left out of it."""
        assert not self.is_unknown
        self._commit = None

    def acknowledge(self, outcomes: Sequence[BatchOutcome]) -> Receipt:
        """Answer the requests with what the commit decided; returns the receipt of it."""
        runs: list[ReceiptRun] = []
        log_id = None
        for batch, outcome in zip(self._live, outcomes, strict=True):
            batch.unit.outcomes[batch.part] = _answer(batch, outcome)
            if not outcome.error and not outcome.is_duplicate:
                entry = batch.entry
                self.accepted_batches += 1
                self.accepted_bytes += entry.size_bytes
                run = ReceiptRun(entry.position, entry.size_bytes, outcome.base_offset, entry.offset_count)
                if log_id == entry.log_id and _follows(runs[-1], run):
                    runs[-1] = _joined(runs[-1], run)
                else:
                    runs.append(run)
                log_id = entry.log_id
        for unit in self.units:
            unit.settle()
        assert self.key is not None
        return Receipt(self.key, runs)


def _follows(last: ReceiptRun, run: ReceiptRun) -> bool:
    """Whether a run of the same log begins where the last one ends, in the segment and in the log."""
    return (
        last.position + last.size_bytes == run.position
        and last.base_offset + last.offset_count == run.base_offset
    )


def _joined(last: ReceiptRun, run: ReceiptRun) -> ReceiptRun:
    size_bytes = last.size_bytes + run.size_bytes
    return ReceiptRun(last.position, size_bytes, last.base_offset, last.offset_count + run.offset_count)


_Group = list[tuple[Unit, WaitingBatch]]


def _by_log(units: Sequence[Unit]) -> list[_Group]:
    """The batches of each log, in order of arrival; logs by id, so that merging reads segments from front to back."""
    groups: dict[LogId, _Group] = {}
    for unit in units:
        for item in unit.batches:
            log_id = item.target.log_id
            group = groups.get(log_id)
            if group is None:
                groups[log_id] = [(unit, item)]
            else:
                group.append((unit, item))
    return [groups[log_id] for log_id in sorted(groups)]


def _placed(groups: Sequence[_Group]) -> list[SealedBatch]:
    position = len(MAGIC)
    placed = []
    for group in groups:
        for unit, item in group:
            placed.append(_sealed(unit, item, position))
            position += item.header.size_bytes
    return placed


def _sealed(unit: Unit, item: WaitingBatch, position: int) -> SealedBatch:
    batch = item.header
    entry = BatchEntry(
        item.target.log_id,
        position,
        batch.size_bytes,
        batch.last_offset_delta + 1,
        batch.max_timestamp,
        ProducerId(batch.producer_id),
        batch.producer_epoch,
        batch.base_sequence,
        batch.is_transactional,
    )
    has_append_time = item.target.rules.timestamp_type == LOG_APPEND_TIME
    return SealedBatch(unit, item.part, entry, append_time_ms(item), has_append_time)


def _extent(group: _Group) -> ExtentBatches:
    target = group[0][1].target
    batches = [item.header for _, item in group]
    first_times = [batch.base_timestamp for batch in batches if batch.base_timestamp != NO_TIMESTAMP]
    return ExtentBatches(
        target.topic_id,
        target.topic,
        target.partition,
        [item.data for _, item in group],
        sum(batch.record_count for batch in batches),
        min(first_times, default=NO_TIMESTAMP),
        max(batch.max_timestamp for batch in batches),
    )


def _answer(batch: SealedBatch, outcome: BatchOutcome) -> AppendOutcome:
    if outcome.error:
        return AppendOutcome(outcome.error)
    time_ms = batch.append_time_ms
    if outcome.is_duplicate and batch.has_append_time:
        time_ms = outcome.max_timestamp_ms
    return AppendOutcome(ErrorCode.NONE, outcome.base_offset, time_ms, outcome.log_start_offset)

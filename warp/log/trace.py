"""What recent requests waited for, so that a slow one explains itself: the last ones, and the slowest of some minutes.

A segment is told of once, by the slowest of its requests and how many there were: the others differ from it in nothing
but when they came. So the cost is that of a flush, not of a request. Fetches are told of when they had to load
something. Memory is bounded by the numbers in `TraceLimits`; a row takes about a kilobyte.

`as_json` is what GET /v1/trace/last answers; docs/operations.md lists its fields, on which tools may rely.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

from warp.clock import Clock
from warp.errors import ErrorCode
from warp.log.buffer import Unit
from warp.log.pacing import Hold
from warp.log.race import HedgedRequests
from warp.log.sealed import SealedSegment

CLOSED = "CLOSED"
"""The outcome of a request without an answer: nobody could know what became of it, or its client has left."""


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """How much is remembered."""

    last_max: int = 20
    slowest_max: int = 50
    window_s: float = 300.0
    """How long the slowest stay."""
    slices: int = 5
    """In how many parts the window moves on."""


@dataclass(frozen=True, slots=True)
class ProduceTrace:
    """One Produce request, the slowest of its segment. A time is None when it did not come to that."""

    arrived_ms: int
    """Wall-clock time, milliseconds since 1970."""
    total_ms: float
    outcome: str
    """Name of the first error, NONE, or CLOSED."""
    request_bytes: int
    partitions: int
    requests: int
    """How many requests of its segment shared its fate."""
    check_ms: float
    """Until its batches were checked."""
    backlog_ms: float
    """Until there was room in the open buffer."""
    buffer_ms: float
    """Until its segment was sealed."""
    held_by: str | None
    """What kept the buffer from being flushed, last: see `warp.log.pacing.Hold`."""
    seal_ms: float | None = None
    upload_ms: float | None = None
    order_ms: float | None = None
    """Until the segments before it were committed, or a commit under way was done."""
    commit_ms: float | None = None
    answer_ms: float | None = None
    segment_key: str | None = None
    segment_bytes: int | None = None
    put_attempts: int = 0
    hedged_after_ms: float | None = None
    """When a second PUT was sent, counted from the first."""
    is_hedge_won: bool = False
    is_hedge_denied: bool = False
    """The PUT was slow, and the budget did not allow a second one when it was due."""
    commit_attempts: int = 0


@dataclass(frozen=True, slots=True)
class FetchTrace:
    """One Fetch request that had to load something, or waited for the index or for memory."""

    arrived_ms: int
    """Wall-clock time, milliseconds since 1970."""
    total_ms: float
    """Without `wait_ms`."""
    outcome: str
    answer_bytes: int
    partitions: int
    index_ms: float
    """Asking the metadata store where the records are."""
    wait_ms: float
    """Waiting for records that were not there yet, as the client wished."""
    load_ms: float
    """Waiting for the object store."""
    memory_ms: float
    """Waiting for memory to copy the answer into."""
    gets: int
    """Loads that it waited for; others may have started them."""
    hedged_gets: int
    hedges_won: int


Row = TypeVar("Row", ProduceTrace, FetchTrace)

_TOTAL = attrgetter("total_ms")

_WORTH_TELLING_S = 0.02
"""Fetches that loaded nothing are told of when the index or memory made them wait so long."""


class _Slowest(Generic[Row]):
    """The slowest rows of the last window, kept slice by slice, so that they leave as they grow old."""

    def __init__(self, limits: TraceLimits) -> None:
        self._limits = limits
        self._slice_s = limits.window_s / limits.slices
        self._slices: deque[tuple[int, list[Row]]] = deque()

    def add(self, now: float, row: Row) -> None:
        number = self._expire(now)
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append((number, []))
        rows = self._slices[-1][1]
        if len(rows) < self._limits.slowest_max:
            insort(rows, row, key=_TOTAL)
        elif row.total_ms > rows[0].total_ms:
            del rows[0]
            insort(rows, row, key=_TOTAL)

    def rows(self, now: float) -> list[Row]:
        """Slowest first."""
        self._expire(now)
        together = sorted((row for _, rows in self._slices for row in rows), key=_TOTAL, reverse=True)
        return together[: self._limits.slowest_max]

    def _expire(self, now: float) -> int:
        number = int(now / self._slice_s)
        while self._slices and self._slices[0][0] <= number - self._limits.slices:
            self._slices.popleft()
        return number


class _Rows(Generic[Row]):
    """The last rows of one kind, and the slowest."""

    def __init__(self, limits: TraceLimits) -> None:
        self._last: deque[Row] = deque(maxlen=limits.last_max)
        self._slowest: _Slowest[Row] = _Slowest(limits)

    def add(self, now: float, row: Row) -> None:
        self._last.append(row)
        self._slowest.add(now, row)

    def as_json(self, now: float) -> dict[str, Any]:
        return {
            "slowest": [asdict(row) for row in self._slowest.rows(now)],
            "last": [asdict(row) for row in reversed(self._last)],
        }


@dataclass(slots=True)
class FetchNote:
    """What one fetch has waited for so far, in seconds."""

    index_s: float = 0.0
    wait_s: float = 0.0
    load_s: float = 0.0
    memory_s: float = 0.0
    gets: int = 0
    hedged_gets: int = 0
    hedges_won: int = 0


@dataclass(slots=True)
class RequestTrace:
    """The trace of one agent."""

    clock: Clock
    limits: TraceLimits = field(default_factory=TraceLimits)
    produce: _Rows[ProduceTrace] = field(init=False)
    fetch: _Rows[FetchTrace] = field(init=False)

    def __post_init__(self) -> None:
        self.produce = _Rows(self.limits)
        self.fetch = _Rows(self.limits)

    def produced(
        self,
        units: Iterable[Unit],
        segment: SealedSegment | None,
        *,
        committed_at: float | None = None,
        held_by: Hold | None = None,
    ) -> None:
        """These requests of a segment, or of none yet, have been answered or were given up just now.

        `held_by` says what keeps those from being sealed that are not.
        """
        now = self.clock.monotonic()
        slowest, count = _slowest(units)
        if slowest is not None:
            if segment is not None:
                held_by = segment.held_by
            self.produce.add(now, self._produce_row(slowest, count, now, held_by, segment, committed_at))

    def fetched(
        self, note: FetchNote, took_s: float, outcome: ErrorCode, answer_bytes: int, partitions: int
    ) -> None:
        """A fetch is answered now; told of when it had to load something, or to wait for anything else of ours."""
        if not note.gets and note.index_s + note.memory_s < _WORTH_TELLING_S:
            return
        now = self.clock.monotonic()
        self.fetch.add(
            now,
            FetchTrace(
                self.clock.time_ms() - round(1000 * took_s),
                _ms(took_s - note.wait_s),
                outcome.name,
                answer_bytes,
                partitions,
                _ms(note.index_s),
                _ms(note.wait_s),
                _ms(note.load_s),
                _ms(note.memory_s),
                note.gets,
                note.hedged_gets,
                note.hedges_won,
            ),
        )

    def as_json(self) -> Mapping[str, Any]:
        """Both kinds, each with its slowest and its last rows."""
        now = self.clock.monotonic()
        return {
            "now_ms": self.clock.time_ms(),
            "window_s": self.limits.window_s,
            "produce": self.produce.as_json(now),
            "fetch": self.fetch.as_json(now),
        }

    def _produce_row(
        self,
        unit: Unit,
        requests: int,
        now: float,
        held_by: Hold | None,
        segment: SealedSegment | None,
        committed_at: float | None,
    ) -> ProduceTrace:
        sealed_at = now if segment is None else segment.sealed_at
        buffered_at = unit.buffered_at
        row: dict[str, Any] = {
            "arrived_ms": self.clock.time_ms() - round(1000 * (now - unit.arrived_at)),
            "total_ms": _ms(now - unit.arrived_at),
            "outcome": _outcome(unit),
            "request_bytes": unit.size_bytes,
            "partitions": unit.partitions,
            "requests": requests,
            "check_ms": _ms(unit.staged_at - unit.arrived_at),
            "backlog_ms": _ms((now if buffered_at is None else buffered_at) - unit.staged_at),
            "buffer_ms": 0.0 if buffered_at is None else _ms(sealed_at - buffered_at),
            "held_by": None if held_by is None else held_by.value,
        }
        if segment is not None:
            row |= _segment_fields(segment, now, committed_at)
        return ProduceTrace(**row)


def hedges_json(hedges: HedgedRequests | None) -> dict[str, Any] | None:
    """What is known of the latency of one kind of request, and of those that were sent twice; None: none ever is."""
    if hedges is None:
        return None
    return {
        "hedges": hedges.started,
        "hedges_won": hedges.won,
        "hedges_denied": hedges.denied,
        "latencies": [
            {"size_bytes_max": known.size_bytes_max, "samples": known.samples, "p95_ms": _ms(known.p95_s)}
            for known in hedges.policy.estimates()
        ],
    }


def _segment_fields(segment: SealedSegment, now: float, committed_at: float | None) -> dict[str, Any]:
    """What a row says of its segment, as far as that has come."""
    note, built_at = segment.upload_note, segment.built_at
    uploaded_at, commit_began_at = segment.uploaded_at, segment.commit_began_at
    fields: dict[str, Any] = {
        "seal_ms": _ms(built_at - segment.sealed_at),
        "upload_ms": _ms((now if uploaded_at is None else uploaded_at) - built_at),
        "segment_key": segment.key,
        "segment_bytes": segment.size_bytes,
        "put_attempts": note.attempts,
        "hedged_after_ms": None if note.hedged_after_s is None else _ms(note.hedged_after_s),
        "is_hedge_won": note.is_won,
        "is_hedge_denied": note.is_denied,
        "commit_attempts": segment.commit_attempts,
    }
    if uploaded_at is not None:
        fields["order_ms"] = _ms((now if commit_began_at is None else commit_began_at) - uploaded_at)
    if commit_began_at is not None:
        fields["commit_ms"] = _ms((now if committed_at is None else committed_at) - commit_began_at)
    if committed_at is not None:
        fields["answer_ms"] = _ms(now - committed_at)
    return fields


def _slowest(units: Iterable[Unit]) -> tuple[Unit | None, int]:
    """The request that came first, and how many there are."""
    slowest, count = None, 0
    for unit in units:
        count += 1
        if slowest is None or unit.arrived_at < slowest.arrived_at:
            slowest = unit
    return slowest, count


def _outcome(unit: Unit) -> str:
    if not unit.is_settled or unit.result.cancelled():
        return CLOSED
    errors = [outcome.error for outcome in unit.outcomes if outcome is not None and outcome.error]
    return errors[0].name if errors else ErrorCode.NONE.name


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)

"""The agent's one open buffer: what has been accepted and waits for the next flush, in order of arrival.

The unit is a Produce request: it enters and leaves as one, so it is never split over two segments and all that it
commits is committed together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from warp._records import BatchHeader
from warp.errors import ErrorCode
from warp.ids import NO_PRODUCER_ID, LogId
from warp.log.model import LOG_APPEND_TIME, AppendOutcome, LogTarget
from warp.objectstore.base import Buffer

NEVER = float("inf")


class WaitingBatch(NamedTuple):
    """One accepted batch of a request: its header and all its bytes. `part` is its place among the request's parts."""

    part: int
    target: LogTarget
    header: BatchHeader
    data: Buffer


ProducerOfLog = tuple[LogId, int]
"""Whose order has to be kept: a producer id in one log."""


class Unit:
    """One Produce request on its way through the log.

    `outcomes` begins with the errors of the parts that were refused, and None for those on their way. `deadline` is in
    monotonic seconds, and so are `arrived_at` (it was read), `staged_at` (it was checked) and `buffered_at` (it entered
    the open buffer; None before). Once settled, by whatever comes first, later news change nothing.
    """

    __slots__ = (
        "arrived_at",
        "batches",
        "buffered_at",
        "deadline",
        "outcomes",
        "partitions",
        "producers",
        "result",
        "size_bytes",
        "staged_at",
    )

    def __init__(
        self,
        batches: Sequence[WaitingBatch],
        outcomes: list[AppendOutcome | None],
        deadline: float,
        result: asyncio.Future[list[AppendOutcome]],
        arrived_at: float,
    ) -> None:
        self.arrived_at = self.staged_at = arrived_at
        self.buffered_at: float | None = None
        self.batches = batches
        self.partitions = len(batches)
        self.outcomes = outcomes
        self.deadline = deadline
        self.result = result
        self.size_bytes = 0
        self.producers: list[ProducerOfLog] = []
        for _, target, batch, _ in batches:
            self.size_bytes += batch.size_bytes
            if batch.producer_id != NO_PRODUCER_ID:
                self.producers.append((target.log_id, batch.producer_id))

    @property
    def is_settled(self) -> bool:
        """Whether the request was answered, or its client is gone."""
        return self.result.done()

    def settle(self) -> None:
        """Answer with the outcomes that have been filled in for every part."""
        if not self.result.done():
            self.result.set_result([_filled(outcome) for outcome in self.outcomes])

    def fail(self, error: ErrorCode, message: str) -> None:
        """Answer every part that is still on its way with one error."""
        failure = AppendOutcome(error, message=message)
        self.outcomes = [failure if outcome is None else outcome for outcome in self.outcomes]
        self.settle()

    def abandon(self) -> None:
        """Give up without an answer: nobody knows what became of it, so its connection has to be closed."""
        if not self.result.done():
            self.result.cancel()


def _filled(outcome: AppendOutcome | None) -> AppendOutcome:
    assert outcome is not None, "every part has an outcome when its request is settled"
    return outcome


def append_time_ms(item: WaitingBatch) -> int:
    """The time stamped on a batch; -1 unless its topic has log append time."""
    return item.header.max_timestamp if item.target.rules.timestamp_type == LOG_APPEND_TIME else -1


class OpenBuffer:
    """Units in order of arrival, their bytes, and since when the first has waited."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.size_bytes = 0
        self.since = 0.0
        self.earliest_deadline = NEVER

    def add(self, unit: Unit, now: float) -> None:
        """Take a unit in, at the end."""
        if not self.units:
            self.since = now
        unit.buffered_at = now
        self.units.append(unit)
        self.size_bytes += unit.size_bytes
        self.earliest_deadline = min(self.earliest_deadline, unit.deadline)

    def take(self) -> list[Unit]:
        """Hand over everything and start anew."""
        units = self.units
        self.units = []
        self._count()
        return units

    def drop_settled(self) -> None:
        """Let go of units that were answered before they were sealed: nothing of them is stored."""
        self.units = [unit for unit in self.units if not unit.is_settled]
        self._count()

    def _count(self) -> None:
        self.size_bytes = sum(unit.size_bytes for unit in self.units)
        self.earliest_deadline = min((unit.deadline for unit in self.units), default=NEVER)


def late_units(units: Iterable[Unit], now: float) -> list[Unit]:
    """Those that wait for an answer though their deadline has passed."""
    return [unit for unit in units if unit.deadline <= now and not unit.is_settled]


def time_out(units: Sequence[Unit], now: float) -> int:
    """Answer the units whose deadline has passed with REQUEST_TIMED_OUT; how many there were."""
    late = late_units(units, now)
    for unit in late:
        unit.fail(ErrorCode.REQUEST_TIMED_OUT, "not committed in the time that the request allows")
    return len(late)


def time_out_in_order(units: Sequence[Unit], now: float) -> int:
    """Time out the late ones of units whose commit has not begun, and fail what comes after them.

    Nothing of a unit that is late will be stored, so later batches of its producers and logs would leave a gap: they
    are answered with an error that clients retry in order. How many were late.
    """
    late = 0
    producers: set[ProducerOfLog] = set()
    for unit in units:
        if unit.is_settled:
            continue
        if unit.deadline <= now:
            late += time_out([unit], now)
            producers.update(unit.producers)
        elif producers and not producers.isdisjoint(unit.producers):
            producers.update(unit.producers)
            unit.fail(
                ErrorCode.NOT_ENOUGH_REPLICAS, "an earlier batch of the same producer was not stored in time"
            )
    return late


def fail_followers(producers: set[ProducerOfLog], units: Sequence[Unit], error: ErrorCode) -> int:
    """Fail the units, of those that come later in order, that hold batches of the same producers and logs.

    A request fails as a whole, so its other producers and logs join the set. How many were failed.
    """
    failed = 0
    for unit in units:
        if not unit.is_settled and not producers.isdisjoint(unit.producers):
            producers.update(unit.producers)
            unit.fail(error, "an earlier batch of the same producer was not stored")
            failed += 1
    return failed

"""When to flush: a pure decision, so that latency and the number of requests can be reasoned about without a clock.

On stores that charge for requests a token bucket holds one PUT per `flush_interval_s` and one per `bytes_per_request`
that are flushed, with a small burst. A flush starts at once when so many bytes wait that they pay for a PUT, in flight
or not: a producer with a few large requests under way must not wait for its own acknowledgements. With half as many the
bucket has to make up for the difference; with less, nothing may be in flight besides. Otherwise a flush starts when the
first waiting byte has waited for the interval. So a quiet agent answers in one PUT plus one commit, and no agent makes
more requests than a timer of that interval, or one PUT per `bytes_per_request`, would.

Hedges spend from the same bucket, and may leave it in debt: they are needed most when a busy agent has just spent what
there was, and being few by a budget of their own they only make a later flush wait.

Where requests cost nothing, a flush starts as soon as the last one is done, or in quiet times at once. But then flushes
cost the loop's time, most of it in the commit, whatever they hold: at 450 MB/s in requests of 1 MB, an agent that put
every request into a segment of its own used 1.4 CPU-seconds per GB; one that rested between flushes as long as the last
one took, 0.95; with requests of 16 KiB at 100 MB/s it was 19 against 5. So it rests, but never long.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

_ROUNDING = 1e-6
"""What a token may lack: a timer set for the very moment must find it there."""


@dataclass(frozen=True, slots=True)
class PacingLimits:
    """What the pace is measured by."""

    flush_interval_s: float = 0.25
    flush_bytes: int = 8 * 2**20
    """A segment of this size is flushed whatever else goes on."""
    bytes_per_request: int = 2**20
    """Waiting bytes that are worth a PUT of their own."""
    burst_requests: float = 3.0
    """How many PUTs a quiet time saves up for."""
    debt_requests: float = 2.0
    """How many hedges may be sent beyond what is there."""
    rest_ratio: float = 1.0
    """How long no flush starts after the last one, as a multiple of the time that it took. Free requests only."""
    rest_max_s: float = 0.005


class Hold(Enum):
    """Why waiting bytes are not flushed yet."""

    FLUSH_IN_FLIGHT = "flush_in_flight"
    """Another flush is under way, and it is not worth a request to go beside it."""
    REQUEST_BUDGET = "request_budget"
    REST = "rest"
    """Free requests only: the last flush has just ended."""
    UPLOADS = "uploads"
    """As many uploads run as may."""
    SEALED_SEGMENTS = "sealed_segments"
    """As many segments, or bytes of them, wait for their commit as may."""


class Decision(NamedTuple):
    """When to flush if nothing else happens, now or later; None: not before another event. And why not now."""

    at: float | None
    hold: Hold | None = None


class Pacer:
    """Says when the open buffer is to be sealed. Times are monotonic seconds, passed in."""

    def __init__(self, limits: PacingLimits, *, requests_are_free: bool, now: float) -> None:
        self._limits = limits
        self._requests_are_free = requests_are_free
        self._tokens = limits.burst_requests
        self._filled_at = now
        self._rests_until = now

    def decide(self, now: float, *, waiting_bytes: int, waiting_since: float, in_flight: int) -> Decision:
        """When to flush.

        `waiting_since` is when the first of `waiting_bytes` came, `in_flight` how many flushes are not done.
        """
        if waiting_bytes == 0:
            return Decision(None)
        if waiting_bytes >= self._limits.flush_bytes:
            return Decision(now)
        if not self._requests_are_free:
            return self._decide_paid(now, waiting_bytes, waiting_since, in_flight)
        if in_flight:
            return Decision(None, Hold.FLUSH_IN_FLIGHT)
        return Decision(now) if self._rests_until <= now else Decision(self._rests_until, Hold.REST)

    def _decide_paid(self, now: float, waiting_bytes: int, waiting_since: float, in_flight: int) -> Decision:
        paid = waiting_bytes / self._limits.bytes_per_request
        due = waiting_since + self._limits.flush_interval_s
        if paid >= 1.0 or due <= now:
            return Decision(now)
        if in_flight and paid < 0.5:
            return Decision(due, Hold.FLUSH_IN_FLIGHT)
        missing = 1.0 - paid - self._tokens_at(now)
        if missing <= _ROUNDING:
            return Decision(now)
        return Decision(min(due, now + missing * self._limits.flush_interval_s), Hold.REQUEST_BUDGET)

    def finished(self, now: float, took_s: float) -> None:
        """A flush has ended; it took so long from its seal on."""
        limits = self._limits
        self._rests_until = now + min(limits.rest_max_s, limits.rest_ratio * took_s)

    def spend(self, now: float, size_bytes: int = 0) -> None:
        """Account for a PUT that is made in any case, of so many bytes that wait."""
        self._take(now, 1.0 - size_bytes / self._limits.bytes_per_request)

    def try_spend(self, now: float) -> bool:
        """Account for a PUT that need not be made, if the debt allows it: a hedge."""
        if self._requests_are_free:
            return True
        if self._tokens_at(now) + self._limits.debt_requests < 1.0 - _ROUNDING:
            return False
        self._take(now, 1.0)
        return True

    def _take(self, now: float, tokens: float) -> None:
        left = min(self._limits.burst_requests, self._tokens_at(now) - tokens)
        self._tokens = max(-self._limits.debt_requests, left)
        self._filled_at = now

    def _tokens_at(self, now: float) -> float:
        gained = (now - self._filled_at) / self._limits.flush_interval_s
        return min(self._limits.burst_requests, self._tokens + gained)

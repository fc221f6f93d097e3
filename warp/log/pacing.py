"""When to flush: a pure decision, so that latency and the number of requests can be reasoned about without a clock.

On stores that charge for requests a token bucket holds one PUT per `flush_interval_s`, with a small burst. A flush
starts at once when none is in flight and the bucket has a token, or when so many bytes wait that a PUT is well paid
for, in flight or not: a producer with a few large requests under way must not wait for its own acknowledgements.
Otherwise it starts when the first waiting byte has waited for the interval. So a quiet agent answers in one PUT plus
one commit, and no agent makes more requests than a timer of that interval, or one PUT per `bytes_per_request`, would.

Where requests cost nothing, a flush starts as soon as the last one is done, or in quiet times at once. But then flushes
cost the loop's time, most of it in the commit, whatever they hold: at 450 MB/s in requests of 1 MB, an agent that put
every request into a segment of its own used 1.4 CPU-seconds per GB; one that rested between flushes as long as the last
one took, 0.95; with requests of 16 KiB at 100 MB/s it was 19 against 5. So it rests, but never long.
"""

from __future__ import annotations

from dataclasses import dataclass

_ONE = 1.0 - 1e-6
"""A token, but for what rounding takes from it: a timer set for the very moment must find it there."""


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
    rest_ratio: float = 1.0
    """How long no flush starts after the last one, as a multiple of the time that it took. Free requests only."""
    rest_max_s: float = 0.005


class Pacer:
    """Says when the open buffer is to be sealed. Times are monotonic seconds, passed in."""

    def __init__(self, limits: PacingLimits, *, requests_are_free: bool, now: float) -> None:
        self._limits = limits
        self._requests_are_free = requests_are_free
        self._tokens = limits.burst_requests
        self._filled_at = now
        self._rests_until = now

    def flush_at(
        self, now: float, *, waiting_bytes: int, waiting_since: float, in_flight: int
    ) -> float | None:
        """When to flush if nothing else happens: `now` or a later time; None: not before another event.

        `waiting_since` is when the first of `waiting_bytes` came, `in_flight` how many flushes are not done.
        """
        if waiting_bytes == 0:
            return None
        if waiting_bytes >= self._limits.flush_bytes:
            return now
        if self._requests_are_free:
            return max(now, self._rests_until) if in_flight == 0 else None
        if waiting_bytes >= self._limits.bytes_per_request:
            return now
        due = max(now, waiting_since + self._limits.flush_interval_s)
        if in_flight:
            return due
        tokens = self._tokens_at(now)
        return now if tokens >= _ONE else min(due, now + (1.0 - tokens) * self._limits.flush_interval_s)

    def finished(self, now: float, took_s: float) -> None:
        """A flush has ended; it took so long from its seal on."""
        limits = self._limits
        self._rests_until = now + min(limits.rest_max_s, limits.rest_ratio * took_s)

    def spend(self, now: float) -> None:
        """Account for a PUT that is made in any case. The bucket never owes."""
        self._tokens = max(0.0, self._tokens_at(now) - 1.0)
        self._filled_at = now

    def try_spend(self, now: float) -> bool:
        """Account for a PUT that need not be made, if there is a token for it: a hedge."""
        if not self._requests_are_free and self._tokens_at(now) < _ONE:
            return False
        self.spend(now)
        return True

    def _tokens_at(self, now: float) -> float:
        gained = (now - self._filled_at) / self._limits.flush_interval_s
        return min(self._limits.burst_requests, self._tokens + gained)

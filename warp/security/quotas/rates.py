"""How fast something happens, and how long to wait until it was no faster than it may be: Kafka's arithmetic.

A rate is measured over a window of 11 samples of a second each (`quota.window.num`, `quota.window.size.seconds`). What
has not had ten full seconds yet is divided by at least ten, so a client that begins may be fast at first.

Where Kafka forgets what is older than the window, here a client remains in debt: otherwise one request that is large
beside its quota would be forgotten before it has been waited for.
"""

from __future__ import annotations

from array import array
from typing import Final

SAMPLE_S: Final = 1.0
SAMPLES: Final = 11
WINDOW_S: Final = SAMPLE_S * (SAMPLES - 1)
"""What a rate is measured over at least; what a bound lets through in it may come at once."""
REMEMBERED_S: Final = SAMPLE_S * SAMPLES

OWED_S_MAX: Final = 600.0
"""The longest that a client can owe for what it has used."""

_SHORTEST_S: Final = 0.001


class SlidingRate:
    """What one client has used lately. Times are monotonic seconds."""

    __slots__ = ("_bound", "_owed_until_s", "_samples")

    def __init__(self) -> None:
        # Begin and amount of each sample, oldest first.
        self._samples = array("d")
        self._owed_until_s = -1.0
        self._bound = 1.0

    def charge(self, now_s: float, amount: float, bound: float, *, owed_s_max: float) -> float:
        """Count `amount`; for how many seconds the client then has to be quiet, 0.0 if it is within its bound.

        `bound` is per second; nobody owes more than `owed_s_max`.
        """
        owed_s = self.owed_s(now_s, bound)
        self._add(now_s, amount)
        owed_s = owed_s + amount / bound if owed_s > 0 else self._excess_s(now_s, 0.0, bound)
        if owed_s <= 0:
            return 0.0
        owed_s = min(owed_s, owed_s_max)
        self._owed_until_s = now_s + owed_s
        return owed_s

    def borrow(self, now_s: float, amount: float, bound: float, *, owed_s_max: float) -> None:
        """Let pass what no window would: it is paid for by being quiet for as long as it takes at the bound."""
        owed_s = min(self.owed_s(now_s, bound) + amount / bound, owed_s_max)
        self._owed_until_s = now_s + owed_s

    def excess_s(self, now_s: float, amount: float, bound: float) -> float:
        """How many seconds the client would have to be quiet if `amount` were counted; none if that is not above 0."""
        owed_s = self.owed_s(now_s, bound)
        return owed_s + amount / bound if owed_s > 0 else self._excess_s(now_s, amount, bound)

    def owed_s(self, now_s: float, bound: float) -> float:
        """How long the client still has to be quiet for what it has used, 0.0 if it need not."""
        owed_s = self._owed_until_s - now_s
        if owed_s <= 0:
            self._bound = bound
            return 0.0
        if bound != self._bound:
            # Its bound has changed since: what it owes is an amount, not a time.
            owed_s = min(owed_s * (self._bound / bound), OWED_S_MAX)
            self._bound = bound
            self._owed_until_s = now_s + owed_s
        return owed_s

    def room(self, now_s: float, bound: float) -> float:
        """How much may be counted before the client has to be quiet."""
        return 0.0 if self.owed_s(now_s, bound) > 0 else max(-self._excess_s(now_s, 0.0, bound) * bound, 0.0)

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost by forgetting it."""
        self._forget(now_s)
        return not self._samples and self._owed_until_s <= now_s

    def _excess_s(self, now_s: float, amount: float, bound: float) -> float:
        self._forget(now_s)
        return (sum(self._samples[1::2]) + amount) / bound - self._window_s(now_s)

    def _add(self, now_s: float, amount: float) -> None:
        self._forget(now_s)
        samples = self._samples
        if samples and now_s - samples[-2] < SAMPLE_S:
            samples[-1] += amount
        else:
            samples.append(now_s)
            samples.append(amount)

    def _forget(self, now_s: float) -> None:
        samples = self._samples
        while samples and now_s - samples[0] >= REMEMBERED_S:
            del samples[:2]

    def _window_s(self, now_s: float) -> float:
        """What the amounts are divided by: from the oldest sample on, and at least ten full samples."""
        elapsed_s = now_s - self._samples[0] if self._samples else 0.0
        missing = SAMPLES - 1 - int(elapsed_s / SAMPLE_S)
        return max(elapsed_s + max(missing, 0) * SAMPLE_S, _SHORTEST_S)


class TokenBucket:
    """Permits that come back at a rate, as KIP-599 counts changes of topics: a burst of 11 seconds' worth at first.

    It may go below zero: whoever finds at least zero is served whatever it asks for, and the next ones wait for that.
    """

    __slots__ = ("_at_s", "_permits")

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._permits = 0.0

    def wait_s(self, now_s: float, bound: float) -> float:
        """How many seconds from now on there are at least zero permits again; 0.0 when there are now."""
        self._refill(now_s, bound)
        return max(-self._permits / bound, 0.0)

    def take(self, now_s: float, permits: float, bound: float) -> float:
        """Take permits, whether there are any or not (negative ones are given back); see `wait_s`."""
        self._refill(now_s, bound)
        self._permits -= permits
        return max(-self._permits / bound, 0.0)

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost by forgetting it."""
        # Without its rate one can't say whether it is full, but not even an empty one is worth much after that long.
        return self._permits >= 0 and self._at_s is not None and now_s - self._at_s >= REMEMBERED_S

    def _refill(self, now_s: float, bound: float) -> None:
        burst = bound * REMEMBERED_S
        if self._at_s is None:
            self._permits = burst
        else:
            self._permits = min(burst, self._permits + (now_s - self._at_s) * bound)
        self._at_s = now_s

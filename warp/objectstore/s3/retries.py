"""How often and how soon a request is tried again: pure, given the time and randomness.

Three brakes, because each alone lets a store that is in trouble be flooded: a pause with full jitter between the
attempts of one request; a budget over all requests, a bucket of tokens that failures drain and successes refill, as in
the standard mode of the AWS SDKs; and, once the store refuses many requests for coming too fast, a rate for all of
them that follows what it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 5.0

BUDGET_TOKENS_MAX = 500
RETRY_TOKENS = 5
TIMEOUT_TOKENS = 10
"""Of a retry after a time-out, which has cost everybody more."""

FADING_S = 1.0
"""How fast the throttle forgets: what an answer counts for falls to a third in this time."""
REFUSED_SHARE_MAX = 0.25
"""Up to this share of refusals, the pauses between attempts are brake enough."""
SENT_PER_TAKEN = 2.0
"""Requests that are sent for each that was taken lately: enough to find out soon that the store takes more."""
RATE_MIN = 10.0
"""Requests per second that are sent though the store refuses all of them."""
REFUSED_MIN = 0.05
"""A refusal that counts for less, after three seconds, is forgotten."""


def pause_s(retry: int, random: Callable[[], float]) -> float:
    """How long to wait before retry number `retry` (from 1): anything up to a bound that doubles each time."""
    bound_s: float = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(retry - 1, 16))
    return bound_s * random()


class RetryBudget:
    """Tokens for retries. All requests of a store draw on one budget."""

    def __init__(self) -> None:
        self.tokens = BUDGET_TOKENS_MAX

    def take(self, *, after_timeout: bool) -> int:
        """The tokens that a retry costs, taken; 0 when there are too few and it must not happen."""
        cost = TIMEOUT_TOKENS if after_timeout else RETRY_TOKENS
        if cost > self.tokens:
            return 0
        self.tokens -= cost
        return cost

    def succeeded(self, taken: int) -> None:
        """Give back what the last retry took, or one token for a success at the first attempt."""
        self.tokens = min(BUDGET_TOKENS_MAX, self.tokens + (taken or 1))


@dataclass(slots=True)
class Throttle:
    """At what rate a store is asked after it has said SlowDown. Times are monotonic seconds.

    As long as more than REFUSED_SHARE_MAX of the last answers were refusals, requests go out one by one, at
    SENT_PER_TAKEN times the rate at which they were taken lately; so about half of them are taken, whatever the store
    can do, and when it can do more the rate doubles in less than a second. A rate that only falls with each refusal
    and rises with each success would settle far below what a store takes that refuses a few requests at any rate.
    """

    taken: float = 0.0
    """Answers of late but refusals, each counting for less as time goes by."""
    refused: float = 0.0
    counted_at: float = 0.0
    sent_at: float = 0.0

    def refuse(self, now: float) -> None:
        """The store asked for fewer requests."""
        self._fade(now)
        self.refused += 1.0

    def take(self, now: float) -> None:
        """The store has worked on a request."""
        self._fade(now)
        self.taken += 1.0

    def wait_s(self, now: float) -> float:
        """How long the next request has to wait; it may change with each answer."""
        self._fade(now)
        if self.refused <= REFUSED_SHARE_MAX * (self.refused + self.taken):
            return 0.0
        rate = max(RATE_MIN, SENT_PER_TAKEN * self.taken / FADING_S)
        return max(0.0, self.sent_at + 1.0 / rate - now)

    def send(self, now: float) -> None:
        """A request goes out."""
        self.sent_at = now

    def _fade(self, now: float) -> None:
        share = exp((self.counted_at - now) / FADING_S)
        self.taken *= share
        self.refused = self.refused * share if self.refused * share > REFUSED_MIN else 0.0
        self.counted_at = now

"""How often and how soon a request is tried again: pure, given the time and randomness.

Three brakes, because each alone lets a store that is in trouble be flooded: a pause with full jitter between the
attempts of one request; a budget over all requests, a bucket of tokens that failures drain and successes refill, as in
the standard mode of the AWS SDKs; and a rest of the whole store after it has asked for fewer requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 5.0

BUDGET_TOKENS_MAX = 500
RETRY_TOKENS = 5
TIMEOUT_TOKENS = 10
"""Of a retry after a time-out, which has cost everybody more."""

REST_S_MIN = 0.1
REST_S_MAX = 5.0
REST_DECAY = 0.9
"""By which every success shortens the next rest."""


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
class Rest:
    """How long the store is left alone after it has said SlowDown.

    The rest doubles each time that it says so again after a rest; those that say so together count as one. Successes
    shorten it by and by.
    """

    length_s: float = 0.0
    ends_at: float = 0.0

    def slow_down(self, now: float) -> None:
        """The store asked for fewer requests."""
        if now < self.ends_at:
            return
        self.length_s = min(REST_S_MAX, max(REST_S_MIN, self.length_s * 2))
        self.ends_at = now + self.length_s

    def succeeded(self) -> None:
        self.length_s *= REST_DECAY
        if self.length_s < REST_S_MIN / 4:
            self.length_s = 0.0

    def left_s(self, now: float, random: Callable[[], float]) -> float:
        """How long a request has to wait. Not everybody starts at the same moment: up to half a rest is added."""
        if now >= self.ends_at:
            return 0.0
        return self.ends_at - now + self.length_s / 2 * random()

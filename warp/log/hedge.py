"""When to send a request a second time: pure decisions, so that their cost can be reasoned about without a store.

A few requests to an object store take seconds where nearly all take tens of milliseconds. A second one, sent when the
first is slower than it should be, is answered in time almost always. What "should" means is learnt: a small multiple of
the 95th percentile of recent requests of about the same size. What it may cost is bounded: a budget grows by a small
share of every request, so when the whole store becomes slow, and a second request would gain nothing, hardly any is
sent, until the percentile has followed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

SIZE_CLASSES_BYTES_MAX = (2**16, 2**18, 2**20, 2**22, 2**24)
"""Requests up to each of these sizes are compared among themselves; larger ones as well."""

_PERCENTILE = 0.95
_ONE = 1.0 - 1e-6


@dataclass(frozen=True, slots=True)
class HedgeLimits:
    """When a request counts as slow, and how many may be repeated."""

    delay_ratio: float = 1.5
    """How slow, as a multiple of the 95th percentile."""
    delay_min_s: float = 0.025
    """Below this a pause of this process is the likelier reason."""
    delay_unknown_s: float = 1.0
    """While too little is known."""
    samples_min: int = 16
    samples_max: int = 256
    """Per size class."""
    sample_age_max_s: float = 600.0
    """Older samples give way to newer ones; without any they stay."""
    extra_ratio: float = 0.02
    """Second requests per first one, on average."""
    burst_requests: float = 5.0
    """How many second requests a good time saves up for."""
    lingering_max: int = 8
    """No second request is sent while so many that have lost are not gone yet: each holds memory."""


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """What is known of one size class. `size_bytes_max` is None for the largest one."""

    size_bytes_max: int | None
    samples: int
    p95_s: float


class LatencyWindow:
    """The last latencies of one kind of request, and their 95th percentile."""

    def __init__(self, limits: HedgeLimits) -> None:
        self._limits = limits
        self._samples: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, now: float, took_s: float) -> None:
        """Remember a request that ended now."""
        self._samples.append((now, took_s))
        insort(self._sorted, took_s)
        oldest = now - self._limits.sample_age_max_s
        while len(self._samples) > self._limits.samples_max or (
            len(self._samples) > self._limits.samples_min and self._samples[0][0] < oldest
        ):
            _, gone_s = self._samples.popleft()
            del self._sorted[bisect_left(self._sorted, gone_s)]

    def p95_s(self) -> float | None:
        """The 95th percentile (nearest rank); None when there are too few samples to tell."""
        count = len(self._sorted)
        if count < self._limits.samples_min:
            return None
        rank = -int(-_PERCENTILE * count // 1)
        return self._sorted[rank - 1]


class HedgePolicy:
    """Says how long to wait for requests of one kind, and whether one more may be sent. Times are monotonic seconds."""

    def __init__(self, limits: HedgeLimits) -> None:
        self._limits = limits
        self._windows = [LatencyWindow(limits) for _ in range(len(SIZE_CLASSES_BYTES_MAX) + 1)]
        self._tokens = limits.burst_requests

    def began(self) -> None:
        """A first request is sent: the budget grows by its share."""
        self._tokens = min(self._limits.burst_requests, self._tokens + self._limits.extra_ratio)

    def finished(self, now: float, size_bytes: int, took_s: float) -> None:
        """A request was answered after so long, or was given up then because another had been faster."""
        self._windows[_class_of(size_bytes)].add(now, took_s)

    def delay_s(self, size_bytes: int) -> float:
        """After how long a request of this size is slow.

        A size of which little is known is judged by its neighbours: the next larger one is slower, and the next smaller
        one is at most as much faster as it is smaller.
        """
        own = _class_of(size_bytes)
        usual_s = self._windows[own].p95_s()
        if usual_s is not None:
            return max(self._limits.delay_min_s, self._limits.delay_ratio * usual_s)
        guesses_s = [*self._by_larger_ones(own), *self._by_smaller_ones(own, size_bytes)]
        return max(self._limits.delay_min_s, min(guesses_s, default=self._limits.delay_unknown_s))

    def _by_larger_ones(self, own: int) -> Iterator[float]:
        """The delay of the next larger size of which enough is known."""
        for window in self._windows[own + 1 :]:
            if (p95_s := window.p95_s()) is not None:
                yield self._limits.delay_ratio * p95_s
                return

    def _by_smaller_ones(self, own: int, size_bytes: int) -> Iterator[float]:
        """The delay that the next smaller size of which enough is known stands for."""
        for place in range(own - 1, -1, -1):
            if (p95_s := self._windows[place].p95_s()) is not None:
                delay_s = self._limits.delay_ratio * p95_s
                scaled_s = delay_s * size_bytes / SIZE_CLASSES_BYTES_MAX[place]
                yield min(scaled_s, max(delay_s, self._limits.delay_unknown_s))
                return

    @property
    def may_spend(self) -> bool:
        """Whether the budget allows a second request."""
        return self._tokens >= _ONE

    def spend(self) -> None:
        """Account for a second request."""
        assert self.may_spend
        self._tokens -= 1.0

    def estimates(self) -> list[LatencyEstimate]:
        """What is known, smallest size first."""
        bounds = (*SIZE_CLASSES_BYTES_MAX, None)
        return [
            LatencyEstimate(size_bytes_max, len(window), p95_s)
            for size_bytes_max, window in zip(bounds, self._windows, strict=True)
            if (p95_s := window.p95_s()) is not None
        ]


def _class_of(size_bytes: int) -> int:
    return bisect_left(SIZE_CLASSES_BYTES_MAX, size_bytes)

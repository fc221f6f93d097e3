"""Latencies counted in log-linear buckets: fixed memory, a bounded relative error, and sums that are exact.

A sorted list of a million latencies would do for one run on one process; buckets can be added up over processes and
seconds, and sent as the few that are not empty. The layout is that of HdrHistogram: values below `2 * HALF` have a
bucket each, and every further doubling is split into `HALF` buckets of equal width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from typing import Final

HALF_BITS: Final = 7
HALF: Final = 1 << HALF_BITS
"""Buckets per doubling: a bucket is at most 1/128 of its values wide."""
VALUE_BITS_MAX: Final = 36
VALUE_US_MAX: Final = 2**VALUE_BITS_MAX - 1
"""19 hours. Longer latencies are counted in the last bucket; `max_us` still tells them."""
BUCKETS: Final = (VALUE_BITS_MAX - HALF_BITS + 1) << HALF_BITS

Pairs = list[tuple[int, int]]
"""Bucket and count of every bucket that is not empty, in order."""


class Histogram:
    """Counts of latencies in whole microseconds."""

    __slots__ = ("count", "counts", "max_us", "total_us")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.count = 0
        self.total_us = 0
        self.max_us = 0

    def record(self, value_us: int) -> None:
        """Count one latency; one below 0 counts as 0."""
        if value_us < 0:
            value_us = 0
        self.count += 1
        self.total_us += value_us
        if value_us > self.max_us:
            self.max_us = value_us
        if value_us > VALUE_US_MAX:
            value_us = VALUE_US_MAX
        # bucket_of, written out: this runs for every record.
        shift = value_us.bit_length() - HALF_BITS - 1
        self.counts[value_us if shift <= 0 else (shift << HALF_BITS) + (value_us >> shift)] += 1

    def add(self, other: Histogram) -> None:
        """Count all that another histogram has counted."""
        self._add_pairs(other.pairs(), other.total_us, other.max_us)

    def _add_pairs(self, pairs: Iterable[tuple[int, int]], total_us: int, max_us: int) -> None:
        for bucket, count in pairs:
            self.counts[bucket] += count
            self.count += count
        self.total_us += total_us
        self.max_us = max(self.max_us, max_us)

    @property
    def mean_us(self) -> float:
        """The exact mean; 0 when nothing was counted."""
        return self.total_us / self.count if self.count else 0.0

    def percentile_us(self, percent: float) -> int:
        """The least value that at least `percent` of the latencies do not exceed, within a bucket; 0 when empty.

        Told is the highest value of its bucket, but never more than the maximum: never too good.
        """
        rank = max(1, ceil(self.count * percent / 100))
        seen = 0
        for bucket, count in self.pairs():
            seen += count
            if seen >= rank:
                return self.max_us if bucket == BUCKETS - 1 else min(highest_us(bucket), self.max_us)
        return self.max_us

    def count_from(self, value_us: int) -> int:
        """How many latencies lie in buckets that begin at this value or above."""
        return sum(count for bucket, count in self.pairs() if lowest_us(bucket) >= value_us)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Bucket and count of every bucket that is not empty, in order."""
        return ((bucket, count) for bucket, count in enumerate(self.counts) if count)

    def to_json(self) -> dict[str, object]:
        """What `from_json` takes, small when few buckets are in use."""
        return {"pairs": list(self.pairs()), "total_us": self.total_us, "max_us": self.max_us}

    @classmethod
    def from_json(cls, content: dict[str, object]) -> Histogram:
        """The histogram that `to_json` has told."""
        pairs, total_us, max_us = content["pairs"], content["total_us"], content["max_us"]
        assert isinstance(pairs, list)
        assert isinstance(total_us, int)
        assert isinstance(max_us, int)
        made = cls()
        made._add_pairs(pairs, total_us, max_us)
        return made


def bucket_of(value_us: int) -> int:
    """The bucket that counts a value from 0 to VALUE_US_MAX."""
    shift = max(0, value_us.bit_length() - HALF_BITS - 1)
    return (shift << HALF_BITS) + (value_us >> shift)


def lowest_us(bucket: int) -> int:
    """The least value that a bucket counts."""
    shift = max(0, (bucket >> HALF_BITS) - 1)
    return (bucket - (shift << HALF_BITS)) << shift


def highest_us(bucket: int) -> int:
    """The greatest value that a bucket counts."""
    shift = max(0, (bucket >> HALF_BITS) - 1)
    return lowest_us(bucket) + (1 << shift) - 1

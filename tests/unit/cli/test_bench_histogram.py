"""Buckets: every value in exactly one, none wider than 1/128 of its values, sums and maxima exact."""

from __future__ import annotations

import json
from math import ceil
from random import Random

import pytest

from warp.cli.bench.histogram import (
    BUCKETS,
    HALF,
    VALUE_US_MAX,
    Histogram,
    bucket_of,
    highest_us,
    lowest_us,
)


def histogram(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


def test_buckets_tile_all_values_without_gap_or_overlap() -> None:
    assert lowest_us(0) == 0
    for bucket in range(BUCKETS - 1):
        assert highest_us(bucket) + 1 == lowest_us(bucket + 1)
    assert highest_us(BUCKETS - 1) == VALUE_US_MAX


def test_every_border_falls_into_its_own_bucket() -> None:
    for bucket in range(BUCKETS):
        assert bucket_of(lowest_us(bucket)) == bucket_of(highest_us(bucket)) == bucket
        assert histogram([lowest_us(bucket)]).counts[bucket] == 1
        assert histogram([highest_us(bucket)]).counts[bucket] == 1


def test_no_bucket_is_wider_than_its_share_of_the_value() -> None:
    for bucket in range(BUCKETS):
        width = highest_us(bucket) - lowest_us(bucket) + 1
        assert width == 1 or width * HALF <= lowest_us(bucket)


@pytest.mark.parametrize("percent", [1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_those_of_the_sorted_values_or_a_bucket_more(percent: float) -> None:
    random = Random(7)
    values = sorted(int(random.lognormvariate(8, 2)) for _ in range(10_000))
    exact = values[ceil(len(values) * percent / 100) - 1]
    found = histogram(values).percentile_us(percent)
    assert exact <= found <= exact * (1 + 1 / HALF)


def test_count_mean_and_maximum_are_exact() -> None:
    found = histogram([1, 2, 1_000_003])
    assert (found.count, found.total_us, found.max_us) == (3, 1_000_006, 1_000_003)
    assert found.mean_us == pytest.approx(1_000_006 / 3)
    assert found.percentile_us(100) == 1_000_003


def test_an_empty_histogram_tells_zeros() -> None:
    found = Histogram()
    assert (found.count, found.mean_us, found.max_us, found.percentile_us(99)) == (0, 0.0, 0, 0)


def test_values_out_of_range_are_counted_at_the_borders_and_the_maximum_is_kept() -> None:
    found = histogram([-5, VALUE_US_MAX * 3])
    assert list(found.pairs()) == [(0, 1), (BUCKETS - 1, 1)]
    assert found.max_us == found.percentile_us(100) == VALUE_US_MAX * 3


def test_histograms_that_are_added_equal_one_of_all_values_also_over_json() -> None:
    random = Random(3)
    values = [random.randrange(10_000_000) for _ in range(3_000)]
    whole = histogram(values)
    merged = Histogram()
    for part in range(3):
        piece = histogram(values[part::3])
        merged.add(Histogram.from_json(json.loads(json.dumps(piece.to_json()))))
    assert merged.to_json() == whole.to_json()
    assert merged.counts == whole.counts
    assert merged.count == whole.count


def test_count_from_counts_whole_buckets_at_or_above() -> None:
    found = histogram([10, 100, 999_424, 2_000_000])
    assert found.count_from(100) == 3
    assert found.count_from(101) == 2
    assert found.count_from(2_000_001) == 0

"""When a request is slow, and how many may be sent twice: decided without a clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from warp.log.hedge import SIZE_CLASSES_BYTES_MAX, HedgeLimits, HedgePolicy, LatencyWindow

LIMITS = HedgeLimits()
SMALL, LARGE = 2**14, 2**23


def taught(*latencies_s: float, size_bytes: int = SMALL, limits: HedgeLimits = LIMITS) -> HedgePolicy:
    policy = HedgePolicy(limits)
    for number, latency_s in enumerate(latencies_s):
        policy.finished(float(number), size_bytes, latency_s)
    return policy


def test_before_enough_is_known_only_very_slow_requests_are_hedged() -> None:
    assert taught().delay_s(SMALL) == LIMITS.delay_unknown_s
    assert taught(*[0.06] * 15).delay_s(SMALL) == LIMITS.delay_unknown_s
    assert taught(*[0.06] * 16).delay_s(SMALL) == pytest.approx(0.09)


def test_the_delay_is_a_multiple_of_the_95th_percentile() -> None:
    ascending = [number / 100 for number in range(1, 101)]
    random.Random(1).shuffle(ascending)
    assert taught(*ascending).delay_s(SMALL) == pytest.approx(1.5 * 0.95)


def test_one_percent_of_slow_requests_does_not_make_the_delay_longer() -> None:
    assert taught(*[2.0 if number % 100 == 0 else 0.06 for number in range(256)]).delay_s(
        SMALL
    ) == pytest.approx(0.09)


def test_the_delay_is_never_shorter_than_a_pause_of_the_process() -> None:
    assert taught(*[0.001] * 50).delay_s(SMALL) == LIMITS.delay_min_s


def test_sizes_of_which_little_is_known_are_judged_by_smaller_ones_too() -> None:
    policy = taught(*[0.06] * 20, size_bytes=2**20)
    assert policy.delay_s(2 * 2**20) == pytest.approx(2 * 0.09)
    assert policy.delay_s(8 * 2**20) == pytest.approx(8 * 0.09)
    assert policy.delay_s(64 * 2**20) == LIMITS.delay_unknown_s
    for _ in range(20):
        policy.finished(0.0, 16 * 2**20, 0.1)
    assert policy.delay_s(2 * 2**20) == pytest.approx(0.15)
    slow = taught(*[3.0] * 20, size_bytes=2**20)
    assert slow.delay_s(2 * 2**20) == pytest.approx(4.5)


def test_sizes_are_judged_apart_and_unknown_ones_by_the_next_larger() -> None:
    policy = taught(*[0.2] * 20, size_bytes=LARGE)
    assert policy.delay_s(SMALL) == pytest.approx(0.3)
    for _ in range(20):
        policy.finished(0.0, SMALL, 0.06)
    assert policy.delay_s(SMALL) == pytest.approx(0.09)
    assert policy.delay_s(LARGE) == pytest.approx(0.3)
    assert policy.delay_s(2 * SIZE_CLASSES_BYTES_MAX[-1]) == pytest.approx(2 * 0.3)
    assert policy.delay_s(200 * SIZE_CLASSES_BYTES_MAX[-1]) == LIMITS.delay_unknown_s
    assert [(e.size_bytes_max, e.samples, e.p95_s) for e in policy.estimates()] == [
        (2**16, 20, 0.06),
        (2**24, 20, 0.2),
    ]


def test_the_estimate_follows_a_store_that_becomes_slow_and_fast_again() -> None:
    policy = taught(*[0.06] * 256)
    for number in range(40):
        policy.finished(300.0 + number, SMALL, 0.5)
    assert policy.delay_s(SMALL) == pytest.approx(0.75)
    for number in range(256):
        policy.finished(400.0 + number, SMALL, 0.06)
    assert policy.delay_s(SMALL) == pytest.approx(0.09)


def test_old_samples_leave_when_there_are_newer_ones_and_stay_otherwise() -> None:
    policy = taught(*[0.5] * 100)
    assert policy.delay_s(SMALL) == pytest.approx(0.75)
    for number in range(16):
        policy.finished(100_000.0 + number, SMALL, 0.06)
    assert policy.delay_s(SMALL) == pytest.approx(0.09)
    assert policy.estimates()[0].samples == 16


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0.001, 5.0)), max_size=300))
def test_the_percentile_is_that_of_the_samples_kept(steps: list[tuple[float, float]]) -> None:
    limits = HedgeLimits(samples_max=40)
    window = LatencyWindow(limits)
    now = 0.0
    kept: list[tuple[float, float]] = []
    for pause, took_s in steps:
        now += pause
        window.add(now, took_s)
        kept.append((now, took_s))
        while len(kept) > 40 or (len(kept) > 16 and kept[0][0] < now - limits.sample_age_max_s):
            del kept[0]
        assert len(window) == len(kept)
        ordered = sorted(took for _, took in kept)
        at_most = [took for took in ordered if sum(other <= took for other in ordered) >= 0.95 * len(kept)]
        assert window.p95_s() == (at_most[0] if len(kept) >= 16 else None)


def hedges_of(requests: int, is_slow: list[bool]) -> int:
    policy = HedgePolicy(LIMITS)
    hedges = 0
    for number in range(requests):
        policy.began()
        if is_slow[number % len(is_slow)] and policy.may_spend:
            policy.spend()
            hedges += 1
    return hedges


def test_when_every_request_is_slow_two_percent_are_sent_twice_and_a_few_more() -> None:
    assert hedges_of(1_000, [True]) <= 0.02 * 1_000 + LIMITS.burst_requests
    assert hedges_of(10_000, [True]) <= 0.0206 * 10_000


def test_one_percent_of_slow_requests_are_nearly_all_hedged() -> None:
    chance = random.Random(5)
    is_slow = [chance.random() < 0.01 for _ in range(20_000)]
    assert hedges_of(20_000, is_slow) >= 0.98 * sum(is_slow)

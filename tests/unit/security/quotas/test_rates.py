"""Kafka's arithmetic of rates, step by step on a clock that stands still between the steps."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.security.quotas.rates import REMEMBERED_S, WINDOW_S, SlidingRate, TokenBucket

BOUND = 100.0
OWED_S_MAX = 1_000.0


def charge(rate: SlidingRate, now_s: float, amount: float, bound: float = BOUND) -> float:
    return rate.charge(now_s, amount, bound, owed_s_max=OWED_S_MAX)


def test_a_whole_window_may_come_at_once_and_what_is_beyond_is_waited_for() -> None:
    rate = SlidingRate()
    assert charge(rate, 5.0, BOUND * WINDOW_S) == 0
    assert charge(rate, 5.0, 150) == pytest.approx(1.5)


def test_what_comes_while_a_client_should_be_quiet_adds_to_its_wait() -> None:
    rate = SlidingRate()
    assert charge(rate, 0.0, 1_500) == pytest.approx(5.0)
    assert charge(rate, 2.0, 100) == pytest.approx(4.0)


@pytest.mark.parametrize(("later_s", "is_remembered"), [(REMEMBERED_S - 0.01, True), (REMEMBERED_S, False)])
def test_a_sample_counts_for_eleven_seconds(later_s: float, is_remembered: bool) -> None:
    rate = SlidingRate()
    assert charge(rate, 0.0, 1_000) == 0
    # 2000 over the 10.99 s since then, or 1000 over the ten that are the least.
    wait_s = charge(rate, later_s, 1_000)
    assert wait_s == (pytest.approx(20 - later_s) if is_remembered else 0)


def test_the_window_grows_with_the_oldest_sample_beyond_ten_seconds() -> None:
    rate = SlidingRate()
    for second in range(11):
        assert charge(rate, float(second), 90) == 0
    assert charge(rate, 10.5, 100) == pytest.approx((11 * 90 + 100) / BOUND - 10.5)


def test_a_request_much_larger_than_its_quota_is_not_forgotten_with_its_sample() -> None:
    rate = SlidingRate()
    assert charge(rate, 0.0, 10_000) == pytest.approx(90.0)
    assert charge(rate, 50.0, 0) == pytest.approx(40.0)
    assert charge(rate, 90.0, 100) == 0


def test_nobody_owes_more_than_the_most() -> None:
    rate = SlidingRate()
    assert charge(rate, 0.0, 10**9) == OWED_S_MAX


def test_what_is_borrowed_takes_all_of_its_time() -> None:
    rate = SlidingRate()
    rate.borrow(0.0, 5_000, BOUND, owed_s_max=OWED_S_MAX)
    assert rate.owed_s(0.0, BOUND) == pytest.approx(50.0)
    assert rate.excess_s(49.0, 100, BOUND) == pytest.approx(2.0)
    assert rate.excess_s(50.0, 100, BOUND) < 0


def test_a_raised_bound_shortens_what_is_owed() -> None:
    rate = SlidingRate()
    assert charge(rate, 0.0, 10_000) == pytest.approx(90.0)
    assert rate.owed_s(10.0, 2 * BOUND) == pytest.approx(40.0)
    assert rate.owed_s(20.0, 2 * BOUND) == pytest.approx(30.0)


def test_asking_changes_nothing() -> None:
    rate = SlidingRate()
    charge(rate, 0.0, 900)
    assert rate.excess_s(1.0, 200, BOUND) == pytest.approx(1.0)
    assert rate.excess_s(1.0, 200, BOUND) == pytest.approx(1.0)
    assert charge(rate, 1.0, 100) == 0


def test_a_rate_is_idle_when_samples_and_debts_are_gone() -> None:
    rate = SlidingRate()
    assert rate.is_idle(0.0)
    charge(rate, 0.0, 10_000)
    assert not rate.is_idle(REMEMBERED_S)
    assert rate.is_idle(90.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3_000)), min_size=5, max_size=60))
def test_a_client_that_waits_as_it_is_told_stays_near_its_bound(steps: list[tuple[float, int]]) -> None:
    rate = SlidingRate()
    now_s = total = 0.0
    for pause_s, amount in steps:
        now_s += pause_s
        total += amount
        now_s += charge(rate, now_s, amount)
    # In each window of eleven seconds one window's worth is free, and no more.
    assert total <= BOUND * (now_s * (1 + WINDOW_S / REMEMBERED_S) + WINDOW_S + 1e-6)


def test_a_bucket_starts_with_a_burst_and_may_go_below_zero_once() -> None:
    bucket = TokenBucket()
    assert bucket.wait_s(0.0, 2.0) == 0
    assert bucket.take(0.0, 22, 2.0) == 0
    assert bucket.wait_s(0.0, 2.0) == 0
    assert bucket.take(0.0, 10, 2.0) == pytest.approx(5.0)
    assert bucket.wait_s(4.0, 2.0) == pytest.approx(1.0)
    assert bucket.wait_s(5.0, 2.0) == 0


def test_a_bucket_fills_up_to_its_burst_and_takes_back() -> None:
    bucket = TokenBucket()
    bucket.take(0.0, 25, 2.0)
    assert bucket.take(0.0, -10, 2.0) == 0
    assert bucket.take(1_000.0, 22, 2.0) == 0
    assert bucket.take(1_000.0, 1, 2.0) == pytest.approx(0.5)

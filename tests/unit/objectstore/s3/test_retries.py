"""How often and how soon: pure decisions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from warp.objectstore.s3.retries import (
    BUDGET_TOKENS_MAX,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    RATE_MIN,
    RETRY_TOKENS,
    SENT_PER_TAKEN,
    TIMEOUT_TOKENS,
    RetryBudget,
    Throttle,
    pause_s,
)


def test_pauses_may_take_up_to_a_bound_that_doubles() -> None:
    assert [pause_s(retry, lambda: 1.0) for retry in (1, 2, 3)] == [
        PAUSE_S_MIN,
        2 * PAUSE_S_MIN,
        4 * PAUSE_S_MIN,
    ]
    assert pause_s(5, lambda: 0.0) == 0
    assert pause_s(1, lambda: 0.5) == PAUSE_S_MIN / 2
    assert pause_s(10**9, lambda: 1.0) == PAUSE_S_MAX


def test_a_budget_runs_out_and_is_earned_back() -> None:
    budget = RetryBudget()
    taken = [budget.take(after_timeout=False) for _ in range(BUDGET_TOKENS_MAX // RETRY_TOKENS)]
    assert set(taken) == {RETRY_TOKENS}
    assert budget.take(after_timeout=False) == 0
    for _ in range(RETRY_TOKENS):
        budget.succeeded(0)
    assert budget.take(after_timeout=True) == 0
    assert budget.take(after_timeout=False) == RETRY_TOKENS
    budget.succeeded(TIMEOUT_TOKENS)
    assert budget.take(after_timeout=True) == TIMEOUT_TOKENS


def test_a_budget_never_holds_more_than_its_bound() -> None:
    budget = RetryBudget()
    budget.succeeded(0)
    assert budget.tokens == BUDGET_TOKENS_MAX


def refusals(share: float) -> Callable[[], bool]:
    """Says each time whether the store refuses, so that this share of all is refused, evenly."""
    owed = 0.0

    def refuses() -> bool:
        nonlocal owed
        owed += share
        if owed < 1.0:
            return False
        owed -= 1.0
        return True

    return refuses


def sent_per_second(
    throttle: Throttle, refuses: Callable[[], bool], seconds: float, begin: float = 0.0
) -> float:
    """How many requests leave, when the next one is always due and is answered at once, but 200 a second at most."""
    now, sent = begin, 0
    while now < begin + seconds:
        wait_s = throttle.wait_s(now)
        if wait_s:
            now += wait_s
            continue
        throttle.send(now)
        sent += 1
        if refuses():
            throttle.refuse(now)
        else:
            throttle.take(now)
        now += 1 / 200
    return sent / seconds


def test_nobody_waits_before_the_store_has_said_slow_down() -> None:
    throttle = Throttle()
    assert throttle.wait_s(0.0) == 0
    throttle.send(0.0)
    assert throttle.wait_s(0.0) == 0


def test_after_a_refusal_requests_go_out_one_by_one() -> None:
    throttle = Throttle()
    throttle.send(10.0)
    throttle.refuse(10.0)
    assert throttle.wait_s(10.0) == pytest.approx(1 / RATE_MIN)
    assert throttle.wait_s(10.0 + 1 / RATE_MIN) == 0
    throttle.send(10.2)
    assert throttle.wait_s(10.2) == pytest.approx(1 / RATE_MIN)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.25])
def test_a_store_that_refuses_some_requests_at_any_rate_is_asked_at_full_rate(share: float) -> None:
    throttle = Throttle(taken=100.0)
    assert sent_per_second(throttle, refusals(share), 60.0) == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize("share", [0.3, 0.4])
def test_more_refusals_do_not_bring_the_rate_down_to_nothing(share: float) -> None:
    throttle = Throttle(taken=100.0)
    assert sent_per_second(throttle, refusals(share), 60.0) > 100


def test_a_store_that_takes_so_many_a_second_is_asked_for_about_twice_as_many() -> None:
    now, filled = 0.0, 1.0
    throttle, sent, taken = Throttle(), 0, 0
    filled_at = 0.0
    while now < 60.0:
        if wait_s := throttle.wait_s(now):
            now += wait_s
            continue
        throttle.send(now)
        sent += 1
        filled, filled_at = min(2.0, filled + 20.0 * (now - filled_at)), now
        if filled >= 1.0:
            filled -= 1.0
            taken += 1
            throttle.take(now)
        else:
            throttle.refuse(now)
        now += 1 / 200
    assert taken / 60 == pytest.approx(20.0, rel=0.1)
    assert sent / 60 < 20.0 * SENT_PER_TAKEN * 1.2


def test_a_store_that_refuses_everything_is_asked_a_few_times_and_at_full_rate_soon_after() -> None:
    throttle = Throttle(taken=100.0)
    sent_per_second(throttle, refusals(1.0), 10.0)
    assert sent_per_second(throttle, refusals(1.0), 60.0, begin=10.0) == pytest.approx(RATE_MIN, rel=0.05)
    sent_per_second(throttle, refusals(0.0), 3.0, begin=70.0)
    assert sent_per_second(throttle, refusals(0.0), 1.0, begin=73.0) == pytest.approx(200, rel=0.02)


def test_refusals_are_forgotten() -> None:
    throttle = Throttle()
    throttle.refuse(0.0)
    throttle.wait_s(1000.0)
    assert (throttle.refused, throttle.taken) == (0.0, 0.0)
    throttle.send(1000.0)
    assert throttle.wait_s(1000.0) == 0

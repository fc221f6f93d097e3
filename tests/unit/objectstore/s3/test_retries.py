"""How often and how soon: pure decisions."""

from __future__ import annotations

import pytest

from warp.objectstore.s3.retries import (
    BUDGET_TOKENS_MAX,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    REST_S_MAX,
    REST_S_MIN,
    RETRY_TOKENS,
    TIMEOUT_TOKENS,
    Rest,
    RetryBudget,
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


def test_those_who_are_told_to_slow_down_together_count_as_one() -> None:
    rest = Rest()
    for now in (10.0, 10.01, 10.09):
        rest.slow_down(now)
    assert rest.ends_at == 10.0 + REST_S_MIN


def test_a_rest_doubles_up_to_a_bound_and_successes_shorten_it() -> None:
    rest, now = Rest(), 0.0
    lengths = []
    for _ in range(10):
        rest.slow_down(now)
        lengths.append(rest.length_s)
        now = rest.ends_at
    assert lengths[:3] == [REST_S_MIN, 2 * REST_S_MIN, 4 * REST_S_MIN]
    assert lengths[-1] == REST_S_MAX
    for _ in range(100):
        rest.succeeded()
    assert rest.length_s == 0
    rest.slow_down(now)
    assert rest.length_s == REST_S_MIN


def test_a_rest_is_waited_for_to_its_end_and_not_by_all_to_the_same_moment() -> None:
    rest = Rest()
    assert rest.left_s(0.0, lambda: 1.0) == 0
    rest.slow_down(10.0)
    assert rest.left_s(10.0, lambda: 0.0) == pytest.approx(REST_S_MIN)
    assert rest.left_s(10.0, lambda: 1.0) == pytest.approx(REST_S_MIN * 1.5)
    assert rest.left_s(10.0 + REST_S_MIN, lambda: 1.0) == 0

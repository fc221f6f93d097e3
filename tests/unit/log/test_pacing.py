"""When to flush, decided without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.log.pacing import Pacer, PacingLimits

LIMITS = PacingLimits(flush_interval_s=0.25, flush_bytes=8_000, bytes_per_request=1_000, burst_requests=2.0)


def paid(tokens: float = 2.0) -> Pacer:
    pacer = Pacer(LIMITS, requests_are_free=False, now=0.0)
    for _ in range(round(2 - tokens)):
        pacer.spend(0.0)
    return pacer


def free() -> Pacer:
    return Pacer(LIMITS, requests_are_free=True, now=0.0)


def flush_at(
    pacer: Pacer, now: float, waiting_bytes: int = 10, since: float | None = None, in_flight: int = 0
) -> float | None:
    waiting_since = now if since is None else since
    return pacer.flush_at(now, waiting_bytes=waiting_bytes, waiting_since=waiting_since, in_flight=in_flight)


@pytest.mark.parametrize("pacer", [paid(), free()])
def test_nothing_waits_nothing_is_flushed(pacer: Pacer) -> None:
    assert flush_at(pacer, 5.0, waiting_bytes=0) is None


def test_a_quiet_agent_flushes_at_once() -> None:
    assert flush_at(paid(), 5.0) == 5.0


def test_with_a_flush_under_way_the_interval_is_waited_for() -> None:
    assert flush_at(paid(), 5.0, since=4.9, in_flight=1) == pytest.approx(5.15)
    assert flush_at(paid(), 5.2, since=4.9, in_flight=1) == 5.2


def test_without_a_token_the_next_one_is_waited_for_but_not_beyond_the_interval() -> None:
    pacer = paid(tokens=0)
    assert flush_at(pacer, 0.1) == pytest.approx(0.25)
    assert flush_at(pacer, 0.2, since=-0.02) == pytest.approx(0.23)
    due = flush_at(pacer, 0.1)
    assert due is not None
    assert flush_at(pacer, due, since=0.1) == due


def test_bytes_that_are_worth_a_request_are_not_held_back() -> None:
    pacer = paid(tokens=0)
    assert flush_at(pacer, 0.0, waiting_bytes=999) == pytest.approx(0.25)
    assert flush_at(pacer, 0.0, waiting_bytes=1_000) == 0.0
    assert flush_at(pacer, 0.0, waiting_bytes=1_000, in_flight=3) == 0.0


@pytest.mark.parametrize("pacer", [paid(tokens=0), free()])
def test_a_full_segment_is_flushed_whatever_else_goes_on(pacer: Pacer) -> None:
    assert flush_at(pacer, 0.0, waiting_bytes=8_000, in_flight=5) == 0.0


def test_free_requests_are_made_as_soon_as_the_last_one_is_done() -> None:
    pacer = free()
    assert flush_at(pacer, 1.0) == 1.0
    assert flush_at(pacer, 1.0, since=0.0, waiting_bytes=7_999, in_flight=1) is None


def test_free_flushes_that_follow_each_other_rest_as_long_as_the_last_one_took() -> None:
    pacer = free()
    pacer.finished(10.0, took_s=0.002)
    assert flush_at(pacer, 10.0) == pytest.approx(10.002)
    assert flush_at(pacer, 10.0, waiting_bytes=8_000) == 10.0
    assert flush_at(pacer, 10.5) == 10.5
    pacer.finished(20.0, took_s=3.0)
    assert flush_at(pacer, 20.0) == pytest.approx(20.005)


def test_a_hedge_needs_a_token() -> None:
    pacer = paid()
    assert [pacer.try_spend(0.0) for _ in range(3)] == [True, True, False]
    assert not pacer.try_spend(0.2)
    assert pacer.try_spend(0.25)
    assert all(free().try_spend(0.0) for _ in range(5))


def test_a_quiet_time_saves_up_no_more_than_the_burst() -> None:
    pacer = paid(tokens=0)
    assert [pacer.try_spend(1_000.0) for _ in range(3)] == [True, True, False]


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 400), st.floats(0.0, 0.2)), max_size=60))
def test_requests_stay_within_one_per_interval_or_per_so_many_bytes(
    arrivals: list[tuple[float, int, float]],
) -> None:
    """Whatever comes, in whatever time flushes take, one at a time."""
    pacer = paid()
    now, waiting, since, busy_until, flushes, flushed_bytes = 0.0, 0, 0.0, 0.0, 0, 0
    for pause, size, took in arrivals:
        end = now + pause
        while waiting:
            due = flush_at(pacer, now, waiting, since, in_flight=int(busy_until > now))
            assert due is not None
            assert due <= max(now, since + LIMITS.flush_interval_s)
            due = min(due, busy_until) if busy_until > now else due
            if due > end:
                break
            if due > now:
                now = due
                continue
            pacer.spend(now)
            flushes, flushed_bytes, waiting, busy_until = flushes + 1, flushed_bytes + waiting, 0, now + took
        now = end
        if not waiting:
            since = now
        waiting += size
    allowed = LIMITS.burst_requests + now / LIMITS.flush_interval_s + flushed_bytes / LIMITS.bytes_per_request
    assert flushes <= allowed + 1

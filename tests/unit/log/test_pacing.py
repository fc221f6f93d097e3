"""When to flush, decided without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.log.pacing import Decision, Hold, Pacer, PacingLimits

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
    decision = pacer.decide(
        now, waiting_bytes=waiting_bytes, waiting_since=waiting_since, in_flight=in_flight
    )
    return decision.at


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
    # Ten bytes of a thousand pay for a hundredth of a request.
    assert flush_at(pacer, 0.1) == pytest.approx(0.2475)
    assert flush_at(pacer, 0.2, since=-0.02) == pytest.approx(0.23)
    due = flush_at(pacer, 0.1)
    assert due is not None
    assert flush_at(pacer, due, since=0.1) == due


def test_bytes_that_are_worth_a_request_are_not_held_back() -> None:
    pacer = paid(tokens=0)
    assert flush_at(pacer, 0.0, waiting_bytes=1_000) == 0.0
    assert flush_at(pacer, 0.0, waiting_bytes=1_000, in_flight=3) == 0.0


def test_bytes_that_are_worth_most_of_a_request_need_only_the_rest_of_it_saved_up() -> None:
    """A producer's five requests of 1,000,000 bytes, of which each is a little less than what a PUT takes."""
    pacer = paid(tokens=0)
    assert flush_at(pacer, 0.0, waiting_bytes=900, in_flight=3) == pytest.approx(0.025)
    assert flush_at(pacer, 0.03, waiting_bytes=900, in_flight=3) == 0.03
    pacer.spend(0.03, 900)
    assert flush_at(pacer, 0.03, waiting_bytes=900, in_flight=4) == pytest.approx(0.05)


def test_few_bytes_do_not_go_beside_a_flush_under_way_though_there_are_tokens() -> None:
    assert flush_at(paid(), 0.0, waiting_bytes=499, in_flight=1) == pytest.approx(0.25)
    assert flush_at(paid(), 0.0, waiting_bytes=500, in_flight=1) == 0.0


def test_a_large_flush_pays_for_more_than_itself_up_to_the_burst() -> None:
    pacer = paid(tokens=0)
    pacer.spend(0.0, 2_500)
    assert flush_at(pacer, 0.0) == 0.0
    pacer.spend(0.0)
    assert flush_at(pacer, 0.0) == pytest.approx((1 - 0.5 - 0.01) * 0.25)
    pacer.spend(0.0, 1_000_000)
    for _ in range(2):
        assert flush_at(pacer, 0.0) == 0.0
        pacer.spend(0.0)
    assert flush_at(pacer, 0.0) != 0.0


@pytest.mark.parametrize(
    ("decision", "hold"),
    [
        (paid().decide(0.0, waiting_bytes=1, waiting_since=0.0, in_flight=1), Hold.FLUSH_IN_FLIGHT),
        (paid(tokens=0).decide(0.0, waiting_bytes=1, waiting_since=0.0, in_flight=0), Hold.REQUEST_BUDGET),
        (free().decide(0.0, waiting_bytes=1, waiting_since=0.0, in_flight=1), Hold.FLUSH_IN_FLIGHT),
        (paid().decide(0.0, waiting_bytes=1, waiting_since=0.0, in_flight=0), None),
    ],
)
def test_the_decision_says_what_it_waits_for(decision: Decision, hold: Hold | None) -> None:
    assert decision.hold is hold


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


def test_hedges_may_leave_a_debt_that_later_flushes_pay() -> None:
    pacer = paid(tokens=1)
    assert [pacer.try_spend(0.0) for _ in range(4)] == [True, True, True, False]
    assert not pacer.try_spend(0.24)
    assert flush_at(pacer, 0.24, since=0.24) == pytest.approx(0.49)
    assert pacer.try_spend(0.25)
    assert all(free().try_spend(0.0) for _ in range(5))


def test_flushes_that_can_not_wait_do_not_add_to_the_debt() -> None:
    pacer = paid(tokens=0)
    for _ in range(10):
        pacer.spend(0.0)
    assert flush_at(pacer, 0.76, since=0.7) == 0.76


def test_a_quiet_time_saves_up_no_more_than_the_burst() -> None:
    pacer = paid(tokens=0)
    for _ in range(2):
        assert flush_at(pacer, 1_000.0) == 1_000.0
        pacer.spend(1_000.0)
    assert flush_at(pacer, 1_000.0) != 1_000.0


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.5), st.integers(1, 1_400), st.floats(0.0, 0.2), st.booleans()), max_size=60
    )
)
def test_requests_stay_within_one_per_interval_and_one_per_so_many_bytes(
    arrivals: list[tuple[float, int, float, bool]],
) -> None:
    """Whatever comes, in whatever time flushes take, one at a time; each perhaps with a hedge."""
    pacer = paid()
    now, waiting, since, busy_until, flushes, flushed_bytes = 0.0, 0, 0.0, 0.0, 0, 0
    for pause, size, took, is_slow in arrivals:
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
            pacer.spend(now, waiting)
            flushes, flushed_bytes, waiting, busy_until = flushes + 1, flushed_bytes + waiting, 0, now + took
            flushes += is_slow and pacer.try_spend(now)
        now = end
        if not waiting:
            since = now
        waiting += size
    allowed = LIMITS.burst_requests + now / LIMITS.flush_interval_s + flushed_bytes / LIMITS.bytes_per_request
    assert flushes <= allowed + LIMITS.debt_requests + 1

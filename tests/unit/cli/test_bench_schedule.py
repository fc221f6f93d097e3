"""The schedule, and whose fault it is when it is not kept; on time that is passed in."""

from __future__ import annotations

import pytest

from tests.unit.cli.bench_fakes import FakeTime
from warp.cli.bench.histogram import Histogram
from warp.cli.bench.pacing import BURST, LAST_MOMENTS_NS, PacedSender
from warp.cli.bench.schedule import NS_PER_S, ClientLag, Schedule

MS = 1_000_000


@pytest.mark.parametrize("records_per_s", [0.3, 1.0, 3.0, 7.7, 1000.0, 333_333.3])
def test_due_count_is_the_inverse_of_due_time(records_per_s: float) -> None:
    schedule = Schedule(5 * NS_PER_S, records_per_s, 0.25)
    for number in [*range(50), 10**6, 10**9 + 7]:
        due_ns = schedule.due_ns(number)
        assert schedule.due_count(due_ns - 1) == number
        assert schedule.due_count(due_ns) == number + 1


def test_records_are_evenly_spaced_from_the_begin_on_and_shifted_by_the_phase() -> None:
    schedule = Schedule(NS_PER_S, 4.0)
    assert [schedule.due_ns(number) for number in range(3)] == [
        NS_PER_S,
        NS_PER_S * 5 // 4,
        NS_PER_S * 3 // 2,
    ]
    assert schedule.due_count(0) == 0
    assert Schedule(NS_PER_S, 4.0, 0.5).due_ns(0) == NS_PER_S + NS_PER_S // 8


def test_no_drift_after_a_day() -> None:
    assert Schedule(0, 3000.0).due_ns(3000 * 86_400) == 86_400 * NS_PER_S


class Sending:
    """A sender on fake time whose queue is full in given spans, and what it has handed over: (due, when)."""

    def __init__(
        self, time: FakeTime, records_per_s: float, seconds: float, full: tuple[int, int] = (0, 0)
    ) -> None:
        self.time = time
        self.handed: list[tuple[int, int]] = []
        self.end_ns = int(seconds * NS_PER_S)
        self._full = full
        self.sender = PacedSender(
            Schedule(0, records_per_s),
            begin_ns=0,
            end_ns=lambda: self.end_ns,
            hand_over=self._hand_over,
            clock_ns=time.clock,
            sleep_s=time.sleep,
        )

    def _hand_over(self, due_ns: int) -> bool:
        if self._full[0] <= self.time.now_ns < self._full[1]:
            return False
        self.handed.append((due_ns, self.time.now_ns))
        return True


def test_each_record_is_sent_once_and_when_it_is_due() -> None:
    sending = Sending(FakeTime(), 100, 2)
    sending.sender.run()
    assert [due for due, _ in sending.handed] == [number * 10 * MS for number in range(200)]
    assert all(due <= at <= due + MS for due, at in sending.handed)
    assert sending.sender.unsent() == (0, 0)


def test_high_rates_are_sent_a_few_at_a_time_and_none_is_left_out() -> None:
    sending = Sending(FakeTime(), 100_000, 0.1)
    sending.sender.run()
    assert len(sending.handed) == 10_000
    assert sending.sender.lag.own.max_us <= 600


def test_a_full_queue_delays_records_but_their_due_times_stay() -> None:
    sending = Sending(FakeTime(), 1000, 3, full=(NS_PER_S, 2 * NS_PER_S))
    sending.sender.run()
    assert [due for due, _ in sending.handed] == [number * MS for number in range(3000)]
    delayed = [at - due for due, at in sending.handed if NS_PER_S <= due < 2 * NS_PER_S]
    assert min(delayed) >= 0
    assert sum(delay >= NS_PER_S // 2 for delay in delayed) >= 500


def test_what_a_full_queue_delays_is_not_the_clients_own_lag() -> None:
    sending = Sending(FakeTime(takes_ns=1000), 1000, 3, full=(NS_PER_S, 2 * NS_PER_S))
    sending.sender.run()
    lag = sending.sender.lag
    assert NS_PER_S - 5 * MS <= lag.queue_full_ns <= NS_PER_S + 5 * MS
    assert lag.own.count == 3000
    assert lag.own.max_us <= 2_000


def test_a_client_that_is_too_slow_is_seen_as_such() -> None:
    # A look at the clock takes 1 ms, so it sends at most 1000 of 2000 records/s.
    sending = Sending(FakeTime(takes_ns=MS), 2000, 2)
    sending.sender.run()
    lag = sending.sender.lag
    assert lag.queue_full_ns == 0
    assert lag.own.percentile_us(50) >= 400_000
    unsent, unsent_for_ns = sending.sender.unsent()
    assert unsent == 4000 - len(sending.handed) > 500
    assert unsent_for_ns == 2 * NS_PER_S - len(sending.handed) * MS // 2
    assert sending.time.now_ns <= 2 * NS_PER_S + LAST_MOMENTS_NS + 2 * BURST * MS


def test_an_end_that_is_moved_to_earlier_ends_the_sending() -> None:
    sending = Sending(FakeTime(), 100, 1000)
    hand_over = sending._hand_over

    def stop_after_a_second(due_ns: int) -> bool:
        if due_ns >= NS_PER_S:
            sending.end_ns = min(sending.end_ns, sending.time.now_ns)
        return hand_over(due_ns)

    sending.sender._hand_over = stop_after_a_second
    sending.sender.run()
    assert 100 <= len(sending.handed) <= 101


def test_the_excuse_ends_when_the_schedule_is_met_again() -> None:
    lag = ClientLag()
    lag.waited(100 * MS)
    lag.sent(100 * MS)
    lag.sent(130 * MS)
    lag.sent(MS // 2)
    lag.sent(50 * MS)
    lag.sent(60 * MS, counts=False)
    expected = Histogram()
    for own_ms in (0, 30, 0.5, 50):
        expected.record(int(own_ms * 1000))
    assert lag.own.to_json() == expected.to_json()

"""Ages by two clocks: no jump of one of them makes anything older than it is."""

from __future__ import annotations

import pytest

from tests.unit.lifecycle.sweep_support import HOUR_S, NOW_MS, TwoClocks
from warp.lifecycle.ages import FirstSeen, SteadyTime, is_old

DAY_S = 24 * HOUR_S


def test_steady_time_is_the_wall_clocks_while_that_does_not_jump() -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    for _ in range(100):
        clock.pass_time(600)
        clock.set_by(5)
        assert time.time_ms() == clock.time_ms()
    assert not time.has_jumped_within(1e9)


def test_a_jump_ahead_counts_after_it_has_lasted_for_a_day() -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    clock.set_by(10 * HOUR_S)
    assert time.time_ms() == NOW_MS
    clock.pass_time(DAY_S - 1)
    assert time.time_ms() == clock.time_ms() - 10 * 3_600_000
    clock.pass_time(1)
    assert time.time_ms() == clock.time_ms()


def test_a_jump_ahead_that_is_taken_back_was_nothing() -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    clock.set_by(10 * HOUR_S)
    clock.pass_time(DAY_S / 2)
    assert time.time_ms() == NOW_MS + int(DAY_S / 2) * 1000
    clock.set_by(-10 * HOUR_S)
    assert time.time_ms() == clock.time_ms()
    clock.set_by(10 * HOUR_S)
    clock.pass_time(DAY_S / 2 + 1)
    assert time.time_ms() == clock.time_ms() - 10 * 3_600_000


def test_a_jump_back_counts_at_once_and_the_way_forward_again_too() -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    clock.set_by(-10 * HOUR_S)
    assert time.time_ms() == NOW_MS - 10 * 3_600_000
    clock.pass_time(600)
    clock.set_by(10 * HOUR_S)
    assert time.time_ms() == NOW_MS + 600_000
    clock.set_by(HOUR_S)
    assert time.time_ms() == NOW_MS + 600_000


def test_a_clock_that_jumps_on_while_it_is_ahead_has_to_stand_by_that_too() -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    clock.set_by(10 * HOUR_S)
    time.time_ms()
    clock.pass_time(DAY_S - 60)
    clock.set_by(10 * HOUR_S)
    time.time_ms()
    clock.pass_time(DAY_S - 60)
    assert time.time_ms() == NOW_MS + int(2 * (DAY_S - 60)) * 1000


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_is_remembered_for_a_while(jump_s: float) -> None:
    clock = TwoClocks()
    time = SteadyTime(clock)
    clock.set_by(jump_s)
    assert time.has_jumped_within(600)
    clock.pass_time(599)
    assert time.has_jumped_within(600)
    clock.pass_time(1)
    assert not time.has_jumped_within(600)


def test_things_age_from_the_first_pass_that_met_them_while_every_pass_does() -> None:
    clock = TwoClocks()
    seen = FirstSeen(clock, things_max=10)
    ages = []
    for things in ([1, 2], [1], [1, 2]):
        seen.begin()
        ages.append([seen.age_s(thing) for thing in things])
        seen.end()
        clock.pass_time(60)
    assert ages == [[0, 0], [60], [120, 0]]


def test_a_pass_that_came_to_no_end_forgets_nothing() -> None:
    clock = TwoClocks()
    seen = FirstSeen(clock, things_max=3)
    seen.begin()
    assert [seen.age_s(thing) for thing in (1, 2)] == [0, 0]
    seen.end()
    clock.pass_time(60)
    seen.begin()
    assert seen.age_s(3) == 0
    clock.pass_time(60)
    seen.begin()
    assert [seen.age_s(thing) for thing in (1, 2, 3)] == [120, 120, 60]


def test_what_there_is_no_room_for_does_not_age() -> None:
    clock = TwoClocks()
    seen = FirstSeen(clock, things_max=2)
    ages: list[float] = []
    for _ in range(3):
        seen.begin()
        ages = [seen.age_s(thing) for thing in (1, 2, 3)]
        assert seen.is_full
        seen.end()
        clock.pass_time(60)
    assert ages == [120, 120, 0]


def test_old_is_what_both_clocks_say_is_old() -> None:
    def old(noted_ago_s: float, seen_s: float) -> bool:
        return is_old(NOW_MS - int(noted_ago_s * 1000), NOW_MS, seen_s, wall_s=100, boot_s=30)

    assert old(100, 30)
    assert not old(99, 1e9)
    assert not old(1e9, 29)
    assert not old(-1, 99)
    assert old(-1, 100)

"""What a group costs grows with its members and no faster: counted in executed lines, so it depends on no clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.unit.groups.group_support import Driver
from warp.groups.model import GroupSettings
from warp.groups.transitions import State

MEMBERS = 60
TIMES = 4
CHANGED = (("range", b"changed"),)


def lines(do: Callable[[], object]) -> int:
    """How many lines of Python it executes; each turn of a loop counts."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


def starting(members: int) -> Driver:
    """A group whose members wait for company."""
    driver = Driver(GroupSettings(initial_rebalance_delay_ms=3_000))
    for _ in range(members):
        driver.new_member()
    return driver


def joined(members: int) -> Driver:
    driver = starting(members)
    driver.advance(6_000)
    assert driver.state() is State.COMPLETING
    driver.answers.clear()
    return driver


def ids(driver: Driver) -> list[str]:
    return [member.member_id for member in driver.group.roster]


def sync_all(driver: Driver) -> None:
    shares = dict.fromkeys(ids(driver), b"share")
    for member_id in reversed(ids(driver)):
        driver.sync(member_id, driver.group.generation, shares if member_id == driver.group.leader else {})
    assert driver.state() is State.STABLE


def stable(members: int) -> Driver:
    driver = joined(members)
    sync_all(driver)
    return driver


def join_all_again(driver: Driver) -> None:
    for member_id in ids(driver):
        driver.join(member_id, protocols=CHANGED)
    assert driver.state() is State.COMPLETING


def leave_one_by_one(driver: Driver) -> None:
    for member_id in ids(driver):
        driver.leave(member_id)
    assert driver.state() is State.EMPTY


def lose_all(driver: Driver) -> None:
    driver.advance(60_000)
    assert driver.state() is State.EMPTY


def take_over(driver: Driver) -> None:
    driver.take_over()
    assert driver.state() is State.STABLE


LIVES: dict[str, tuple[Callable[[int], Driver], Callable[[Driver], None]]] = {
    "join phase": (starting, lambda driver: driver.advance(6_000)),
    "sync phase": (joined, sync_all),
    "rebalance": (stable, join_all_again),
    "leave": (stable, leave_one_by_one),
    "loss": (stable, lose_all),
    "takeover": (stable, take_over),
}


@pytest.mark.parametrize("name", LIVES)
def test_cost_of_a_phase_grows_no_faster_than_its_members(name: str) -> None:
    make, live = LIVES[name]
    small, large = make(MEMBERS), make(TIMES * MEMBERS)
    small_lines, large_lines = lines(lambda: live(small)), lines(lambda: live(large))
    assert small_lines > MEMBERS
    assert large_lines < 1.25 * TIMES * small_lines


def test_cost_of_joining_grows_no_faster_than_the_members() -> None:
    small, large = lines(lambda: starting(MEMBERS)), lines(lambda: starting(TIMES * MEMBERS))
    assert large < 1.25 * TIMES * small


@pytest.mark.parametrize("request_", ["heartbeat", "commit", "sync", "join"])
def test_cost_of_a_request_does_not_depend_on_the_size_of_the_group(request_: str) -> None:
    counts = []
    for members in (MEMBERS, TIMES * MEMBERS):
        driver = stable(members)
        member_id, generation = ids(driver)[-1], driver.group.generation
        match request_:
            case "heartbeat":
                counts.append(lines(lambda: driver.heartbeat(member_id, generation)))  # noqa: B023
            case "commit":
                counts.append(lines(lambda: driver.commit(member_id, generation)))  # noqa: B023
            case "sync":
                counts.append(lines(lambda: driver.sync(member_id, generation)))  # noqa: B023
            case _:
                counts.append(lines(lambda: driver.join(member_id)))  # noqa: B023
    assert counts[1] <= counts[0] + 10

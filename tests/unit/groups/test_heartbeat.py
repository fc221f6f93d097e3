"""Heartbeat: what it answers in each state, and how silence ends a membership."""

from __future__ import annotations

import pytest

from tests.unit.groups.group_support import SESSION_MS, Driver
from warp.errors import ErrorCode
from warp.groups.transitions import State


def test_heartbeat_of_a_stable_member_is_answered() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    assert driver.heartbeat(member_id, 1) is ErrorCode.NONE


def test_heartbeat_while_the_leader_computes_does_not_send_anybody_away() -> None:
    driver = Driver()
    ids = driver.completing(2)
    assert driver.heartbeat(ids[1], 2) is ErrorCode.NONE


def test_heartbeat_during_the_join_phase_calls_members_to_join() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[0])
    assert driver.heartbeat(ids[1], 2) is ErrorCode.REBALANCE_IN_PROGRESS


def test_heartbeat_of_another_generation_is_refused() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    assert driver.heartbeat(member_id, 0) is ErrorCode.ILLEGAL_GENERATION
    assert driver.heartbeat(member_id, 2) is ErrorCode.ILLEGAL_GENERATION


def test_heartbeat_of_a_stranger_or_of_an_unused_id_is_refused() -> None:
    driver = Driver()
    driver.stable(1)
    assert driver.heartbeat("stranger", 1) is ErrorCode.UNKNOWN_MEMBER_ID
    pending = driver.join_at_once().member_id
    assert driver.heartbeat(pending, 1) is ErrorCode.UNKNOWN_MEMBER_ID


def test_heartbeat_to_an_empty_group_is_from_an_unknown_member() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    assert driver.heartbeat(member_id, 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_silent_member_is_removed_when_its_session_is_over() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.advance(SESSION_MS - 1)
    driver.heartbeat(ids[0], 2)
    assert driver.state() is State.STABLE
    driver.advance(1)
    assert driver.state() is State.PREPARING
    assert driver.heartbeat(ids[1], 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.joined(driver.join(ids[0])).generation == 3


def test_group_is_empty_when_all_are_silent() -> None:
    driver = Driver()
    driver.stable(5)
    driver.advance(SESSION_MS)
    assert (driver.state(), driver.group.generation, driver.group.wake_ms) == (State.EMPTY, 6, None)
    assert driver.stored is not None
    assert (driver.stored.generation, driver.stored.members) == (6, ())


@pytest.mark.parametrize("sign", ["heartbeat", "commit", "sync", "join", "commit in vain"])
def test_every_sign_of_life_renews_the_session(sign: str) -> None:
    driver = Driver()
    ids = driver.completing(2) if sign == "commit in vain" else driver.stable(2)
    for _ in range(4):
        driver.advance(SESSION_MS - 1_000)
        driver.heartbeat(ids[0], 2)
        match sign:
            case "heartbeat":
                driver.heartbeat(ids[1], 2)
            case "commit" | "commit in vain":
                driver.commit(ids[1], 2)
            case "sync":
                driver.sync(ids[1], 2)
            case _:
                driver.join(ids[1])
    assert ids[1] in driver.group.roster


def test_session_is_renewed_during_the_join_phase() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[0])
    for _ in range(3):
        driver.advance(SESSION_MS - 1_000)
        driver.heartbeat(ids[1], 2)
    assert ids[1] in driver.group.roster


def test_join_phase_ends_when_the_last_absent_member_is_lost() -> None:
    driver = Driver()
    ids = driver.stable(2)
    token = driver.join(ids[0])
    driver.advance(SESSION_MS)
    assert driver.joined(token).generation == 3


def test_short_cut_for_heartbeats_says_what_the_long_way_says() -> None:
    driver = Driver()
    ids = driver.stable(2)
    cases = [(ids[0], None, 2), (ids[0], None, 1), ("x", None, 2), (ids[0], "i", 2)]
    for member_id, instance_id, generation in cases:
        short = driver.group.heartbeat(member_id, instance_id, generation, driver.ticks_ms)
        assert short is driver.heartbeat(member_id, generation, instance_id)
    driver.advance(SESSION_MS - 1)
    driver.group.heartbeat(ids[0], None, 2, driver.ticks_ms)
    driver.advance(1)
    assert ids[0] in driver.group.roster
    assert ids[1] not in driver.group.roster


def test_heartbeats_do_not_bring_the_next_wake_forward() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    wake_ms = driver.group.wake_ms
    for _ in range(100):
        driver.ticks_ms += 10
        driver.heartbeat(member_id, 1)
    assert driver.group.wake_ms == wake_ms


def test_sessions_can_be_started_anew_when_it_was_the_agent_that_slept() -> None:
    driver = Driver()
    driver.stable(2)
    driver.ticks_ms += 10 * SESSION_MS
    driver.group.restart_sessions(driver.now)
    driver.advance(SESSION_MS - 1)
    assert driver.state() is State.STABLE

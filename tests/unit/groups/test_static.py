"""Static members (KIP-345): they come back under a new id without a rebalance, and the old id is fenced."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.groups.group_support import REBALANCE_MS, SESSION_MS, Driver
from warp.errors import ErrorCode
from warp.groups.model import JoinedMember
from warp.groups.transitions import State

BOTH = (("range", b"r"), ("sticky", b"s"))
STICKY_FIRST = (("sticky", b"s"), ("range", b"r"))


def stable_statics(driver: Driver, members: int, **fields: Any) -> list[str]:
    """A stable group of the instances i0, i1, ...; the ids, the leader's first."""
    ids: list[str] = []
    for number in range(members):
        token = driver.join(instance_id=f"i{number}", **fields)
        for other_number, other in enumerate(ids):
            driver.join(other, instance_id=f"i{other_number}", **fields)
        ids.append(driver.joined(token).member_id)
    for number in range(1, members):
        driver.sync(ids[number], driver.group.generation, instance_id=f"i{number}")
    driver.sync(ids[0], driver.group.generation, {member_id: member_id.encode() for member_id in ids})
    driver.answers.clear()
    assert driver.state() is State.STABLE
    return ids


def test_returning_follower_goes_on_without_a_rebalance() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    joined = driver.join_at_once(instance_id="i1")
    assert joined.error is ErrorCode.NONE
    assert joined.member_id not in ids
    assert (joined.generation, joined.leader, joined.members) == (2, ids[0], ())
    assert (joined.skip_assignment, driver.state()) == (False, State.STABLE)
    synced = driver.synced(driver.sync(joined.member_id, 2, instance_id="i1"))
    assert synced.assignment == ids[1].encode()
    assert driver.heartbeat(ids[0], 2, "i0") is ErrorCode.NONE


def test_returning_leader_is_told_to_leave_the_assignment_alone() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    joined = driver.join_at_once(instance_id="i0")
    assert joined.leader == joined.member_id != ids[0]
    assert joined.skip_assignment
    assert set(joined.members) == {
        JoinedMember(joined.member_id, "i0", b"subscribes t"),
        JoinedMember(ids[1], "i1", b"subscribes t"),
    }
    assert driver.synced(driver.sync(joined.member_id, 2)).assignment == ids[0].encode()
    assert driver.state() is State.STABLE


def test_returning_leader_that_cannot_skip_takes_itself_for_a_follower() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    joined = driver.join_at_once(instance_id="i0", can_skip_assignment=False)
    assert (joined.leader, joined.members, joined.skip_assignment) == (ids[0], (), False)
    assert driver.group.leader == joined.member_id


def test_old_id_of_an_instance_is_fenced_everywhere() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    driver.join(instance_id="i1")
    fenced = ErrorCode.FENCED_INSTANCE_ID
    assert driver.heartbeat(ids[1], 2, "i1") is fenced
    assert driver.synced(driver.sync(ids[1], 2, instance_id="i1")).error is fenced
    assert driver.join_at_once(ids[1], instance_id="i1").error is fenced
    assert driver.commit(ids[1], 2, "i1") is fenced
    # Without its instance it is just a stranger.
    assert driver.heartbeat(ids[1], 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_unknown_instance_with_an_id_is_an_unknown_member() -> None:
    driver = Driver()
    ids = stable_statics(driver, 1)
    assert driver.join_at_once(ids[0], instance_id="other").error is ErrorCode.UNKNOWN_MEMBER_ID


def test_replacement_that_changes_the_choice_of_protocol_starts_a_rebalance() -> None:
    driver = Driver()
    stable_statics(driver, 1, protocols=BOTH)
    joined = driver.join_at_once(instance_id="i0", protocols=STICKY_FIRST)
    assert (joined.generation, joined.protocol) == (2, "sticky")


def test_replacement_that_keeps_the_choice_takes_over_the_new_metadata() -> None:
    driver = Driver()
    stable_statics(driver, 1)
    joined = driver.join_at_once(instance_id="i0", protocols=(("range", b"new"),), client_id="new-client")
    assert (joined.generation, joined.members[0].metadata) == (1, b"new")
    assert driver.stored is not None
    assert driver.stored.members[0].client_id == "new-client"


def test_replacement_while_the_leader_computes_starts_a_rebalance() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    for number, member_id in enumerate(ids):
        driver.join(member_id, instance_id=f"i{number}", protocols=(("range", b"new"),))
    driver.answers.clear()
    assert driver.state() is State.COMPLETING
    waiting = driver.sync(ids[1], 3, instance_id="i1")
    driver.join(instance_id="i0")
    assert driver.state() is State.PREPARING
    assert driver.synced(waiting).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_replacement_fences_requests_that_are_parked() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    first = driver.join(ids[0], instance_id="i0")
    second = driver.join(instance_id="i0")
    assert driver.joined(first).error is ErrorCode.FENCED_INSTANCE_ID
    driver.join(ids[1], instance_id="i1")
    assert driver.joined(second).generation == 3
    waiting = driver.sync(ids[1], 3, instance_id="i1")
    driver.join(instance_id="i1")
    assert driver.synced(waiting).error is ErrorCode.FENCED_INSTANCE_ID


def test_static_member_survives_a_restart_within_its_session() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    driver.advance(SESSION_MS - 1)
    driver.heartbeat(ids[0], 2, "i0")
    driver.join(instance_id="i1")
    driver.advance(SESSION_MS - 1)
    driver.heartbeat(ids[0], 2, "i0")
    assert (driver.state(), len(driver.group.roster)) == (State.STABLE, 2)


def test_static_member_that_stays_away_for_its_session_is_removed() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2)
    driver.advance(SESSION_MS - 1)
    driver.heartbeat(ids[0], 2, "i0")
    driver.advance(1)
    assert driver.state() is State.PREPARING
    assert driver.group.roster.of_instance("i1") is None


def test_static_member_that_does_not_join_again_in_time_stays() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2, session_timeout_ms=3 * REBALANCE_MS)
    token = driver.join(ids[0], instance_id="i0", session_timeout_ms=3 * REBALANCE_MS)
    driver.advance(REBALANCE_MS)
    joined = driver.joined(token)
    assert (joined.generation, len(joined.members)) == (3, 2)
    # It never asks for its assignment either, and then it is out.
    driver.sync(ids[0], 3, {ids[1]: b"one"}, instance_id="i0")
    driver.advance(REBALANCE_MS)
    assert driver.group.roster.of_instance("i1") is None


def test_somebody_else_leads_when_the_leader_is_static_and_away() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2, session_timeout_ms=3 * REBALANCE_MS)
    token = driver.join(ids[1], instance_id="i1", protocols=(("range", b"new"),))
    driver.advance(REBALANCE_MS)
    joined = driver.joined(token)
    assert (joined.leader, len(joined.members)) == (ids[1], 2)


def test_join_phase_that_only_absent_static_members_are_left_of_waits_for_their_sessions() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2, rebalance_timeout_ms=1_000)
    driver.leave(ids[0])
    driver.advance(SESSION_MS - 1)
    assert (driver.state(), driver.group.generation) == (State.PREPARING, 2)
    driver.advance(1)
    assert (driver.state(), driver.group.generation) == (State.EMPTY, 3)


def test_join_phase_without_any_time_does_not_spin_while_static_members_are_away() -> None:
    driver = Driver()
    ids = stable_statics(driver, 2, rebalance_timeout_ms=0)
    driver.leave(ids[0])
    wakes = 0
    while driver.state() is State.PREPARING:
        assert driver.group.wake_ms is not None
        driver.advance(max(driver.group.wake_ms - driver.ticks_ms, 0))
        wakes += 1
    assert wakes <= SESSION_MS // 1_000 + 2


def test_full_group_takes_a_replacement() -> None:
    driver = Driver()
    stable_statics(driver, 2)
    driver.group.settings = type(driver.settings)(members_max=2)
    assert driver.join_at_once(instance_id="i1").error is ErrorCode.NONE


@pytest.mark.parametrize("instance_id", ["i0", "i1"])
def test_replaced_member_that_syncs_late_keeps_nobody_waiting(instance_id: str) -> None:
    driver = Driver()
    ids = [driver.joined(driver.join(instance_id="i0")).member_id]
    driver.sync(ids[0], 1, {ids[0]: b"all"})
    driver.answers.clear()
    token = driver.join(instance_id="i1")
    driver.join(ids[0], instance_id="i0")
    ids.append(driver.joined(token).member_id)
    driver.sync(ids[0], 2, {ids[0]: b"0", ids[1]: b"1"})
    # i1 has not asked for its assignment when it, or the leader, is replaced.
    joined = driver.join_at_once(instance_id=instance_id)
    assert joined.error is ErrorCode.NONE
    member_id = joined.member_id if instance_id == "i1" else ids[1]
    assert driver.synced(driver.sync(member_id, 2, instance_id="i1")).assignment == b"1"
    assert driver.group.phase_due_ms is None

"""SyncGroup: assignments of the leader, who waits for them, and who is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.groups.group_support import NO_DELAY, REBALANCE_MS, Driver
from warp.errors import ErrorCode
from warp.groups.model import SyncAnswer
from warp.groups.transitions import State

OTHER = (("range", b"subscribes u"),)


def test_everybody_gets_what_the_leader_has_sent() -> None:
    driver = Driver()
    ids = driver.completing(3)
    early = driver.sync(ids[1], 3)
    assert not driver.answers
    leader = driver.sync(ids[0], 3, {ids[0]: b"zero", ids[1]: b"one", ids[2]: b"two"})
    assert driver.synced(early) == SyncAnswer(ErrorCode.NONE, "consumer", "range", b"one")
    assert driver.synced(leader).assignment == b"zero"
    assert driver.state() is State.STABLE
    assert driver.synced(driver.sync(ids[2], 3)).assignment == b"two"


def test_member_that_the_leader_left_out_gets_nothing_and_a_made_up_one_is_ignored() -> None:
    driver = Driver()
    ids = driver.completing(2)
    driver.sync(ids[0], 2, {ids[0]: b"zero", "ghost": b"boo"})
    assert driver.synced(driver.sync(ids[1], 2)) == SyncAnswer(ErrorCode.NONE, "consumer", "range", b"")
    assert driver.stored is not None
    assert [member.assignment for member in driver.stored.members] == [b"zero", b""]


def test_sync_in_a_stable_group_can_be_repeated() -> None:
    driver = Driver()
    ids = driver.stable(2)
    for _ in range(2):
        assert driver.synced(driver.sync(ids[1], 2)).assignment == ids[1].encode()
    # Neither a follower nor a leader that comes again changes anything.
    assert driver.synced(driver.sync(ids[0], 2, {ids[0]: b"other"})).assignment == ids[0].encode()


def test_assignments_of_a_follower_are_ignored() -> None:
    driver = Driver()
    ids = driver.completing(2)
    follower = driver.sync(ids[1], 2, {ids[0]: b"mine", ids[1]: b"mine"})
    assert driver.state() is State.COMPLETING
    driver.sync(ids[0], 2, {ids[1]: b"leader's"})
    assert driver.synced(follower).assignment == b"leader's"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"member_id": "stranger"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"generation": 2}, ErrorCode.ILLEGAL_GENERATION),
        ({"generation": 0}, ErrorCode.ILLEGAL_GENERATION),
        ({"generation": -1}, ErrorCode.ILLEGAL_GENERATION),
        ({"instance_id": "i1"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol": "sticky"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "consumer", "protocol": "range"}, ErrorCode.NONE),
    ],
)
@pytest.mark.parametrize("state", [State.COMPLETING, State.STABLE])
def test_sync_that_does_not_fit_is_refused(state: State, fields: dict[str, Any], error: ErrorCode) -> None:
    driver = Driver()
    (member_id,) = driver.completing(1) if state is State.COMPLETING else driver.stable(1)
    request: dict[str, Any] = {"member_id": member_id, "generation": 1, **fields}
    assert driver.synced(driver.sync(**request)).error is error


def test_sync_in_an_empty_group_is_from_an_unknown_member() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    assert driver.synced(driver.sync(member_id, 2)).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_sync_during_the_join_phase_is_sent_back_to_join() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[0])
    assert driver.synced(driver.sync(ids[1], 2)).error is ErrorCode.REBALANCE_IN_PROGRESS


@pytest.mark.parametrize("come", ["newcomer", "loss"])
def test_waiting_syncs_are_sent_back_to_join_when_a_rebalance_starts(come: str) -> None:
    driver = Driver()
    ids = driver.completing(3)
    token = driver.sync(ids[1], 3)
    if come == "newcomer":
        driver.new_member()
    else:
        driver.leave(ids[2])
    assert driver.synced(token).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.state() is State.PREPARING


def test_second_sync_of_a_waiting_member_takes_the_place_of_the_first() -> None:
    driver = Driver()
    ids = driver.completing(2)
    first, second = driver.sync(ids[1], 2), driver.sync(ids[1], 2)
    assert driver.synced(first).error is ErrorCode.REBALANCE_IN_PROGRESS
    driver.sync(ids[0], 2, {ids[1]: b"one"})
    assert driver.synced(second).assignment == b"one"


def test_waiting_member_does_not_time_out_and_has_its_session_afterwards() -> None:
    driver = Driver()
    ids = driver.completing(2, session_timeout_ms=6_000)
    token = driver.sync(ids[1], 2)
    for _ in range(10):
        driver.advance(5_000)
        assert driver.heartbeat(ids[0], 2) is ErrorCode.NONE
    driver.sync(ids[0], 2, {ids[1]: b"one"})
    assert driver.synced(token).assignment == b"one"
    driver.advance(5_999)
    assert driver.state() is State.STABLE
    driver.advance(1)
    assert driver.state() is State.EMPTY


def test_members_that_never_sync_are_given_up_after_the_rebalance_timeout() -> None:
    driver = Driver()
    ids = driver.completing(2)
    driver.sync(ids[0], 2, {ids[0]: b"all"})
    while driver.ticks_ms < REBALANCE_MS:
        assert [driver.heartbeat(member_id, 2) for member_id in ids] == [0, 0]
        driver.advance(5_000)
    assert driver.heartbeat(ids[0], 2) is ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.heartbeat(ids[1], 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_leader_that_never_syncs_is_given_up_after_the_rebalance_timeout() -> None:
    driver = Driver()
    ids = driver.completing(2)
    token = driver.sync(ids[1], 2)
    while driver.ticks_ms < REBALANCE_MS:
        assert driver.heartbeat(ids[0], 2) is ErrorCode.NONE
        driver.advance(5_000)
    assert driver.synced(token).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.joined(driver.join(ids[1])).leader == ids[1]


def test_nobody_is_given_up_when_all_have_synced() -> None:
    driver = Driver()
    ids = driver.stable(2)
    assert driver.group.phase_due_ms is None
    for _ in range(30):
        driver.advance(5_000)
        assert [driver.heartbeat(member_id, 2) for member_id in ids] == [0, 0]


@pytest.mark.parametrize("limits", [{"member_assignment_bytes_max": 10}, {"group_assignment_bytes_max": 15}])
def test_assignment_that_is_too_large_is_refused_and_the_others_wait_for_a_better_one(
    limits: dict[str, int],
) -> None:
    driver = Driver(replace(NO_DELAY, **limits))
    ids = driver.completing(2)
    follower = driver.sync(ids[1], 2)
    too_much = {ids[0]: b"x" * 5, ids[1]: b"x" * 11}
    assert driver.synced(driver.sync(ids[0], 2, too_much)).error is ErrorCode.MESSAGE_TOO_LARGE
    assert driver.state() is State.COMPLETING
    assert (
        driver.synced(driver.sync(ids[0], 2, {ids[0]: b"x" * 5, ids[1]: b"x" * 10})).error is ErrorCode.NONE
    )
    assert driver.synced(follower).assignment == b"x" * 10


def test_generation_that_is_over_leaves_no_assignment_behind() -> None:
    driver = Driver()
    ids = driver.stable(2)
    tokens = [driver.join(member_id, protocols=OTHER) for member_id in ids]
    assert {driver.joined(token).generation for token in tokens} == {3}
    driver.sync(ids[0], 3)
    assert driver.synced(driver.sync(ids[1], 3)).assignment == b""

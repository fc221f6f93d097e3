"""LeaveGroup: one or many, by id or by instance, and what follows for the others."""

from __future__ import annotations

from tests.unit.groups.group_support import Driver
from warp.errors import ErrorCode
from warp.groups.model import LeaveAnswer, Leaver, Left
from warp.groups.transitions import State

NONE, UNKNOWN, FENCED = ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID


def test_member_leaves_and_the_others_rebalance() -> None:
    driver = Driver()
    ids = driver.stable(2)
    assert driver.leave(ids[0]) == LeaveAnswer(NONE, (Left(ids[0], None, NONE),))
    assert driver.state() is State.PREPARING
    assert driver.joined(driver.join(ids[1])).leader == ids[1]


def test_last_member_leaves_an_empty_group_that_keeps_counting_generations() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    assert (driver.state(), driver.group.generation, driver.group.is_idle) == (State.EMPTY, 2, True)
    driver.stable(1)
    assert driver.group.generation == 3


def test_many_leave_at_once_each_with_its_own_answer_and_one_rebalance_follows() -> None:
    driver = Driver()
    ids = driver.stable(3)
    pending = driver.join_at_once().member_id
    driver.notes.clear()
    left = driver.leave(ids[0], "stranger", ids[1], ids[0], pending).members
    assert [member.error for member in left] == [NONE, UNKNOWN, NONE, UNKNOWN, NONE]
    assert [note.event for note in driver.notes].count("rebalance") == 1
    assert driver.joined(driver.join(ids[2])).generation == 4


def test_static_member_is_sent_away_by_its_instance_alone() -> None:
    driver = Driver()
    driver.join(instance_id="i1")
    answer = driver.leave(Leaver("", "i1"), Leaver("", "i2"), Leaver("", None))
    assert [member.error for member in answer.members] == [NONE, UNKNOWN, UNKNOWN]
    assert [(member.member_id, member.instance_id) for member in answer.members] == [
        ("", "i1"),
        ("", "i2"),
        ("", None),
    ]
    assert driver.state() is State.EMPTY


def test_static_member_with_another_id_is_fenced() -> None:
    driver = Driver()
    driver.join(instance_id="i1")
    assert driver.leave(Leaver("other", "i1")).members[0].error is FENCED
    assert driver.leave(Leaver("i1-id1", "i2")).members[0].error is UNKNOWN
    assert driver.leave(Leaver("i1-id1", "i1")).members[0].error is NONE


def test_nobody_left_is_no_reason_for_a_rebalance() -> None:
    driver = Driver()
    driver.stable(1)
    assert driver.leave("stranger").members[0].error is UNKNOWN
    assert driver.leave() == LeaveAnswer(NONE, ())
    assert driver.state() is State.STABLE


def test_unused_id_that_leaves_lets_the_join_phase_end() -> None:
    driver = Driver()
    (first,) = driver.stable(1)
    pending = driver.join_at_once().member_id
    token = driver.join(first)
    assert driver.leave(pending).members[0].error is NONE
    assert driver.joined(token).generation == 2
    assert driver.join_at_once(pending).error is UNKNOWN


def test_join_phase_ends_when_the_last_absent_member_leaves() -> None:
    driver = Driver()
    ids = driver.stable(2)
    token = driver.join(ids[1], protocols=(("range", b"changed"),))
    assert token not in driver.answers
    driver.leave(ids[0])
    joined = driver.joined(token)
    assert (joined.generation, joined.leader, len(joined.members)) == (3, ids[1], 1)


def test_parked_join_of_a_member_that_leaves_is_answered() -> None:
    driver = Driver()
    ids = driver.stable(3)
    token = driver.join(ids[0])
    driver.leave(ids[0])
    assert driver.joined(token).error is UNKNOWN


def test_parked_sync_of_a_member_that_leaves_is_answered() -> None:
    driver = Driver()
    ids = driver.completing(2)
    token = driver.sync(ids[1], 2)
    driver.leave(ids[1])
    assert driver.synced(token).error is UNKNOWN


def test_reasons_are_noted() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.leave(Leaver(ids[1], None, "the consumer is being closed"))
    (removed,) = [note for note in driver.notes if note.event == "member removed"]
    assert removed.member_id == ids[1]
    assert "the consumer is being closed" in removed.reason

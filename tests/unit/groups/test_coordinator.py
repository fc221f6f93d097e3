"""The coordinator as handlers see it: who is answered what, and that nobody hears of what is not stored."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.groups.coordinator_support import (
    NONE,
    Rig,
    commit,
    heartbeat,
    join,
    joined,
    leave,
    run,
    stable,
    sync,
    turns,
)
from tests.unit.groups.group_support import SESSION_MS
from warp.errors import ErrorCode
from warp.groups.model import (
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    GroupOverview,
    GroupSettings,
    Heartbeat,
    Leave,
    Leaver,
    Request,
    Sync,
)
from warp.groups.slots import CoordinatorLimits
from warp.metadata.group_model import OffsetQuery

SESSION_S = SESSION_MS / 1000


# Joining and storing


def test_a_group_settles_and_is_stored() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=3)
        stored = await rig.stored("g")
        assert stored is not None
        assert (stored.generation, stored.leader) == (members.generation, members.ids[0])
        assert {one.member_id: one.assignment for one in stored.members} == members.assignments
        assert coordinator.list_groups() == [GroupOverview("g", "classic", "Stable", "consumer", 3)]
        described = await coordinator.request("g", Describe())
        assert (described.error, described.state, len(described.members)) == (NONE, "Stable", 3)

    run(test)


def test_nobody_hears_of_a_generation_before_it_is_stored() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("save_groups")
        member_id = (await join(coordinator)).member_id
        waiting = join(coordinator, "g", member_id)
        await asyncio.sleep(1)
        assert rig.store.count("save_groups") == 1
        assert not waiting.done()
        assert coordinator.list_groups()[0].state == "PreparingRebalance"
        rig.store.release("save_groups")
        answer = await waiting
        stored = await rig.stored("g")
        assert stored is not None
        assert stored.generation == answer.generation == 1

    run(test)


def test_nobody_hears_of_an_assignment_before_it_is_stored() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await joined(coordinator, count=2)
        rig.store.hold("save_groups")
        leader, follower = members.ids
        answers = [
            sync(coordinator, "g", follower, members.generation),
            sync(coordinator, "g", leader, members.generation, [(follower, b"mine")]),
        ]
        await turns()
        assert not any(answer.done() for answer in answers)
        rig.store.release("save_groups")
        assert [answer.assignment for answer in await asyncio.gather(*answers)] == [b"mine", b""]

    run(test)


def test_changes_of_many_groups_go_into_few_transactions() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        groups = [f"g{n}" for n in range(50)]
        await asyncio.gather(*(stable(coordinator, group_id) for group_id in groups))
        assert rig.store.count("save_groups") <= 6
        assert [group.state for group in coordinator.list_groups()] == ["Stable"] * 50

    run(test)


def test_a_transaction_stores_no_more_members_than_it_may() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=CoordinatorLimits(save_members_max=4))
        rig.store.hold("save_groups")
        works = [asyncio.ensure_future(stable(coordinator, f"g{n}")) for n in range(13)]
        await turns()
        rig.store.release("save_groups")
        await asyncio.gather(*works)
        # 13 groups of one member: by the time that four were stored, nothing else had come.
        assert rig.store.count("save_groups") >= 7

    run(test)


def test_while_a_change_is_stored_requests_to_the_group_wait_and_others_do_not() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        other = await stable(coordinator, "other")
        members = await stable(coordinator, "g")
        rig.store.hold("save_groups")
        leaving = asyncio.ensure_future(leave(coordinator, "g", members.ids[0]))
        await turns()
        assert coordinator.heartbeat("g", members.ids[0], None, members.generation) is None
        waiting = coordinator.request("g", Heartbeat(members.ids[0], None, members.generation))
        assert not waiting.done()
        assert heartbeat(coordinator, "other", other.ids[0], other.generation) is NONE
        rig.store.release("save_groups")
        assert await leaving == [NONE]
        assert (await waiting).error is ErrorCode.UNKNOWN_MEMBER_ID

    run(test)


# Time


def test_a_silent_member_is_removed_after_its_session() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        for _ in range(3):
            await asyncio.sleep(0.3 * SESSION_S)
            assert heartbeat(coordinator, "g", members.ids[0], members.generation) is NONE
        await asyncio.sleep(0.2 * SESSION_S)
        assert (
            heartbeat(coordinator, "g", members.ids[0], members.generation) is ErrorCode.REBALANCE_IN_PROGRESS
        )
        [group] = coordinator.list_groups()
        assert (group.state, group.members) == ("PreparingRebalance", 1)

    run(test)


def test_heartbeats_by_the_short_way_renew_the_session() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        for _ in range(10):
            await asyncio.sleep(0.9 * SESSION_S)
            assert coordinator.heartbeat("g", members.ids[0], None, members.generation) is NONE
        assert coordinator.heartbeat("g", "nobody", None, 1) is ErrorCode.UNKNOWN_MEMBER_ID
        assert coordinator.heartbeat("nothing", "nobody", None, 1) is None

    run(test)


def test_a_group_that_loses_all_members_rests_in_the_store() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        await asyncio.sleep(2 * SESSION_S)
        await asyncio.sleep(120)
        stored = await rig.stored("g")
        assert stored is not None
        assert stored.members == ()
        assert stored.generation > members.generation
        assert coordinator.list_groups() == [GroupOverview("g", "classic", "Empty", "consumer", 0)]
        again = await stable(coordinator)
        assert again.generation > stored.generation

    run(test)


def test_an_id_that_is_never_used_leaves_nothing_behind() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert (await join(coordinator)).error is ErrorCode.MEMBER_ID_REQUIRED
        assert len(coordinator.list_groups()) == 1
        await asyncio.sleep(2 * SESSION_S)
        assert coordinator.list_groups() == []
        assert await rig.stored("g") is None

    run(test)


def test_members_are_not_given_up_when_it_was_the_agent_that_stood_still() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        await asyncio.sleep(0.5)
        # Nothing runs for a minute; then everything that is due is due at once.
        rig.loop._now += 60
        await asyncio.sleep(0.5)
        for one in members.ids:
            assert heartbeat(coordinator, "g", one, members.generation) is NONE
        await asyncio.sleep(2 * SESSION_S)
        assert coordinator.list_groups()[0].members == 0

    run(test)


def test_a_client_that_hangs_up_while_it_waits_is_a_member_until_its_session_ends() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(settings=GroupSettings(initial_rebalance_delay_ms=1000))
        ids = [(await join(coordinator)).member_id for _ in range(2)]
        gone, waiting = join(coordinator, "g", ids[0]), join(coordinator, "g", ids[1])
        gone.cancel()
        answer = await waiting
        assert answer.error is NONE
        assert answer.leader == ids[0]
        for _ in range(3):
            await asyncio.sleep(0.3 * SESSION_S)
            assert heartbeat(coordinator, "g", ids[1], answer.generation) is NONE
        await asyncio.sleep(0.2 * SESSION_S)
        assert heartbeat(coordinator, "g", ids[1], answer.generation) is ErrorCode.REBALANCE_IN_PROGRESS
        again = await join(coordinator, "g", ids[1])
        assert (again.error, again.leader, len(again.members)) == (NONE, ids[1], 1)

    run(test)


# What can't be asked

KINDS: list[Request] = [
    Sync("m", None, 1),
    Heartbeat("m", None, 1),
    Leave((Leaver("m"),)),
    CheckCommit("m", None, 1),
    CheckOffsetDelete(),
    Describe(),
    Delete(),
]


@pytest.mark.parametrize("request_", KINDS, ids=lambda kind: type(kind).__name__)
def test_invalid_names_are_refused_whatever_is_asked(request_: Request) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        for name in ("x" * 1025, "a\0b", "\ud800"):
            answer = await coordinator.request(name, request_)
            assert answer.error is ErrorCode.INVALID_GROUP_ID
        empty = await coordinator.request("", request_)
        may_be_empty = isinstance(request_, CheckCommit | Describe | Delete)
        assert (empty.error is ErrorCode.INVALID_GROUP_ID) is not may_be_empty

    run(test)


def test_a_join_of_an_invalid_name_makes_no_group() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert (await join(coordinator, "")).error is ErrorCode.INVALID_GROUP_ID
        assert (await join(coordinator, "g", session_timeout_ms=1)).error is ErrorCode.INVALID_SESSION_TIMEOUT
        assert (await join(coordinator, "g", "stranger")).error is ErrorCode.UNKNOWN_MEMBER_ID
        assert coordinator.list_groups() == []

    run(test)


def test_there_are_no_more_groups_than_there_may_be() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=CoordinatorLimits(groups_max=3))
        await stable(coordinator, "a")
        assert await commit(coordinator, rig, "b", 1) is NONE
        await join(coordinator, "c")
        assert (await join(coordinator, "d")).error is ErrorCode.GROUP_MAX_SIZE_REACHED
        assert await commit(coordinator, rig, "e", 1) is ErrorCode.INVALID_COMMIT_OFFSET_SIZE
        assert await commit(coordinator, rig, "b", 2) is NONE
        assert await coordinator.delete_groups(["b"]) == {"b": NONE}
        assert (await join(coordinator, "d")).error is ErrorCode.MEMBER_ID_REQUIRED

    run(test)


# Offsets


def test_committed_offsets_can_be_read_as_soon_as_they_are_acknowledged() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        assert await commit(coordinator, rig, "g", 7, members) is NONE
        assert await commit(coordinator, rig, "simple", 9) is NONE
        queries = [
            OffsetQuery("g", None),
            OffsetQuery("simple", [("t", 0), ("t", 1)]),
            OffsetQuery("none", None),
        ]
        answers = await coordinator.fetch_offsets([*queries, OffsetQuery("\0", None)])
        assert isinstance(answers[0], list)
        assert isinstance(answers[1], list)
        assert [row.offset for row in answers[0] + answers[1]] == [7, 9]
        assert answers[2:] == [[], ErrorCode.INVALID_GROUP_ID]
        assert [(group.group_id, group.state) for group in coordinator.list_groups()] == [
            ("g", "Stable"),
            ("simple", "Empty"),
        ]
        assert rig.events.commits == [1, 1]

    run(test)


def test_commits_of_those_who_may_not_are_refused_with_the_groups_error() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        rows = [rig.row("g", 1), rig.row("g", 1, 1)]
        for check, error in [
            (CheckCommit("", None, -1), ErrorCode.UNKNOWN_MEMBER_ID),
            (CheckCommit("stranger", None, members.generation), ErrorCode.UNKNOWN_MEMBER_ID),
            (CheckCommit(members.ids[0], None, members.generation + 1), ErrorCode.ILLEGAL_GENERATION),
        ]:
            assert await coordinator.commit_offsets("g", check, rows) == [error, error]
        unknown = await coordinator.commit_offsets("h", CheckCommit("m", None, 1), [rig.row("h", 1)])
        assert unknown == [ErrorCode.GROUP_ID_NOT_FOUND]
        assert rig.store.count("commit_offsets") == 0

    run(test)


def test_a_commit_that_had_to_wait_for_the_group_is_checked_against_what_the_group_became() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        rig.store.hold("save_groups")
        leaving = asyncio.ensure_future(leave(coordinator, "g", members.ids[0]))
        await turns()
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 7, members))
        await turns()
        rig.store.release("save_groups")
        assert await leaving == [NONE]
        assert await committing is ErrorCode.UNKNOWN_MEMBER_ID
        assert await rig.offset("g") is None

    run(test)


def test_a_reader_waits_for_commits_that_are_under_way() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("commit_offsets")
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 7))
        await turns()
        reading = asyncio.ensure_future(coordinator.fetch_offsets([OffsetQuery("g", None)]))
        others = await coordinator.fetch_offsets([OffsetQuery("other", None)])
        assert others == [[]]
        assert not reading.done()
        rig.store.release("commit_offsets")
        [rows] = await reading
        assert isinstance(rows, list)
        assert [row.offset for row in rows] == [7]
        assert await committing is NONE

    run(test)


def test_a_reader_waits_for_a_commit_that_its_sender_has_given_up() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("commit_offsets")
        assert await commit(coordinator, rig, "g", 7) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        reading = asyncio.ensure_future(coordinator.fetch_offsets([OffsetQuery("g", None)]))
        await asyncio.sleep(1)
        assert not reading.done()
        rig.store.release("commit_offsets")
        [rows] = await reading
        assert isinstance(rows, list)
        assert [row.offset for row in rows] == [7]

    run(test)


def test_a_group_is_removed_after_its_commits_under_way() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert await commit(coordinator, rig, "g", 1) is NONE
        rig.store.hold("commit_offsets")
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 2))
        new = asyncio.ensure_future(commit(coordinator, rig, "new", 2))
        await turns()
        removing = asyncio.ensure_future(coordinator.delete_groups(["g", "new", "none"]))
        deleting = coordinator.request("g", Delete())
        await turns()
        assert rig.store.count("delete_groups") == 0
        rig.store.release("commit_offsets")
        assert [await committing, await new] == [NONE, NONE]
        assert (await deleting).error is NONE
        assert await removing == {
            "g": ErrorCode.GROUP_ID_NOT_FOUND,
            "new": NONE,
            "none": ErrorCode.GROUP_ID_NOT_FOUND,
        }
        assert [await rig.offset("g"), await rig.offset("new")] == [None, None]
        assert coordinator.list_groups() == []

    run(test)


def test_a_commit_that_waits_before_the_removal_of_its_group_does_not_bring_it_back() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        rig.store.hold("save_groups")

        async def leave_and_remove() -> None:
            assert await leave(coordinator, "g", *members.ids) == [NONE]
            assert (await coordinator.request("g", Delete())).error is NONE

        removing = asyncio.ensure_future(leave_and_remove())
        await turns()
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 1))
        await turns()
        rig.store.release("save_groups")
        await removing
        assert await committing is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await rig.stored("g") is None
        assert coordinator.list_groups() == []

    run(test)


def test_commits_that_come_while_a_group_is_being_removed_do_not_bring_it_back() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert await commit(coordinator, rig, "g", 1) is NONE
        rig.store.hold("delete_groups")
        deleting = coordinator.request("g", Delete())
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 2))
        await turns()
        rig.store.release("delete_groups")
        assert (await deleting).error is NONE
        assert await committing is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await rig.stored("g") is None
        assert await commit(coordinator, rig, "g", 3) is NONE
        assert await rig.offset("g") == 3

    run(test)


def test_offsets_of_topics_in_use_can_not_be_deleted() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        subscribing = (("range", b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"),)
        members = await stable(coordinator, protocols=subscribing)
        rows = [rig.row("g", 1)]
        check = CheckCommit(members.ids[0], None, members.generation)
        assert await coordinator.commit_offsets("g", check, rows) == [NONE]
        deleted = await coordinator.delete_offsets("g", [("t", 0), ("nope", 0)])
        assert deleted == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
        assert await coordinator.delete_offsets("none", [("t", 0)]) is ErrorCode.GROUP_ID_NOT_FOUND
        assert await coordinator.delete_offsets("", [("t", 0)]) is ErrorCode.INVALID_GROUP_ID
        assert await coordinator.delete_groups(["g"]) == {"g": ErrorCode.NON_EMPTY_GROUP}
        assert await leave(coordinator, "g", members.ids[0]) == [NONE]
        assert await coordinator.delete_offsets("g", [("t", 0)]) == [NONE]
        assert await rig.offset("g") is None
        await stable(coordinator, protocol_type="connect")
        assert await coordinator.delete_offsets("g", [("t", 0)]) is ErrorCode.NON_EMPTY_GROUP

    run(test)


def test_a_cancelled_commit_holds_up_nobody() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("commit_offsets")
        committing = asyncio.ensure_future(commit(coordinator, rig, "g", 7))
        await turns()
        committing.cancel()
        await turns()
        rig.store.release("commit_offsets")
        assert await coordinator.fetch_offsets([OffsetQuery("h", None)]) == [[]]
        await turns()
        # It was done all the same, but nobody was told; so nobody counts on the group before it has been looked for.
        assert await rig.offset("g") == 7
        await coordinator.upkeep.run_once()
        assert [group.group_id for group in coordinator.list_groups()] == ["g"]

    run(test)


def test_answers_come_of_the_kind_that_was_asked_for() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        answer = await coordinator.request("g", Heartbeat("m", None, 1))
        assert answer == CodeAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
        described = await coordinator.request("g", Describe())
        assert (described.error, described.state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
        left = await coordinator.request("g", Leave((Leaver("m"),)))
        assert [one.error for one in left.members] == [ErrorCode.UNKNOWN_MEMBER_ID]

    run(test)

"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup in every version, over the wire: answers, errors, and rude clients."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.broker.groups import (
    AT_ONCE,
    Member,
    let_in,
    member_of,
    protocols,
    share_out,
    stable_group,
    state_of,
    until_state,
)
from tests.broker.support import MIB, Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.protocol.messages.groups import (
    JoinGroupRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
)


@pytest.mark.parametrize("version", range(10))
def test_a_member_joins_syncs_lives_and_leaves_in_every_version(
    with_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", version=version)
        answer = await member.joined(member.send_join())
        if version >= 4:
            assert (answer.error_code, answer.generation_id) == (ErrorCode.MEMBER_ID_REQUIRED, -1)
            assert (answer.leader, answer.members) == ("", [])
            assert answer.protocol_name == (None if version >= 7 else "")
            member.id = answer.member_id
            answer = await member.joined(member.send_join())
        assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, 1)
        assert answer.member_id == answer.leader == member.id
        assert member.id.startswith("raw-")
        assert answer.protocol_name == "range"
        assert answer.protocol_type == ("consumer" if version >= 7 else None)
        assert not answer.skip_assignment
        (told,) = answer.members
        assert (told.member_id, told.group_instance_id, told.metadata) == (member.id, None, b"metadata")
        synced = await member.sync({member.id: b"share"})
        assert (synced.error_code, synced.assignment) == (ErrorCode.NONE, b"share")
        assert synced.protocol_name == ("range" if version >= 5 else None)
        assert (await member.sync()).assignment == b"share"
        assert await member.heartbeat() == ErrorCode.NONE
        assert await member.leave() == ErrorCode.NONE
        assert await member.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID

    with_broker(test, **AT_ONCE)


def test_the_leader_hears_of_all_members_and_each_gets_its_share(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        one, two = await member_of(broker, "g", "i-1"), await member_of(broker, "g")
        await let_in(one, [])
        assert (await one.sync({one.id: b"all"})).assignment == b"all"
        of_two, of_one = await let_in(two, [one])
        assert of_one.leader == of_two.leader == one.id
        assert of_two.members == []
        assert {(each.member_id, each.group_instance_id) for each in of_one.members} == {
            (one.id, "i-1"),
            (two.id, None),
        }
        assert one.generation == two.generation == 2
        waiting = asyncio.ensure_future(two.sync())
        await share_out([one, two][:1])
        assert (await waiting).assignment == b""  # The leader left it out.

    with_memory_broker(test, **AT_ONCE)


def test_a_member_learns_of_a_rebalance_by_its_heartbeat(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        two = await member_of(broker, "g", "i-2")
        number = two.send_join()
        await until_state(one.client, "g", "PreparingRebalance")
        assert await one.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
        assert (await one.sync()).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        again = one.send_join()
        assert (await two.joined(number)).error_code == (await one.joined(again)).error_code == 0
        assert await one.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


# Errors.

JOIN_ERRORS: dict[str, tuple[dict[str, Any], ErrorCode]] = {
    "session timeout too short": ({"session_timeout_ms": 5_999}, ErrorCode.INVALID_SESSION_TIMEOUT),
    "session timeout too long": ({"session_timeout_ms": 1_800_001}, ErrorCode.INVALID_SESSION_TIMEOUT),
    "no group id": ({"group_id": ""}, ErrorCode.INVALID_GROUP_ID),
    "a group id too long": ({"group_id": "g" * 1025}, ErrorCode.INVALID_GROUP_ID),
    "a group id with NUL": ({"group_id": "g\0"}, ErrorCode.INVALID_GROUP_ID),
    "no protocol type": ({"protocol_type": ""}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    "no protocols": ({"protocols": []}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    "a protocol twice": (
        {"protocols": protocols(("range", b"1"), ("range", b"2"))},
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
    ),
    "a protocol's name too long": (
        {"protocols": protocols(("r" * 250, b""))},
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
    ),
    "metadata too large": (
        {"protocols": protocols(("range", bytes(MIB + 1)))},
        ErrorCode.MESSAGE_TOO_LARGE,
    ),
    "an instance id too long": ({"group_instance_id": "i" * 250}, ErrorCode.INVALID_REQUEST),
    "an id that nobody has": ({"member_id": "nobody"}, ErrorCode.UNKNOWN_MEMBER_ID),
}


@pytest.mark.parametrize("version", [5, 9])
@pytest.mark.parametrize("what", JOIN_ERRORS)
def test_a_join_that_is_refused_says_why_and_leaves_no_group(
    with_memory_broker: RunWithBroker, what: str, version: int
) -> None:
    changes, error = JOIN_ERRORS[what]

    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", version=version)
        answer = await member.joined(member.send_join(**changes))
        assert (answer.error_code, answer.generation_id, answer.members) == (error, -1, [])
        assert answer.member_id == changes.get("member_id", "")
        assert answer.protocol_name == (None if version >= 7 else "")
        assert await state_of(member.client, "g") == "Dead"

    with_memory_broker(test, **AT_ONCE)


@pytest.mark.parametrize(
    "changes",
    [{"protocol_type": "connect"}, {"protocols": protocols(("roundrobin", b""))}],
    ids=["another type", "no protocol in common"],
)
def test_a_member_that_does_not_fit_in_is_refused_and_the_others_stay(
    with_memory_broker: RunWithBroker, changes: dict[str, Any]
) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        two = await member_of(broker, "g", version=3)
        answer = await two.joined(two.send_join(**changes))
        assert answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert await one.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


def test_a_group_that_is_full_takes_no_more(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        for version in (3, 9):
            other = await member_of(broker, "g", version=version)
            answer = await other.joined(other.send_join())
            assert answer.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
        assert await one.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE, group_members_max="1")


@pytest.mark.parametrize("group", ["g", "unknown"])
def test_members_and_groups_that_nobody_knows(with_memory_broker: RunWithBroker, group: str) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        stranger = Member(one.client, group)
        stranger.id, stranger.generation = "stranger", 1
        assert await stranger.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
        assert (await stranger.sync()).error_code == ErrorCode.UNKNOWN_MEMBER_ID
        assert await stranger.leave() == ErrorCode.UNKNOWN_MEMBER_ID
        stranger.version = 2
        assert await stranger.leave() == ErrorCode.UNKNOWN_MEMBER_ID
        assert await one.heartbeat() == ErrorCode.NONE
        assert await state_of(one.client, "unknown") == "Dead"

    with_memory_broker(test, **AT_ONCE)


@pytest.mark.parametrize("generation", [-1, 0, 2, 2**31 - 1])
def test_another_generation_is_refused(with_memory_broker: RunWithBroker, generation: int) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        assert await one.heartbeat(generation_id=generation) == ErrorCode.ILLEGAL_GENERATION
        assert (await one.sync(generation_id=generation)).error_code == ErrorCode.ILLEGAL_GENERATION
        assert await one.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


@pytest.mark.parametrize(
    ("version", "error"), [(4, ErrorCode.NONE), (5, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)]
)
@pytest.mark.parametrize("changes", [{"protocol_type": "connect"}, {"protocol_name": "sticky"}])
def test_a_sync_for_another_protocol_is_refused_where_it_says_so(
    with_memory_broker: RunWithBroker, version: int, error: ErrorCode, changes: dict[str, Any]
) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g")
        answer = await one.client.ask(one.sync_request(**changes), version)
        assert answer.error_code == error
        assert answer.assignment == (b"" if error else b"share 0")

    with_memory_broker(test, **AT_ONCE)


def test_an_assignment_that_is_too_large_is_refused_and_a_smaller_one_taken(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        one = await member_of(broker, "g")
        assert (await one.join()).error_code == ErrorCode.NONE
        assert (await one.sync({one.id: bytes(MIB + 1)})).error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert (await one.sync({one.id: bytes(MIB)})).assignment == bytes(MIB)

    with_memory_broker(test, **AT_ONCE)


def test_a_leader_gets_large_metadata_and_gives_the_memory_back(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        large = protocols(("range", bytes(MIB)))
        members = await stable_group(broker, "g", "a", "b", "c", protocols=large)
        assert await members[2].heartbeat() == ErrorCode.NONE
        # beside_agent() sees that no memory is held when the clients are gone.

    with_memory_broker(test, **AT_ONCE)


def test_a_silent_member_is_out_and_one_that_lives_stays(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (alive,) = await stable_group(broker, "g", "a")
        silent = await member_of(broker, "g", "b")
        number = silent.send_join(session_timeout_ms=100)
        await until_state(alive.client, "g", "PreparingRebalance")
        assert len((await alive.join()).members) == 2
        assert (await silent.joined(number)).error_code == ErrorCode.NONE
        await until_state(alive.client, "g", "PreparingRebalance")
        assert await alive.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
        answer = await alive.join()
        assert [each.member_id for each in answer.members] == [alive.id]
        assert await silent.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID

    with_memory_broker(test, **AT_ONCE, group_session_min_ms="100ms")


# Static members.


def test_a_static_member_that_is_replaced_is_fenced(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (old,) = await stable_group(broker, "g", "i")
        new = await member_of(broker, "g", "i")
        answer = await new.join()
        assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, old.generation)
        assert answer.skip_assignment
        assert answer.leader == new.id != old.id
        assert [each.member_id for each in answer.members] == [new.id]
        assert (await new.sync()).assignment == b"share 0"
        assert await old.heartbeat() == ErrorCode.FENCED_INSTANCE_ID
        assert (await old.sync()).error_code == ErrorCode.FENCED_INSTANCE_ID
        assert (await old.joined(old.send_join())).error_code == ErrorCode.FENCED_INSTANCE_ID
        assert await old.leave() == ErrorCode.FENCED_INSTANCE_ID
        assert await old.commit(await broker.topic()) == ErrorCode.FENCED_INSTANCE_ID
        assert await new.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


def test_a_leader_that_returns_below_version_9_is_told_that_it_follows(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        (old,) = await stable_group(broker, "g", "i")
        new = await member_of(broker, "g", "i", version=8)
        answer = await new.join()
        assert (answer.error_code, answer.leader, answer.members) == (ErrorCode.NONE, old.id, [])
        assert (await new.sync()).assignment == b"share 0"

    with_memory_broker(test, **AT_ONCE)


def test_an_administrator_removes_static_members_by_their_instances(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        one, two, three = await stable_group(broker, "g", "a", "b", None)
        admin = await broker.connect()
        leavers = [
            LeaveGroupMember(member_id="", group_instance_id="a", reason="away"),
            LeaveGroupMember(member_id=one.id, group_instance_id="b"),
            LeaveGroupMember(member_id="", group_instance_id="nobody"),
            LeaveGroupMember(member_id=three.id),
        ]
        answer = await admin.ask(LeaveGroupRequest(group_id="g", members=leavers), 5)
        assert answer.error_code == ErrorCode.NONE
        told = [(each.member_id, each.group_instance_id, each.error_code) for each in answer.members]
        assert told == [
            ("", "a", ErrorCode.NONE),
            (one.id, "b", ErrorCode.FENCED_INSTANCE_ID),
            ("", "nobody", ErrorCode.UNKNOWN_MEMBER_ID),
            (three.id, None, ErrorCode.NONE),
        ]
        assert await two.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
        assert await one.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID

    with_memory_broker(test, **AT_ONCE)


def test_what_clients_do_wrong_is_not_logged_as_our_fault(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g")
        for changes, _ in JOIN_ERRORS.values():
            await member.joined(member.send_join(**changes))
        (one,) = await stable_group(broker, "g")
        await one.heartbeat(generation_id=7)
        await one.sync(protocol_type="connect")
        await one.client.ask(
            JoinGroupRequest(
                group_id="g",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=-5,
                member_id="x",
                protocol_type="consumer",
                protocols=protocols(("range", b"\xff" * 100)),
            ),
            9,
        )
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert [record for record in caplog.records if record.exc_info] == []

    with caplog.at_level(logging.DEBUG, logger="warp"):
        with_memory_broker(test, **AT_ONCE)

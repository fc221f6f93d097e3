"""Members that are in a hurry or hang up: requests behind a JoinGroup, two of them at once, clients that are gone."""

from __future__ import annotations

import asyncio

import pytest

from tests.broker.groups import (
    AT_ONCE,
    Member,
    member_of,
    protocols,
    stable_group,
    until_state,
)
from tests.broker.support import MIB, Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.protocol import ApiKey, encode_request_frame
from warp.protocol.messages.groups import (
    HeartbeatRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
    SyncGroupRequest,
)

LONG = {"group_rebalance_delay_ms": "1m"}
"""The first member of a group waits longer than any test."""


def test_a_heartbeat_behind_a_join_is_answered_after_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (one,) = await stable_group(broker, "g", "a")
        two = await member_of(broker, "g", "b")
        number = two.send_join()
        behind = two.client.send(HeartbeatRequest(group_id="g", generation_id=2, member_id="?"), 4)
        await until_state(one.client, "g", "PreparingRebalance")
        assert (await one.join()).error_code == ErrorCode.NONE
        assert (await two.joined(number)).error_code == ErrorCode.NONE
        answer = await two.client.answer(ApiKey.HEARTBEAT, 4, behind)
        assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID

    with_memory_broker(test, **AT_ONCE)


def test_two_joins_on_one_connection_are_answered_one_after_the_other(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", "i")
        numbers = [member.send_join(), member.send_join()]
        first, second = [await member.joined(number) for number in numbers]
        assert first.error_code == second.error_code == ErrorCode.NONE
        # The second one came as a new incarnation of the instance.
        assert first.member_id != second.member_id
        assert await member.heartbeat() == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


def test_of_two_joins_of_one_member_on_two_connections_the_first_is_told_to_try_again(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        one, other = await stable_group(broker, "g", "a", "b")
        number = one.send_join()
        await until_state(other.client, "g", "PreparingRebalance")
        twin = Member(await broker.connect(), "g", "a")
        twin.id = one.id
        again = twin.send_join()
        assert (await one.joined(number)).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        assert (await other.join()).error_code == ErrorCode.NONE
        assert (await twin.joined(again)).error_code == ErrorCode.NONE

    with_memory_broker(test, **AT_ONCE)


@pytest.mark.parametrize("rudely", [False, True], ids=["closing", "resetting"])
def test_a_client_that_hangs_up_while_it_waits_leaves_nothing_but_its_membership(
    with_broker: RunWithBroker, rudely: bool
) -> None:
    async def test(broker: Broker) -> None:
        watcher = await broker.connect()
        for _ in range(3):
            member = await member_of(broker, "g", version=3)
            member.send_join(protocols=protocols(("range", bytes(100_000))))
            member.send_join(member_id="behind it")
            await until_state(watcher, "g", "PreparingRebalance")
            await until_connections(broker, 2)
            if rudely:
                member.client.writer.transport.abort()
            else:
                await member.client.close()
            await until_connections(broker, 1)
        assert broker.agent.log.request_memory.used_bytes < 10_000
        (overview,) = broker.agent.groups.coordinator.list_groups()
        assert (overview.state, overview.members) == ("PreparingRebalance", 3)

    with_broker(test, **LONG)


def test_members_that_wait_hold_no_memory_of_requests(with_memory_broker: RunWithBroker) -> None:
    """They may wait for minutes: else a few of them, with large frames, would keep everybody else from being heard."""

    async def test(broker: Broker) -> None:
        memory = broker.agent.log.request_memory
        for _ in range(3):
            member = await member_of(broker, "g", version=3)
            frame = b"".join(encode_request_frame(1, "raw", member.join_request(), 3))
            # Whatever follows the body belongs to the request, and is not looked at.
            frame = frame[4:] + bytes(40 * MIB)
            member.client.write(len(frame).to_bytes(4, "big") + frame)
        async with asyncio.timeout(20):
            coordinator = broker.agent.groups.coordinator
            while [one.members for one in coordinator.list_groups()] != [3]:  # noqa: ASYNC110  as below
                await asyncio.sleep(0.001)
        assert memory.used_bytes < MIB

    with_memory_broker(test, request_memory_bytes_max="100MiB", request_bytes_max="50MiB", **LONG)


def test_a_follower_that_waits_holds_no_memory_of_its_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        leader, follower = await member_of(broker, "g"), await member_of(broker, "g")
        await leader.join()
        rejoining = asyncio.ensure_future(follower.join())
        await until_state(await broker.connect(), "g", "PreparingRebalance")
        await leader.join()
        await rejoining
        number = follower.client.send(follower.sync_request({"nobody": bytes(4 * MIB)}), 5)
        assert await leader.heartbeat() == ErrorCode.NONE
        async with asyncio.timeout(20):
            while broker.agent.log.request_memory.used_bytes > MIB:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.001)
        assert (await leader.sync({follower.id: b"share"})).error_code == ErrorCode.NONE
        answer = await follower.client.answer(SyncGroupRequest.api, 5, number)
        assert answer.assignment == b"share"

    with_memory_broker(test, **AT_ONCE)


@pytest.mark.parametrize("rudely", [False, True], ids=["closing", "resetting"])
def test_a_client_that_leaves_and_hangs_up_while_it_waits_has_left(
    with_memory_broker: RunWithBroker, rudely: bool
) -> None:
    async def test(broker: Broker) -> None:
        watcher = await broker.connect()
        member = await member_of(broker, "g")
        member.id = (await member.joined(member.send_join())).member_id
        member.send_join()
        leaver = LeaveGroupMember(member_id=member.id)
        member.client.send(LeaveGroupRequest(group_id="g", members=[leaver]), 5)
        if rudely:
            await member.client.writer.drain()
            await until_state(watcher, "g", "PreparingRebalance")
            member.client.writer.transport.abort()
        else:
            await member.client.close()
        await until_connections(broker, 1)
        assert [each.members for each in broker.agent.groups.coordinator.list_groups()] in ([], [0])

    with_memory_broker(test, **LONG)


def test_a_client_that_sends_nothing_more_and_waits_is_hung_up_on(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", version=3)
        member.send_join()
        member.client.writer.write_eof()
        assert await member.client.is_closed()

    with_memory_broker(test, **LONG)


async def until_connections(broker: Broker, count: int) -> None:
    async with asyncio.timeout(20):
        while broker.agent.server.connection_count != count:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)


def test_a_stopping_agent_answers_members_that_wait(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", version=3)
        number = member.send_join()
        await until_state(await broker.connect(), "g", "PreparingRebalance")
        stopping = asyncio.ensure_future(broker.agent.stop(10))
        answer = await member.joined(number)
        assert answer.error_code == ErrorCode.NOT_COORDINATOR
        assert await stopping

    with_memory_broker(test, **LONG)

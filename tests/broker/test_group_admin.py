"""FindCoordinator, ListGroups, DescribeGroups and DeleteGroups over the wire: what tools see of groups."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.groups import (
    AT_ONCE,
    commit_request,
    fetch_group,
    fetched,
    member_of,
    protocols,
    stable_group,
    until_state,
)
from tests.broker.support import MIB, Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.handlers.group_admin import NAMES_MAX
from warp.handlers.groups import client_host
from warp.handlers.operations import GROUP_OPERATIONS
from warp.protocol import Request
from warp.protocol.messages.group_offsets import OffsetFetchRequest
from warp.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
    ListGroupsRequest,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED

GROUP, TRANSACTION, SHARE = 0, 1, 2


# FindCoordinator.


@pytest.mark.parametrize("version", range(7))
@pytest.mark.parametrize("key", ["g", "", "größe", "g" * 2000])
def test_this_agent_coordinates_every_group(
    with_memory_broker: RunWithBroker, version: int, key: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        if version < 4:
            found = await client.ask(FindCoordinatorRequest(key=key), version)
        else:
            answer = await client.ask(FindCoordinatorRequest(coordinator_keys=[key, "other", key]), version)
            assert [one.key for one in answer.coordinators] == [key, "other"]
            found = answer.coordinators[0]
        assert (found.error_code, found.node_id) == (ErrorCode.NONE, broker.agent.broker_id)
        assert (found.host, found.port) == ("127.0.0.1", broker.port)

    with_memory_broker(test)


@pytest.mark.parametrize("version", [1, 3, 4, 6])
@pytest.mark.parametrize(
    ("key_type", "error"),
    [
        (TRANSACTION, ErrorCode.NONE),
        (SHARE, ErrorCode.INVALID_REQUEST),
        (7, ErrorCode.INVALID_REQUEST),
        (-1, ErrorCode.INVALID_REQUEST),
    ],
)
def test_transactional_ids_are_found_and_share_groups_are_not(
    with_memory_broker: RunWithBroker, version: int, key_type: int, error: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        if version < 4:
            found = await client.ask(FindCoordinatorRequest(key="t", key_type=key_type), version)
        else:
            request = FindCoordinatorRequest(coordinator_keys=["t"], key_type=key_type)
            (found,) = (await client.ask(request, version)).coordinators
        assert found.error_code == error
        if error:
            assert (found.node_id, found.host, found.port) == (-1, "", -1)
            assert "kind" in found.error_message
        else:
            assert found.port == broker.port

    with_memory_broker(test)


# ListGroups.


async def listed(client: Client, version: int, **filters: list[str]) -> dict[str, tuple[str, str, str]]:
    """Protocol type, state and type of each group."""
    answer = await client.ask(ListGroupsRequest(**filters), version)
    assert answer.error_code == ErrorCode.NONE
    return {
        group.group_id: (group.protocol_type, group.group_state, group.group_type) for group in answer.groups
    }


@pytest.mark.parametrize("version", range(6))
def test_groups_are_listed_with_what_the_version_can_tell(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await listed(client, version) == {}
        (member,) = await stable_group(broker, "live")
        await member.client.ask(commit_request("simple", {await broker.topic(): {0: 1}}), 9)
        state = {"live": "Stable", "simple": "Empty"} if version >= 4 else {}
        group_type = "classic" if version >= 5 else ""
        assert await listed(client, version) == {
            "live": ("consumer", state.get("live", ""), group_type),
            "simple": ("", state.get("simple", ""), group_type),
        }

    with_broker(test, **AT_ONCE)


def test_lists_are_filtered_by_state_and_type(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        (member,) = await stable_group(broker, "live")
        client = member.client
        await client.ask(commit_request("simple", {await broker.topic(): {0: 1}}), 9)
        both = {"live", "simple"}
        chosen: list[tuple[dict[str, list[str]], set[str]]] = [
            ({"states_filter": ["stable"]}, {"live"}),
            ({"states_filter": ["EMPTY"]}, {"simple"}),
            ({"states_filter": ["Empty", "Stable", "Nonsense"]}, both),
            ({"states_filter": ["Nonsense"]}, set()),
            ({"types_filter": ["Classic"]}, both),
            ({"types_filter": ["consumer", "share"]}, set()),
            ({"states_filter": ["Stable"], "types_filter": ["classic", "share"]}, {"live"}),
        ]
        for filters, names in chosen:
            assert (await listed(client, 5, **filters)).keys() == names, filters

    with_memory_broker(test, **AT_ONCE)


# DescribeGroups.


@pytest.mark.parametrize("version", range(7))
def test_a_live_group_is_described_with_its_members(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        members = await stable_group(broker, "g", "i", None)
        client = await broker.connect()
        asked = version >= 3
        request = DescribeGroupsRequest(groups=["g"], include_authorized_operations=asked)
        (group,) = (await client.ask(request, version)).groups
        assert (group.error_code, group.group_id, group.group_state) == (0, "g", "Stable")
        assert (group.protocol_type, group.protocol_data) == ("consumer", "range")
        assert group.authorized_operations == (GROUP_OPERATIONS if asked else AUTHORIZED_OPERATIONS_OMITTED)
        told = {
            each.member_id: (
                each.group_instance_id,
                each.client_id,
                each.client_host,
                each.member_metadata,
                each.member_assignment,
            )
            for each in group.members
        }
        rest = ("raw", "/127.0.0.1", b"metadata")
        assert told == {
            members[0].id: ("i" if version >= 4 else None, *rest, b"share 0"),
            members[1].id: (None, *rest, b"share 1"),
        }

    with_broker(test, **AT_ONCE)


@pytest.mark.parametrize("version", range(7))
def test_an_unknown_group_is_dead_or_not_found_by_version(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        answer = await client.ask(DescribeGroupsRequest(groups=["a", "b", "a"]), version)
        assert [group.group_id for group in answer.groups] == ["a", "b"]
        for group in answer.groups:
            assert (group.group_state, group.protocol_type, group.members) == ("Dead", "", [])
            if version < 6:
                assert (group.error_code, group.error_message) == (ErrorCode.NONE, None)
            else:
                assert group.error_code == ErrorCode.GROUP_ID_NOT_FOUND
                assert group.error_message == f"Group {group.group_id} not found."

    with_memory_broker(test)


def test_a_group_on_its_way_shows_neither_metadata_nor_assignment(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g", "i")
        await member.join()
        (group,) = (await member.client.ask(DescribeGroupsRequest(groups=["g"]), 6)).groups
        assert (group.group_state, group.protocol_data) == ("CompletingRebalance", "")
        (told,) = group.members
        assert (told.member_metadata, told.member_assignment) == (b"", b"")

    with_memory_broker(test, **AT_ONCE)


def test_a_group_too_large_for_the_memory_of_answers_is_told_alone(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        large: dict[str, Any] = {"protocols": protocols(("range", bytes(MIB)))}
        for group in ("a", "b"):
            await stable_group(broker, group, *(f"i-{number}" for number in range(9)), **large)
        client = await broker.connect()
        first, second = (await client.ask(DescribeGroupsRequest(groups=["a", "b"]), 6)).groups
        assert (first.error_code, len(first.members)) == (ErrorCode.NONE, 9)
        assert (second.error_code, second.members) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, [])
        (group,) = (await client.ask(DescribeGroupsRequest(groups=["b"]), 6)).groups
        assert (group.error_code, len(group.members)) == (ErrorCode.NONE, 9)

    with_memory_broker(test, **AT_ONCE, fetch_memory_bytes_max="16MiB")


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1:50000", "/127.0.0.1"), ("[::1]:50000", "/::1"), ("a local peer", "/a local peer")],
)
def test_the_host_of_a_client_is_told_as_kafka_tells_it(address: str, host: str) -> None:
    assert client_host(address) == host


# DeleteGroups.


@pytest.mark.parametrize("version", range(3))
def test_groups_are_deleted_when_nobody_is_in_them(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        (member,) = await stable_group(broker, "live")
        client = member.client
        await client.ask(commit_request("simple", {topic: {0: 1}}), 9)
        names = ["live", "simple", "unknown", "g\0", "simple"]
        answer = await client.ask(DeleteGroupsRequest(groups_names=names), version)
        assert {result.group_id: result.error_code for result in answer.results} == {
            "live": ErrorCode.NON_EMPTY_GROUP,
            "simple": ErrorCode.NONE,
            "unknown": ErrorCode.GROUP_ID_NOT_FOUND,
            "g\0": ErrorCode.INVALID_GROUP_ID,
        }
        assert len(answer.results) == 4
        assert await fetched(client, "simple") == {}
        assert await member.heartbeat() == ErrorCode.NONE
        assert await member.leave() == ErrorCode.NONE
        await until_state(client, "live", "Empty")
        answer = await client.ask(DeleteGroupsRequest(groups_names=["live"]), version)
        assert [result.error_code for result in answer.results] == [ErrorCode.NONE]
        assert await listed(client, 5) == {}

    with_broker(test, **AT_ONCE)


# Requests that name too much.


def leaver(member_id: str) -> LeaveGroupMember:
    return LeaveGroupMember(member_id=member_id)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda names: (FindCoordinatorRequest(coordinator_keys=names), 6),
        lambda names: (DescribeGroupsRequest(groups=names), 6),
        lambda names: (DeleteGroupsRequest(groups_names=names), 2),
        lambda names: (LeaveGroupRequest(group_id="g", members=list(map(leaver, names))), 5),
    ],
    ids=["find", "describe", "delete", "leave"],
)
def test_more_names_than_an_agent_has_groups_close_the_connection(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture, request_of: Any
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        request: tuple[Request, int] = request_of([str(number) for number in range(NAMES_MAX + 1)])
        client.send(*request)
        assert await client.is_closed()
        (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert f"{NAMES_MAX + 1} names in one request" in told.getMessage()

    with caplog.at_level(logging.INFO, logger="warp"):
        with_memory_broker(test)


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        ("request", lambda names: (DescribeGroupsRequest(groups=names), 5)),
        ("request", lambda names: (DeleteGroupsRequest(groups_names=names), 2)),
        (
            "fetch_offsets",
            lambda names: (
                OffsetFetchRequest(groups=[fetch_group(one, {}) for one in names], require_stable=False),
                8,
            ),
        ),
    ],
    ids=["describe", "delete", "fetch"],
)
def test_a_request_about_many_groups_leaves_others_their_turn(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch, method: str, request_of: Any
) -> None:
    """Else one request of a tool could hold up all members' heartbeats."""
    names = [str(number) for number in range(4_000)]

    async def test(broker: Broker) -> None:
        coordinator = broker.agent.groups.coordinator
        asked, most = 0, 0
        ask = getattr(coordinator, method)

        def counted(first: Any, *others: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1 if isinstance(first, str) else len(first)
            return ask(first, *others, **options)

        async def watch() -> None:
            nonlocal most
            seen = 0
            while True:
                most, seen = max(most, asked - seen), asked
                await asyncio.sleep(0)

        monkeypatch.setattr(coordinator, method, counted)
        watcher = asyncio.ensure_future(watch())
        client = await broker.connect()
        await client.ask(*request_of(names))
        watcher.cancel()
        assert asked == len(names)
        assert most <= 1_000

    with_memory_broker(test)

"""What is told late, or beside the point: answers that have waited, and names that nobody has asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.broker.authorization import ENFORCED, allow, make_topic, put_in_force
from tests.broker.client import Client
from tests.broker.groups import Member
from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.groups.model import Leave, Leaver, Sync
from warp.protocol.messages.configs import ListConfigResourcesRequest
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest
from warp.protocol.types import AclOperation, AclPatternType, AclResourceType, ConfigResourceType

TOPIC, GROUP, CLUSTER = AclResourceType.TOPIC, AclResourceType.GROUP, AclResourceType.CLUSTER
READ, CREATE, DESCRIBE = AclOperation.READ, AclOperation.CREATE, AclOperation.DESCRIBE
DESCRIBE_CONFIGS = AclOperation.DESCRIBE_CONFIGS


async def until_group_is(broker: Broker, state: str) -> None:
    while [group.state for group in broker.agent.groups.coordinator.list_groups()] != [state]:  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.001)


def test_a_join_that_waits_tells_nothing_to_who_may_not_read_the_group_any_more(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        first, second = Member(await broker.connect(), "g"), Member(await broker.connect(), "g")
        await put_in_force(broker, allow(GROUP, READ, "g"))
        await first.join()
        await first.sync({first.id: b""})
        second.id = (await second.joined(second.send_join())).member_id
        waiting = second.send_join()
        await until_group_is(broker, "PreparingRebalance")
        await put_in_force(broker)
        await broker.agent.groups.coordinator.request("g", Leave((Leaver(first.id),)))
        answer = await second.joined(waiting)
        assert answer.error_code == ErrorCode.GROUP_AUTHORIZATION_FAILED
        assert (answer.members, answer.leader, answer.generation_id) == ([], "", -1)

    with_memory_broker(test, **ENFORCED)


def test_a_sync_that_waits_hands_no_assignment_to_who_may_not_read_the_group_any_more(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(broker: Broker) -> None:
        first, second = Member(await broker.connect(), "g"), Member(await broker.connect(), "g")
        await put_in_force(broker, allow(GROUP, READ, "g"))
        await first.join()
        await first.sync({first.id: b""})
        second.id = (await second.joined(second.send_join())).member_id
        waiting = second.send_join()
        await until_group_is(broker, "PreparingRebalance")
        await first.join()
        await second.joined(waiting)
        ask, has_come = broker.agent.groups.coordinator.request, asyncio.Event()

        def request_of_group(group_id: str, word: Any) -> Any:
            has_come.set()
            return ask(group_id, word)

        monkeypatch.setattr(broker.agent.groups.coordinator, "request", request_of_group)
        request = second.sync_request()
        number = second.client.send(request, 5)
        await has_come.wait()
        await put_in_force(broker)
        shares = [(second.id, b"secret")]
        await ask("g", Sync(first.id, None, first.generation, None, None, shares))
        answer = await second.client.answer(request.api, 5, number)
        assert (answer.error_code, answer.assignment) == (ErrorCode.GROUP_AUTHORIZATION_FAILED, b"")

    with_memory_broker(test, **ENFORCED)


def test_topics_with_configs_are_listed_to_who_may_know_of_them(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for name in ("a", "b", "c"):
            await make_topic(broker, name)

        async def listed() -> list[str]:
            request = ListConfigResourcesRequest(resource_types=[ConfigResourceType.TOPIC])
            answer = await client.ask(request, 1)
            assert answer.error_code == ErrorCode.NONE
            return [resource.resource_name for resource in answer.config_resources]

        cluster = allow(CLUSTER, DESCRIBE_CONFIGS)
        await put_in_force(broker, cluster)
        assert await listed() == []
        await put_in_force(broker, cluster, allow(TOPIC, READ, "a"), allow(TOPIC, DESCRIBE_CONFIGS, "c"))
        assert await listed() == ["a", "c"]
        await put_in_force(broker, cluster, allow(TOPIC, DESCRIBE, "*"))
        assert await listed() == ["a", "b", "c"]
        assert broker.agent.metrics.denied_requests.value("ListConfigResources") == 0

    with_memory_broker(test, **ENFORCED)


def test_the_topic_that_a_name_collides_with_is_named_to_who_may_know_of_it(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "pay.roll_x")
        create = allow(TOPIC, CREATE, "pay", pattern=AclPatternType.PREFIXED)
        for only_validate in (True, False):
            await put_in_force(broker, create)
            refused = await create_topic(client, "pay_roll.x", only_validate)
            assert refused.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
            assert "collides with another topic" in refused.error_message
            assert "pay.roll_x" not in refused.error_message
            await put_in_force(broker, create, allow(TOPIC, DESCRIBE, "pay.roll_x"))
            refused = await create_topic(client, "pay_roll.x", only_validate)
            assert "collides with pay.roll_x" in refused.error_message
        assert broker.agent.metrics.denied_requests.value("CreateTopics") == 0

    with_memory_broker(test, **ENFORCED)


async def create_topic(client: Client, name: str, only_validate: bool) -> Any:
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1, assignments=[], configs=[])
    [result] = (await client.ask(CreateTopicsRequest(topics=[topic], validate_only=only_validate), 7)).topics
    return result

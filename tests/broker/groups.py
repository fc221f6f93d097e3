"""Members of groups in words of a few letters: what a test says is what goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.broker.client import PATIENCE_S, Client
from tests.broker.support import Broker
from warp.errors import ErrorCode
from warp.ids import NO_TOPIC_ID
from warp.protocol.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestGroupTopic,
    OffsetFetchRequestTopic,
)
from warp.protocol.messages.groups import (
    DescribeGroupsRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupMember,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)

AT_ONCE = {"group_rebalance_delay_ms": "0ms"}
"""The setting of an agent whose groups don't wait for company."""

NEWEST = 9
"""Of JoinGroup; the other APIs of a member go along, each as far as it goes."""

NO_OFFSET = (-1, -1, "", 0)


class Member:
    """A member of a group, on a connection of its own. It remembers what it is told of itself."""

    def __init__(
        self, client: Client, group: str, instance: str | None = None, version: int = NEWEST
    ) -> None:
        self.client = client
        self.group = group
        self.instance = instance
        self.version = version
        self.id = ""
        self.generation = -1

    def join_request(self, **changes: Any) -> JoinGroupRequest:
        """A JoinGroup of this member."""
        given: dict[str, Any] = {
            "group_id": self.group,
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 30_000,
            "member_id": self.id,
            "group_instance_id": self.instance,
            "protocol_type": "consumer",
            "protocols": protocols(("range", b"metadata")),
            **changes,
        }
        return JoinGroupRequest(**given)

    def send_join(self, **changes: Any) -> int:
        """Send a JoinGroup; its correlation id, for `joined`."""
        return self.client.send(self.join_request(**changes), self.version)

    async def joined(self, correlation_id: int) -> Any:
        """The answer to a JoinGroup that was sent."""
        answer = await self.client.answer(JoinGroupRequest.api, self.version, correlation_id)
        if not answer.error_code:
            self.id, self.generation = answer.member_id, answer.generation_id
        return answer

    async def join(self, **changes: Any) -> Any:
        """Join, with the id that is asked for where that is asked for."""
        answer = await self.joined(self.send_join(**changes))
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED and not self.id:
            self.id = answer.member_id
            answer = await self.joined(self.send_join(**changes))
        return answer

    def sync_request(self, shares: dict[str, bytes] | None = None, **changes: Any) -> SyncGroupRequest:
        """A SyncGroup of this member, with the assignments of others if it is the leader."""
        assignments = [
            SyncGroupRequestAssignment(member_id=member_id, assignment=share)
            for member_id, share in (shares or {}).items()
        ]
        given: dict[str, Any] = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance if self.version >= 3 else None,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": assignments,
            **changes,
        }
        return SyncGroupRequest(**given)

    async def sync(self, shares: dict[str, bytes] | None = None, **changes: Any) -> Any:
        """Ask for the assignment."""
        return await self.client.ask(self.sync_request(shares, **changes), min(self.version, 5))

    def heartbeat_request(self, **changes: Any) -> HeartbeatRequest:
        """A Heartbeat of this member."""
        given: dict[str, Any] = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance if self.version >= 3 else None,
            **changes,
        }
        return HeartbeatRequest(**given)

    async def heartbeat(self, **changes: Any) -> int:
        """Say that it lives: the error code."""
        answer = await self.client.ask(self.heartbeat_request(**changes), min(self.version, 4))
        return int(answer.error_code)

    async def leave(self) -> int:
        """Leave the group: the error code."""
        version = min(self.version, 5)
        if version < 3:
            return int(
                (
                    await self.client.ask(LeaveGroupRequest(group_id=self.group, member_id=self.id), version)
                ).error_code
            )
        member = LeaveGroupMember(member_id=self.id, group_instance_id=self.instance)
        answer = await self.client.ask(LeaveGroupRequest(group_id=self.group, members=[member]), version)
        assert answer.error_code == 0
        return int(answer.members[0].error_code)

    async def commit(self, topic: str, offset: int = 1, version: int = 9, **changes: Any) -> int:
        """Commit an offset of partition 0: the error code."""
        given: dict[str, Any] = {
            "generation_id_or_member_epoch": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance,
            **changes,
        }
        request = commit_request(self.group, {topic: {0: offset}}, **given)
        return int((await self.client.ask(request, version)).topics[0].partitions[0].error_code)


def protocols(*named: tuple[str, bytes]) -> list[JoinGroupRequestProtocol]:
    """Protocols of a member, the preferred one first."""
    return [JoinGroupRequestProtocol(name=name, metadata=metadata) for name, metadata in named]


async def member_of(broker: Broker, group: str, instance: str | None = None, version: int = NEWEST) -> Member:
    """A member that has not joined yet."""
    return Member(await broker.connect(), group, instance, version)


async def stable_group(broker: Broker, group: str, *instances: str | None, **changes: Any) -> list[Member]:
    """A Stable group of members; the first one is its leader, and each one's assignment is `share N`."""
    members: list[Member] = []
    for instance in instances or (None,):
        members.append(await member_of(broker, group, instance))
        await let_in(members[-1], members[:-1], **changes)
    await share_out(members)
    return members


async def let_in(newcomer: Member, others: Sequence[Member], **changes: Any) -> list[Any]:
    """Let a member join, and the others again; the answers, its own first."""
    if newcomer.instance is None and newcomer.version >= 4:
        newcomer.id = (await newcomer.joined(newcomer.send_join(**changes))).member_id
    number = newcomer.send_join(**changes)
    if others:
        await until_state(others[0].client, newcomer.group, "PreparingRebalance")
    numbers = [other.send_join(**changes) for other in others]
    answers = [await newcomer.joined(number)]
    answers += [await other.joined(number) for other, number in zip(others, numbers, strict=True)]
    assert [answer.error_code for answer in answers] == [0] * len(answers), answers
    return answers


async def share_out(members: Sequence[Member]) -> None:
    """The first member brings everybody's assignment."""
    shares = {member.id: b"share %d" % number for number, member in enumerate(members)}
    answers = await asyncio.gather(*(member.sync(shares) for member in members))
    assert [answer.assignment for answer in answers] == list(shares.values())


def commit_request(
    group: str,
    offsets: dict[str, dict[int, int]] | dict[bytes, dict[int, int]],
    *,
    metadata: str | None = "",
    leader_epoch: int = -1,
    **fields: Any,
) -> OffsetCommitRequest:
    """An OffsetCommit by topic name, or by topic id when the keys are bytes; of a simple consumer, unless told."""
    topics = [
        OffsetCommitRequestTopic(
            name=topic if isinstance(topic, str) else "",
            topic_id=topic if isinstance(topic, bytes) else NO_TOPIC_ID,
            partitions=[
                OffsetCommitRequestPartition(
                    partition_index=index,
                    committed_offset=offset,
                    committed_leader_epoch=leader_epoch,
                    committed_metadata=metadata,
                )
                for index, offset in parts.items()
            ],
        )
        for topic, parts in offsets.items()
    ]
    return OffsetCommitRequest(group_id=group, topics=topics, **{"member_id": "", **fields})


def fetch_request(
    version: int, group: str, topics: dict[str, list[int]] | dict[bytes, list[int]] | None
) -> OffsetFetchRequest:
    """An OffsetFetch of one group, in the words of its version; None: of everything."""
    if version < 8:
        named = None
        if topics is not None:
            named = [
                OffsetFetchRequestTopic(name=str(name), partition_indexes=indexes)
                for name, indexes in topics.items()
            ]
        return OffsetFetchRequest(group_id=group, topics=named)
    return OffsetFetchRequest(groups=[fetch_group(group, topics)])


def fetch_group(
    group: str, topics: dict[str, list[int]] | dict[bytes, list[int]] | None
) -> OffsetFetchRequestGroup:
    """A group in an OffsetFetch of several."""
    if topics is None:
        return OffsetFetchRequestGroup(group_id=group, topics=None)
    return OffsetFetchRequestGroup(
        group_id=group,
        topics=[
            OffsetFetchRequestGroupTopic(
                name=topic if isinstance(topic, str) else "",
                topic_id=topic if isinstance(topic, bytes) else NO_TOPIC_ID,
                partition_indexes=indexes,
            )
            for topic, indexes in topics.items()
        ],
    )


def delete_request(group: str, topics: dict[str, list[int]]) -> OffsetDeleteRequest:
    """An OffsetDelete by topic and partition."""
    return OffsetDeleteRequest(
        group_id=group,
        topics=[
            OffsetDeleteRequestTopic(
                name=name,
                partitions=[OffsetDeleteRequestPartition(partition_index=index) for index in indexes],
            )
            for name, indexes in topics.items()
        ],
    )


def offsets_in(answer: Any) -> dict[tuple[Any, int], tuple[int, int, str, int]]:
    """Offset, leader epoch, metadata and error per topic (its name, or its id) and partition of a group."""
    return {
        (topic.name or getattr(topic, "topic_id", ""), partition.partition_index): (
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata,
            partition.error_code,
        )
        for topic in answer.topics
        for partition in topic.partitions
    }


async def fetched(
    client: Client, group: str, topics: dict[str, list[int]] | None = None
) -> dict[tuple[Any, int], tuple[int, int, str, int]]:
    """What a group has committed."""
    answer = await client.ask(fetch_request(9, group, topics), 9)
    (only,) = answer.groups
    assert only.error_code == 0
    return offsets_in(only)


async def state_of(client: Client, group: str) -> str:
    """The state of a group, as tools are told it."""
    answer = await client.ask(DescribeGroupsRequest(groups=[group]), 5)
    return str(answer.groups[0].group_state)


async def until_state(client: Client, group: str, state: str) -> None:
    """Wait until the group is in a state."""
    async with asyncio.timeout(PATIENCE_S):
        while await state_of(client, group) != state:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)

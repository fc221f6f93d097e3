"""The requests that simulated members of groups make, and what they need of the answers."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.sim.facts import Partition
from warp.protocol.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
)
from warp.protocol.messages.groups import (
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
)

FIND_COORDINATOR_VERSION = 3
SYNC_VERSION = 5
HEARTBEAT_VERSION = 4
LEAVE_VERSION = 4
COMMIT_VERSION = 8
OFFSET_FETCH_VERSION = 7
DESCRIBE_VERSION = 5


def find_coordinator(group_id: str) -> FindCoordinatorRequest:
    """Which agent serves the group?"""
    return FindCoordinatorRequest(key=group_id, key_type=0)


def subscription(topics: Sequence[str]) -> bytes:
    """ConsumerProtocolSubscription v0: what a member tells the leader."""
    names = b"".join(struct.pack(">h", len(topic)) + topic.encode() for topic in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", -1)


def share(plan: str, key: str, partitions: Iterable[Partition]) -> bytes:
    """What a leader sends a member: of which plan it is, whose, and the partitions. Opaque to the agent."""
    return "|".join([plan, key, " ".join(map(str, partitions))]).encode()


def read_share(data: bytes) -> tuple[str, str, list[Partition]]:
    """Plan, key and partitions."""
    plan, key, listed = data.decode().split("|")
    partitions = []
    for text in listed.split():
        topic, _, number = text.rpartition("-")
        partitions.append(Partition(topic, int(number)))
    return plan, key, partitions


def leave(group_id: str, member_id: str, instance_id: str | None) -> LeaveGroupRequest:
    """A member goes."""
    member = LeaveGroupMember(member_id=member_id, group_instance_id=instance_id)
    return LeaveGroupRequest(group_id=group_id, members=[member])


def commit(
    group_id: str, member_id: str, instance_id: str | None, generation: int, offsets: Mapping[Partition, int]
) -> OffsetCommitRequest:
    """Commit these offsets."""
    topics: dict[str, list[OffsetCommitRequestPartition]] = defaultdict(list)
    for partition, offset in offsets.items():
        topics[partition.topic].append(
            OffsetCommitRequestPartition(
                partition_index=partition.number, committed_offset=offset, committed_metadata=None
            )
        )
    return OffsetCommitRequest(
        group_id=group_id,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        group_instance_id=instance_id,
        topics=[OffsetCommitRequestTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )


def committed(response: Any) -> dict[Partition, int]:
    """Error code per partition."""
    return {
        Partition(topic.name, part.partition_index): part.error_code
        for topic in response.topics
        for part in topic.partitions
    }


def fetch_offsets(group_id: str, partitions: Iterable[Partition]) -> OffsetFetchRequest:
    """What has the group committed?"""
    topics: dict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        topics[partition.topic].append(partition.number)
    return OffsetFetchRequest(
        group_id=group_id,
        topics=[
            OffsetFetchRequestTopic(name=name, partition_indexes=found) for name, found in topics.items()
        ],
        require_stable=True,
    )


def fetched_offsets(response: Any) -> dict[Partition, int]:
    """Committed offset per partition, -1 where there is none."""
    return {
        Partition(topic.name, part.partition_index): part.committed_offset
        for topic in response.topics
        for part in topic.partitions
    }


def describe(group_id: str) -> DescribeGroupsRequest:
    """What does the group look like?"""
    return DescribeGroupsRequest(groups=[group_id])

"""The consumer group protocol of KIP-848, and what classic consumers put into their opaque metadata."""

from warp.protocol.schema import (
    Message,
    Request,
    Response,
    Struct,
    boolean,
    bytes_,
    field,
    int8,
    int16,
    int32,
    string,
    uuid,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, ApiKey


class ConsumerGroupOwnedTopic(Struct):
    topic_id: uuid
    partitions: list[int32]


class ConsumerGroupHeartbeatRequest(
    Request, api=ApiKey.CONSUMER_GROUP_HEARTBEAT, versions=(0, 1), flexible=0
):
    """Joins, leaves (epoch -1, static -2) and reports; null fields have not changed (KIP-848). From v1 on the client
    makes the member id (KIP-1082)."""

    group_id: string
    member_id: string
    member_epoch: int32
    instance_id: string | None = field(default=None)
    rack_id: string | None = field(default=None)
    rebalance_timeout_ms: int32 = field(default=-1)
    subscribed_topic_names: list[string] | None = field(default=None)
    subscribed_topic_regex: string | None = field(default=None, since=1)  # KIP-848
    server_assignor: string | None = field(default=None)
    topic_partitions: list[ConsumerGroupOwnedTopic] | None = field(default=None)


class ConsumerGroupAssignedTopic(Struct):
    topic_id: uuid
    partitions: list[int32]


class ConsumerGroupAssignment(Struct):
    topic_partitions: list[ConsumerGroupAssignedTopic]


class ConsumerGroupHeartbeatResponse(
    Response, api=ApiKey.CONSUMER_GROUP_HEARTBEAT, versions=(0, 1), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None = field(default=None)
    member_id: string | None = field(default=None)
    member_epoch: int32
    heartbeat_interval_ms: int32
    assignment: ConsumerGroupAssignment | None = field(default=None)


class ConsumerGroupDescribeRequest(Request, api=ApiKey.CONSUMER_GROUP_DESCRIBE, versions=(0, 1), flexible=0):
    """Describes groups of the new protocol (KIP-848)."""

    group_ids: list[string]
    include_authorized_operations: boolean


class DescribedAssignmentTopic(Struct):
    topic_id: uuid
    topic_name: string
    partitions: list[int32]


class DescribedAssignment(Struct):
    topic_partitions: list[DescribedAssignmentTopic]


class DescribedConsumerGroupMember(Struct):
    member_id: string
    instance_id: string | None = field(default=None)
    rack_id: string | None = field(default=None)
    member_epoch: int32
    client_id: string
    client_host: string
    subscribed_topic_names: list[string]
    subscribed_topic_regex: string | None = field(default=None)
    assignment: DescribedAssignment
    target_assignment: DescribedAssignment
    member_type: int8 = field(default=-1, since=1, ignorable=True)


class DescribedConsumerGroup(Struct):
    error_code: int16
    error_message: string | None = field(default=None)
    group_id: string
    group_state: string
    group_epoch: int32
    assignment_epoch: int32
    assignor_name: string
    members: list[DescribedConsumerGroupMember]
    authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED)


class ConsumerGroupDescribeResponse(
    Response, api=ApiKey.CONSUMER_GROUP_DESCRIBE, versions=(0, 1), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    groups: list[DescribedConsumerGroup]


class ConsumerProtocolSubscriptionTopicPartition(Struct):
    topic: string
    partitions: list[int32]


class ConsumerProtocolSubscription(Message, versions=(0, 3)):
    """What a consumer puts into the metadata of JoinGroup, after an int16 version."""

    topics: list[string]
    user_data: bytes_ | None = field(default=None)
    owned_partitions: list[ConsumerProtocolSubscriptionTopicPartition] = field(
        default_factory=list, since=1, ignorable=True
    )  # KIP-429
    generation_id: int32 = field(default=-1, since=2, ignorable=True)  # KIP-792
    rack_id: string | None = field(default=None, since=3, ignorable=True)  # KIP-881


class ConsumerProtocolAssignmentTopicPartition(Struct):
    topic: string
    partitions: list[int32]


class ConsumerProtocolAssignment(Message, versions=(0, 3)):
    """What a consumer gets as its assignment in SyncGroup, after an int16 version."""

    assigned_partitions: list[ConsumerProtocolAssignmentTopicPartition]
    user_data: bytes_ | None = field(default=None)

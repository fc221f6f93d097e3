"""CreateTopics, DeleteTopics, CreatePartitions, and the replica administration that tools expect."""

from warp.protocol.schema import Request, Response, Struct, boolean, field, int8, int16, int32, string, uuid
from warp.protocol.types import ApiKey


class CreatableReplicaAssignment(Struct):
    partition_index: int32
    broker_ids: list[int32]


class CreatableTopicConfig(Struct):
    name: string
    value: string | None


class CreatableTopic(Struct):
    name: string
    num_partitions: int32
    replication_factor: int16
    assignments: list[CreatableReplicaAssignment]
    configs: list[CreatableTopicConfig]


class CreateTopicsRequest(Request, api=ApiKey.CREATE_TOPICS, versions=(2, 7), flexible=5):
    """A count or factor of -1 asks for the default (KIP-464). v5 answers with partitions and configs (KIP-525), v7 with
    the topic id (KIP-516)."""

    topics: list[CreatableTopic]
    timeout_ms: int32 = field(default=60000)
    validate_only: boolean = field(default=False)


class CreatableTopicResultConfig(Struct):
    name: string
    value: string | None
    read_only: boolean
    config_source: int8 = field(default=-1)
    is_sensitive: boolean


class CreatableTopicResult(Struct):
    name: string
    topic_id: uuid = field(since=7, ignorable=True)
    error_code: int16
    error_message: string | None
    topic_config_error_code: int16 = field(default=0, since=5, tag=0, ignorable=True)  # KIP-525
    num_partitions: int32 = field(default=-1, since=5, ignorable=True)
    replication_factor: int16 = field(default=-1, since=5, ignorable=True)
    configs: list[CreatableTopicResultConfig] | None = field(default_factory=list, since=5, ignorable=True)


class CreateTopicsResponse(Response, api=ApiKey.CREATE_TOPICS, versions=(2, 7), flexible=5):
    throttle_time_ms: int32 = field(default=0)
    topics: list[CreatableTopicResult]


class DeleteTopicState(Struct):
    name: string | None = field(default=None)
    topic_id: uuid


class DeleteTopicsRequest(Request, api=ApiKey.DELETE_TOPICS, versions=(1, 6), flexible=4):
    """v6 names topics by name or id (KIP-516)."""

    topics: list[DeleteTopicState] = field(default_factory=list, since=6)
    topic_names: list[string] = field(default_factory=list, until=5, ignorable=True)
    timeout_ms: int32


class DeletableTopicResult(Struct):
    name: string | None = field(nullable=6)
    topic_id: uuid = field(since=6, ignorable=True)
    error_code: int16
    error_message: string | None = field(default=None, since=5, ignorable=True)


class DeleteTopicsResponse(Response, api=ApiKey.DELETE_TOPICS, versions=(1, 6), flexible=4):
    throttle_time_ms: int32 = field(default=0)
    responses: list[DeletableTopicResult]


class CreatePartitionsAssignment(Struct):
    broker_ids: list[int32]


class CreatePartitionsTopic(Struct):
    name: string
    count: int32
    assignments: list[CreatePartitionsAssignment] | None


class CreatePartitionsRequest(Request, api=ApiKey.CREATE_PARTITIONS, versions=(0, 3), flexible=2):
    """`count` is the new total. v3 may be answered THROTTLING_QUOTA_EXCEEDED (KIP-599)."""

    topics: list[CreatePartitionsTopic]
    timeout_ms: int32
    validate_only: boolean


class CreatePartitionsTopicResult(Struct):
    name: string
    error_code: int16
    error_message: string | None = field(default=None)


class CreatePartitionsResponse(Response, api=ApiKey.CREATE_PARTITIONS, versions=(0, 3), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    results: list[CreatePartitionsTopicResult]


class ElectLeadersTopic(Struct):
    topic: string
    partitions: list[int32]


class ElectLeadersRequest(Request, api=ApiKey.ELECT_LEADERS, versions=(0, 2), flexible=2):
    """v1 adds the type of election (KIP-460)."""

    election_type: int8 = field(default=0, since=1)  # KIP-460
    topic_partitions: list[ElectLeadersTopic] | None
    timeout_ms: int32 = field(default=60000)


class ElectLeadersPartitionResult(Struct):
    partition_id: int32
    error_code: int16
    error_message: string | None


class ElectLeadersTopicResult(Struct):
    topic: string
    partition_result: list[ElectLeadersPartitionResult]


class ElectLeadersResponse(Response, api=ApiKey.ELECT_LEADERS, versions=(0, 2), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16 = field(default=0, since=1)
    replica_election_results: list[ElectLeadersTopicResult]


class ReassignablePartition(Struct):
    partition_index: int32
    replicas: list[int32] | None = field(default=None)


class ReassignableTopic(Struct):
    name: string
    partitions: list[ReassignablePartition]


class AlterPartitionReassignmentsRequest(
    Request, api=ApiKey.ALTER_PARTITION_REASSIGNMENTS, versions=(0, 1), flexible=0
):
    """Moves replicas; null replicas cancel a move (KIP-455)."""

    timeout_ms: int32 = field(default=60000)
    allow_replication_factor_change: boolean = field(default=True, since=1)  # KIP-860
    topics: list[ReassignableTopic]


class ReassignablePartitionResponse(Struct):
    partition_index: int32
    error_code: int16
    error_message: string | None


class ReassignableTopicResponse(Struct):
    name: string
    partitions: list[ReassignablePartitionResponse]


class AlterPartitionReassignmentsResponse(
    Response, api=ApiKey.ALTER_PARTITION_REASSIGNMENTS, versions=(0, 1), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    allow_replication_factor_change: boolean = field(default=True, since=1, ignorable=True)  # KIP-860
    error_code: int16
    error_message: string | None
    responses: list[ReassignableTopicResponse]


class ListPartitionReassignmentsTopic(Struct):
    name: string
    partition_indexes: list[int32]


class ListPartitionReassignmentsRequest(
    Request, api=ApiKey.LIST_PARTITION_REASSIGNMENTS, versions=(0, 0), flexible=0
):
    """Moves of replicas under way; null asks for all topics (KIP-455)."""

    timeout_ms: int32 = field(default=60000)
    topics: list[ListPartitionReassignmentsTopic] | None = field(default=None)


class OngoingPartitionReassignment(Struct):
    partition_index: int32
    replicas: list[int32]
    adding_replicas: list[int32]
    removing_replicas: list[int32]


class OngoingTopicReassignment(Struct):
    name: string
    partitions: list[OngoingPartitionReassignment]


class ListPartitionReassignmentsResponse(
    Response, api=ApiKey.LIST_PARTITION_REASSIGNMENTS, versions=(0, 0), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    topics: list[OngoingTopicReassignment]

"""Metadata and DescribeTopicPartitions: which topics exist and whom to ask for their partitions."""

from warp.protocol.schema import (
    NO_UUID,
    Request,
    Response,
    Struct,
    boolean,
    field,
    int16,
    int32,
    string,
    uuid,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, ApiKey


class MetadataRequestTopic(Struct):
    topic_id: uuid = field(default=NO_UUID, since=10, ignorable=True)
    name: string | None = field(nullable=10)


class MetadataRequest(Request, api=ApiKey.METADATA, versions=(0, 13), flexible=9):
    """In v0 an empty list asks for all topics; from v1 on null does, and an empty list asks for none. v12 can ask by
    topic id (KIP-516)."""

    topics: list[MetadataRequestTopic] | None = field(nullable=1)
    allow_auto_topic_creation: boolean = field(default=True, since=4)  # KIP-204
    include_cluster_authorized_operations: boolean = field(default=False, since=8, until=10)  # KIP-430
    include_topic_authorized_operations: boolean = field(default=False, since=8)  # KIP-430


class MetadataResponseBroker(Struct):
    node_id: int32
    host: string
    port: int32
    rack: string | None = field(default=None, since=1, ignorable=True)


class MetadataResponsePartition(Struct):
    error_code: int16
    partition_index: int32
    leader_id: int32
    leader_epoch: int32 = field(default=-1, since=7, ignorable=True)  # KIP-320
    replica_nodes: list[int32]
    isr_nodes: list[int32]
    offline_replicas: list[int32] = field(default_factory=list, since=5, ignorable=True)  # KIP-112


class MetadataResponseTopic(Struct):
    error_code: int16
    name: string | None = field(nullable=12)
    topic_id: uuid = field(since=10, ignorable=True)
    is_internal: boolean = field(default=False, since=1, ignorable=True)
    partitions: list[MetadataResponsePartition]
    topic_authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED, since=8)


class MetadataResponse(Response, api=ApiKey.METADATA, versions=(0, 13), flexible=9):
    throttle_time_ms: int32 = field(default=0, since=3, ignorable=True)
    brokers: list[MetadataResponseBroker]
    cluster_id: string | None = field(default=None, since=2, ignorable=True)  # KIP-78
    controller_id: int32 = field(default=-1, since=1, ignorable=True)
    topics: list[MetadataResponseTopic]
    cluster_authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED, since=8, until=10)
    error_code: int16 = field(default=0, since=13, ignorable=True)


class DescribeTopicPartitionsTopic(Struct):
    name: string


class DescribeTopicPartitionsCursor(Struct):
    topic_name: string
    partition_index: int32


class DescribeTopicPartitionsRequest(
    Request, api=ApiKey.DESCRIBE_TOPIC_PARTITIONS, versions=(0, 0), flexible=0
):
    """Partitions of topics, page by page (KIP-966)."""

    topics: list[DescribeTopicPartitionsTopic]
    response_partition_limit: int32 = field(default=2000)
    cursor: DescribeTopicPartitionsCursor | None = field(default=None)


class DescribeTopicPartitionsResponsePartition(Struct):
    error_code: int16
    partition_index: int32
    leader_id: int32
    leader_epoch: int32 = field(default=-1)
    replica_nodes: list[int32]
    isr_nodes: list[int32]
    eligible_leader_replicas: list[int32] | None = field(default=None)
    last_known_elr: list[int32] | None = field(default=None)
    offline_replicas: list[int32]


class DescribeTopicPartitionsResponseTopic(Struct):
    error_code: int16
    name: string | None
    topic_id: uuid
    is_internal: boolean = field(default=False)
    partitions: list[DescribeTopicPartitionsResponsePartition]
    topic_authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED)


class DescribeTopicPartitionsResponse(
    Response, api=ApiKey.DESCRIBE_TOPIC_PARTITIONS, versions=(0, 0), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    topics: list[DescribeTopicPartitionsResponseTopic]
    next_cursor: DescribeTopicPartitionsCursor | None = field(default=None)

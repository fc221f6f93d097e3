"""DescribeCluster, DescribeLogDirs, DescribeQuorum and UpdateFeatures: the cluster as admin tools see it."""

from warp.protocol.schema import (
    Request,
    Response,
    Struct,
    boolean,
    field,
    int8,
    int16,
    int32,
    int64,
    string,
    uint16,
    uuid,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, ApiKey


class DescribeClusterRequest(Request, api=ApiKey.DESCRIBE_CLUSTER, versions=(0, 2), flexible=0):
    """Brokers and the cluster id (KIP-700)."""

    include_cluster_authorized_operations: boolean
    endpoint_type: int8 = field(default=1, since=1)  # KIP-919
    include_fenced_brokers: boolean = field(default=False, since=2)  # KIP-1073


class DescribeClusterBroker(Struct):
    broker_id: int32
    host: string
    port: int32
    rack: string | None = field(default=None)
    is_fenced: boolean = field(default=False, since=2)  # KIP-1073


class DescribeClusterResponse(Response, api=ApiKey.DESCRIBE_CLUSTER, versions=(0, 2), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None = field(default=None)
    endpoint_type: int8 = field(default=1, since=1)  # KIP-919
    cluster_id: string
    controller_id: int32 = field(default=-1)
    brokers: list[DescribeClusterBroker]
    cluster_authorized_operations: int32 = field(default=AUTHORIZED_OPERATIONS_OMITTED)


class DescribableLogDirTopic(Struct):
    topic: string
    partitions: list[int32]


class DescribeLogDirsRequest(Request, api=ApiKey.DESCRIBE_LOG_DIRS, versions=(1, 5), flexible=2):
    """Null asks for all partitions. v4 tells the sizes of volumes (KIP-827), v5 which are cordoned (KIP-1066)."""

    topics: list[DescribableLogDirTopic] | None


class DescribeLogDirsPartition(Struct):
    partition_index: int32
    partition_size: int64
    offset_lag: int64
    is_future_key: boolean


class DescribeLogDirsTopic(Struct):
    name: string
    partitions: list[DescribeLogDirsPartition]


class DescribeLogDirsResult(Struct):
    error_code: int16
    log_dir: string
    topics: list[DescribeLogDirsTopic]
    total_bytes: int64 = field(default=-1, since=4, ignorable=True)
    usable_bytes: int64 = field(default=-1, since=4, ignorable=True)
    is_cordoned: boolean = field(default=False, since=5, ignorable=True)


class DescribeLogDirsResponse(Response, api=ApiKey.DESCRIBE_LOG_DIRS, versions=(1, 5), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16 = field(default=0, since=3, ignorable=True)
    results: list[DescribeLogDirsResult]


class DescribeQuorumPartition(Struct):
    partition_index: int32


class DescribeQuorumTopic(Struct):
    topic_name: string
    partitions: list[DescribeQuorumPartition]


class DescribeQuorumRequest(Request, api=ApiKey.DESCRIBE_QUORUM, versions=(0, 2), flexible=0):
    """The metadata quorum (KIP-595)."""

    topics: list[DescribeQuorumTopic]


class QuorumReplicaState(Struct):
    replica_id: int32
    replica_directory_id: uuid = field(since=2)  # KIP-853
    log_end_offset: int64
    last_fetch_timestamp: int64 = field(default=-1, since=1, ignorable=True)  # KIP-836
    last_caught_up_timestamp: int64 = field(default=-1, since=1, ignorable=True)


class DescribeQuorumPartitionResponse(Struct):
    partition_index: int32
    error_code: int16
    error_message: string | None = field(since=2, ignorable=True)
    leader_id: int32
    leader_epoch: int32
    high_watermark: int64
    current_voters: list[QuorumReplicaState]
    observers: list[QuorumReplicaState]


class DescribeQuorumTopicResponse(Struct):
    topic_name: string
    partitions: list[DescribeQuorumPartitionResponse]


class QuorumListener(Struct):
    name: string
    host: string
    port: uint16


class QuorumNode(Struct):
    node_id: int32
    listeners: list[QuorumListener]


class DescribeQuorumResponse(Response, api=ApiKey.DESCRIBE_QUORUM, versions=(0, 2), flexible=0):
    error_code: int16
    error_message: string | None = field(since=2, ignorable=True)
    topics: list[DescribeQuorumTopicResponse]
    nodes: list[QuorumNode] = field(default_factory=list, since=2)  # KIP-853


class FeatureUpdateKey(Struct):
    feature: string
    max_version_level: int16
    allow_downgrade: boolean = field(default=False, until=0)
    upgrade_type: int8 = field(default=1, since=1)


class UpdateFeaturesRequest(Request, api=ApiKey.UPDATE_FEATURES, versions=(0, 2), flexible=0):
    """Finalizes feature levels (KIP-584). v2 answers without a result per feature."""

    timeout_ms: int32 = field(default=60000)
    feature_updates: list[FeatureUpdateKey]
    validate_only: boolean = field(default=False, since=1)


class UpdatableFeatureResult(Struct):
    feature: string
    error_code: int16
    error_message: string | None


class UpdateFeaturesResponse(Response, api=ApiKey.UPDATE_FEATURES, versions=(0, 2), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    results: list[UpdatableFeatureResult] = field(default_factory=list, until=1, ignorable=True)

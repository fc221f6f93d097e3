"""Fetch: record batches out."""

from warp.protocol.schema import (
    NO_UUID,
    Request,
    Response,
    Struct,
    field,
    int8,
    int16,
    int32,
    int64,
    record_parts,
    string,
    uuid,
)
from warp.protocol.types import ApiKey


class ReplicaState(Struct):
    replica_id: int32 = field(default=-1)
    replica_epoch: int64 = field(default=-1)


class FetchPartition(Struct):
    partition: int32
    current_leader_epoch: int32 = field(default=-1, since=9, ignorable=True)  # KIP-320
    fetch_offset: int64
    last_fetched_epoch: int32 = field(default=-1, since=12)  # KIP-595
    log_start_offset: int64 = field(default=-1, since=5, ignorable=True)
    partition_max_bytes: int32
    replica_directory_id: uuid = field(default=NO_UUID, since=17, tag=0, ignorable=True)  # KIP-853
    high_watermark: int64 = field(default=2**63 - 1, since=18, tag=1, ignorable=True)  # KIP-1166


class FetchTopic(Struct):
    topic: string = field(default="", until=12, ignorable=True)
    topic_id: uuid = field(default=NO_UUID, since=13, ignorable=True)
    partitions: list[FetchPartition]


class ForgottenTopic(Struct):
    topic: string = field(default="", until=12, ignorable=True)
    topic_id: uuid = field(default=NO_UUID, since=13, ignorable=True)
    partitions: list[int32]


class FetchRequest(Request, api=ApiKey.FETCH, versions=(4, 18), flexible=12):
    """v7 brings fetch sessions (KIP-227), v9 leader epochs (KIP-320), v10 zstd (KIP-110), v11 racks (KIP-392), v13
    topic ids (KIP-516), v14 OFFSET_MOVED_TO_TIERED_STORAGE (KIP-405)."""

    cluster_id: string | None = field(default=None, since=12, tag=0, ignorable=True)
    replica_id: int32 = field(default=-1, until=14)
    replica_state: ReplicaState | None = field(default=None, since=15, tag=1)  # KIP-903
    max_wait_ms: int32
    min_bytes: int32
    max_bytes: int32 = field(default=0x7FFFFFFF)
    isolation_level: int8 = field(default=0)
    session_id: int32 = field(default=0, since=7, ignorable=True)  # KIP-227
    session_epoch: int32 = field(default=-1, since=7, ignorable=True)
    topics: list[FetchTopic]
    forgotten_topics_data: list[ForgottenTopic] = field(default_factory=list, since=7)  # KIP-227
    rack_id: string = field(default="", since=11, ignorable=True)  # KIP-392


class EpochEndOffset(Struct):
    epoch: int32 = field(default=-1)
    end_offset: int64 = field(default=-1)


class LeaderIdAndEpoch(Struct):
    leader_id: int32 = field(default=-1)
    leader_epoch: int32 = field(default=-1)


class SnapshotId(Struct):
    end_offset: int64 = field(default=-1)
    epoch: int32 = field(default=-1)


class AbortedTransaction(Struct):
    producer_id: int64
    first_offset: int64


class FetchPartitionResponse(Struct):
    partition_index: int32
    error_code: int16
    high_watermark: int64
    last_stable_offset: int64 = field(default=-1)
    log_start_offset: int64 = field(default=-1, since=5, ignorable=True)
    diverging_epoch: EpochEndOffset | None = field(default=None, since=12, tag=0)  # KIP-595
    current_leader: LeaderIdAndEpoch | None = field(default=None, since=12, tag=1)  # KIP-951
    snapshot_id: SnapshotId | None = field(default=None, since=12, tag=2)  # KIP-630
    aborted_transactions: list[AbortedTransaction] | None
    preferred_read_replica: int32 = field(default=-1, since=11)  # KIP-392
    records: record_parts | None


class FetchTopicResponse(Struct):
    topic: string = field(until=12, ignorable=True)
    topic_id: uuid = field(since=13, ignorable=True)
    partitions: list[FetchPartitionResponse]


class NodeEndpoint(Struct):
    node_id: int32
    host: string
    port: int32
    rack: string | None = field(default=None)


class FetchResponse(Response, api=ApiKey.FETCH, versions=(4, 18), flexible=12):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16 = field(default=0, since=7, ignorable=True)
    session_id: int32 = field(default=0, since=7)  # KIP-227
    responses: list[FetchTopicResponse]
    node_endpoints: list[NodeEndpoint] = field(default_factory=list, since=16, tag=0)  # KIP-951

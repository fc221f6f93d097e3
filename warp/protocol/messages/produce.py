"""Produce: record batches in, base offsets out."""

from warp.protocol.schema import (
    NO_UUID,
    Request,
    Response,
    Struct,
    field,
    int16,
    int32,
    int64,
    record_data,
    string,
    uuid,
)
from warp.protocol.types import ApiKey


class ProducePartition(Struct):
    index: int32
    records: record_data | None


class ProduceTopic(Struct):
    name: string = field(default="", until=12, ignorable=True)
    topic_id: uuid = field(default=NO_UUID, since=13, ignorable=True)
    partition_data: list[ProducePartition]


class ProduceRequest(Request, api=ApiKey.PRODUCE, versions=(3, 13), flexible=9):
    """From v7 on batches may be compressed with zstd (KIP-110); from v12 on a transactional Produce adds its
    partitions to the transaction by itself (KIP-890); v13 names topics by id (KIP-516)."""

    transactional_id: string | None = field(default=None)
    acks: int16
    timeout_ms: int32
    topic_data: list[ProduceTopic]


class RecordError(Struct):
    batch_index: int32
    batch_index_error_message: string | None = field(default=None)


class LeaderIdAndEpoch(Struct):
    leader_id: int32 = field(default=-1)
    leader_epoch: int32 = field(default=-1)


class ProducePartitionResponse(Struct):
    index: int32
    error_code: int16
    base_offset: int64
    log_append_time_ms: int64 = field(default=-1)
    log_start_offset: int64 = field(default=-1, since=5, ignorable=True)  # KIP-207
    record_errors: list[RecordError] = field(default_factory=list, since=8, ignorable=True)  # KIP-467
    error_message: string | None = field(default=None, since=8, ignorable=True)
    current_leader: LeaderIdAndEpoch | None = field(default=None, since=10, tag=0)  # KIP-951


class ProduceTopicResponse(Struct):
    name: string = field(until=12, ignorable=True)
    topic_id: uuid = field(since=13, ignorable=True)
    partition_responses: list[ProducePartitionResponse]


class NodeEndpoint(Struct):
    node_id: int32
    host: string
    port: int32
    rack: string | None = field(default=None)


class ProduceResponse(Response, api=ApiKey.PRODUCE, versions=(3, 13), flexible=9):
    responses: list[ProduceTopicResponse]
    throttle_time_ms: int32 = field(default=0)
    node_endpoints: list[NodeEndpoint] = field(default_factory=list, since=10, tag=0)  # KIP-951

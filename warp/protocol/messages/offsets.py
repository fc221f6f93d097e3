"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords: where logs begin, end and are cut."""

from warp.protocol.schema import Request, Response, Struct, field, int8, int16, int32, int64, string
from warp.protocol.types import ApiKey


class ListOffsetsPartition(Struct):
    partition_index: int32
    current_leader_epoch: int32 = field(default=-1, since=4, ignorable=True)  # KIP-320
    timestamp: int64


class ListOffsetsTopic(Struct):
    name: string
    partitions: list[ListOffsetsPartition]


class ListOffsetsRequest(Request, api=ApiKey.LIST_OFFSETS, versions=(1, 11), flexible=6):
    """The special timestamps of ListOffsetsTimestamp: v7 maximum (KIP-734), v8 earliest local (KIP-405), v9
    latest tiered (KIP-1005), v11 earliest pending upload (KIP-1023)."""

    replica_id: int32
    isolation_level: int8 = field(default=0, since=2)  # KIP-98
    topics: list[ListOffsetsTopic]
    timeout_ms: int32 = field(default=0, since=10, ignorable=True)  # KIP-1075


class ListOffsetsPartitionResponse(Struct):
    partition_index: int32
    error_code: int16
    timestamp: int64 = field(default=-1)
    offset: int64 = field(default=-1)
    leader_epoch: int32 = field(default=-1, since=4)  # KIP-320


class ListOffsetsTopicResponse(Struct):
    name: string
    partitions: list[ListOffsetsPartitionResponse]


class ListOffsetsResponse(Response, api=ApiKey.LIST_OFFSETS, versions=(1, 11), flexible=6):
    throttle_time_ms: int32 = field(default=0, since=2, ignorable=True)
    topics: list[ListOffsetsTopicResponse]


class OffsetForLeaderPartition(Struct):
    partition: int32
    current_leader_epoch: int32 = field(default=-1)
    leader_epoch: int32


class OffsetForLeaderTopic(Struct):
    topic: string
    partitions: list[OffsetForLeaderPartition]


class OffsetForLeaderEpochRequest(Request, api=ApiKey.OFFSET_FOR_LEADER_EPOCH, versions=(2, 4), flexible=4):
    """Which offset ended a leader epoch (KIP-320)."""

    replica_id: int32 = field(default=-2, since=3, ignorable=True)  # -2: a consumer
    topics: list[OffsetForLeaderTopic]


class OffsetForLeaderPartitionResult(Struct):
    error_code: int16
    partition: int32
    leader_epoch: int32 = field(default=-1)
    end_offset: int64 = field(default=-1)


class OffsetForLeaderTopicResult(Struct):
    topic: string
    partitions: list[OffsetForLeaderPartitionResult]


class OffsetForLeaderEpochResponse(Response, api=ApiKey.OFFSET_FOR_LEADER_EPOCH, versions=(2, 4), flexible=4):
    throttle_time_ms: int32 = field(default=0)
    topics: list[OffsetForLeaderTopicResult]


class DeleteRecordsPartition(Struct):
    partition_index: int32
    offset: int64


class DeleteRecordsTopic(Struct):
    name: string
    partitions: list[DeleteRecordsPartition]


class DeleteRecordsRequest(Request, api=ApiKey.DELETE_RECORDS, versions=(0, 2), flexible=2):
    """Moves log start offsets; -1 stands for the high watermark (KIP-107)."""

    topics: list[DeleteRecordsTopic]
    timeout_ms: int32


class DeleteRecordsPartitionResult(Struct):
    partition_index: int32
    low_watermark: int64
    error_code: int16


class DeleteRecordsTopicResult(Struct):
    name: string
    partitions: list[DeleteRecordsPartitionResult]


class DeleteRecordsResponse(Response, api=ApiKey.DELETE_RECORDS, versions=(0, 2), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    topics: list[DeleteRecordsTopicResult]

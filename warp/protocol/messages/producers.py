"""InitProducerId and DescribeProducers: idempotent producers."""

from warp.protocol.schema import Request, Response, Struct, field, int16, int32, int64, string
from warp.protocol.types import ApiKey


class InitProducerIdRequest(Request, api=ApiKey.INIT_PRODUCER_ID, versions=(0, 5), flexible=2):
    """v3 can raise the epoch of a producer id that the client has (KIP-360); v4 knows PRODUCER_FENCED, v5
    TRANSACTION_ABORTABLE (KIP-890)."""

    transactional_id: string | None
    transaction_timeout_ms: int32
    producer_id: int64 = field(default=-1, since=3)
    producer_epoch: int16 = field(default=-1, since=3)


class InitProducerIdResponse(Response, api=ApiKey.INIT_PRODUCER_ID, versions=(0, 5), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    producer_id: int64 = field(default=-1)
    producer_epoch: int16


class DescribeProducersTopic(Struct):
    name: string
    partition_indexes: list[int32]


class DescribeProducersRequest(Request, api=ApiKey.DESCRIBE_PRODUCERS, versions=(0, 0), flexible=0):
    """Who writes to partitions (KIP-664)."""

    topics: list[DescribeProducersTopic]


class ProducerState(Struct):
    producer_id: int64
    producer_epoch: int32
    last_sequence: int32 = field(default=-1)
    last_timestamp: int64 = field(default=-1)
    coordinator_epoch: int32
    current_txn_start_offset: int64 = field(default=-1)


class DescribeProducersPartitionResponse(Struct):
    partition_index: int32
    error_code: int16
    error_message: string | None = field(default=None)
    active_producers: list[ProducerState]


class DescribeProducersTopicResponse(Struct):
    name: string
    partitions: list[DescribeProducersPartitionResponse]


class DescribeProducersResponse(Response, api=ApiKey.DESCRIBE_PRODUCERS, versions=(0, 0), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    topics: list[DescribeProducersTopicResponse]

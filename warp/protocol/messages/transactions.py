"""Transactions: partitions and offsets into them, their ends, and their administration."""

from warp.protocol.schema import Request, Response, Struct, boolean, field, int8, int16, int32, int64, string
from warp.protocol.types import ApiKey


class AddPartitionsToTxnTopic(Struct):
    name: string
    partitions: list[int32]


class AddPartitionsToTxnTransaction(Struct):
    transactional_id: string
    producer_id: int64
    producer_epoch: int16
    verify_only: boolean = field(default=False)
    topics: list[AddPartitionsToTxnTopic]


class AddPartitionsToTxnRequest(Request, api=ApiKey.ADD_PARTITIONS_TO_TXN, versions=(0, 5), flexible=3):
    """Clients use v0 to v3; v4 on is for brokers, and carries several transactions (KIP-890)."""

    transactions: list[AddPartitionsToTxnTransaction] = field(default_factory=list, since=4)
    v3_and_below_transactional_id: string = field(default="", until=3)
    v3_and_below_producer_id: int64 = field(default=0, until=3)
    v3_and_below_producer_epoch: int16 = field(default=0, until=3)
    v3_and_below_topics: list[AddPartitionsToTxnTopic] = field(default_factory=list, until=3)


class AddPartitionsToTxnPartitionResult(Struct):
    partition_index: int32
    partition_error_code: int16


class AddPartitionsToTxnTopicResult(Struct):
    name: string
    results_by_partition: list[AddPartitionsToTxnPartitionResult]


class AddPartitionsToTxnResult(Struct):
    transactional_id: string
    topic_results: list[AddPartitionsToTxnTopicResult]


class AddPartitionsToTxnResponse(Response, api=ApiKey.ADD_PARTITIONS_TO_TXN, versions=(0, 5), flexible=3):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16 = field(default=0, since=4, ignorable=True)
    results_by_transaction: list[AddPartitionsToTxnResult] = field(default_factory=list, since=4)
    results_by_topic_v3_and_below: list[AddPartitionsToTxnTopicResult] = field(default_factory=list, until=3)


class AddOffsetsToTxnRequest(Request, api=ApiKey.ADD_OFFSETS_TO_TXN, versions=(0, 4), flexible=3):
    """Adds the offsets of a group to a transaction (KIP-98)."""

    transactional_id: string
    producer_id: int64
    producer_epoch: int16
    group_id: string


class AddOffsetsToTxnResponse(Response, api=ApiKey.ADD_OFFSETS_TO_TXN, versions=(0, 4), flexible=3):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16


class EndTxnRequest(Request, api=ApiKey.END_TXN, versions=(0, 5), flexible=3):
    """v5 answers with the epoch for the next transaction (KIP-890)."""

    transactional_id: string
    producer_id: int64
    producer_epoch: int16
    committed: boolean


class EndTxnResponse(Response, api=ApiKey.END_TXN, versions=(0, 5), flexible=3):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    producer_id: int64 = field(default=-1, since=5, ignorable=True)
    producer_epoch: int16 = field(default=-1, since=5, ignorable=True)


class WritableTxnMarkerTopic(Struct):
    name: string
    partition_indexes: list[int32]


class WritableTxnMarker(Struct):
    producer_id: int64
    producer_epoch: int16
    transaction_result: boolean
    topics: list[WritableTxnMarkerTopic]
    coordinator_epoch: int32
    transaction_version: int8 = field(default=0, since=2, ignorable=True)  # KIP-1228


class WriteTxnMarkersRequest(Request, api=ApiKey.WRITE_TXN_MARKERS, versions=(1, 2), flexible=1):
    """Between brokers: commit or abort markers (KIP-98)."""

    markers: list[WritableTxnMarker]


class WritableTxnMarkerPartitionResult(Struct):
    partition_index: int32
    error_code: int16


class WritableTxnMarkerTopicResult(Struct):
    name: string
    partitions: list[WritableTxnMarkerPartitionResult]


class WritableTxnMarkerResult(Struct):
    producer_id: int64
    topics: list[WritableTxnMarkerTopicResult]


class WriteTxnMarkersResponse(Response, api=ApiKey.WRITE_TXN_MARKERS, versions=(1, 2), flexible=1):
    markers: list[WritableTxnMarkerResult]


class TxnOffsetCommitRequestPartition(Struct):
    partition_index: int32
    committed_offset: int64
    committed_leader_epoch: int32 = field(default=-1, since=2, ignorable=True)  # KIP-320
    committed_metadata: string | None


class TxnOffsetCommitRequestTopic(Struct):
    name: string
    partitions: list[TxnOffsetCommitRequestPartition]


class TxnOffsetCommitRequest(Request, api=ApiKey.TXN_OFFSET_COMMIT, versions=(0, 5), flexible=3):
    """v3 carries the membership of the consumer (KIP-447); v5 adds the group to the transaction by itself (KIP-890)."""

    transactional_id: string
    group_id: string
    producer_id: int64
    producer_epoch: int16
    generation_id: int32 = field(default=-1, since=3)
    member_id: string = field(default="", since=3)
    group_instance_id: string | None = field(default=None, since=3)
    topics: list[TxnOffsetCommitRequestTopic]


class TxnOffsetCommitResponsePartition(Struct):
    partition_index: int32
    error_code: int16


class TxnOffsetCommitResponseTopic(Struct):
    name: string
    partitions: list[TxnOffsetCommitResponsePartition]


class TxnOffsetCommitResponse(Response, api=ApiKey.TXN_OFFSET_COMMIT, versions=(0, 5), flexible=3):
    throttle_time_ms: int32 = field(default=0)
    topics: list[TxnOffsetCommitResponseTopic]


class DescribeTransactionsRequest(Request, api=ApiKey.DESCRIBE_TRANSACTIONS, versions=(0, 0), flexible=0):
    """State of transactions by transactional id (KIP-664)."""

    transactional_ids: list[string]


class DescribedTransactionTopic(Struct):
    topic: string
    partitions: list[int32]


class DescribedTransaction(Struct):
    error_code: int16
    transactional_id: string
    transaction_state: string
    transaction_timeout_ms: int32
    transaction_start_time_ms: int64
    producer_id: int64
    producer_epoch: int16
    topics: list[DescribedTransactionTopic]


class DescribeTransactionsResponse(Response, api=ApiKey.DESCRIBE_TRANSACTIONS, versions=(0, 0), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    transaction_states: list[DescribedTransaction]


class ListTransactionsRequest(Request, api=ApiKey.LIST_TRANSACTIONS, versions=(0, 2), flexible=0):
    """v1 filters by duration (KIP-994), v2 by a pattern of transactional ids (KIP-1152)."""

    state_filters: list[string]
    producer_id_filters: list[int64]
    duration_filter: int64 = field(default=-1, since=1)
    transactional_id_pattern: string | None = field(default=None, since=2)


class ListedTransaction(Struct):
    transactional_id: string
    producer_id: int64
    transaction_state: string


class ListTransactionsResponse(Response, api=ApiKey.LIST_TRANSACTIONS, versions=(0, 2), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    unknown_state_filters: list[string]
    transaction_states: list[ListedTransaction]

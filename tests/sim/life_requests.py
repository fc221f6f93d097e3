"""The requests by which records and topics go, and what the verifier is told of the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tests.sim import requests
from tests.sim.life_topics import LifeTopic
from tests.verifier import (
    Fetched,
    Limit,
    Listed,
    ListedOffset,
    Part,
    Partition,
    Placed,
    Produced,
    Recorder,
    Trimmed,
    TrimmedPart,
)
from warp._records import iterate_records, scan_batches
from warp.protocol.messages.configs import (
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
)

DELETE_RECORDS_VERSION = 2
DELETE_TOPICS_VERSION = 5
ALTER_CONFIGS_VERSION = 1
METADATA_VERSION = 12
TOPIC_RESOURCE = 2
SET = 0
RECORD_BYTES_MAX = 2**24


def create(topics: Iterable[LifeTopic]) -> CreateTopicsRequest:
    """Topics with their configs."""
    return CreateTopicsRequest(
        topics=[
            CreatableTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=1,
                assignments=[],
                configs=[
                    CreatableTopicConfig(name=name, value=value) for name, value in topic.configs.items()
                ],
            )
            for topic in topics
        ],
        timeout_ms=5_000,
    )


def delete_topic(name: str) -> DeleteTopicsRequest:
    """One topic."""
    return DeleteTopicsRequest(topic_names=[name], timeout_ms=5_000)


def set_config(topic: str, name: str, value: str) -> IncrementalAlterConfigsRequest:
    """One config of one topic."""
    change = IncrementalAlterableConfig(name=name, config_operation=SET, value=value)
    resource = IncrementalAlterConfigsResource(
        resource_type=TOPIC_RESOURCE, resource_name=topic, configs=[change]
    )
    return IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)


def look_for(topic: str) -> MetadataRequest:
    """Is it there?"""
    return MetadataRequest(topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False)


def produce(batches: Mapping[Partition, bytes], timeout_ms: int) -> ProduceRequest:
    """One batch for each partition."""
    topics: dict[str, list[ProducePartition]] = defaultdict(list)
    for partition, data in batches.items():
        topics[partition.topic].append(ProducePartition(index=partition.number, records=data))
    return ProduceRequest(
        acks=-1,
        timeout_ms=timeout_ms,
        topic_data=[ProduceTopic(name=name, partition_data=parts) for name, parts in topics.items()],
    )


def produced(response: Any) -> Produced:
    """What became of the batches."""
    return Produced(
        {
            Partition(topic.name, part.index): Placed(
                part.error_code, part.base_offset, part.log_start_offset
            )
            for topic in response.responses
            for part in topic.partition_responses
        }
    )


def fetched(recorder: Recorder, positions: Mapping[Partition, int], response: Any) -> Fetched:
    """What a Fetch has brought, from the positions on."""
    parts = {}
    for topic in response.responses:
        for part in topic.partitions:
            partition = Partition(topic.topic, part.partition_index)
            parts[partition] = _part(recorder, positions.get(partition, 0), part)
    return Fetched(parts)


def _part(recorder: Recorder, position: int, part: Any) -> Part:
    if part.error_code:
        return recorder.part(part.error_code)
    pieces = part.records or b""
    data = b"".join(pieces) if isinstance(pieces, list) else bytes(pieces)
    spans = scan_batches(data)
    found = [record for record in iterate_records(data, RECORD_BYTES_MAX) if record.offset >= position]
    return recorder.part(
        0,
        part.high_watermark,
        part.log_start_offset,
        [(record.offset, record.key, record.value) for record in found],
        spans[-1].base_offset + spans[-1].last_offset_delta + 1 if spans else -1,
        [record.timestamp for record in found],
    )


def list_offsets(partitions: Iterable[Partition], limit: Limit) -> ListOffsetsRequest:
    """One end of logs."""
    topics: dict[str, list[ListOffsetsPartition]] = defaultdict(list)
    for partition in partitions:
        topics[partition.topic].append(
            ListOffsetsPartition(partition_index=partition.number, timestamp=int(limit))
        )
    return ListOffsetsRequest(
        replica_id=-1,
        topics=[ListOffsetsTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )


def listed(response: Any) -> Listed:
    """Where logs begin or end."""
    return Listed(
        {
            Partition(*place): ListedOffset(code, offset)
            for place, (code, offset) in requests.listed(response).items()
        }
    )


def delete_records(offsets: Mapping[Partition, int]) -> DeleteRecordsRequest:
    """Everything before these offsets."""
    topics: dict[str, list[DeleteRecordsPartition]] = defaultdict(list)
    for partition, offset in offsets.items():
        topics[partition.topic].append(
            DeleteRecordsPartition(partition_index=partition.number, offset=offset)
        )
    return DeleteRecordsRequest(
        topics=[DeleteRecordsTopic(name=name, partitions=parts) for name, parts in topics.items()],
        timeout_ms=5_000,
    )


def trimmed(response: Any) -> Trimmed:
    """Where logs begin now."""
    return Trimmed(
        {
            Partition(topic.name, part.partition_index): TrimmedPart(part.error_code, part.low_watermark)
            for topic in response.topics
            for part in topic.partitions
        }
    )

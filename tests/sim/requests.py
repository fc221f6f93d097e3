"""The requests that simulated clients make, and what they need of the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tests.sim.facts import Batch, Partition
from warp._records import iterate_records
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic
from warp.protocol.messages.producers import InitProducerIdRequest
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest

PRODUCE_VERSION = 9
FETCH_VERSION = 11
LIST_OFFSETS_VERSION = 5
CREATE_TOPICS_VERSION = 5
INIT_PRODUCER_ID_VERSION = 4
METADATA_VERSION = 8


def create_topics(partitions: dict[str, int]) -> CreateTopicsRequest:
    """Topics with so many partitions."""
    return CreateTopicsRequest(
        topics=[
            CreatableTopic(name=name, num_partitions=count, replication_factor=1, assignments=[], configs=[])
            for name, count in partitions.items()
        ],
        timeout_ms=5000,
    )


def init_producer_id() -> InitProducerIdRequest:
    """A producer id without a transactional id."""
    return InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)


def produce(batches: Sequence[Batch], timeout_ms: int) -> ProduceRequest:
    """All batches in one request; not more than one per partition."""
    topics: dict[str, list[ProducePartition]] = defaultdict(list)
    for batch in batches:
        topics[batch.partition.topic].append(
            ProducePartition(index=batch.partition.number, records=batch.data)
        )
    return ProduceRequest(
        acks=-1,
        timeout_ms=timeout_ms,
        topic_data=[ProduceTopic(name=name, partition_data=parts) for name, parts in topics.items()],
    )


def produced(response: Any) -> dict[Partition, tuple[int, int]]:
    """Error code and base offset per partition."""
    return {
        Partition(topic.name, part.index): (part.error_code, part.base_offset)
        for topic in response.responses
        for part in topic.partition_responses
    }


def fetch(
    positions: Iterable[tuple[Partition, int]],
    *,
    max_wait_ms: int,
    min_bytes: int,
    max_bytes: int,
    partition_bytes: int,
) -> FetchRequest:
    """Records from these positions on."""
    topics: dict[str, list[FetchPartition]] = defaultdict(list)
    for partition, offset in positions:
        topics[partition.topic].append(
            FetchPartition(
                partition=partition.number, fetch_offset=offset, partition_max_bytes=partition_bytes
            )
        )
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        topics=[FetchTopic(topic=name, partitions=parts) for name, parts in topics.items()],
    )


def fetched(response: Any) -> dict[Partition, Any]:
    """The parts of a Fetch response."""
    return {
        Partition(topic.topic, part.partition_index): part
        for topic in response.responses
        for part in topic.partitions
    }


def records_of(part: Any) -> list[tuple[int, bytes]]:
    """(offset, value) of the records in a part of a Fetch response."""
    pieces = part.records or b""
    data = b"".join(pieces) if isinstance(pieces, list) else bytes(pieces)
    return [(record.offset, record.value or b"") for record in iterate_records(data, 2**24)]


def list_ends(partitions: Iterable[Partition]) -> ListOffsetsRequest:
    """The ends of logs."""
    topics: dict[str, list[ListOffsetsPartition]] = defaultdict(list)
    for partition in partitions:
        topics[partition.topic].append(ListOffsetsPartition(partition_index=partition.number, timestamp=-1))
    return ListOffsetsRequest(
        replica_id=-1,
        topics=[ListOffsetsTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )


def listed(response: Any) -> dict[Partition, tuple[int, int]]:
    """Error code and offset per partition."""
    return {
        Partition(topic.name, part.partition_index): (part.error_code, part.offset)
        for topic in response.topics
        for part in topic.partitions
    }


def metadata() -> MetadataRequest:
    """Which agents are there?"""
    return MetadataRequest(topics=[])

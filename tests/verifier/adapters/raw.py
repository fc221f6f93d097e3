"""Raw frames for the verifier: requests of its operations, and what their answers say in its words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.broker.client import fetch_request, joined, produce_request
from tests.broker.groups import commit_request, fetch_request as offset_fetch_request, offsets_in
from tests.verifier import (
    Batch,
    Committed,
    CommittedOffsets,
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
from tests.verifier.adapters.seals import headers_of, note_of, opened
from warp._records import build_batch, iterate_records, scan_batches
from warp.protocol import Request
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)

DECOMPRESSED_BYTES_MAX = 1 << 24
VERSIONS = {
    "produce": 9,
    "fetch": 12,
    "list offsets": 7,
    "delete records": 2,
    "offset commit": 8,
    "offset fetch": 8,
}
"""The newest that name topics by their names."""
OF_ANOTHER = -2
"""An offset that was told with the metadata of another one."""
Content = tuple[bytes | None, bytes | None]


def encode_batch(records: Sequence[Content], timestamp_ms: int, **fields: Any) -> bytes:
    """A record batch; fields are `producer_id`, `producer_epoch`, `base_sequence`, `codec`."""
    sealed = [(key, value, headers_of(key, value, timestamp_ms), timestamp_ms) for key, value in records]
    return build_batch(sealed, **fields)


def produce(batches: Mapping[Partition, bytes], timeout_ms: int) -> Request:
    """One batch for each partition."""
    return produce_request(_by_topic(batches), timeout_ms=timeout_ms)


def produced(batches: Iterable[Batch], response: Any) -> Produced:
    """What became of each batch. Raises AssertionError when not every one is answered."""
    parts = {
        Partition(topic.name, part.index): Placed(
            part.error_code, None if part.error_code else part.base_offset, part.log_start_offset
        )
        for topic in response.responses
        for part in topic.partition_responses
    }
    assert set(parts) == {batch.partition for batch in batches}, f"answered was about {sorted(parts)}"
    return Produced(parts)


def fetch(positions: Mapping[Partition, int], **options: Any) -> Request:
    """From each position on; options as `tests.broker.client.fetch_request` has them."""
    return fetch_request(_by_topic(positions), **options)


def fetched(recorder: Recorder, positions: Mapping[Partition, int], response: Any) -> Fetched:
    """The records from each position on."""
    parts = {}
    for topic in response.responses:
        for part in topic.partitions:
            place = Partition(topic.topic, part.partition_index)
            parts[place] = _part(recorder, positions[place], part)
    return Fetched(parts)


def records_in(data: bytes, position: int) -> tuple[list[tuple[int, bytes | None, bytes | None]], int]:
    """Offset, key and value of the records from a position on, and where the last batch ends.

    All of them have to be sealed: what has come with other headers or another timestamp has another value here.
    """
    found: list[tuple[int, bytes | None, bytes | None]] = []
    end = position
    for span in scan_batches(data):
        whole = data[span.position : span.position + span.size_bytes]
        records = iterate_records(whole, DECOMPRESSED_BYTES_MAX)
        found += [
            (at.offset, at.key, opened(at.key, at.value, at.timestamp, at.headers))
            for at in records
            if at.offset >= position
        ]
        end = span.base_offset + span.last_offset_delta + 1
    return found, end


def _part(recorder: Recorder, position: int, part: Any) -> Part:
    if part.error_code:
        return recorder.part(part.error_code)
    records, end = records_in(joined(part.records), position)
    return recorder.part(0, part.high_watermark, part.log_start_offset, records, end)


def list_offsets(partitions: Iterable[Partition], limit: Limit) -> Request:
    """An end of each."""
    by_topic = _by_topic(dict.fromkeys(partitions, int(limit)))
    return ListOffsetsRequest(
        replica_id=-1,
        topics=[
            ListOffsetsTopic(
                name=name,
                partitions=[
                    ListOffsetsPartition(partition_index=index, timestamp=timestamp)
                    for index, timestamp in parts.items()
                ],
            )
            for name, parts in by_topic.items()
        ],
    )


def listed(response: Any) -> Listed:
    """The ends that were told."""
    return Listed(
        {
            Partition(topic.name, part.partition_index): ListedOffset(part.error_code, part.offset)
            for topic in response.topics
            for part in topic.partitions
        }
    )


def delete_records(offsets: Mapping[Partition, int], timeout_ms: int) -> Request:
    """All that lies before these offsets."""
    return DeleteRecordsRequest(
        topics=[
            DeleteRecordsTopic(
                name=name,
                partitions=[
                    DeleteRecordsPartition(partition_index=index, offset=offset)
                    for index, offset in parts.items()
                ],
            )
            for name, parts in _by_topic(offsets).items()
        ],
        timeout_ms=timeout_ms,
    )


def trimmed(response: Any) -> Trimmed:
    """Where the logs begin now."""
    return Trimmed(
        {
            Partition(topic.name, part.partition_index): TrimmedPart(part.error_code, part.low_watermark)
            for topic in response.topics
            for part in topic.partitions
        }
    )


def offset_commit(
    group: str, offsets: Mapping[Partition, int], generation: int = -1, member_id: str = ""
) -> Request:
    """Without a generation that of a group without members. Each offset has its note as metadata."""
    request = commit_request(
        group, _by_topic(offsets), generation_id_or_member_epoch=generation, member_id=member_id
    )
    for topic in request.topics:
        for part in topic.partitions:
            part.committed_metadata = note_of(part.committed_offset)
    return request


def committed(response: Any) -> Committed:
    """The error codes."""
    return Committed(
        {
            Partition(topic.name, part.partition_index): part.error_code
            for topic in response.topics
            for part in topic.partitions
        }
    )


def offset_fetch(group: str, partitions: Iterable[Partition]) -> Request:
    """What has the group committed?"""
    by_topic = {name: list(parts) for name, parts in _by_topic(dict.fromkeys(partitions, 0)).items()}
    return offset_fetch_request(VERSIONS["offset fetch"], group, by_topic)


def committed_offsets(response: Any) -> CommittedOffsets | int:
    """The offsets, or the error of the whole. One that has not its own note comes as one that nobody has committed."""
    [group] = response.groups
    if group.error_code:
        return int(group.error_code)
    return CommittedOffsets(
        {
            # librdkafka's client for Python sends the byte with which a string ends in C as a part of it.
            Partition(topic, index): offset if metadata.rstrip("\0") == note_of(offset) else OF_ANOTHER
            for (topic, index), (offset, _, metadata, _) in offsets_in(group).items()
        }
    )


def _by_topic(parts: Mapping[Partition, Any]) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for place, value in parts.items():
        found[place.topic][place.number] = value
    return dict(found)

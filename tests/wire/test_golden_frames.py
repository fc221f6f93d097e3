"""Frames as real clients sent them, recorded on a socket: read field by field, and written again byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from warp.errors import ErrorCode
from warp.protocol import (
    APIS,
    ApiKey,
    Request,
    decode,
    encode_request_frame,
    encode_response_frame,
    parse_request_header,
)
from warp.protocol.messages.api_versions import ApiVersion, ApiVersionsRequest, ApiVersionsResponse
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.groups import FindCoordinatorRequest
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic
from warp.protocol.messages.producers import InitProducerIdRequest

TOPIC_ID = bytes(range(1, 17))


@dataclass(frozen=True)
class Recorded:
    """One request frame, without its size field."""

    client: str
    frame: str
    version: int
    correlation_id: int
    client_id: str
    message: Request


def produce(acks: int, timeout_ms: int, batch: str) -> ProduceRequest:
    partition = ProducePartition(index=0, records=bytes.fromhex(batch))
    topic = ProduceTopic(name="topic-a", partition_data=[partition])
    return ProduceRequest(transactional_id=None, acks=acks, timeout_ms=timeout_ms, topic_data=[topic])


def list_offsets(leader_epoch: int, isolation_level: int) -> ListOffsetsRequest:
    partition = ListOffsetsPartition(partition_index=0, current_leader_epoch=leader_epoch, timestamp=-2)
    topic = ListOffsetsTopic(name="topic-a", partitions=[partition])
    return ListOffsetsRequest(replica_id=-1, isolation_level=isolation_level, topics=[topic])


RECORDED = (
    Recorded(
        "librdkafka 2.16",
        "0012000300000001000272640017636f6e666c75656e742d6b61666b612d707974686f6e"
        "16322e31362e312d72646b61666b612d322e31362e3000",
        3,
        1,
        "rd",
        ApiVersionsRequest(
            client_software_name="confluent-kafka-python", client_software_version="2.16.1-rdkafka-2.16.0"
        ),
    ),
    Recorded(
        "librdkafka 2.16",
        "0003000d000000020002726400020000000000000000000000000000000008746f7069632d6100010000",
        13,
        2,
        "rd",
        MetadataRequest(topics=[MetadataRequestTopic(name="topic-a")]),
    ),
    Recorded(
        "librdkafka 2.16",
        "0016000400000002000272640000ffffffffffffffffffffffffffff00",
        4,
        2,
        "rd",
        InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=-1),
    ),
    Recorded(
        "librdkafka 2.16",
        "0000000a00000003000272640000ffff000075300208746f7069632d6102000000004b"
        "00000000000000000000003e0000000002ad4adc7d000000000000000001a203dede8f000001a203dede8f"
        "00000000000000070000000000000000000118000000026b0a68656c6c6f00"
        "000000",
        10,
        3,
        "rd",
        produce(
            -1,
            30_000,
            "00000000000000000000003e0000000002ad4adc7d000000000000000001a203dede8f000001a203dede8f"
            "00000000000000070000000000000000000118000000026b0a68656c6c6f00",
        ),
    ),
    Recorded(
        "librdkafka 2.16",
        "000a0002000000030002726400016700",
        2,
        3,
        "rd",
        FindCoordinatorRequest(key="g", key_type=0),
    ),
    Recorded(
        "librdkafka 2.16",
        "00020007000000040002726400ffffffff010208746f7069632d61020000000000000000fffffffffffffffe000000",
        7,
        4,
        "rd",
        list_offsets(leader_epoch=0, isolation_level=1),
    ),
    Recorded(
        "librdkafka 2.16",
        "00010010000000050002726400000001f400000001032000000100000000ffffffff0201020304050607"
        "08090a0b0c0d0e0f100200000000000000000000000000000000ffffffffffffffffffffffff001000000000010100",
        16,
        5,
        "rd",
        FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=50 << 20,
            isolation_level=1,
            topics=[
                FetchTopic(
                    topic_id=TOPIC_ID,
                    partitions=[
                        FetchPartition(
                            partition=0, current_leader_epoch=0, fetch_offset=0, partition_max_bytes=1 << 20
                        )
                    ],
                )
            ],
        ),
    ),
    Recorded(
        "kafka-python 3.0",
        "001200040000000100026b70000d6b61666b612d707974686f6e07332e302e313200",
        4,
        1,
        "kp",
        ApiVersionsRequest(client_software_name="kafka-python", client_software_version="3.0.12"),
    ),
    Recorded(
        "kafka-python 3.0",
        "0003000d0000000200026b700001010000",
        13,
        2,
        "kp",
        MetadataRequest(topics=[]),
    ),
    Recorded(
        "kafka-python 3.0",
        "0002000b0000000200026b7000ffffffff000208746f7069632d610200000000fffffffffffffffffffffffe"
        "00000000000000",
        11,
        2,
        "kp",
        list_offsets(leader_epoch=-1, isolation_level=0),
    ),
    Recorded(
        "kafka-python 3.0",
        "0001000c0000000300026b7000ffffffff000001f400000001032000000000000000000000000208746f7069632d61"
        "0200000000000000000000000000000000ffffffffffffffffffffffff001000000000010100",
        12,
        3,
        "kp",
        FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=50 << 20,
            session_epoch=0,
            topics=[
                FetchTopic(
                    topic="topic-a",
                    partitions=[
                        FetchPartition(
                            partition=0, current_leader_epoch=0, fetch_offset=0, partition_max_bytes=1 << 20
                        )
                    ],
                )
            ],
        ),
    ),
    Recorded(
        "aiokafka 0.14",
        "0012000000000001000361696f",
        0,
        1,
        "aio",
        ApiVersionsRequest(),
    ),
    Recorded(
        "aiokafka 0.14",
        "0003000500000002000361696f0000000001",
        5,
        2,
        "aio",
        MetadataRequest(topics=[]),
    ),
    Recorded(
        "aiokafka 0.14",
        "0000000700000002000361696fffff000100009c40000000010007746f7069632d61000000010000000000000049"
        "00000000000000000000003dffffffff02f9cfa0b4000000000000000001a203deed8f000001a203deed8f"
        "ffffffffffffffffffff000000000000000116000000010a68656c6c6f00",
        7,
        2,
        "aio",
        produce(
            1,
            40_000,
            "00000000000000000000003dffffffff02f9cfa0b4000000000000000001a203deed8f000001a203deed8f"
            "ffffffffffffffffffff000000000000000116000000010a68656c6c6f00",
        ),
    ),
    Recorded(
        "aiokafka 0.14",
        "0002000300000003000361696fffffffff00000000010007746f7069632d610000000100000000fffffffffffffffe",
        3,
        3,
        "aio",
        list_offsets(leader_epoch=-1, isolation_level=0),
    ),
)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: f"{one.client}-{one.message.api.name}")
def test_recorded_requests_are_read_and_written_to_the_byte(recorded: Recorded) -> None:
    frame = bytes.fromhex(recorded.frame)
    header = parse_request_header(frame)
    assert header.api_key == recorded.message.api
    assert (header.api_version, header.correlation_id) == (recorded.version, recorded.correlation_id)
    assert header.client_id == recorded.client_id
    cls = APIS[ApiKey(header.api_key)].request
    assert decode(cls, header.api_version, frame, header.body_offset) == recorded.message
    written = encode_request_frame(
        header.correlation_id, header.client_id, recorded.message, header.api_version
    )
    assert b"".join(written) == len(frame).to_bytes(4, "big") + frame


def test_the_answer_to_an_unsupported_api_versions_request_is_readable_by_every_client() -> None:
    # Size, correlation id; error 35, one key: 18, from 0 to 4.
    answer = ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION,
        api_keys=[ApiVersion(api_key=ApiKey.API_VERSIONS, min_version=0, max_version=4)],
    )
    frame = b"".join(encode_response_frame(77, answer, 0))
    assert frame.hex() == "00000010" + "0000004d" + "0023" + "00000001" + "0012" + "0000" + "0004"

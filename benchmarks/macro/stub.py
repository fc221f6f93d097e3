"""A stub broker, the yardstick of the whole agent: it splits frames, decodes the request and answers at once.

Nothing is checked, stored or committed. A Fetch is a header and a bare `transport.write` of batches that were made
beforehand. `python -m benchmarks.macro.stub PORT [DELAY_MS]` prints a line when it serves; answers to Produce are held
back for so long, as if records were stored meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from typing import Any, cast

import uvloop

from warp._record_io import build_batch
from warp._records import stamp_batches
from warp.protocol import (
    APIS,
    ApiKey,
    Buffer,
    FrameSplitter,
    SharedReceiveBuffer,
    decode,
    encode_response_frame,
    parse_request_header,
)
from warp.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from warp.protocol.messages.fetch import FetchPartitionResponse, FetchResponse, FetchTopicResponse
from warp.protocol.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from warp.protocol.messages.produce import ProducePartitionResponse, ProduceResponse, ProduceTopicResponse
from warp.protocol.messages.producers import InitProducerIdResponse

SERVED = (
    (ApiKey.PRODUCE, 3, 9),
    (ApiKey.FETCH, 4, 11),
    (ApiKey.METADATA, 0, 8),
    (ApiKey.API_VERSIONS, 0, 3),
    (ApiKey.INIT_PRODUCER_ID, 0, 1),
)
FRAME_BYTES_MAX = 100 * 2**20
RECORDS_PER_BATCH = 960
RECORD_BYTES = 1024
RECORDS_TOTAL = 2**40
NO_UUID = bytes(16)
ANSWERS = 4
"""Buffers that answers take turns in: one connection has at most one Fetch under way."""


class Answers:
    """Batches of records, made once, and stamped with the offset that is asked for."""

    def __init__(self) -> None:
        value = bytes(RECORD_BYTES)
        batch = build_batch([(None, value, [], 1_700_000_000_000)] * RECORDS_PER_BATCH)
        self._batch_bytes = len(batch)
        self._next = itertools.cycle([memoryview(bytearray(batch * 10)) for _ in range(ANSWERS)])

    def at(self, offset: int, bytes_max: int) -> memoryview:
        """As many batches from `offset` on as fit, one at least."""
        count = max(1, min(10, bytes_max // self._batch_bytes))
        records = next(self._next)[: count * self._batch_bytes]
        stamp_batches(records, offset)
        return records


class Stub(FrameSplitter, asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, port: int, shared: SharedReceiveBuffer, answers: Answers, delay_s: float) -> None:
        FrameSplitter.__init__(self, shared, FRAME_BYTES_MAX, lambda _: True)
        self._port = port
        self._answers = answers
        self._delay_s = delay_s
        self._produced = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def buffer_updated(self, nbytes: int) -> None:  # type: ignore[override]
        for frame in FrameSplitter.buffer_updated(self, nbytes):
            header = parse_request_header(frame)
            key, version = ApiKey(header.api_key), header.api_version
            request = decode(APIS[key].request, version, frame, header.body_offset, allow_trailing=True)
            parts = encode_response_frame(header.correlation_id, self._response(key, request), version)
            if self._delay_s and key == ApiKey.PRODUCE:
                asyncio.get_running_loop().call_later(self._delay_s, self._write, parts)
            else:
                self._write(parts)

    def _write(self, parts: Sequence[Buffer]) -> None:
        for part in parts:
            self._transport.write(part)

    def _response(self, key: ApiKey, request: Any) -> Any:
        match key:
            case ApiKey.PRODUCE:
                return self._produce(request)
            case ApiKey.FETCH:
                return self._fetch(request)
            case ApiKey.METADATA:
                return self._metadata(request)
            case ApiKey.INIT_PRODUCER_ID:
                return InitProducerIdResponse(error_code=0, producer_id=1, producer_epoch=0)
        ranges = [ApiVersion(api_key=api, min_version=low, max_version=high) for api, low, high in SERVED]
        return ApiVersionsResponse(error_code=0, api_keys=ranges)

    def _produce(self, request: Any) -> ProduceResponse:
        self._produced += 1
        return ProduceResponse(
            responses=[
                ProduceTopicResponse(
                    name=topic.name,
                    topic_id=NO_UUID,
                    partition_responses=[
                        ProducePartitionResponse(index=part.index, error_code=0, base_offset=self._produced)
                        for part in topic.partition_data
                    ],
                )
                for topic in request.topic_data
            ]
        )

    def _fetch(self, request: Any) -> FetchResponse:
        return FetchResponse(
            responses=[
                FetchTopicResponse(
                    topic=topic.topic,
                    topic_id=NO_UUID,
                    partitions=[
                        FetchPartitionResponse(
                            partition_index=part.partition,
                            error_code=0,
                            high_watermark=RECORDS_TOTAL,
                            last_stable_offset=RECORDS_TOTAL,
                            log_start_offset=0,
                            aborted_transactions=None,
                            records=self._records(part, request.max_bytes),
                        )
                        for part in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    def _records(self, part: Any, bytes_max: int) -> list[Buffer]:
        return [self._answers.at(part.fetch_offset, min(part.partition_max_bytes, bytes_max))]

    def _metadata(self, request: Any) -> MetadataResponse:
        partition = MetadataResponsePartition(
            error_code=0, partition_index=0, leader_id=1, leader_epoch=0, replica_nodes=[1], isr_nodes=[1]
        )
        return MetadataResponse(
            brokers=[MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self._port)],
            controller_id=1,
            topics=[
                MetadataResponseTopic(error_code=0, name=topic.name, topic_id=NO_UUID, partitions=[partition])
                for topic in request.topics or []
            ],
        )


async def serve(port: int, delay_s: float) -> None:
    """Serve until the process is ended."""
    shared, answers = SharedReceiveBuffer(), Answers()
    server = await asyncio.get_running_loop().create_server(
        lambda: Stub(port, shared, answers, delay_s), "127.0.0.1", port
    )
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1e3 if len(sys.argv) > 2 else 0.0))

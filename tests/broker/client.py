"""A Kafka client of a hundred lines that sends exactly what a test says, in the version that it says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from warp.ids import NO_TOPIC_ID
from warp.protocol import APIS, ApiKey, Request, decode, encode_request_frame, response_body_offset
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic

PATIENCE_S = 20.0
"""How long a test waits for an answer before it counts as a hang."""


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._correlation_id = 0

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Self:
        return cls(*await asyncio.open_connection(host, port))

    async def ask(self, request: Request, version: int) -> Any:
        """Send a request and read the answer to it."""
        correlation_id = self.send(request, version)
        return await self.answer(request.api, version, correlation_id)

    def send(self, request: Request, version: int, client_id: str | None = "raw") -> int:
        """Send a request; its correlation id."""
        self._correlation_id += 1
        self.write(b"".join(encode_request_frame(self._correlation_id, client_id, request, version)))
        return self._correlation_id

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def answer(self, api: ApiKey, version: int, correlation_id: int) -> Any:
        """Read the next answer, which has to be this one."""
        frame = await self.frame()
        assert int.from_bytes(frame[:4], "big", signed=True) == correlation_id
        return decode(APIS[api].response, version, frame, response_body_offset(api, version))

    async def frame(self) -> bytes:
        """The next answer without its size."""
        async with asyncio.timeout(PATIENCE_S):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            return await self.reader.readexactly(size)

    async def is_closed(self) -> bool:
        """Wait for the broker to close; False when it answers instead."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def close(self) -> None:
        """Close as a client does."""
        self.writer.close()

    async def produce(
        self, topic: str, records: bytes, *, partition: int = 0, acks: int = -1, version: int = 9
    ) -> Any:
        """Produce one batch: the response of its partition."""
        response = await self.ask(produce_request({topic: {partition: records}}, acks=acks), version)
        return response.responses[0].partition_responses[0]

    async def fetch(
        self, topic: str, offset: int = 0, *, partition: int = 0, version: int = 12, **options: Any
    ) -> Any:
        """Fetch from one partition: its response."""
        response = await self.ask(fetch_request({topic: {partition: offset}}, **options), version)
        assert response.error_code == 0
        return response.responses[0].partitions[0]


def produce_request(
    batches: dict[str, dict[int, bytes | None]], *, acks: int = -1, timeout_ms: int = 30_000
) -> ProduceRequest:
    """A Produce request of one batch per partition, by topic name."""
    topics = [
        ProduceTopic(
            name=name,
            partition_data=[ProducePartition(index=index, records=data) for index, data in parts.items()],
        )
        for name, parts in batches.items()
    ]
    return ProduceRequest(acks=acks, timeout_ms=timeout_ms, topic_data=topics)


def fetch_request(
    offsets: dict[str | bytes, dict[int, int]] | dict[str, dict[int, int]],
    *,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    partition_max_bytes: int = 1 << 20,
    **options: Any,
) -> FetchRequest:
    """A Fetch request by topic name, or by topic id when the keys are bytes."""
    topics = [
        FetchTopic(
            topic=name if isinstance(name, str) else "",
            topic_id=name if isinstance(name, bytes) else NO_TOPIC_ID,
            partitions=[
                FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=partition_max_bytes)
                for index, offset in parts.items()
            ],
        )
        for name, parts in offsets.items()
    ]
    return FetchRequest(max_wait_ms=max_wait_ms, min_bytes=min_bytes, topics=topics, **options)


def joined(records: Sequence[Any] | bytes | memoryview | None) -> bytes:
    """The record data of a decoded response, in one piece."""
    return b"" if records is None else bytes(records)

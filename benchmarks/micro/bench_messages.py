"""Messages: a Produce request parsed, a Metadata response encoded, and frames cut out of a stream.

Every contender makes objects of its own from the same bytes, and the same bytes from its own objects. The pure Python
side is the reference codec of the tests, which reads the same tables.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

from kio.schema.fetch.v12.request import FetchRequest as KioFetchRequest
from kio.schema.metadata.v12.response import MetadataResponse as KioMetadataResponse
from kio.schema.produce.v9.request import ProduceRequest as KioProduceRequest
from kio.serial import entity_reader, entity_writer

from benchmarks.micro.common import Comparison, Contender, Target, compare, main
from tests.reference import codec as reference
from warp.protocol import FrameSplitter, Message, SharedReceiveBuffer, decode, encode
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic

OURS, PURE, KIO, KAFKA_PYTHON = "warp", "pure Python", "kio", "kafka-python"

TARGETS = (Target(OURS, KIO, 2.5), Target(OURS, KAFKA_PYTHON, 8))


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    return [
        parsed(
            "Produce v9 of 100 partitions of 100 B",
            produce_request(100),
            9,
            KioProduceRequest,
            quick,
            TARGETS,
        ),
        parsed(
            "Produce v9 of 100 partitions of 4 KiB",
            produce_request(4096),
            9,
            KioProduceRequest,
            quick,
            TARGETS,
        ),
        parsed("Fetch v12 of 100 partitions", fetch_request(), 12, KioFetchRequest, quick),
        encoded("Metadata v12 of 1,000 partitions", metadata_response(), 12, KioMetadataResponse, quick),
        made_and_encoded(quick),
        frames(200, quick),
        frames(1 << 20, quick),
    ]


def produce_request(records_bytes: int) -> ProduceRequest:
    partitions = [ProducePartition(index=index, records=bytes(records_bytes)) for index in range(100)]
    topics = [ProduceTopic(name="a-topic", partition_data=partitions)]
    return ProduceRequest(transactional_id=None, acks=-1, timeout_ms=30_000, topic_data=topics)


def fetch_request() -> FetchRequest:
    partitions = [
        FetchPartition(partition=index, fetch_offset=1_000_000 + index, partition_max_bytes=1 << 20)
        for index in range(100)
    ]
    topics = [FetchTopic(topic="a-topic", partitions=partitions)]
    return FetchRequest(max_wait_ms=500, min_bytes=1, topics=topics)


def metadata_response() -> MetadataResponse:
    partitions = [
        MetadataResponsePartition(
            error_code=0,
            partition_index=index,
            leader_id=index % 3,
            leader_epoch=0,
            replica_nodes=[index % 3],
            isr_nodes=[index % 3],
        )
        for index in range(1000)
    ]
    topic = MetadataResponseTopic(
        error_code=0, name="a-topic", topic_id=bytes(range(16)), is_internal=False, partitions=partitions
    )
    brokers = [MetadataResponseBroker(node_id=node, host=f"10.0.0.{node}", port=9092) for node in range(3)]
    return MetadataResponse(brokers=brokers, cluster_id="a" * 22, controller_id=1, topics=[topic])


def kafka_python_class(name: str) -> Any:
    """kafka-python's class of that name; which module it is in, changes."""
    for module in ("producer", "consumer", "metadata"):
        found = getattr(importlib.import_module(f"kafka.protocol.{module}"), name, None)
        if found is not None:
            return found
    raise LookupError(name)


def parsed(
    title: str, message: Message, version: int, kio_class: Any, quick: bool, targets: Sequence[Target] = ()
) -> Comparison:
    """The same bytes into each library's objects."""
    data = encode(message, version)
    theirs, read, cls = kafka_python_class(type(message).__name__), entity_reader(kio_class), type(message)
    assert reference.decode(cls, version, data) == decode(cls, version, data) == message
    return compare(
        f"{title}, parsed",
        [
            Contender(OURS, lambda: decode(cls, version, data)),
            Contender(KIO, lambda: read(data, 0)),
            Contender(KAFKA_PYTHON, lambda: theirs.decode(data, version=version)),
            Contender(PURE, lambda: reference.decode(cls, version, data)),
        ],
        work=1,
        unit="messages",
        targets=targets,
        quick=quick,
    )


def encoded(title: str, message: Message, version: int, kio_class: Any, quick: bool) -> Comparison:
    """Each library's objects into the same bytes."""
    data = encode(message, version)
    kafka_python = kafka_python_class(type(message).__name__).decode(data, version=version)
    kafka_python._header = None  # encode() looks at it, decode() does not set it
    kio_message, _ = entity_reader(kio_class)(data, 0)
    write = entity_writer(kio_class)

    def encode_kio() -> bytes:
        out = io.BytesIO()
        write(out, kio_message)
        return out.getvalue()

    assert (
        encode_kio()
        == bytes(kafka_python.encode(version=version))
        == reference.encode(message, version)
        == data
    )
    return compare(
        f"{title}, encoded",
        [
            Contender(OURS, lambda: encode(message, version)),
            Contender(KIO, encode_kio),
            Contender(KAFKA_PYTHON, lambda: kafka_python.encode(version=version)),
            Contender(PURE, lambda: reference.encode(message, version)),
        ],
        work=1,
        unit="messages",
        targets=[Target(OURS, KAFKA_PYTHON, 20), Target(OURS, KIO, 40)],
        quick=quick,
    )


def made_and_encoded(quick: bool) -> Comparison:
    """What answering a Metadata request costs in all: making the objects, and writing them."""
    return compare(
        "Metadata v12 of 1,000 partitions, made and encoded",
        [
            Contender("made", metadata_response),
            Contender("made and encoded", lambda: encode(metadata_response(), 12)),
        ],
        work=1,
        unit="messages",
        quick=quick,
    )


def frames(frame_bytes: int, quick: bool) -> Comparison:
    """A stream of frames in reads of 256 KiB, as a socket would give it."""
    frame = frame_bytes.to_bytes(4, "big") + bytes(frame_bytes)
    stream = frame * max(1, (1 << 20) // len(frame))
    return compare(
        f"Frames of {frame_bytes:,} B out of {len(stream):,} B",
        [
            Contender(OURS, lambda: fed(FrameSplitter(SHARED, 1 << 27, granted), stream)),
            Contender(PURE, lambda: fed(SlowSplitter(), stream)),
        ],
        work=len(stream),
        unit="B",
        quick=quick,
    )


SHARED = SharedReceiveBuffer(256 * 1024)


def granted(_: int) -> bool:
    return True


class SlowSplitter:
    """The usual splitter: everything received goes through one growing buffer."""

    def __init__(self) -> None:
        self.chunk = bytearray(256 * 1024)
        self.pending = bytearray()

    def get_buffer(self, _: int) -> memoryview:
        return memoryview(self.chunk)

    def buffer_updated(self, nbytes: int) -> list[bytes]:
        self.pending += memoryview(self.chunk)[:nbytes]
        frames, at = [], 0
        while len(self.pending) - at >= 4:
            size = int.from_bytes(self.pending[at : at + 4], "big")
            if len(self.pending) - at - 4 < size:
                break
            frames.append(bytes(self.pending[at + 4 : at + 4 + size]))
            at += 4 + size
        del self.pending[:at]
        return frames


def fed(splitter: FrameSplitter | SlowSplitter, stream: bytes) -> int:
    """Give a stream to a splitter in the largest pieces that it takes; the number of frames."""
    count, at = 0, 0
    view = memoryview(stream)
    while at < len(stream):
        buffer = splitter.get_buffer(-1)
        size = min(len(buffer), len(stream) - at, 256 * 1024)
        buffer[:size] = view[at : at + size]
        at += size
        count += len(splitter.buffer_updated(size))
    return count


if __name__ == "__main__":
    sys.exit(main("messages", run))

"""Bytes that are no requests: each closes its own connection, with one log line, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Iterator

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.groups import (
    AT_ONCE,
    Member as GroupMember,
    commit_request,
    delete_request,
    fetch_request as offset_fetch_request,
)
from tests.broker.support import MIB, Broker, RunWithBroker, batch
from warp.handlers.table import TABLE
from warp.protocol import ApiKey, Request, encode_request_frame
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
    ListGroupsRequest,
)
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def header(key: int, version: int, rest: bytes = b"\xff\xff") -> bytes:
    return struct.pack(">hhi", key, version, 1) + rest


NO_REQUESTS = {
    "2 GiB announced": struct.pack(">i", 2**31 - 1),
    "negative size": struct.pack(">i", -1),
    "size 0": struct.pack(">i", 0),
    "one byte above the limit": struct.pack(">i", 100 * MIB + 1),
    "TLS hello": bytes.fromhex("160301020001000100"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    "no room for a header": framed(b"\0\x12\0\0\0\0\0\1"),
    "unknown API": framed(header(999, 0)),
    "negative API": framed(header(-1, 0)),
    "API of another kind of broker": framed(header(4, 0)),
    "version too old": framed(header(ApiKey.FETCH, 3)),
    "version too new": framed(header(ApiKey.METADATA, 99)),
    "client id cut short": framed(header(ApiKey.METADATA, 1, b"\0\x10abc")),
    "client id of -2 bytes": framed(header(ApiKey.METADATA, 1, b"\xff\xfe")),
    "client id not UTF-8": framed(header(ApiKey.METADATA, 1, b"\0\2\xff\xff" + bytes(4))),
    "body missing": framed(header(ApiKey.METADATA, 1)),
    "a billion topics": framed(header(ApiKey.METADATA, 1, b"\xff\xff\x3f\xff\xff\xff")),
    "a name longer than the frame": framed(header(ApiKey.METADATA, 1, b"\xff\xff\0\0\0\1\x7f\xffname")),
    "null where there is none": framed(header(ApiKey.METADATA, 1, b"\xff\xff\0\0\0\1\xff\xff")),
    "records longer than the frame": framed(
        header(
            ApiKey.PRODUCE, 3, b"\xff\xff\xff\xff\0\1\0\0\0\1\0\0\0\1\0\1t\0\0\0\1\0\0\0\0\x7f\xff\xff\xff"
        )
    ),
}


@pytest.mark.parametrize("what", NO_REQUESTS)
def test_what_is_no_request_ends_its_connection_alone(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async def test(broker: Broker) -> None:
        neighbour, client = await broker.connect(), await broker.connect()
        name = await broker.topic()
        assert (await neighbour.produce(name, batch(b"before"))).error_code == 0
        client.write(NO_REQUESTS[what])
        assert await client.is_closed()
        assert (await neighbour.produce(name, batch(b"after"))).base_offset == 1
        assert broker.agent.server.protocol_errors == 1
        warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert len(warnings) == 1, caplog.text
        assert "127.0.0.1:" in warnings[0].getMessage()

    with caplog.at_level(logging.INFO):
        with_memory_broker(test)


def test_a_request_larger_than_the_setting_is_refused_before_it_is_read(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        client.write(struct.pack(">i", 2 * MIB + 1) + header(ApiKey.PRODUCE, 9))
        assert await client.is_closed()

    with_memory_broker(test, request_bytes_max="2MiB")


def requests() -> Iterator[tuple[Request, int]]:
    """A request with content for some APIs, in an inflexible and a flexible version."""
    for version in (5, 9):
        yield produce_request({"here": {0: batch(b"v"), 1: batch(b"w")}}), version
    for version in (11, 12):
        yield fetch_request({"here": {0: 0, 1: 0}}), version
    for version in (4, 12):
        yield (
            MetadataRequest(topics=[MetadataRequestTopic(name="here")], allow_auto_topic_creation=False),
            version,
        )
    for version in (5, 7):
        partition = ListOffsetsPartition(partition_index=0, timestamp=-1)
        topics = [ListOffsetsTopic(name="here", partitions=[partition])]
        yield ListOffsetsRequest(replica_id=-1, topics=topics), version
    yield ApiVersionsRequest(client_software_name="raw", client_software_version="1"), 3
    yield from group_requests()


def group_requests() -> Iterator[tuple[Request, int]]:
    """The same of the APIs of groups; those that have no flexible version come once."""
    member = GroupMember(None, "g", "i")  # type: ignore[arg-type]  # it sends nothing itself
    member.id, member.generation = "nobody", 1
    for version in (5, 9):
        yield member.join_request(), version
    for version in (3, 5):
        yield member.sync_request({"nobody": b"share"}), version
    for version in (3, 4):
        yield member.heartbeat_request(), version
        yield LeaveGroupRequest(group_id="g", members=[LeaveGroupMember(member_id="nobody")]), version
    for version in (7, 9):
        yield commit_request("g", {"here": {0: 1, 1: 2}}, metadata="metadata"), version
    for version in (5, 9):
        yield offset_fetch_request(version, "g", {"here": [0, 1]}), version
    yield offset_fetch_request(5, "g", None), 5
    yield delete_request("g", {"here": [0, 1]}), 0
    yield FindCoordinatorRequest(key="g"), 2
    yield FindCoordinatorRequest(coordinator_keys=["g", "h"]), 4
    for version in (4, 5):
        yield DescribeGroupsRequest(groups=["g", "h"]), version
    for version in (2, 4):
        yield ListGroupsRequest(states_filter=["Stable"] if version == 4 else []), version
    for version in (1, 2):
        yield DeleteGroupsRequest(groups_names=["g", "h"]), version


async def answered_or_closed(client: Client) -> None:
    """The broker did one of the two."""
    try:
        await client.frame()
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def test_every_truncation_of_a_request_is_survived(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        await broker.topic("here", partitions=2)
        for request, version in requests():
            body = b"".join(encode_request_frame(1, "raw", request, version))[4:]
            for end in range(8, len(body), 3):
                client = await broker.connect()
                client.write(framed(body[:end]))
                await answered_or_closed(client)
                await client.close()
        assert broker.agent.server.handler_bugs == 0

    with_memory_broker(test, **AT_ONCE)


def test_flipped_bits_are_survived(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        chance = random.Random(7)
        await broker.topic("here", partitions=2)
        for request, version in requests():
            body = bytearray(b"".join(encode_request_frame(1, "raw", request, version))[4:])
            for _ in range(40):
                at, bit = chance.randrange(8, len(body)), 1 << chance.randrange(8)
                body[at] ^= bit
                client = await broker.connect()
                # What is still a request gets an answer, or, without acks, none: then the next one gets its own.
                client.write(framed(bytes(body)))
                client.send(ApiVersionsRequest(), 0)
                await answered_or_closed(client)
                await client.close()
                body[at] ^= bit
        assert broker.agent.server.handler_bugs == 0

    with_memory_broker(test, **AT_ONCE)


def test_noise_is_survived(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        chance = random.Random(11)
        for number in range(150):
            entry = TABLE[number % len(TABLE)]
            version = chance.randint(*entry.served)
            client = await broker.connect()
            client.write(
                framed(header(entry.key, version, b"\xff\xff" + chance.randbytes(chance.randrange(200))))
            )
            client.send(ApiVersionsRequest(), 0)
            await answered_or_closed(client)
            await client.close()
        assert broker.agent.server.handler_bugs == 0

    with_memory_broker(test, **AT_ONCE)

"""Many, slow, silent, vanishing and flooding clients; and an agent that stops."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import MIB, Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.protocol import ApiKey
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.metadata import MetadataRequest


def test_two_thousand_idle_connections_disturb_nobody(with_memory_broker: RunWithBroker) -> None:
    # Both ends are in this process.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def test(broker: Broker) -> None:
        for _ in range(20):
            await asyncio.gather(*(broker.connect() for _ in range(100)))
        while broker.agent.server.connection_count < 2000:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        client = await broker.connect()
        name = await broker.topic()
        assert (await client.produce(name, batch(b"v"))).error_code == 0
        for idle in broker.clients[::200]:
            assert (await idle.ask(ApiVersionsRequest(), 0)).error_code == 0

    with_memory_broker(test)


def test_connections_above_the_limit_are_closed(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        first = [await broker.connect() for _ in range(10)]
        for client in first:
            await client.ask(ApiVersionsRequest(), 0)
        extra = await broker.connect()
        assert await extra.is_closed()
        await first.pop().close()
        while broker.agent.server.connection_count == 10:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        again = await broker.connect()
        assert (await again.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert broker.agent.server.connections_refused == 1

    with_memory_broker(test, connections_max="10")


def test_pipelined_requests_of_all_kinds_are_answered_in_order(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        sent = []
        for _ in range(30):
            produced = client.send(produce_request({name: {0: batch(b"v")}}), 9)
            fetched = client.send(fetch_request({name: {0: 0}}, max_wait_ms=5, min_bytes=10**7), 12)
            sent += [(ApiKey.PRODUCE, 9, produced), (ApiKey.FETCH, 12, fetched)]
            sent.append((ApiKey.METADATA, 9, client.send(MetadataRequest(topics=None), 9)))
            client.send(produce_request({name: {0: batch(b"unanswered")}}, acks=0), 9)
            sent.append((ApiKey.API_VERSIONS, 0, client.send(ApiVersionsRequest(), 0)))
        for api, version, number in sent:
            await client.answer(api, version, number)
        # Nobody was told when the last one without acks is stored.
        while (await client.fetch(name)).high_watermark < 60:
            pass
        assert (await client.fetch(name)).high_watermark == 60

    with_broker(test)


def test_a_request_may_come_byte_by_byte(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = struct.pack(">ihhih", 10, 18, 0, 5, -1)
        for byte in data * 3:
            client.write(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await client.frame())[:4] == struct.pack(">i", 5)

    with_broker(test)


def test_a_half_closed_client_gets_its_answers(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        numbers = [client.send(produce_request({name: {0: batch(b"v")}}), 9) for _ in range(5)]
        client.writer.write_eof()
        for offset, number in enumerate(numbers):
            [topic] = (await client.answer(ApiKey.PRODUCE, 9, number)).responses
            assert topic.partition_responses[0].base_offset == offset
        assert await client.is_closed()

    with_broker(test)


async def small_window(port: int) -> Client:
    """A client whose side of the connection takes little at a time."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
    return Client(*await asyncio.open_connection(sock=end, limit=4096))


def test_a_client_that_does_not_read_is_not_read_from_and_others_are_served(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for _ in range(4):
            await client.produce(name, batch(bytes(MIB - 1000)))
        stuck = await small_window(broker.port)
        broker.clients.append(stuck)
        for _ in range(200):
            stuck.send(fetch_request({name: {0: 0}}, partition_max_bytes=4 * MIB), 12)
        counters = broker.agent.log.fetch.counters
        before = -1
        while counters.fetches != before:
            before = counters.fetches
            for _ in range(20):
                assert (await client.produce(name, batch(b"v"))).error_code == 0
        # Far from 200 answers of 4 MiB: what waits is bounded by what runs at once.
        assert counters.fetches <= 12
        assert broker.answer_bytes <= 50 * MIB
        stuck.writer.transport.abort()

    with_memory_broker(test)


def test_a_client_that_takes_no_answers_is_dropped_in_the_end(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.agent_settings.ServerLimits", quick_limits)

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for _ in range(8):
            await client.produce(name, batch(bytes(MIB - 1000)))
        stuck = await small_window(broker.port)
        broker.clients.append(stuck)
        stuck.send(fetch_request({name: {0: 0}}, partition_max_bytes=64 * MIB), 12)
        while broker.answer_bytes == 0:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        while broker.answer_bytes:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.01)

    with_memory_broker(test)


def quick_limits(**limits: int) -> object:
    """Server limits whose times are short."""
    from warp.server.limits import ServerLimits

    return ServerLimits(**{**limits, "write_stall_ms_max": 200, "partial_frame_ms_max": 200, "sweep_ms": 50})


def test_silent_clients_in_the_middle_of_a_frame_are_closed(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.agent_settings.ServerLimits", quick_limits)

    async def test(broker: Broker) -> None:
        silent = [await broker.connect() for _ in range(5)]
        for client in silent:
            client.write(struct.pack(">i", MIB) + bytes(1000))
        for client in silent:
            assert await client.is_closed()
        assert broker.agent.log.request_memory.used_bytes == 0

    with_memory_broker(test)


def test_idle_clients_are_closed_but_not_those_that_wait(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.agent_settings.ServerLimits", quick_limits)

    async def test(broker: Broker) -> None:
        idle, waiting = await broker.connect(), await broker.connect()
        name = await broker.topic()
        number = waiting.send(fetch_request({name: {0: 0}}, max_wait_ms=1500), 12)
        assert await idle.is_closed()
        assert not waiting.reader.at_eof()
        await waiting.answer(ApiKey.FETCH, 12, number)
        assert await waiting.is_closed()
        assert broker.agent.server.protocol_errors == 0

    with_memory_broker(test, connection_idle_ms="1s")


def test_a_flood_of_large_requests_waits_for_memory_and_is_served_in_full(
    with_memory_broker: RunWithBroker,
) -> None:
    most = 0

    async def test(broker: Broker) -> None:
        nonlocal most
        names = [await broker.topic(partitions=1) for _ in range(5)]
        data = batch(bytes(900_000))
        memory = broker.agent.log.request_memory

        async def flood(number: int) -> None:
            nonlocal most
            client = await broker.connect()
            sent = [client.send(produce_request({names[number % 5]: {0: data}}), 9) for _ in range(4)]
            for each in sent:
                [topic] = (await client.answer(ApiKey.PRODUCE, 9, each)).responses
                assert topic.partition_responses[0].error_code == ErrorCode.NONE
                most = max(most, memory.used_bytes)

        await asyncio.gather(*(flood(number) for number in range(50)))
        assert memory.bytes_max == 8 * MIB
        client = await broker.connect()
        for name in names:
            assert (await client.fetch(name)).high_watermark == 40

    with_memory_broker(
        test, request_memory_bytes_max="8MiB", request_bytes_max="2MiB", cache_bytes_max="64MiB"
    )
    assert 0 < most <= 8 * MIB


# ---- the agent stops ----


def test_a_stopping_agent_answers_what_it_has_read_and_ends_waits(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client, waiting, idle = await broker.connect(), await broker.connect(), await broker.connect()
        name = await broker.topic()
        await idle.ask(ApiVersionsRequest(), 0)
        number = waiting.send(fetch_request({name: {0: 0}}, max_wait_ms=3_000_000), 12)
        while not broker.agent.log.fetch.waiting:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        numbers = [client.send(produce_request({name: {0: batch(b"v")}}), 9) for _ in range(20)]
        first = await client.answer(ApiKey.PRODUCE, 9, numbers[0])
        assert first.responses[0].partition_responses[0].error_code == 0
        assert await broker.agent.server.drain(20)
        for each in numbers[1:]:
            answer = await client.answer(ApiKey.PRODUCE, 9, each)
            assert answer.responses[0].partition_responses[0].error_code == 0
        await waiting.answer(ApiKey.FETCH, 12, number)
        for stopped in (client, waiting, idle):
            assert await stopped.is_closed()
        with pytest.raises(ConnectionError):
            await Client.connect(broker.port)

    with_broker(test)


def test_a_stopping_agent_cuts_those_who_do_not_take_their_answers(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for _ in range(8):
            await client.produce(name, batch(bytes(MIB - 1000)))
        stuck = await small_window(broker.port)
        broker.clients.append(stuck)
        stuck.send(fetch_request({name: {0: 0}}, partition_max_bytes=64 * MIB), 12)
        while broker.answer_bytes == 0:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        assert not await broker.agent.server.drain(0.2)

    with_memory_broker(test)

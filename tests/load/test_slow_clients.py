"""Clients that take no answers, that vanish in the middle of frames, that send the largest requests: memory stays
bounded, others are served, and all is given back."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import batch
from tests.load.agent import MIB, LoadAgent, with_tls
from tests.load.bounds import BUSY_TLS_CONNECTION_KIB, Memory
from tests.load.figures import Figures
from tests.support.tls import Certificate
from warp.protocol import APIS, ApiKey, decode, response_body_offset
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

MEMORY = Memory(requests=32, fetches=16, cache=32, request=8, jobs=0)
TOPIC = "large"
PARTITIONS = 8
RECORD_BYTES = 1_000_000
DATA_MIB = 64
"""Twice what the cache holds."""
SLOW = 300
SLOW_TLS = 100
ASKED_EACH = 10
VANISHING = 500
LARGEST = 32
LARGEST_EACH = 2
SERVED = 10
"""Records that somebody else writes and reads meanwhile."""
KIB = 1024
WAIT_S = 90.0
LEFT = (
    "warp_connections", "warp_request_memory_bytes", "warp_request_memory_waiting", "warp_fetch_memory_bytes",
    "warp_fetches_waiting", "warp_buffer_bytes", "warp_sealed_bytes",
)  # fmt: skip

record = random.Random(8).randbytes(RECORD_BYTES)


def test_memory_stays_bounded_whatever_slow_and_rude_clients_do(tmp_path: Path, figures: Figures) -> None:
    certificate = Certificate(tmp_path)
    tls_port, tls_options = with_tls(certificate)
    context = ssl.create_default_context(cafile=str(certificate.ca_file))
    with LoadAgent(tmp_path / "data", *MEMORY.options(), *tls_options) as agent:
        asyncio.run(all_kinds(agent, tls_port, context, figures))
        figures.complain(agent.bugs()[:3])
        assert agent.stop() == 0


async def all_kinds(agent: LoadAgent, tls_port: int, context: ssl.SSLContext, figures: Figures) -> None:
    """One kind after the other; after each, the agent holds nothing for anybody."""
    await prepare(agent.port)
    await largest_requests(agent, figures)
    await slow_readers(agent, agent.port, None, SLOW, "take no answers", figures)
    await slow_readers(agent, tls_port, context, SLOW_TLS, "take no answers, over TLS", figures)
    await vanish(agent, figures)


async def prepare(port: int) -> None:
    """Make the topic and fill it."""
    topic = CreatableTopic(
        name=TOPIC, num_partitions=PARTITIONS, replication_factor=1, assignments=[], configs=[]
    )
    async with crowd(port, 1) as [client]:
        answer = await client.ask(CreateTopicsRequest(topics=[topic]), 7)
        assert answer.topics[0].error_code == 0, answer
        for number in range(DATA_MIB):
            stored = await client.produce(TOPIC, batch(record), partition=number % PARTITIONS)
            assert stored.error_code == 0, stored


async def largest_requests(agent: LoadAgent, figures: Figures) -> None:
    """Requests as large as they may be, many times what all of them may hold, at once."""
    parts: dict[int, bytes | None] = {partition: batch(record) for partition in range(PARTITIONS)}
    request = produce_request({TOPIC: parts})
    agent.forget_peak()

    async def send(client: Client) -> None:
        for _ in range(LARGEST_EACH):
            await answer_to(client, client.send(request, 9))

    async with crowd(agent.port, LARGEST) as clients:
        await asyncio.gather(*map(send, clients))
    figures.note("requests of 8 MB, from 32 clients at once", LARGEST * LARGEST_EACH)
    await judge(agent, LARGEST, "largest requests", figures)


async def slow_readers(
    agent: LoadAgent, port: int, context: ssl.SSLContext | None, count: int, kind: str, figures: Figures
) -> None:
    """Clients that ask for all there is, again and again, and take none of it; beside them one that is served."""
    asked = fetch_request(
        {TOPIC: dict.fromkeys(range(PARTITIONS), 0)}, partition_max_bytes=2 * MIB, max_bytes=8 * MIB
    )
    agent.forget_peak()
    async with crowd(port, count, context) as clients, crowd(agent.port, 1) as [other]:
        for client in clients:
            for _ in range(ASKED_EACH):
                client.send(asked, 12)
        await asyncio.gather(*(client.writer.drain() for client in clients))
        await write_and_read(other)
        figures.note(f"clients that {kind}", count)
        figures.note("records written and read by others meanwhile", SERVED)
    tls_bytes = count * BUSY_TLS_CONNECTION_KIB * KIB if context is not None else 0
    await judge(agent, count, kind, figures, more_bytes=tls_bytes)


async def answer_to(client: Client, number: int) -> bytes:
    """The next answer, which may take until memory is free and whoever else uses this machine has had their turn."""
    async with asyncio.timeout(WAIT_S):
        size = int.from_bytes(await client.reader.readexactly(4), "big")
        frame = await client.reader.readexactly(size)
    assert int.from_bytes(frame[:4], "big") == number
    return frame


async def write_and_read(client: Client) -> None:
    """Records, until the last one has come back."""
    value = b"small"
    offset = -1
    for _ in range(SERVED):
        frame = await answer_to(client, client.send(produce_request({TOPIC: {0: batch(value)}}), 9))
        stored: Any = decode(APIS[ApiKey.PRODUCE].response, 9, frame, response_body_offset(ApiKey.PRODUCE, 9))
        [part] = stored.responses[0].partition_responses
        assert part.error_code == 0, part
        offset = part.base_offset
    request = fetch_request({TOPIC: {0: offset}})
    async with asyncio.timeout(WAIT_S):
        while value not in await answer_to(client, client.send(request, 12)):
            pass


async def vanish(agent: LoadAgent, figures: Figures) -> None:
    """Hundreds of clients that announce the largest request there is, send half of it, and are gone."""
    half = bytes(MEMORY.request * MIB // 2)
    agent.forget_peak()

    async def send_half(client: Client) -> None:
        client.write((MEMORY.request * MIB - 4).to_bytes(4, "big") + half)
        # Most are not read from, as there is no memory for all of them: what they send stays with them.
        await asyncio.wait([asyncio.ensure_future(client.writer.drain())], timeout=0.2)
        client.writer.transport.abort()

    for _ in range(VANISHING // 50):
        async with crowd(agent.port, 50) as clients:
            await asyncio.gather(*map(send_half, clients))
    figures.note("clients that vanished in the middle of a frame", VANISHING)
    await judge(agent, VANISHING, "vanished", figures)


async def judge(
    agent: LoadAgent, connections: int, kind: str, figures: Figures, *, more_bytes: int = 0
) -> None:
    """The peak was below the sum of the bounds, and all has been given back."""
    bound = MEMORY.bound_bytes(connections) + more_bytes
    figures.at_most(f"memory at the peak, {kind}", agent.peak_bytes() / MIB, bound / MIB, "MiB")
    deadline_s = time.monotonic() + WAIT_S
    while left := await numbers_left(agent):
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(0.1)
    for name, value in left.items():
        figures.exactly(f"{name} in the end, {kind}", value, 0)


async def numbers_left(agent: LoadAgent) -> dict[str, float]:
    """What is not 0 though nobody asks for anything."""
    metrics = await asyncio.to_thread(agent.metrics)
    return {name: metrics[name] for name in LEFT if metrics[name]}


@asynccontextmanager
async def crowd(
    port: int, count: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[Sequence[Client]]:
    """So many connections; at the end they are cut off, if they have not been yet."""
    clients: list[Client] = []
    try:
        while len(clients) < count:
            clients.append(Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context)))
        yield clients
    finally:
        for client in clients:
            client.writer.transport.abort()
        await asyncio.gather(*(client.writer.wait_closed() for client in clients), return_exceptions=True)

"""5,000 connections to one agent: what each costs, that all are served and given back, and what is at the limit."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.broker.client import Client, joined
from tests.broker.support import batch
from tests.load.agent import MIB, Facts, LoadAgent, with_tls
from tests.load.bounds import BUSY_TLS_CONNECTION_KIB, IDLE_CONNECTION_KIB, IDLE_TLS_CONNECTION_KIB
from tests.load.figures import Figures
from tests.support.tls import Certificate
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

CONNECTIONS = 5_000
TALKING = 1_000
TLS_CONNECTIONS = 400
BEYOND = 50
AT_ONCE = 100
TOPIC = "talked-of"
PARTITIONS = 10
VALUE = bytes(range(256)) * 4
WAIT_S = 60.0
BLOCKS_LEFT = 6_000
"""A cache and a trace of requests, which have bounds of their own, hold a little more than before."""
LEFT_MIB = 12
"""The heap that a crowd has made is not all given back: a piece that is in use keeps the page that it lies on."""
JOB_TASKS_MAX = 10
"""Background jobs may be at work at one moment and not at another."""
HTTP_SOCKETS_MAX = 1
"""The one that has just told how many are connected may not be closed yet."""
KIB = 1024


def test_five_thousand_connections_are_served_and_given_back(tmp_path: Path, figures: Figures) -> None:
    raise_descriptor_limit()
    options = ("--connections-max", str(CONNECTIONS))
    with LoadAgent(tmp_path / "data", *options) as agent:
        asyncio.run(many_in_the_clear(agent, figures))
        figures.complain(agent.bugs()[:3])


async def many_in_the_clear(agent: LoadAgent, figures: Figures) -> None:
    await warm_up(agent.port)
    before = await at_rest(agent)
    async with crowd(agent.port, CONNECTIONS) as clients:
        await until_connected(agent, CONNECTIONS)
        silent = agent.facts()
        await each(clients, ask_versions)
        idle = agent.facts()
        for name, facts in (("that has said nothing", silent), ("that is idle", idle)):
            cost = (facts.resident_bytes - before.resident_bytes) / KIB / CONNECTIONS
            figures.at_most(f"memory of a connection {name}", cost, IDLE_CONNECTION_KIB, "KiB")
        tasks = sum(idle.tasks.values()) - sum(before.tasks.values())
        figures.at_most("tasks of them all", tasks, JOB_TASKS_MAX)
        sockets = idle.descriptors["socket"] - before.descriptors["socket"] - CONNECTIONS
        figures.at_most("sockets beside theirs", abs(sockets), HTTP_SOCKETS_MAX)
        await refuse_more(agent, figures)
        await each(clients[:TALKING], write_and_read)
        figures.note("connections that write and read", TALKING)
        await each(clients, ask_versions)
        figures.note("connections served once more", CONNECTIONS)
    first = await at_rest(agent)
    async with crowd(agent.port, CONNECTIONS):
        await until_connected(agent, CONNECTIONS)
        figures.note("connections of a second crowd", CONNECTIONS)
    judge_rest(before, first, await at_rest(agent), figures)
    async with crowd(agent.port, 1) as late:
        await each(late, write_and_read)


async def at_rest(agent: LoadAgent) -> Facts:
    """Wait until nobody is connected, and see what the agent holds then."""
    await until_connected(agent, 0)
    return agent.facts()


def judge_rest(before: Facts, first: Facts, second: Facts, figures: Figures) -> None:
    """Everybody has gone, twice: what one crowd has left is there for the next one."""
    for name in ("socket", "anon_inode", "pipe"):
        left = second.descriptors.get(name, 0) - before.descriptors.get(name, 0)
        figures.at_most(f"descriptors not given back, {name}", left, HTTP_SOCKETS_MAX)
    figures.at_most("pieces of memory not given back", second.blocks - before.blocks, BLOCKS_LEFT)
    more = (second.resident_bytes - first.resident_bytes) / MIB
    figures.at_most("memory that a second crowd leaves beside the first", more, LEFT_MIB, "MiB")


async def refuse_more(agent: LoadAgent, figures: Figures) -> None:
    """Above the limit a connection is closed at once, counted, and the log says why."""
    for _ in range(BEYOND):
        async with crowd(agent.port, 1) as [client]:
            assert await client.is_closed()
    refused = await asyncio.to_thread(agent.metric, "warp_connections_refused_total")
    figures.exactly("connections refused above the limit", refused, BEYOND)
    words = f"{CONNECTIONS} are open"
    assert any("refused" in line and words in line for line in agent.output), "the log does not tell why"


def test_hundreds_of_connections_over_tls_stay_in_their_bounds(tmp_path: Path, figures: Figures) -> None:
    raise_descriptor_limit()
    certificate = Certificate(tmp_path)
    port, options = with_tls(certificate)
    context = ssl.create_default_context(cafile=str(certificate.ca_file))
    with LoadAgent(tmp_path / "data", *options) as agent:
        asyncio.run(many_over_tls(agent, port, context, figures))
        figures.complain(agent.bugs()[:3])


async def many_over_tls(agent: LoadAgent, port: int, context: ssl.SSLContext, figures: Figures) -> None:
    await warm_up(port, context)
    before = await at_rest(agent)
    agent.forget_peak()

    def cost_of(resident_bytes: int) -> float:
        return (resident_bytes - before.resident_bytes) / KIB / TLS_CONNECTIONS

    async with crowd(port, TLS_CONNECTIONS, context) as clients:
        await each(clients, ask_versions)
        await until_connected(agent, TLS_CONNECTIONS)
        idle = cost_of(agent.facts().resident_bytes)
        figures.at_most("memory of an idle connection", idle, IDLE_TLS_CONNECTION_KIB, "KiB")
        await each(clients, write_and_read)
        figures.note("memory of one that has written and read", cost_of(agent.facts().resident_bytes), "KiB")
        figures.at_most("the same at the peak", cost_of(agent.peak_bytes()), BUSY_TLS_CONNECTION_KIB, "KiB")
    first = await at_rest(agent)
    async with crowd(port, TLS_CONNECTIONS, context) as clients:
        await each(clients, ask_versions)
    judge_rest(before, first, await at_rest(agent), figures)


def raise_descriptor_limit() -> None:
    """The clients are in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > CONNECTIONS + 500, f"ulimit -Hn is {hard}"


@asynccontextmanager
async def crowd(port: int, count: int, context: ssl.SSLContext | None = None) -> AsyncIterator[list[Client]]:
    """So many connections, made some at a time; at the end all are closed."""
    clients: list[Client] = []
    try:
        while len(clients) < count:
            some = min(AT_ONCE, count - len(clients))
            opening = (asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(some))
            clients += [Client(*streams) for streams in await asyncio.gather(*opening)]
        yield clients
    finally:
        for client in clients:
            client.writer.close()
        await asyncio.gather(*(client.writer.wait_closed() for client in clients), return_exceptions=True)


async def warm_up(port: int, context: ssl.SSLContext | None = None) -> None:
    """Make the topic, and do once what costs memory only once."""
    topic = CreatableTopic(
        name=TOPIC, num_partitions=PARTITIONS, replication_factor=1, assignments=[], configs=[]
    )
    async with crowd(port, AT_ONCE, context) as clients:
        answer = await clients[0].ask(CreateTopicsRequest(topics=[topic]), 7)
        assert answer.topics[0].error_code == 0, answer
        await each(clients, write_and_read)


async def each(clients: Sequence[Client], act: Callable[[Client], Awaitable[None]]) -> None:
    """Let each client do something, some at a time."""
    for start in range(0, len(clients), AT_ONCE):
        await asyncio.gather(*map(act, clients[start : start + AT_ONCE]))


async def ask_versions(client: Client) -> None:
    """The smallest request."""
    assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0


async def write_and_read(client: Client) -> None:
    """A record of 1 KiB, and what there is from it on."""
    partition = id(client) // 64 % PARTITIONS
    stored = await client.produce(TOPIC, batch(VALUE), partition=partition)
    assert stored.error_code == 0, stored
    found = await client.fetch(TOPIC, stored.base_offset, partition=partition)
    assert found.error_code == 0, found
    assert len(joined(found.records)) >= len(VALUE)


async def until_connected(agent: LoadAgent, count: int) -> None:
    """Wait until the agent knows of so many connections, of which nothing tells."""
    async with asyncio.timeout(WAIT_S):
        while await asyncio.to_thread(agent.metric, "warp_connections") != count:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.05)

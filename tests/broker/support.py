"""A running agent in the test's own process, and what tests do with it again and again."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.broker.client import Client
from warp._records import build_batch
from warp.agent import Agent
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.config import config_of
from warp.ids import IdSource, TopicId
from warp.metadata.group_model import SLOTS, slot_of
from warp.metrics import Metrics
from warp.protocol.messages.topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest

TEST_S_MAX = 60.0
NOW_MS = 1_700_000_000_000
MIB = 2**20


ONE_PER_SLOT = tuple({slot_of(name): name for name in map(str, range(30 * SLOTS))}.values())
"""Group ids, one in each coordinator slot."""
assert len(ONE_PER_SLOT) == SLOTS


def batch(*values: bytes, timestamp_ms: int = NOW_MS, key: bytes | None = b"key", **fields: Any) -> bytes:
    """A record batch of these values, with timestamps one millisecond apart."""
    return build_batch(
        [(key, value, (), timestamp_ms + index) for index, value in enumerate(values)], **fields
    )


def numbered_topics() -> Iterator[str]:
    """Names for topics that don't care about theirs."""
    return (f"topic-{number}" for number in itertools.count())


@dataclass
class Broker:
    """A running agent, and clients of it."""

    agent: Agent
    clients: list[Client] = field(default_factory=list)
    names: Iterator[str] = field(default_factory=numbered_topics)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.agent.server.listeners[0].bound.port

    @property
    def answer_bytes(self) -> int:
        """Memory that answers to fetches take until they are written: their own, and what they hold of the cache."""
        return self.agent.log.fetch_memory.used_bytes + self.agent.log.cache.held_bytes

    async def connect(self) -> Client:
        """A new connection."""
        client = await Client.connect(self.port)
        self.clients.append(client)
        return client

    async def topic(self, name: str | None = None, partitions: int = 1, **configs: str) -> str:
        """A new topic, over the wire; underscores in the names of configs stand for dots."""
        client = await self.connect()
        name = name or next(self.names)
        values = [
            CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()
        ]
        topic = CreatableTopic(
            name=name, num_partitions=partitions, replication_factor=1, assignments=[], configs=values
        )
        answer = await client.ask(CreateTopicsRequest(topics=[topic]), 7)
        assert answer.topics[0].error_code == 0, answer
        return name

    def topic_id(self, name: str) -> TopicId:
        """The id of a topic."""
        return self.agent.catalogue.current.by_name[name].topic_id


BrokerTest = Callable[[Broker], Awaitable[None]]
RunWithBroker = Callable[..., None]


async def beside_agent(test: BrokerTest, directory: Path, settings: dict[str, str]) -> None:
    """Start an agent, run the test, stop the agent, and see that nothing is left over."""
    clock = SystemClock()
    defaults = {"listen": "127.0.0.1:0", "http": "off", "data_dir": str(directory / "data")}
    config = config_of(**{**defaults, **settings})
    agent = build_agent(config, clock=clock, ids=IdSource(clock, os.urandom), metrics=Metrics())
    await agent.start()
    broker = Broker(agent)
    try:
        async with asyncio.timeout(TEST_S_MAX):
            await slots_taken(agent)
            await test(broker)
            for client in broker.clients:
                await client.close()
            await everything_ended(broker)
    finally:
        for client in broker.clients:
            client.writer.transport.abort()
        await asyncio.sleep(0)
        await agent.stop(5)
    assert agent.server.handler_bugs == 0


async def slots_taken(agent: Agent) -> None:
    """Wait until the agent coordinates every group. In a cluster it has to see first that nobody else does."""
    coordinator = agent.groups.coordinator
    while coordinator.is_loading or not all(map(coordinator.coordinates, ONE_PER_SLOT)):  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.001)


async def everything_ended(broker: Broker) -> None:
    """Wait until the agent has noticed that its clients left; then it must hold nothing for them."""
    while broker.agent.server.connection_count:  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.001)
    memory = broker.agent.log.request_memory
    assert (memory.used_bytes, memory.waiting) == (0, 0)
    assert broker.answer_bytes == 0

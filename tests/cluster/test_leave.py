"""SIGTERM: an agent leaves discovery first, finishes what it holds, hands over its leases, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.broker.client import Client, produce_request
from tests.broker.support import batch
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic, metadata
from tests.support.cluster import SETTLE_S, SLOTS, Cluster, ClusterAgent, eventually
from tests.support.fault_proxy import FaultProxy
from warp.protocol import ApiKey

pytestmark = pytest.mark.postgres

PUT_S = 4.0
"""How long the object store takes for a PUT where an agent is to be watched as it finishes one."""


class Load:
    """An idempotent producer in a thread of its own; `stored` are the values that were acknowledged."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.stored: list[bytes] = []
        self.failures: list[KafkaError] = []
        self._topic = topic
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "reconnect.backoff.max.ms": 200,
                "topic.metadata.refresh.interval.ms": 500,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        """Send no more, and wait until all is acknowledged."""
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(60) == 0
        assert not self.failures, self.failures[0]

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            self._producer.produce(self._topic, b"%d" % number, on_delivery=self._delivered)
            number += 1
            self._producer.poll(0.001)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            self.stored.append(message.value() or b"")


def read_all(bootstrap: str, topic: str, partitions: int, count: int) -> list[bytes]:
    """The values of all partitions, `count` at least."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "x", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    values: list[bytes] = []

    def is_read() -> bool:
        for message in consumer.consume(1000, 0.5):
            assert message.error() is None, message.error()
            values.append(message.value() or b"")
        return len(values) >= count

    eventually(is_read, f"{count} records are read", 60)
    consumer.close()
    return values


def slots_of(agent: ClusterAgent) -> dict[str, int]:
    """By name, how many coordinator slots each agent holds, as this one sees it."""
    return {other["name"]: other["slots"] for other in agent.view()["agents"]}


def test_agents_that_stop_one_after_the_other_under_load_lose_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t", 3)
    load = Load(cluster, "t")
    for agent in cluster.agents:
        seen = len(load.stored)
        eventually(lambda seen=seen: len(load.stored) > seen + 200, "records are acknowledged")  # type: ignore[misc]
        assert agent.stop() == 0
        agent.start()
        cluster.settle()
    load.finish()
    values = read_all(cluster.bootstrap, "t", 3, len(load.stored))
    assert sorted(values) == sorted(load.stored)


def test_the_others_take_over_at_once_what_an_agent_leaves(make_cluster: MakeCluster) -> None:
    # Nobody is taken for gone by silence: what is taken over was handed over.
    cluster = make_cluster("--agent-timeout", "60s")
    leaver, *others = cluster.agents
    assert leaver.stop() == 0
    for agent in others:
        eventually(lambda agent=agent: agent.states()[leaver.bootstrap] == "gone", "it is gone")  # type: ignore[misc]
        eventually(lambda agent=agent: agent.view()["slots"]["held"] == SLOTS, "all slots are held")  # type: ignore[misc]
        assert slots_of(agent)[leaver.bootstrap] == 0
        jobs = agent.view()["jobs"]
        assert jobs
        eventually(
            lambda agent=agent: all(job["holder"] is not None for job in agent.view()["jobs"]),  # type: ignore[misc]
            "every job has a holder",
        )


def test_an_agent_that_leaves_is_named_to_nobody_while_it_finishes_what_it_holds(
    make_cluster: MakeCluster, proxy: FaultProxy
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")
    leaver, witness, _ = cluster.agents
    leaver_id = leaver.broker_id()

    async def brokers(agent: ClusterAgent) -> set[int]:
        client = await Client.connect(agent.port)
        answer = await metadata(client, "app", "t")
        await client.close()
        return {broker.node_id for broker in answer.brokers}

    async def test() -> None:
        client = await Client.connect(leaver.port)
        assert (await client.produce("t", batch(b"first"))).base_offset == 0
        assert leaver_id in await brokers(witness)
        proxy.delay("PUT", fixed_s=PUT_S)
        begun = len(proxy.journal.requests())
        sent = client.send(produce_request({"t": {0: batch(b"last")}}), 9)
        answer: asyncio.Task[Any] = asyncio.create_task(client.answer(ApiKey.PRODUCE, 9, sent))
        await asyncio.to_thread(
            proxy.journal.wait_for,
            lambda requests: any(request.method == "PUT" for request in requests[begun:]),
            SETTLE_S,
        )
        leaver.terminate()
        await asyncio.to_thread(
            eventually, lambda: witness.states()[leaver.bootstrap] == "leaving", "the agent leaves"
        )
        assert leaver_id not in await brokers(witness)
        await asyncio.to_thread(
            eventually, lambda: slots_of(witness).get(leaver.bootstrap) == 0, "its slots are handed over"
        )
        assert not answer.done()
        assert leaver.is_running
        [produced] = (await answer).responses[0].partition_responses
        assert (produced.error_code, produced.base_offset) == (0, 1)
        await client.close()

    asyncio.run(test())
    proxy.delay("PUT")
    assert leaver.wait() == 0
    assert read_all(witness.bootstrap, "t", 1, 2) == [b"first", b"last"]

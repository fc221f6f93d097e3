"""A consumer that is a million records behind reads each of them once, in order, in bounded memory and few requests."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.load.agent import MIB, LoadAgent
from tests.load.bounds import Memory
from tests.load.figures import Figures
from tests.support.client_load import QUICK
from tests.support.cluster import eventually
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server, environment_of

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

TOPIC = "behind"
PARTITIONS = 4
MEMORY = Memory(requests=64, fetches=16, cache=32)
VALUE_BYTES = 100
FILL = bytes(range(64, 64 + VALUE_BYTES))
DELIVERY_S = 300.0
PATIENCE_S = 120.0
POLL_S = 0.2
READING_MIB = 16
"""What a reader takes beside the cache and the memory for answers: the index of what it reads, allocators."""
GET_BYTES = 4 * MIB
GETS_PER_CHUNK = 1.05
"""Of so many bytes; and one for each segment, whose end is no whole chunk, and for each partition of a merged segment
one more, for a chunk that holds data of two partitions may have left the cache when the second one comes to it."""
LEVEL_0_MAX = 64
"""So many small segments are merged, however small they are; fewer may wait for more."""


def value_of(partition: int, offset: int) -> bytes:
    """Of a record; no two are alike."""
    return b"%d/%d/" % (partition, offset) + FILL[: VALUE_BYTES - 16]


def write(bootstrap: str, count: int) -> None:
    """So many records, spread evenly, each with a value that tells where it belongs."""
    refused: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20,
            "queue.buffering.max.messages": 500_000, "batch.size": 500_000, **QUICK, "socket.timeout.ms": 60_000,
        }
    )  # fmt: skip

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            refused.append(error)

    for number in range(count):
        partition, offset = number % PARTITIONS, number // PARTITIONS
        while True:
            try:
                producer.produce(
                    TOPIC, value_of(partition, offset), partition=partition, on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(DELIVERY_S) == 0
    assert refused == []


def read_all(bootstrap: str, count: int) -> list[str]:
    """What is wrong with the records that a consumer gets from the first to the last."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True,
        "auto.offset.reset": "error", "enable.partition.eof": True, "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 16_384, **QUICK, "socket.timeout.ms": 60_000,
    }  # fmt: skip
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    nexts, ended = array("q", [0] * PARTITIONS), [False] * PARTITIONS
    problems: list[str] = []
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while not all(ended) and len(problems) < 5:
            problems += _checked(consumer.consume(10_000, POLL_S), nexts, ended)
            if time.monotonic() > deadline_s:
                problems.append(f"it did not come to the end, but to {list(nexts)}")
                break
    finally:
        consumer.close()
    if sum(nexts) != count:
        problems.append(f"{sum(nexts)} of {count} records came: {list(nexts)}")
    return problems


def _checked(messages: Sequence[Any], nexts: array[int], ended: list[bool]) -> list[str]:
    problems = []
    for message in messages:
        partition, error = message.partition(), message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                ended[partition] = True
            else:
                problems.append(f"{error}")
            continue
        expected = nexts[partition]
        if message.offset() != expected or message.value() != value_of(partition, expected):
            problems.append(
                f"{message.value()!r} at {message.offset()} of {partition}, expected was {expected}"
            )
        nexts[partition] = expected + 1
    return problems


def catch_up(agent: LoadAgent, count: int, figures: Figures, options: str = "") -> None:
    """Write, wait for the jobs, start the agent again so that it remembers nothing, and read."""
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(60)
    write(agent.bootstrap, count)
    written = agent.metric("warp_produced_bytes_total")
    figures.note("written", written / MIB, "MiB")
    figures.at_most("memory while writing", agent.peak_bytes() / MIB, MEMORY.bound_bytes(10) / MIB, "MiB")
    eventually(lambda: is_merged(agent, written), "what was written is merged", PATIENCE_S)
    segments = agent.metric("warp_live_segments")
    merged = segments - agent.count("warp_live_segments", level="0")
    assert agent.stop() == 0
    agent.start()
    agent.forget_peak()
    idle, before = agent.resident_bytes(), gets(agent)
    figures.complain(read_all(agent.bootstrap, count))
    found = gets(agent) - before
    figures.note("records read, once and in order", count)
    figures.note("segments", segments)
    figures.note("merged segments", merged)
    bound = GETS_PER_CHUNK * (written // GET_BYTES) + segments + merged * PARTITIONS
    figures.at_most("GETs of a reader", found, bound)
    assert found > 0, "nothing was read from the object store"
    grown = agent.peak_bytes() - idle
    figures.at_most("memory for reading", grown / MIB, MEMORY.cache + MEMORY.fetches + READING_MIB, "MiB")
    figures.complain(agent.bugs()[:3])


def is_merged(agent: LoadAgent, written: float) -> bool:
    """Few small segments are left, by what the job that counts them has found since all was written."""
    is_counted = agent.metric("warp_live_segments_bytes") >= written
    return is_counted and agent.count("warp_live_segments", level="0") < LEVEL_0_MAX


def gets(agent: LoadAgent) -> float:
    """Requests to the object store on behalf of readers."""
    return agent.count("warp_cache_loads_total", source="store")


def test_a_million_records_behind_on_a_local_store(tmp_path: Path, figures: Figures) -> None:
    with LoadAgent(tmp_path / "data", *MEMORY.options(), "--merge-interval", "200ms") as agent:
        catch_up(agent, 1_000_000, figures)


@pytest.mark.postgres
def test_two_hundred_thousand_records_behind_in_a_cluster(tmp_path: Path, figures: Figures) -> None:
    with PostgresServer() as postgres, S3Server(tmp_path) as s3:
        stores = ("--metadata", postgres.create_database(), "--object-store", s3.url("warp"))
        options = (*stores, *MEMORY.options(), "--merge-interval", "200ms")
        environment = environment_of(s3.credentials)
        with LoadAgent(tmp_path / "data", *options, environment=environment) as agent:
            catch_up(agent, 200_000, figures)


assert len({value_of(*place) for place in itertools.product(range(2), range(20))}) == 40

"""The topic of a run: made when it is missing, removed only when this run has made it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from warp.cli.bench.settings import DEFAULT_PARTITIONS, Settings
from warp.cli.client import Client, ClientError
from warp.config import did_you_mean

LEADERS_WAIT_S: Final = 0.1
MANUAL_RESET: Final = {"auto.offset.reset": "error"}


@dataclass(frozen=True, slots=True)
class BenchTopic:
    """A topic that is there. `is_new`: this run has made it."""

    name: str
    partitions: list[int]
    is_new: bool
    cluster_id: str | None
    broker_count: int


def prepare_topic(client: Client, admin: AdminClient, settings: Settings) -> BenchTopic:
    """Find the topic, or make it when something is to be sent there. Raises ClientError."""
    cluster = client.cluster(admin)
    name = settings.topic
    told = (cluster.cluster_id, len(cluster.brokers))
    if name in cluster.topics and cluster.topics[name].error is None:
        partitions = sorted(cluster.topics[name].partitions)
        if settings.delete_topic and settings.producers:
            raise ClientError(
                f"topic {name} is there already; --delete-topic removes only a topic that the run has made"
            )
        if settings.partitions is not None and settings.partitions != len(partitions):
            raise ClientError(f"topic {name} has {len(partitions)} partitions, not {settings.partitions}")
        return BenchTopic(name, partitions, False, *told)
    if not settings.producers:
        near = did_you_mean(name, cluster.topics)
        raise ClientError(f"there is no topic {name}{near or '; `warp bench produce` makes one'}")
    count = settings.partitions or DEFAULT_PARTITIONS
    try:
        new = NewTopic(name, num_partitions=count, replication_factor=-1)
        made = admin.create_topics(
            [new], operation_timeout=client.timeout_s, request_timeout=client.timeout_s
        )
        made[name].result()
    except KafkaException as error:
        raise ClientError(f"can't make topic {name}: {client.failure(error)}") from error
    _wait_for_leaders(client, admin, name, count)
    return BenchTopic(name, list(range(count)), True, *told)


def _wait_for_leaders(client: Client, admin: AdminClient, name: str, count: int) -> None:
    """Return when every partition of a new topic has a leader: in a cluster that may come after the answer."""
    deadline = time.monotonic() + client.timeout_s
    while True:
        topic = client.cluster(admin).topics.get(name)
        led = [] if topic is None else [each for each in topic.partitions.values() if each.leader >= 0]
        if len(led) == count:
            return
        if time.monotonic() > deadline:
            raise ClientError(
                f"{count - len(led)} of {count} partitions of the new topic {name} have no leader "
                f"after {client.timeout_s:g} s"
            )
        time.sleep(LEADERS_WAIT_S)


def delete_topic(client: Client, admin: AdminClient, name: str) -> None:
    """Remove a topic. Raises ClientError."""
    try:
        admin.delete_topics([name], operation_timeout=client.timeout_s, request_timeout=client.timeout_s)[
            name
        ].result()
    except KafkaException as error:
        raise ClientError(f"can't remove topic {name}: {client.failure(error)}") from error


def first_offsets(client: Client, topic: BenchTopic) -> dict[int, int]:
    """Where each partition begins. Raises ClientError."""
    return client.offsets(
        client.consumer(**MANUAL_RESET), topic.name, dict.fromkeys(topic.partitions, OFFSET_BEGINNING)
    )


def end_offsets(client: Client, topic: BenchTopic) -> dict[int, int]:
    """Where each partition ends now. Raises ClientError."""
    return client.offsets(
        client.consumer(**MANUAL_RESET), topic.name, dict.fromkeys(topic.partitions, OFFSET_END)
    )

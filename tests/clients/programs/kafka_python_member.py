"""A group member on kafka-python."""

from __future__ import annotations

import time
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from tests.clients.programs.events import (
    Job,
    Stop,
    assigned as tell_assigned,
    committed,
    emit,
    problem,
    read_job,
    record,
)


class Owned(ConsumerRebalanceListener):
    """Prints what the member has."""

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            tell_assigned([])

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        tell_assigned(partition.partition for partition in assigned)


def security(job: Job) -> dict[str, Any]:
    if (found := job.security) is None:
        return {}
    return {
        "security_protocol": found.protocol,
        "ssl_cafile": found.ca,
        "sasl_mechanism": found.mechanism,
        "sasl_plain_username": found.user,
        "sasl_plain_password": found.password,
    }


def main() -> None:
    job = read_job()
    stop = Stop()
    consumer = KafkaConsumer(
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        group_instance_id=job.instance,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=job.session_ms,
        heartbeat_interval_ms=job.heartbeat_ms,
        max_poll_records=100,
        **security(job),
    )
    consumer.subscribe([job.topic], listener=Owned())
    while not stop:
        after = {}
        try:
            batches = consumer.poll(timeout_ms=200)
        except KafkaError as error:
            problem(error)
            time.sleep(0.2)
            continue
        for partition, messages in batches.items():
            for message in messages:
                record(message.partition, message.offset, message.value or b"")
            after[partition] = OffsetAndMetadata(messages[-1].offset + 1, "", -1)
        if after:
            try:
                consumer.commit(after)
            except KafkaError as error:
                problem(error)
                continue
            for partition, committed_offset in after.items():
                committed(partition.partition, committed_offset.offset)
    consumer.close()
    emit("closed")


main()

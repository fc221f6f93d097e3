"""A group member on aiokafka, whose groups are eager."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import (  # type: ignore[import-untyped]
    RangePartitionAssignor,
)
from aiokafka.errors import (  # type: ignore[attr-defined]  # one class is made while it is imported
    GroupAuthorizationFailedError,
    KafkaError,
)

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
        "ssl_context": ssl.create_default_context(cafile=found.ca),
        "sasl_mechanism": found.mechanism,
        "sasl_plain_username": found.user,
        "sasl_plain_password": found.password,
    }


async def start(job: Job) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        group_instance_id=job.instance,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=job.session_ms,
        heartbeat_interval_ms=job.heartbeat_ms,
        partition_assignment_strategy=(RangePartitionAssignor,),
        max_poll_records=100,
        **security(job),
    )
    consumer.subscribe([job.topic], listener=Owned())
    try:
        await consumer.start()
    except KafkaError:
        await consumer.stop()
        raise
    return consumer


async def process(consumer: AIOKafkaConsumer, stop: Stop) -> None:
    while not stop:
        batches = await consumer.getmany(timeout_ms=200)
        after = {}
        for partition, messages in batches.items():
            for message in messages:
                record(message.partition, message.offset, message.value or b"")
            after[partition] = messages[-1].offset + 1
        if after:
            try:
                await consumer.commit(after)
            except KafkaError as error:
                problem(error)
                continue
            for partition, offset in after.items():
                committed(partition.partition, offset)


async def main() -> None:
    job = read_job()
    stop = Stop()
    while not stop:
        # A consumer that is refused its group never asks for it again.
        try:
            consumer = await start(job)
        except GroupAuthorizationFailedError as error:
            problem(error)
            await asyncio.sleep(0.2)
            continue
        try:
            await process(consumer, stop)
        finally:
            await consumer.stop()
    emit("closed")


asyncio.run(main())

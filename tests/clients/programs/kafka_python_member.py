"""A group member on kafka-python."""

from __future__ import annotations

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from tests.clients.programs.events import (
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
    )
    consumer.subscribe([job.topic], listener=Owned())
    while not stop:
        after = {}
        for partition, messages in consumer.poll(timeout_ms=200).items():
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

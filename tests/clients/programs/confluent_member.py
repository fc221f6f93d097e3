"""A group member on librdkafka (confluent-kafka)."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.clients.programs.events import Job, Stop, assigned, committed, emit, problem, read_job, record


def configuration(job: Job) -> dict[str, str | int | bool]:
    configured: dict[str, str | int | bool] = {
        "bootstrap.servers": job.bootstrap,
        "group.id": job.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": job.session_ms,
        "heartbeat.interval.ms": job.heartbeat_ms,
        "partition.assignment.strategy": "cooperative-sticky" if job.assignor == "cooperative" else "range",
    }
    if job.instance is not None:
        configured["group.instance.id"] = job.instance
    if (security := job.security) is not None:
        configured |= {
            "security.protocol": security.protocol,
            "ssl.ca.location": security.ca,
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.user,
            "sasl.password": security.password,
        }
    return configured


def commit(consumer: Consumer, topic: str, after: dict[int, int]) -> None:
    offsets = [TopicPartition(topic, partition, offset) for partition, offset in after.items()]
    try:
        done = consumer.commit(offsets=offsets, asynchronous=False) or []
    except KafkaException as error:
        problem(error)
        return
    for partition in done:
        if partition.error is None:
            committed(partition.partition, partition.offset)
        else:
            problem(partition.error)


def main() -> None:
    job = read_job()
    stop = Stop()
    consumer = Consumer(configuration(job))

    def changed(consumer: Consumer, partitions: list[TopicPartition], is_gain: bool) -> None:
        owned = {partition.partition for partition in consumer.assignment()}
        named = {partition.partition for partition in partitions}
        assigned(owned | named if is_gain else owned - named)

    consumer.subscribe(
        [job.topic],
        on_assign=lambda consumer, partitions: changed(consumer, partitions, True),
        on_revoke=lambda consumer, partitions: changed(consumer, partitions, False),
        on_lost=lambda consumer, partitions: changed(consumer, partitions, False),
    )
    while not stop:
        after = {}
        for message in consumer.consume(100, 0.2):
            if message.error() is not None:
                problem(message.error())
                continue
            partition, offset, value = message.partition(), message.offset(), message.value()
            assert partition is not None
            assert offset is not None
            assert isinstance(value, bytes)
            record(partition, offset, value)
            after[partition] = offset + 1
        if after:
            commit(consumer, job.topic, after)
    consumer.close()
    emit("closed")


main()

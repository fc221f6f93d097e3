"""`warp consume --group`: a member of a consumer group, which prints the records of the partitions that it is given.

A record's offset is committed after the record has been printed: whatever happens, it is printed once at least.
"""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from warp.cli.client import Client, ClientError
from warp.cli.consume_output import Output
from warp.cli.interrupt import Interrupt
from warp.cli.positions import BEGINNING, END
from warp.errors import UsageError

POLL_S: Final = 0.2
BATCH_RECORDS: Final = 1_000
COMMIT_INTERVAL_MS: Final = 1_000


def consume_as_member(found: argparse.Namespace, client: Client, output: Output) -> int:
    """Print records until Ctrl-C or the count; then commit and leave. The exit code."""
    consumer = client.consumer(**_settings(found))
    with Interrupt() as interrupt:
        try:
            with interrupt.raising():
                client.topic_partitions(consumer, found.topic)
        except KeyboardInterrupt:
            return 0
        consumer.subscribe([found.topic])
        try:
            _consume(found, client, consumer, output, interrupt)
        except BaseException:
            # What went wrong first is what is told.
            with suppress(ClientError):
                _leave(found.group, client, consumer, interrupt)
            raise
        _leave(found.group, client, consumer, interrupt)
    return 0


def _settings(found: argparse.Namespace) -> dict[str, str | int | bool]:
    if found.begin not in (BEGINNING, END):
        raise UsageError("with --group, --from is beginning or end: the group keeps its own place")
    if found.to is not None or found.partition is not None:
        option = "--to" if found.to is not None else "--partition"
        raise UsageError(f"{option} does not go with --group, which shares partitions out by itself")
    return {
        "group.id": found.group,
        "auto.offset.reset": "earliest" if found.begin == BEGINNING else "latest",
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": COMMIT_INTERVAL_MS,
        "enable.partition.eof": False,
        "fetch.wait.max.ms": 200,
    }


def _consume(
    found: argparse.Namespace, client: Client, consumer: Consumer, output: Output, interrupt: Interrupt
) -> None:
    count: int | None = found.count
    while not interrupt.is_set and (count is None or output.count < count):
        wanted = BATCH_RECORDS if count is None else min(BATCH_RECORDS, count - output.count)
        try:
            messages = consumer.consume(wanted, POLL_S)
        except KafkaException as error:
            raise client.failure(error) from error
        next_offsets: dict[int, int] = {}
        for message in messages:
            if _is_record(message, client):
                output.write(message)
                next_offsets[int(message.partition() or 0)] = int(message.offset() or 0) + 1
        output.flush()
        for partition, offset in next_offsets.items():
            _store(consumer, TopicPartition(found.topic, partition, offset))


def _is_record(message: Message, client: Client) -> bool:
    error = message.error()
    if error is not None and error.code() == KafkaError._MAX_POLL_EXCEEDED:
        # Whoever reads our output was slow, and the group went on without us. The next poll joins it again.
        return False
    return not client.has_failed(message)


def _store(consumer: Consumer, place: TopicPartition) -> None:
    """Have an offset committed. It is not, when the partition has gone to another member meanwhile."""
    try:
        consumer.store_offsets(offsets=[place])
    except KafkaException as error:
        if error.args[0].code() != KafkaError._STATE:
            raise


def _leave(group: str, client: Client, consumer: Consumer, interrupt: Interrupt) -> None:
    """Commit what is stored and leave the group. Raises ClientError when that fails or the broker does not answer.

    The library waits for its coordinator without limit, so it does so on a thread of its own.
    """
    failures: list[KafkaException] = []

    def close() -> None:
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:
                failures.append(error)
        consumer.close()

    closing = threading.Thread(target=close, name="leave-group", daemon=True)
    closing.start()
    # A first Ctrl-C is why we are here; a second one ends the wait.
    interrupt.is_set = False
    with interrupt.raising():
        closing.join(client.timeout_s)
    again = "the last records may be printed again"
    if closing.is_alive():
        raise ClientError(f"group {group} was not left within {client.timeout_s:g} s; {again}")
    if failures:
        raise ClientError(
            f"the last offsets of group {group} are not committed, {again}: {client.failure(failures[0])}"
        )

"""`warp produce`: lines of a file or of standard input become records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from warp.cli.arguments import Parser, add_client_options, positive_count
from warp.cli.client import Client, ClientError
from warp.cli.interrupt import Interrupt
from warp.cli.records import Record, record_of_json, record_of_line
from warp.errors import UsageError

EXAMPLES = """\
  echo hello | warp produce greetings
  warp produce users --key-separator : < users.txt          # lines like alice:{"age": 7}
  warp produce users --json --file users.jsonl              # lines like {"key": "alice", "value": {"age": 7}}
"""
LINE_BYTES_MAX = 64 * 1024 * 1024
QUEUE_WAIT_S = 0.1


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    found = _parser().parse_all(words)
    if found.json and found.key_separator is not None:
        raise UsageError(
            "--json and --key-separator exclude each other: a JSON record has a field for its key"
        )
    client = Client(found)
    settings: dict[str, object] = {
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": found.compression,
    }
    producer = client.producer(**settings, **{"message.timeout.ms": max(1000, int(found.timeout * 1000))})
    sending = _Sending(producer, found.topic, client)
    with Interrupt() as interrupt:
        try:
            _send_all(found, sending, interrupt)
        finally:
            sending.finish(found.timeout)
    if interrupt.is_set:
        raise ClientError(f"interrupted; {sending.stored} records were stored")
    if sending.failure is not None:
        raise ClientError(
            f"{sending.failed} of {sending.failed + sending.stored} records were not stored: "
            f"{client.failure(sending.failure)}"
        )
    return 0


def _send_all(found: argparse.Namespace, sending: _Sending, interrupt: Interrupt) -> None:
    """Send every line, up to --count or an interrupt."""
    with _opened(found.file) as file:
        number = 0
        while found.count is None or number < found.count:
            try:
                with interrupt.raising():
                    line = _next_line(file)
            except KeyboardInterrupt:
                return
            if line is None:
                return
            number += 1
            sending.send(_record(number, line, found))


class _Sending:
    """The records on their way, and what became of them."""

    def __init__(self, producer: Producer, topic: str, client: Client) -> None:
        self._producer = producer
        self._topic = topic
        self._client = client
        self.stored = 0
        self.failed = 0
        self.failure: KafkaError | None = None

    def send(self, record: Record) -> None:
        """Hand a record to the library; waits while its queue is full. Raises ClientError when it refuses it."""
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=record.partition,
                    timestamp=record.timestamp_ms,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(QUEUE_WAIT_S)
            except KafkaException as error:
                raise self._client.failure(error) from error
            else:
                self._producer.poll(0)
                return

    def finish(self, timeout_s: float) -> None:
        """Wait for every record's fate; those without one after the library's own time-out count as failed."""
        left = self._producer.flush(timeout_s + 1)
        if left:
            self.failed += left
            self.failure = self.failure or KafkaError(KafkaError._MSG_TIMED_OUT)
            self._producer.purge()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.stored += 1
        else:
            self.failed += 1
            self.failure = self.failure or error


def _parser() -> Parser:
    parser = Parser(
        "warp produce", "Send each line of standard input, or of a file, as one record.", EXAMPLES
    )
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument(
        "-f", "--file", type=Path, metavar="FILE", help="Read this file instead of standard input."
    )
    parser.add_argument(
        "-k",
        "--key-separator",
        metavar="TEXT",
        help="What stands before the first TEXT in a line is its key.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="Each line is a JSON object with any of key, value, headers, partition, timestamp (ms); "
        "key_base64 and value_base64 hold bytes.",
    )
    parser.add_argument(
        "-n", "--count", type=positive_count, metavar="NUMBER", help="Stop after so many lines."
    )
    parser.add_argument(
        "-p", "--partition", type=_partition, default=-1, metavar="NUMBER", help="Send to this partition."
    )
    parser.add_argument(
        "-z",
        "--compression",
        choices=["none", "gzip", "snappy", "lz4", "zstd"],
        default="none",
        help="Codec of the batches. Default: none.",
    )
    add_client_options(parser)
    return parser


def _partition(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a partition number")
    return int(text)


def _opened(path: Path | None) -> BinaryIO:
    if path is None:
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None


def _next_line(file: BinaryIO) -> bytes | None:
    """A line without its newline, as soon as it is there; None at the end."""
    line = file.readline(LINE_BYTES_MAX + 1)
    if len(line) > LINE_BYTES_MAX:
        raise UsageError(f"a line is longer than {LINE_BYTES_MAX} bytes")
    return line.removesuffix(b"\n") if line else None


def _record(number: int, line: bytes, found: argparse.Namespace) -> Record:
    try:
        if found.json:
            record = record_of_json(line)
        else:
            separator = None if found.key_separator is None else found.key_separator.encode()
            record = record_of_line(line, separator)
    except ValueError as error:
        raise ClientError(f"line {number} is refused: {error}") from None
    return record if record.partition >= 0 else record._replace(partition=found.partition)

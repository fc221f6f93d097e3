"""`warp consume`: the records of a topic, as lines or as JSON.

Partitions are assigned by hand, so no consumer group is needed and nothing is committed; `--group` makes it a member of
a group instead (warp/cli/consume_group.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    TopicPartition,
)

from warp.cli.arguments import Parser, add_client_options, positive_count
from warp.cli.client import Client, ClientError
from warp.cli.consume_group import consume_as_member
from warp.cli.consume_output import Output
from warp.cli.interrupt import Interrupt
from warp.cli.positions import END, Position, offset_at, parse_position

EXAMPLES = """\
  warp consume greetings                             # from the beginning, then whatever comes; Ctrl-C ends it
  warp consume users --keys --to end                 # what is there now
  warp consume users --from -10 --json               # the last ten of each partition
  warp consume users --from 15m --count 100          # a hundred of the last quarter of an hour
  warp consume users --group mailer                  # share the records with others, and keep the place
"""
POLL_S = 0.2
BATCH_RECORDS = 1_000


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    found = _parser().parse_all(words)
    client = Client(found)
    if found.group is not None:
        return consume_as_member(found, client, Output(sys.stdout.buffer, found))
    consumer = client.consumer(**{"auto.offset.reset": "error", "fetch.wait.max.ms": 200})
    with Interrupt() as interrupt:
        try:
            with interrupt.raising():
                span = _span(found, client, consumer)
        except KeyboardInterrupt:
            return 0
        _consume(found, client, consumer, span, interrupt)
    return 0


class _Span(NamedTuple):
    """Per partition the first offset to show, and the one to stop at if there is one."""

    begins: Mapping[int, int]
    stops: Mapping[int, int] | None


def _span(found: argparse.Namespace, client: Client, consumer: Consumer) -> _Span:
    partitions = client.topic_partitions(consumer, found.topic)
    if found.partition is not None:
        if found.partition not in partitions:
            raise ClientError(
                f"topic {found.topic} has no partition {found.partition}, only 0 to {partitions[-1]}"
            )
        partitions = [found.partition]
    ends = _ends(client, consumer, found.topic, partitions)
    begins = _resolve(found.begin, client, consumer, found.topic, ends)
    stops = None if found.to is None else _resolve(found.to, client, consumer, found.topic, ends)
    return _Span(begins, stops)


def _consume(
    found: argparse.Namespace, client: Client, consumer: Consumer, span: _Span, interrupt: Interrupt
) -> None:
    begins, stops = span
    output = Output(sys.stdout.buffer, found)
    left = {partition for partition in begins if stops is None or begins[partition] < stops[partition]}
    consumer.assign([TopicPartition(found.topic, p, begin) for p, begin in begins.items() if p in left])
    # At the end of a partition comes a message without a record, whose offset is that end.
    while left and not interrupt.is_set:
        for message in consumer.consume(
            BATCH_RECORDS if found.count is None else min(BATCH_RECORDS, found.count), POLL_S
        ):
            if client.has_failed(message):
                continue
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if stops is not None and offset >= stops[partition]:
                left.discard(partition)
                continue
            if message.error() is not None:
                continue
            output.write(message)
            if found.count is not None and output.count >= found.count:
                left.clear()
                break
            if stops is not None and offset + 1 >= stops[partition]:
                left.discard(partition)
        output.flush()


def _ends(
    client: Client, consumer: Consumer, topic: str, partitions: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Per partition the first offset and the one after the last."""
    starts = client.offsets(consumer, topic, dict.fromkeys(partitions, OFFSET_BEGINNING))
    ends = client.offsets(consumer, topic, dict.fromkeys(partitions, OFFSET_END))
    return {partition: (starts[partition], ends[partition]) for partition in partitions}


def _resolve(
    position: Position, client: Client, consumer: Consumer, topic: str, ends: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """The offset of a position in every partition."""
    if position == END:
        return {partition: end for partition, (_, end) in ends.items()}
    at_time = dict.fromkeys(ends, 0)
    if position.time_ms is not None:
        at_time = client.offsets(consumer, topic, dict.fromkeys(ends, position.time_ms))
    return {p: offset_at(position, start, end, at_time[p]) for p, (start, end) in ends.items()}


def _parser() -> Parser:
    parser = Parser("warp consume", "Print the records of a topic, one per line.", EXAMPLES)
    parser.add_argument("topic", metavar="TOPIC")
    place = "beginning, end, an offset, -N (N before the end), 10m (ten minutes ago), or a time"
    parser.add_argument(
        "--from",
        dest="begin",
        type=_position,
        default="beginning",
        metavar="PLACE",
        help=f"Where to begin: {place}. Default: beginning.",
    )
    parser.add_argument(
        "--to",
        type=_position,
        metavar="PLACE",
        help="Where to stop, likewise; without it, wait for more. The place itself is not included.",
    )
    parser.add_argument(
        "-n", "--count", type=positive_count, metavar="NUMBER", help="Stop after so many records."
    )
    parser.add_argument("-p", "--partition", type=int, metavar="NUMBER", help="Read this partition alone.")
    parser.add_argument(
        "-g",
        "--group",
        type=_group,
        metavar="GROUP",
        help="Read as a member of this consumer group and commit what was printed. "
        "--from, beginning or end, is then for partitions of which nothing is committed yet.",
    )
    parser.add_argument(
        "--keys", action="store_true", help="Print the key before the value, with a tab between."
    )
    parser.add_argument(
        "-k", "--key-separator", metavar="TEXT", help="Print keys, with this text between key and value."
    )
    parser.add_argument(
        "--json", action="store_true", help="Print each record with all its fields as a JSON object."
    )
    add_client_options(parser)
    return parser


def _group(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name of a group is not empty")
    return text


def _position(text: str) -> Position:
    try:
        return parse_position(text, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

"""`warp bench`: its words, and what they set going."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from warp.cli.arguments import Parser, add_client_options, positive_count
from warp.cli.bench import settings as kinds
from warp.cli.bench.report import Report, to_json, to_text
from warp.cli.bench.run import run_bench
from warp.cli.bench.settings import Action, settings_of
from warp.cli.client import Client, ClientError
from warp.cli.interrupt import Interrupt
from warp.config import did_you_mean
from warp.errors import UsageError

ACTIONS: Final[tuple[Action, ...]] = ("produce", "consume", "end-to-end")
EXAMPLES: Final = """\
  warp bench                                                  # end to end at 1000 records/s for 30 s
  warp bench produce --rate unlimited --record-size 1KiB      # how much the broker takes
  warp bench produce --rate 20MB/s --duration 2m --warmup 10s # how long it takes at this rate
  warp bench consume --topic warp-bench                       # how fast it gives what is there
  warp bench end-to-end --rate 500/s --partitions 12 --producers 2 --consumers 2 --json result.json
"""
DESCRIPTIONS: Final = {
    "produce": "Send records to a Kafka broker, and measure how many it takes and how long that takes.",
    "consume": "Read a topic, and measure how fast it comes.",
    "end-to-end": "Send records and read them back at the same time, and measure how long they are on their way.",
}


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action, rest = _action(words)
    found = _parser(action).parse_all(rest)
    client = Client(found)
    settings = settings_of(action, found, client.options)
    _check_output(found.json)
    with Interrupt() as interrupt, _terminated_as_interrupted():
        report, ended_by = run_bench(client, settings, interrupt)
        _show(report, found.json)
    if ended_by is not None:
        raise ended_by
    if (failure := report.failure()) is not None:
        raise ClientError(failure)
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the topic is removed then, too."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _action(words: Sequence[str]) -> tuple[Action, Sequence[str]]:
    """What is to be done, and the options; without a word for it, end to end."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        return "end-to-end", words
    for action in ACTIONS:
        if words[0] == action:
            return action, words[1:]
    if words[0] in ("-h", "--help"):
        description = "Measure a Kafka broker, whichever it is.\n\n" + "\n".join(
            f"  {name:<11} {text}" for name, text in DESCRIPTIONS.items()
        )
        Parser("warp bench [ACTION]", description, EXAMPLES).print_help()
        raise SystemExit(0)
    raise UsageError(f"unknown action {words[0]}{did_you_mean(words[0], ACTIONS)}")


def _show(report: Report, output: str | None) -> None:
    """The report for people, on standard error when the JSON goes to standard output."""
    print(to_text(report), file=sys.stderr if output == "-" else sys.stdout, flush=True)
    if output is None:
        return
    text = json.dumps(to_json(report), indent=2) + "\n"
    if output == "-":
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text)
    except OSError as error:
        raise ClientError(f"can't write {output}: {error.strerror}") from None


def _check_output(output: str | None) -> None:
    """Raises UsageError before the run when its result could not be written after it."""
    if output not in (None, "-") and not Path(str(output)).parent.is_dir():
        raise UsageError(f"--json: there is no directory {Path(str(output)).parent}")


def _parser(action: Action) -> Parser:
    examples = "".join(
        f"{line}\n"
        for line in EXAMPLES.splitlines()
        if f" {action} " in line or (action == ACTIONS[2] and "   #" in line)
    )
    parser = Parser(f"warp bench {action}", DESCRIPTIONS[action], examples)
    parser.add_argument(
        "-t", "--topic", default="warp-bench", metavar="TOPIC",
        help="Topic to use; made when there is something to send and it is missing. Default: warp-bench.",
    )  # fmt: skip
    if action != "consume":
        _add_load_options(parser, action)
        _add_producer_options(parser)
    if action != "produce":
        parser.add_argument(
            "--consumers", type=kinds.processes, default=1, metavar="NUMBER",
            help="Processes that read, at most one for each partition. Default: 1.",
        )  # fmt: skip
    if action == "consume":
        parser.add_argument(
            "--tail", action="store_true", help="Read what comes from now on, not what is there."
        )
    _add_time_options(parser, action)
    parser.add_argument(
        "--json", metavar="FILE", help="Write the result as JSON to a file, or to standard output: -."
    )
    add_client_options(parser)
    return parser


def _add_load_options(parser: Parser, action: Action) -> None:
    default_rate = kinds.DEFAULT_END_TO_END_RATE if action == "end-to-end" else kinds.UNLIMITED
    parser.add_argument(
        "-r", "--rate", type=kinds.rate, default=default_rate, metavar="RATE",
        help="What all producers send together: records (2000/s), bytes (50MB/s) or unlimited. At a rate, records have "
        f"fixed times and latencies count from them. Default: {default_rate}.",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--record-size", type=kinds.size_bytes, default="1KiB", metavar="SIZE",
        help="Bytes of each record's value. Default: 1KiB.",
    )  # fmt: skip
    parser.add_argument(
        "--compressible", type=kinds.share, default=0.5, metavar="SHARE",
        help="Share of each record that is the same in all, 0 to 1. Default: 0.5.",
    )  # fmt: skip
    parser.add_argument(
        "--keys", type=kinds.keys, default=0, metavar="NUMBER",
        help="Give records one of so many keys in turn. Default: no keys.",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=1, metavar="NUMBER", help="Of the random parts of records. Default: 1."
    )
    parser.add_argument(
        "-p", "--partitions", type=positive_count, metavar="NUMBER",
        help=f"Partitions of the topic when it is made. Default: {kinds.DEFAULT_PARTITIONS}.",
    )  # fmt: skip
    parser.add_argument(
        "--delete-topic",
        action="store_true",
        help="Remove the topic afterwards; refused when it was there before.",
    )


def _add_producer_options(parser: Parser) -> None:
    parser.add_argument(
        "--producers",
        type=kinds.processes,
        default=1,
        metavar="NUMBER",
        help="Processes that send. Default: 1.",
    )
    parser.add_argument(
        "-z", "--compression", choices=["none", "gzip", "snappy", "lz4", "zstd"], default="none",
        help="Codec of the batches. Default: none.",
    )  # fmt: skip
    parser.add_argument(
        "--acks", choices=["0", "1", "all"], default="all", help="What counts as stored. Default: all."
    )
    parser.add_argument(
        "--idempotence", action=argparse.BooleanOptionalAction, default=True,
        help="Whether producers are idempotent. Default: yes.",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size",
        type=kinds.size_bytes,
        metavar="SIZE",
        help="Largest batch. Default: librdkafka's, 1MB.",
    )
    parser.add_argument(
        "--linger", type=_milliseconds, metavar="DURATION",
        help="How long a record may wait for others of its batch. Default: librdkafka's, 5ms.",
    )  # fmt: skip


def _add_time_options(parser: Parser, action: Action) -> None:
    default_s, default_text = (
        (None, "until all is read; with --tail 30s") if action == "consume" else (30.0, "30s")
    )
    parser.add_argument(
        "-d", "--duration", type=kinds.some_duration_s, default=default_s, metavar="DURATION",
        help=f"How long to measure. Ctrl-C ends it early and shows what was found. Default: {default_text}.",
    )  # fmt: skip
    parser.add_argument(
        "-w", "--warmup", type=kinds.duration_s, default=0.0, metavar="DURATION",
        help="Run for so long before measuring. Default: 0.",
    )  # fmt: skip


def _milliseconds(text: str) -> float:
    return kinds.duration_s(text) * 1000

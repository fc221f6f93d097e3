"""What a run of `warp bench` is to do, from its arguments."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final, Literal

from warp.cli.bench.payloads import STAMP
from warp.errors import UsageError
from warp.units import parse_duration_ms, parse_size

Action = Literal["produce", "consume", "end-to-end"]

PROCESSES_MAX: Final = 64
RECORD_BYTES_MAX: Final = 64 * 1024 * 1024
KEYS_MAX: Final = 1_000_000
RECORDS_PER_S_MAX: Final = 100_000_000
UNLIMITED: Final = "unlimited"
DEFAULT_PARTITIONS: Final = 6
DEFAULT_END_TO_END_RATE: Final = "1000/s"
MASK: Final = "***"
SECRET_WORDS: Final = ("password", "secret", "token", ".pem", "oauthbearer.config", "oauthbearer.assertion")
QUEUE_RECORDS: Final = 10_000_000
PACED_QUEUE_KBYTES: Final = 256 * 1024
"""A schedule is kept through a stall for as long as records fit into the queue of the client library."""
FREE_QUEUE_KBYTES: Final = 64 * 1024
"""At full speed the queue is always full: enough for ten partitions with five requests of 1 MB each on their way."""
RECORD_OVERHEAD_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class Rate:
    """How much is sent by all producers together; neither field set: as much as can be."""

    records_per_s: float | None = None
    bytes_per_s: float | None = None

    def in_records(self, record_bytes: int) -> float | None:
        """Records per second of this size; None for unlimited."""
        if self.bytes_per_s is not None:
            return self.bytes_per_s / record_bytes
        return self.records_per_s


def parse_rate(text: str) -> Rate:
    """The rate of `2000/s`, `0.5/s`, `50MB/s` or `unlimited`. Raises ValueError that says what is wrong."""
    if text == UNLIMITED:
        return Rate()
    amount, slash, unit = text.partition("/")
    if not slash or unit.strip() != "s":
        raise ValueError(f"{text!r} is not a rate; write it like 2000/s (records), 50MB/s or unlimited")
    amount = amount.strip()
    if not any(letter.isalpha() for letter in amount):
        try:
            records_per_s = float(amount)
        except ValueError:
            raise ValueError(f"{text!r} is not a rate; write it like 2000/s or 50MB/s") from None
        if not 0 < records_per_s <= RECORDS_PER_S_MAX:
            raise ValueError(f"{text!r} is not between 0 and {RECORDS_PER_S_MAX} records/s")
        return Rate(records_per_s=records_per_s)
    bytes_per_s = parse_size(amount)
    if not bytes_per_s:
        raise ValueError(f"{text!r} is no rate at all")
    return Rate(bytes_per_s=bytes_per_s)


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. Fields that do not apply to an action are None."""

    action: Action
    topic: str
    partitions: int | None
    delete_topic: bool
    producers: int
    consumers: int
    warmup_s: float
    duration_s: float | None
    drain_s: float
    client_options: dict[str, str]
    record_bytes: int | None = None
    records_per_s: float | None = None
    compressible: float | None = None
    keys: int | None = None
    seed: int | None = None
    compression: str | None = None
    acks: str | None = None
    idempotence: bool | None = None
    batch_bytes: int | None = None
    linger_ms: float | None = None
    tail: bool | None = None

    def producer_config(self) -> dict[str, Any]:
        """librdkafka's settings that follow from these; --client-option overrides them."""
        config: dict[str, Any] = {
            "acks": self.acks,
            "enable.idempotence": self.idempotence,
            "compression.type": self.compression,
        }
        if self.record_bytes is not None and self.record_bytes + RECORD_OVERHEAD_BYTES > 1_000_000:
            config["message.max.bytes"] = self.record_bytes + RECORD_OVERHEAD_BYTES
        if self.batch_bytes is not None:
            config["batch.size"] = self.batch_bytes
        if self.linger_ms is not None:
            config["linger.ms"] = self.linger_ms
        is_paced = self.records_per_s is not None
        config["queue.buffering.max.messages"] = QUEUE_RECORDS
        config["queue.buffering.max.kbytes"] = PACED_QUEUE_KBYTES if is_paced else FREE_QUEUE_KBYTES
        return config

    def to_json(self) -> dict[str, Any]:
        """The settings that apply, for a report; nothing secret."""
        fields = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("action", "client_options")
        }
        shown = {
            name: MASK if any(word in name for word in SECRET_WORDS) else value
            for name, value in self.client_options.items()
        }
        return {**fields, "client_options": shown}


def settings_of(action: Action, found: argparse.Namespace, client_options: dict[str, str]) -> Settings:
    """The settings that arguments come to. Raises UsageError for those that do not fit together."""
    common: dict[str, Any] = {
        "action": action,
        "topic": found.topic,
        "delete_topic": getattr(found, "delete_topic", False),
        "partitions": getattr(found, "partitions", None),
        "producers": 0,
        "consumers": 0,
        "warmup_s": found.warmup,
        "duration_s": found.duration,
        "drain_s": found.timeout,
        "client_options": client_options,
    }
    if action != "produce":
        common["consumers"] = found.consumers
    if action == "consume":
        return Settings(**{**common, "tail": found.tail, "duration_s": _consume_duration_s(found)})
    least = STAMP.size if action == "end-to-end" else 1
    if found.record_size < least:
        raise UsageError(f"--record-size: {action} needs at least {least}B")
    if found.idempotence and found.acks != "all":
        raise UsageError(f"--acks {found.acks} needs --no-idempotence: an idempotent producer waits for all")
    common.update(
        producers=found.producers,
        record_bytes=found.record_size,
        records_per_s=found.rate.in_records(found.record_size),
        compressible=found.compressible,
        keys=found.keys,
        seed=found.seed,
        compression=found.compression,
        acks=found.acks,
        idempotence=found.idempotence,
        batch_bytes=found.batch_size,
        linger_ms=found.linger,
    )
    return Settings(**common)


def _consume_duration_s(found: argparse.Namespace) -> float | None:
    if found.tail and found.duration is None:
        return 30.0
    if not found.tail and found.warmup:
        raise UsageError("--warmup goes with --tail: what is there is read once")
    duration_s: float | None = found.duration
    return duration_s


def duration_s(text: str) -> float:
    """Type of arguments that are a time with its unit."""
    try:
        return parse_duration_ms(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def some_duration_s(text: str) -> float:
    """Type of arguments that are a time with its unit, above 0."""
    seconds = duration_s(text)
    if not 0 < seconds <= 7 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1ms and 7d")
    return seconds


def size_bytes(text: str) -> int:
    """Type of arguments that are a size with its unit."""
    try:
        size = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 < size <= RECORD_BYTES_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1B and 64MiB")
    return size


def rate(text: str) -> Rate:
    """Type of --rate."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def share(text: str) -> float:
    """Type of arguments between 0 and 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return found


def processes(text: str) -> int:
    """Type of arguments that are a number of processes."""
    return _count(text, PROCESSES_MAX)


def keys(text: str) -> int:
    """Type of --keys."""
    return _count(text, KEYS_MAX)


def _count(text: str, largest: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and {largest}")
    return int(text)

"""Where `warp consume` begins and ends: what `--from` and `--to` may say, and the offsets that it comes to."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END

from warp.units import parse_duration_ms


class Position(NamedTuple):
    """A place in every partition: exactly one is set.

    `time_ms` is a time, or one of the protocol's special times for beginning and end; `offset` counts from the start of
    the log; `before_end` counts back from its end.
    """

    time_ms: int | None = None
    offset: int | None = None
    before_end: int | None = None


BEGINNING = Position(time_ms=OFFSET_BEGINNING)
END = Position(time_ms=OFFSET_END)


def parse_position(text: str, now_ms: int) -> Position:
    """`beginning`, `end`, an offset, `-N` (N before the end), a duration ago, or a time. Raises ValueError."""
    words = {"beginning": BEGINNING, "end": END}
    if text in words:
        return words[text]
    if text.isascii() and text.isdigit():
        return Position(offset=min(int(text), 2**63 - 1))
    if text.startswith("-") and text[1:].isascii() and text[1:].isdigit():
        return Position(before_end=min(int(text[1:]), 2**63 - 1))
    for reading in (_ago, _time):
        time_ms = reading(text, now_ms)
        if time_ms is not None:
            return Position(time_ms=max(0, time_ms))
    raise ValueError(
        f"{text!r} is no place to start or stop: say beginning, end, an offset, -N for N before the end, "
        "10m for ten minutes ago, or a time like 2026-01-31T12:00"
    )


def _ago(text: str, now_ms: int) -> int | None:
    try:
        return now_ms - parse_duration_ms(text)
    except ValueError:
        return None


def _time(text: str, _now_ms: int) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def offset_at(position: Position, start: int, end: int, at_time: int) -> int:
    """The offset of a position in a log that holds [start, end), where `at_time` is the first offset of its time."""
    if position.offset is not None:
        return min(max(position.offset, start), end)
    if position.before_end is not None:
        return max(start, end - position.before_end)
    return at_time

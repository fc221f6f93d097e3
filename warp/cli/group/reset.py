"""Where `warp group reset-offsets` moves a group: the target that its options name, and the offsets that come of it.

Decisions only; nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from warp.cli.client import ClientError
from warp.cli.group.facts import Log, Place

OFFSET_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where every partition is to go: exactly one is set."""

    is_earliest: bool = False
    is_latest: bool = False
    offset: int | None = None
    shift: int | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A partition's committed offset before and after; `note` says why it is not what was asked for, if it isn't."""

    place: Place
    old: int | None
    new: int
    note: str = ""


def plan(
    target: Target,
    committed: Mapping[Place, int],
    logs: Mapping[Place, Log],
    at_time: Mapping[Place, int | None],
) -> tuple[Move, ...]:
    """A move for each partition in `logs`, inside its log. `at_time` counts for a time alone.

    Raises ClientError when the target is a shift and nothing is committed to shift from.
    """
    moves = []
    for place in sorted(logs):
        log, old = logs[place], committed.get(place)
        wanted, note = _wanted(target, place, old, log, at_time)
        new = min(max(wanted, log.start), log.end)
        if new != wanted:
            bound = "start" if new > wanted else "end"
            note = f"{wanted} is outside the log: its {bound} instead"
        moves.append(Move(place, old, new, note))
    return tuple(moves)


def _wanted(
    target: Target, place: Place, old: int | None, log: Log, at_time: Mapping[Place, int | None]
) -> tuple[int, str]:
    """The offset that was asked for, and what is to be said of it."""
    if target.is_earliest:
        return log.start, ""
    if target.is_latest:
        return log.end, ""
    if target.offset is not None:
        return target.offset, ""
    if target.shift is not None:
        if old is None:
            raise ClientError(f"nothing is committed for {place}, so there is nothing to shift from")
        return old + target.shift, ""
    found = at_time[place]
    return (log.end, "no record of that time or later: the end") if found is None else (found, "")


def parse_topic(text: str) -> tuple[str, tuple[int, ...]]:
    """`T` or `T:0,1`: a topic and its chosen partitions, none for all. Raises ValueError."""
    topic, colon, listed = text.partition(":")
    numbers = listed.split(",") if colon else []
    if not topic or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ValueError(f"{text!r} is not TOPIC or TOPIC:PARTITION,PARTITION")
    chosen = tuple(int(number) for number in numbers)
    if any(number >= 2**31 for number in chosen):
        raise ValueError(f"{text!r} has a partition above {2**31 - 1}")
    return topic, chosen


def parse_time_ms(text: str) -> int:
    """Milliseconds since 1970 of a time as in RFC 3339, which names its distance from UTC. Raises ValueError."""
    wrong = f"{text!r} is not a time like 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(wrong) from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: end it with Z or +01:00")
    time_ms = int(time.timestamp() * 1000)
    if time_ms < 0:
        raise ValueError(f"{text!r} is before 1970")
    return time_ms


def parse_offset(text: str) -> int:
    """An offset from 0. Raises ValueError."""
    if not text.isascii() or not text.isdigit() or int(text) > OFFSET_MAX:
        raise ValueError(f"{text!r} is not an offset from 0 to {OFFSET_MAX}")
    return int(text)


def parse_shift(text: str) -> int:
    """A number of records, forward or, below 0, back. Raises ValueError."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit() or int(digits) > OFFSET_MAX:
        raise ValueError(f"{text!r} is not a number of records like 10 or -10")
    return int(text)

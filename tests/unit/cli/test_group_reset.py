"""Where `warp group reset-offsets` moves a group: what its options may say, and the offsets that come of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from warp.cli.client import ClientError
from warp.cli.group.facts import Log, Place
from warp.cli.group.reset import (
    OFFSET_MAX,
    Move,
    Target,
    parse_offset,
    parse_shift,
    parse_time_ms,
    parse_topic,
    plan,
)

PLACE = Place("orders", 0)
LOG = Log(10, 100)
START, END = "5 is outside the log: its start instead", "500 is outside the log: its end instead"
LATE = "no record of that time or later: the end"


@pytest.mark.parametrize(
    ("target", "old", "new", "note"),
    [
        (Target(is_earliest=True), None, 10, ""),
        (Target(is_latest=True), 40, 100, ""),
        (Target(offset=50), 40, 50, ""),
        (Target(offset=100), None, 100, ""),
        (Target(offset=5), 40, 10, START),
        (Target(offset=500), 40, 100, END),
        (Target(shift=-10), 40, 30, ""),
        (Target(shift=-35), 40, 10, START),
        (Target(shift=460), 40, 100, END),
        (Target(shift=0), 5, 10, START),
        (Target(time_ms=1), 40, 60, ""),
    ],
)
def test_a_target_becomes_an_offset_inside_the_log(
    target: Target, old: int | None, new: int, note: str
) -> None:
    (move,) = plan(target, {} if old is None else {PLACE: old}, {PLACE: LOG}, {PLACE: 60})
    assert move == Move(PLACE, old, new, note)


def test_a_time_after_the_last_record_is_the_end() -> None:
    (move,) = plan(Target(time_ms=1), {}, {PLACE: LOG}, {PLACE: None})
    assert (move.new, move.note) == (100, LATE)


def test_moves_are_in_the_order_of_topics_and_partitions() -> None:
    places = [Place("b", 0), Place("a", 10), Place("a", 9)]
    moves = plan(Target(is_latest=True), {}, dict.fromkeys(places, LOG), {})
    assert [move.place for move in moves] == [Place("a", 9), Place("a", 10), Place("b", 0)]


def test_a_shift_from_nothing_is_refused() -> None:
    with pytest.raises(
        ClientError, match=r"^nothing is committed for orders:0, so there is nothing to shift from$"
    ):
        plan(Target(shift=-1), {}, {PLACE: LOG}, {})


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_topic, "orders", ("orders", ())),
        (parse_topic, "orders:0,12", ("orders", (0, 12))),
        (parse_time_ms, "2023-11-14T22:13:20Z", 1_700_000_000_000),
        (parse_time_ms, "2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
        (parse_offset, "0", 0),
        (parse_offset, str(OFFSET_MAX), OFFSET_MAX),
        (parse_shift, "-10", -10),
        (parse_shift, "+10", 10),
    ],
)
def test_options_are_read(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (parse_topic, "", "is not TOPIC"),
        (parse_topic, ":0", "is not TOPIC"),
        (parse_topic, "orders:", "is not TOPIC"),
        (parse_topic, "orders:0,,1", "is not TOPIC"),
        (parse_topic, "orders:-1", "is not TOPIC"),
        (parse_topic, "orders:²", "is not TOPIC"),
        (parse_topic, "orders:2147483648", "has a partition above 2147483647"),
        (parse_time_ms, "yesterday", "is not a time like"),
        (parse_time_ms, "2023-13-01T00:00:00Z", "is not a time like"),
        (parse_time_ms, "2023-11-14T22:13:20", "has no time zone"),
        (parse_time_ms, "1969-12-31T23:00:00Z", "is before 1970"),
        (parse_offset, "-1", "is not an offset"),
        (parse_offset, str(OFFSET_MAX + 1), "is not an offset"),
        (parse_shift, "", "is not a number of records"),
        (parse_shift, "--1", "is not a number of records"),
        (parse_shift, "1.5", "is not a number of records"),
    ],
)
def test_what_makes_no_sense_is_refused(parse: Callable[[str], object], text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_a_time_at_the_edge_of_the_calendar_is_read_or_refused_and_never_a_crash() -> None:
    assert parse_time_ms("9999-12-31T23:59:59Z") > 0
    with pytest.raises(ValueError, match="before 1970"):
        parse_time_ms("0001-01-01T00:00:00+23:59")

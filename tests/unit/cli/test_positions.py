"""Where `warp consume` begins and ends."""

from __future__ import annotations

import pytest

from warp.cli.positions import BEGINNING, END, Position, offset_at, parse_position

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("beginning", BEGINNING),
        ("end", END),
        ("0", Position(offset=0)),
        ("42", Position(offset=42)),
        ("-10", Position(before_end=10)),
        ("10m", Position(time_ms=NOW_MS - 600_000)),
        ("2023-11-14T22:13:20+00:00", Position(time_ms=NOW_MS)),
        ("9" * 30, Position(offset=2**63 - 1)),
        ("30000d", Position(time_ms=0)),
    ],
)
def test_places_are_read(text: str, position: Position) -> None:
    assert parse_position(text, NOW_MS) == position


@pytest.mark.parametrize("text", ["", "start", "-", "1.5", "10 minutes", "2023-13-01"])
def test_other_words_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="say beginning, end, an offset"):
        parse_position(text, NOW_MS)


@pytest.mark.parametrize(
    ("position", "offset"),
    [
        (Position(offset=7), 7),
        (Position(offset=1), 5),
        (Position(offset=99), 20),
        (Position(before_end=3), 17),
        (Position(before_end=99), 5),
        (Position(time_ms=1), 11),
    ],
)
def test_a_place_becomes_an_offset_inside_the_log(position: Position, offset: int) -> None:
    assert offset_at(position, start=5, end=20, at_time=11) == offset

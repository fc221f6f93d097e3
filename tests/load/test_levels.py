"""The judgement of a soak notices each kind of leak, and takes nothing else for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.load.agent import MIB, Facts
from tests.load.figures import Figures, table
from tests.load.levels import Allowed, Level, growth

FACTS = Facts(
    resident_bytes=80 * MIB, blocks=200_000, threads=9, descriptors={"socket": 8, "anon_inode": 3},
    tasks={"watch": 1}, types={"builtins.list": 5_000},
)  # fmt: skip
LEVEL = Level(
    FACTS, {"topics": 1, "deleted_topics": 40}, 12, {"deleted_topics": 40}, {"warp_connections": 0.0}
)
ROUNDS = 6


def rising(**steps: int) -> list[Level]:
    """Levels in which some facts rise by so much from round to round."""
    levels = []
    for place in range(ROUNDS):
        changes: dict[str, Any] = {}
        for name, step in steps.items():
            value = getattr(FACTS, name)
            if isinstance(value, dict):
                changes[name] = {**value, **{key: count + place * step for key, count in value.items()}}
            else:
                changes[name] = value + place * step
        levels.append(replace(LEVEL, facts=replace(FACTS, **changes)))
    return levels


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ({"descriptors": 1}, "descriptors socket"),
        ({"tasks": 1}, "tasks watch"),
        ({"threads": 1}, "threads"),
        ({"types": 400}, "objects of type builtins.list"),
        ({"resident_bytes": 7 * MIB}, "resident bytes"),
        ({"blocks": 7_000}, "blocks of memory"),
    ],
)
def test_what_rises_round_after_round_is_found(steps: dict[str, int], word: str) -> None:
    assert any(line.startswith(word) for line in growth(rising(**steps), Allowed()))


def test_rows_and_objects_that_rise_are_found() -> None:
    levels = [
        replace(LEVEL, rows={**LEVEL.rows, "producers": place}, objects=12 + place) for place in range(ROUNDS)
    ]
    assert growth(levels, Allowed()) == [
        "rows of producers: 2 at most, later 3 at least",
        "objects of the store: 14 at most, later 15 at least",
    ]
    assert growth(levels, Allowed(rows={"producers": 1}, objects=1)) == []


def test_rows_that_are_kept_by_design_may_rise_and_others_of_the_table_not() -> None:
    kept = [{"deleted_topics": 40 + place} for place in range(ROUNDS)]
    assert (
        growth([replace(LEVEL, rows={"topics": 1, **rows}, kept_rows=rows) for rows in kept], Allowed()) == []
    )
    leaking = [
        replace(LEVEL, rows={"deleted_topics": 40 + 2 * place}, kept_rows=rows)
        for place, rows in enumerate(kept)
    ]
    assert growth(leaking, Allowed()) == ["rows of deleted_topics: 2 at most, later 3 at least"]


def test_what_goes_up_and_down_has_not_grown() -> None:
    levels = rising()
    levels[1] = replace(levels[1], objects=500)
    levels[4] = replace(levels[4], objects=700)
    assert growth(levels, Allowed()) == []


def test_a_kind_of_thing_that_comes_up_late_is_found() -> None:
    late = replace(FACTS, tasks={"watch": 1, "forgotten": 1})
    levels = [LEVEL] * 3 + [replace(LEVEL, facts=late)] * 3
    assert growth(levels, Allowed()) == ["tasks forgotten: 0 at most, later 1 at least"]


def test_what_is_held_for_nobody_is_found_in_any_round() -> None:
    levels = [LEVEL, LEVEL, LEVEL, replace(LEVEL, held={"warp_connections": 2.0})]
    assert growth(levels, Allowed()) == ["warp_connections: 2 with nobody there"]


def test_a_broken_bound_is_a_problem_and_stands_in_the_table() -> None:
    noted: list[Any] = []
    figures = Figures(lambda _, row: noted.append(row))
    figures.at_most("memory", 20.0, 10.0, "MiB")
    figures.exactly("connections", 5, 5)
    figures.note("records", 1_000_000)
    assert figures.problems == ["memory: 20 MiB, which should be ≤ 10 MiB"]
    text = table([("test_it", *row) for row in noted])
    assert "≤ 10 MiB  BROKEN" in text
    assert "1,000,000" in text
    assert text.count("BROKEN") == 1

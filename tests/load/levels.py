"""What is left of an agent when nobody uses it, round after round, and what of that has grown: pure functions.

Compared are windows, not the first round with the last one: the least of each number in the later half of the rounds
with the most in the earlier half. So a number may go up and down as it likes, and one that only rises is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.load.agent import Facts

MIB = 2**20
RESIDENT_SLACK_BYTES = 6 * MIB
"""How much malloc's heaps differ from round to round, though what is free has been given back."""
OBJECTS_SLACK = 300
"""Objects of one type that come and go with caches that have a bound: the cache of segments, the trace of requests."""
BLOCKS_SLACK = 6_000
"""The same of pieces of memory of all types."""
BLOCKS_PER_ROW = 8
"""What jobs remember of a row that stays for a while by design."""
ROUNDS_MIN = 4
"""Two windows of two rounds each."""


@dataclass(frozen=True)
class Level:
    """The agents and their stores at rest: `facts` are one agent's, `rows` those of each table, `objects` of the store.

    `kept_rows` are those of `rows` that stay for a while by design.
    """

    facts: Facts
    rows: Mapping[str, int]
    objects: int
    kept_rows: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, float] = field(default_factory=dict)
    """Numbers that have to be 0 when nobody uses the agent."""


@dataclass(frozen=True)
class Allowed:
    """What may be more in the later window, beside the slack of this module."""

    descriptors: Mapping[str, int] = field(default_factory=dict)
    """By kind: connections to stores are kept for a while."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """By name: what looks after such connections."""
    rows: Mapping[str, int] = field(default_factory=dict)
    threads: int = 0
    objects: int = 0


def growth(levels: Sequence[Level], allowed: Allowed) -> list[str]:
    """A line for everything that has risen from the earlier half of the rounds to the later one, or is held still."""
    assert len(levels) >= ROUNDS_MIN, "two windows of two rounds each, at least"
    half = len(levels) // 2
    windows = Windows(levels[:half], levels[half:])
    kept = sum(levels[-1].kept_rows.values()) - sum(levels[0].kept_rows.values())
    found = [
        *windows.named("descriptors", lambda level: level.facts.descriptors, allowed.descriptors),
        *windows.named("tasks", lambda level: level.facts.tasks, allowed.tasks),
        *windows.named("rows of", lambda level: _without(level.rows, level.kept_rows), allowed.rows),
        *windows.named("objects of type", lambda level: level.facts.types, {}, OBJECTS_SLACK),
        *windows.single("threads", lambda level: level.facts.threads, allowed.threads),
        *windows.single("objects of the store", lambda level: level.objects, allowed.objects),
        *windows.single("resident bytes", _beside_the_cache, RESIDENT_SLACK_BYTES),
        *windows.single(
            "blocks of memory", lambda level: level.facts.blocks, BLOCKS_SLACK + BLOCKS_PER_ROW * max(kept, 0)
        ),
    ]
    for level in levels:
        found += [f"{name}: {value:g} with nobody there" for name, value in level.held.items() if value]
    return found


@dataclass(frozen=True)
class Windows:
    """The earlier and the later rounds."""

    before: Sequence[Level]
    after: Sequence[Level]

    def single(self, name: str, value: Callable[[Level], int], slack: int) -> list[str]:
        """A line when a number was larger in every later round than in any earlier one."""
        most, least = max(map(value, self.before)), min(map(value, self.after))
        return [f"{name}: {most:,} at most, later {least:,} at least"] if least > most + slack else []

    def named(
        self,
        what: str,
        values: Callable[[Level], Mapping[str, int]],
        allowed: Mapping[str, int],
        slack: int = 0,
    ) -> list[str]:
        """The same for each of several numbers with names."""
        names = sorted({name for level in self.after for name in values(level)})
        return [
            line
            for name in names
            for line in self.single(
                f"{what} {name}", partial(_count, values, name), slack + allowed.get(name, 0)
            )
        ]


def _beside_the_cache(level: Level) -> int:
    """Memory of the process without the record data that its cache says it holds."""
    return level.facts.resident_bytes - level.facts.cached_bytes


def _count(values: Callable[[Level], Mapping[str, int]], name: str, level: Level) -> int:
    return values(level).get(name, 0)


def _without(rows: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    return {table: count - kept.get(table, 0) for table, count in rows.items()}

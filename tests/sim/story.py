"""A failed seed's history, told so that a person finds what matters: what went wrong, what had been done to the world
by then, and who did what around the moment at which it shows.

Lanes: `!` is a fault or somebody's death, `#` an agent or its log, `x` a promise that was broken, and the rest are
clients. Lines that name what the violation names (a partition, a client, a group) have `>` before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tests.sim.history import History

BEFORE_S, AFTER_S = 6.0, 0.5
LINES_MAX = 160
FAULTS_MAX = 60
FAULT_WORDS = ("dies", "stands still", "can't reach", "has a clock", "is told to stop", "hears no notices",
               "in the place of", "does the jobs of others", "did not start")  # fmt: skip
_NAMES = re.compile(r"[a-z]+(?:-[0-9]+)+(?:\.[0-9]+)?")
_VIOLATION = "VIOLATION "
_WHEN = re.compile(r"VIOLATION .*, at ([0-9]+\.[0-9]+):")


def tell(history: History, *, lines_max: int = LINES_MAX) -> str:
    """The story of the first violation, and where later ones are."""
    lines = history.lines
    shown = [at for at, line in enumerate(lines) if _VIOLATION in line]
    first = _place(lines, shown[0]) if shown else len(lines) - 1
    names = set(_NAMES.findall(lines[shown[0]].partition(_VIOLATION)[2])) if shown else set()
    begin, end = _window(lines, first, lines_max)
    return "\n".join(
        (
            f"--- what was done to this world until then (of {first} lines)",
            *_faults(lines[:begin]),
            f"--- what happened around it: lines {begin}..{end - 1} of {len(lines)}",
            *(_marked(line, names) for line in lines[begin:end]),
            *(_marked(lines[at], names) for at in shown if at >= end),
        )
    )


def _place(lines: Sequence[str], violation: int) -> int:
    """Where it happened: what is judged in the end says when that was."""
    when = _WHEN.search(lines[violation])
    if when is None:
        return violation
    return next((at for at, line in enumerate(lines) if _time_s(line) > float(when[1])), violation)


def _window(lines: Sequence[str], first: int, lines_max: int) -> tuple[int, int]:
    """The lines around one: some seconds before it, little after."""
    time_s = _time_s(lines[first])
    begin = end = first
    while begin > 0 and first - begin < lines_max and _time_s(lines[begin - 1]) >= time_s - BEFORE_S:
        begin -= 1
    while end < len(lines) and end - first < lines_max // 4 and _time_s(lines[end]) <= time_s + AFTER_S:
        end += 1
    return begin, max(end, first + 1)


def _time_s(line: str) -> float:
    return float(line.split(maxsplit=1)[0])


def _faults(lines: Sequence[str]) -> Iterable[str]:
    faults = [_marked(line, set()) for line in lines if _lane(line) == "!"]
    if len(faults) > FAULTS_MAX:
        yield f"  ({len(faults) - FAULTS_MAX} more before these)"
    yield from faults[-FAULTS_MAX:]


def _lane(line: str) -> str:
    actor = line[11:23].strip()
    if _VIOLATION in line:
        return "x"
    if actor == "world" or any(word in line for word in FAULT_WORDS):
        return "!"
    return "#" if actor == "log" or actor.startswith("agent") else " "


def _marked(line: str, names: set[str]) -> str:
    is_named = bool(names.intersection(_NAMES.findall(line)))
    return f"{'>' if is_named else ' '}{_lane(line)} {line}"

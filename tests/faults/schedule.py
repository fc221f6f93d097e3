"""What happens when: the misfortunes of one run, drawn from a seed alone. It decides and does nothing.

Four seeds in a row that begin at a multiple of four meet every kind of misfortune together: three of them share out the
kinds of a cluster among themselves, the fourth is of a single agent with all its data on one disk.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

ROUND = 4
"""So many seeds meet everything together."""
CLUSTER_PARTS = ROUND - 1
AGENTS = {"cluster": 3, "local": 1}
"""By place."""
CALM_BEFORE_S = 2.0
CALM_AFTER_S = 10.0
"""At the end of a run nothing happens any more: who can't go on by then is noticed."""
EVERY_S = 3.0
"""One misfortune begins in about so many seconds; several may be in force at once."""


class Kind(enum.Enum):
    """What can happen, as it is told."""

    KILL = "agent killed (kill -9)"
    FREEZE = "agent frozen for longer than its leases (SIGSTOP)"
    RESTART = "agent restarted in order"
    PREVIOUS = "agent replaced by one of the release before"
    CLOCK = "agent's clock minutes wrong"
    POSTGRES_RESTART = "PostgreSQL restarted"
    POSTGRES_CRASH = "PostgreSQL killed (kill -9)"
    POSTGRES_PAUSE = "PostgreSQL frozen (SIGSTOP)"
    POSTGRES_LOSS = "PostgreSQL lost for a while"
    CONNECTIONS_CUT = "connections to PostgreSQL cut"
    COMMITS_CUT = "connections cut in COMMIT"
    POSTGRES_HELD = "connections to PostgreSQL that pass nothing on"
    STORE_REFUSES = "object store refuses"
    STORE_GONE = "object store not reachable"
    STORE_THROTTLES = "object store throttles (503 SlowDown)"
    STORE_HANGS = "object store hangs"
    STORE_LATE = "object store answers late"
    STORE_CUTS = "object store cuts bodies"
    NO_WAY_TO_POSTGRES = "agent isolated from PostgreSQL (network)"
    NO_WAY_TO_STORE = "agent isolated from the object store (network)"
    NO_WAY_TO_AGENT = "agent isolated from clients and other agents (network)"
    DISK_FULL = "disk full"


LOCAL_KINDS = (Kind.KILL, Kind.FREEZE, Kind.RESTART, Kind.PREVIOUS, Kind.CLOCK, Kind.DISK_FULL)
CLUSTER_KINDS = tuple(kind for kind in Kind if kind is not Kind.DISK_FULL)

_OF_PROCESS = (Kind.KILL, Kind.FREEZE, Kind.RESTART, Kind.PREVIOUS)
_OF_POSTGRES = (Kind.POSTGRES_RESTART, Kind.POSTGRES_CRASH, Kind.POSTGRES_PAUSE, Kind.POSTGRES_LOSS)
_OF_NETWORK = (Kind.NO_WAY_TO_POSTGRES, Kind.NO_WAY_TO_STORE, Kind.NO_WAY_TO_AGENT)
DURATIONS_S = {
    Kind.KILL: (0.0, 4.0),
    Kind.FREEZE: (3.0, 8.0),
    Kind.RESTART: (0.0, 2.0),
    Kind.PREVIOUS: (5.0, 10.0),
    Kind.CLOCK: (4.0, 9.0),
    Kind.POSTGRES_RESTART: (0.0, 0.0),
    Kind.POSTGRES_CRASH: (0.0, 2.0),
    Kind.POSTGRES_LOSS: (2.0, 6.0),
    Kind.CONNECTIONS_CUT: (0.0, 0.0),
    Kind.NO_WAY_TO_POSTGRES: (2.0, 7.0),
    Kind.NO_WAY_TO_STORE: (2.0, 7.0),
    Kind.NO_WAY_TO_AGENT: (2.0, 7.0),
    Kind.DISK_FULL: (2.0, 6.0),
}
USUAL_S = (2.0, 6.0)
"""Of the others."""


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One of them: from when on, for how long, and what it happens to."""

    start_s: float
    """Since the load began."""
    duration_s: float
    kind: Kind
    agent: int | None
    """Whom it happens to; None: all."""
    share: float
    """Between 0 and 1: how bad it is, where that can be chosen."""
    variant: int
    """A number by which one of several ways is chosen."""

    @property
    def subject(self) -> str:
        """What no two misfortunes may happen to at the same time."""
        if self.kind in _OF_PROCESS:
            return f"process {self.agent}"
        if self.kind in _OF_POSTGRES:
            return "PostgreSQL"
        if self.kind in _OF_NETWORK:
            return f"network {self.agent}"
        if self.kind in (Kind.CONNECTIONS_CUT, Kind.COMMITS_CUT, Kind.POSTGRES_HELD):
            return "connections"
        if self.kind in (Kind.CLOCK, Kind.DISK_FULL):
            return f"{self.kind.name} {self.agent}"
        return "object store"

    def __str__(self) -> str:
        who = "" if self.agent is None else f", agent {self.agent}"
        return f"{self.start_s:5.1f} s for {self.duration_s:3.1f} s: {self.kind.value}{who}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that happens in a run, in the order of its beginnings."""

    seed: int
    place: str
    seconds: float
    misfortunes: tuple[Misfortune, ...]

    def __str__(self) -> str:
        head = f"seed {self.seed}, {self.place}, {self.seconds:g} s, {len(self.misfortunes)} misfortunes"
        return "\n".join([head, *(f"  {misfortune}" for misfortune in self.misfortunes)])


def place_of(seed: int) -> str:
    """Where a seed runs unless told otherwise."""
    return "local" if seed % ROUND == ROUND - 1 else "cluster"


def draw(seed: int, seconds: float, place: str) -> Schedule:
    """The schedule of a seed: the same each time."""
    source = random.Random(f"{place}/{seed}")
    room_s = seconds - CALM_BEFORE_S - CALM_AFTER_S
    kinds = _kinds(seed, place, max(1, round(room_s / EVERY_S)), source)
    source.shuffle(kinds)
    gap_s = room_s / len(kinds)
    found: list[Misfortune] = []
    busy_until_s: dict[str, float] = {}
    for number, kind in enumerate(kinds):
        earliest_s = CALM_BEFORE_S + gap_s * (number + 0.8 * source.random())
        drawn = _misfortune(kind, earliest_s, AGENTS[place], source)
        start_s = max(earliest_s, busy_until_s.get(drawn.subject, 0.0))
        end_s = min(start_s + drawn.duration_s, seconds - CALM_AFTER_S)
        start_s = min(start_s, end_s)
        # A process takes a moment to start.
        busy_until_s[drawn.subject] = end_s + 1.0
        found.append(
            Misfortune(
                round(start_s, 2), round(end_s - start_s, 2), kind, drawn.agent, drawn.share, drawn.variant
            )
        )
    return Schedule(seed, place, seconds, tuple(sorted(found, key=lambda each: each.start_s)))


def _kinds(seed: int, place: str, count: int, source: random.Random) -> list[Kind]:
    """Those that the seed has to meet, and others by chance."""
    if place == "local":
        deck, wanted = list(LOCAL_KINDS), list(LOCAL_KINDS)
    else:
        deck = list(CLUSTER_KINDS)
        random.Random(f"round {seed // ROUND}").shuffle(deck)
        wanted = deck[seed % ROUND % CLUSTER_PARTS :: CLUSTER_PARTS]
    return wanted + [source.choice(deck) for _ in range(count - len(wanted))]


def _misfortune(kind: Kind, start_s: float, agents: int, source: random.Random) -> Misfortune:
    """Draws the same numbers whatever the kind is."""
    duration_s = source.uniform(*DURATIONS_S.get(kind, USUAL_S))
    agent: int | None = source.randrange(agents)
    is_everybody = source.random() < 0.5
    share, variant = round(source.uniform(0.2, 1.0), 2), source.randrange(1 << 16)
    if kind in _OF_POSTGRES or (is_everybody and kind not in _TO_ONE):
        agent = None
    return Misfortune(start_s, duration_s, kind, agent, share, variant)


_TO_ONE: Sequence[Kind] = (*_OF_PROCESS, *_OF_NETWORK, Kind.CLOCK, Kind.DISK_FULL)

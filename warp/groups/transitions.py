"""The classic group protocol as two tables: which event leads from which state to which, and how each request is taken
in each state.

The machine in state.py looks everything up here, tests go through the tables entry by entry, and docs/groups.md shows
what `drawing()` and `reaction_table()` make of them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from warp.errors import ErrorCode


class State(enum.Enum):
    """The states of a classic group; the values are the names that tools know."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Event(enum.Enum):
    """What moves a group from one state to another."""

    REBALANCE = "a member comes, leaves, changes or is lost"
    JOINED = "everybody has joined, or the time is up"
    EMPTIED = "nobody is left"
    ASSIGNED = "the leader brings the assignment"
    DELETED = "an administrator, or nothing left to keep"
    LOST = "the slot or the store is lost"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.EMPTY, Event.REBALANCE): State.PREPARING,
    (State.EMPTY, Event.DELETED): State.DEAD,
    (State.EMPTY, Event.LOST): State.DEAD,
    (State.PREPARING, Event.JOINED): State.COMPLETING,
    (State.PREPARING, Event.EMPTIED): State.EMPTY,
    (State.PREPARING, Event.LOST): State.DEAD,
    (State.COMPLETING, Event.ASSIGNED): State.STABLE,
    (State.COMPLETING, Event.REBALANCE): State.PREPARING,
    (State.COMPLETING, Event.LOST): State.DEAD,
    (State.STABLE, Event.REBALANCE): State.PREPARING,
    (State.STABLE, Event.LOST): State.DEAD,
}
"""What is not here does not happen: looking it up is a bug."""


class Restored(enum.Enum):
    """What a coordinator finds in the store when it takes a group over."""

    NOTHING = "nothing stored"
    EMPTY = "stored without members"
    ASSIGNED = "stored with an assignment"
    UNASSIGNED = "stored between join and assignment"


RESTORED: Final[Mapping[Restored, State]] = {
    Restored.NOTHING: State.EMPTY,
    Restored.EMPTY: State.EMPTY,
    Restored.ASSIGNED: State.STABLE,
    Restored.UNASSIGNED: State.PREPARING,
}
"""In which state a group goes on after its coordinator has changed."""


class Ask(enum.Enum):
    """What a member that has been recognised asks for, as far as it makes a difference."""

    JOIN_NEW = "join: new member"
    JOIN_REPLACING_SAME = "join: replaces its static instance, choice of protocol unchanged"
    JOIN_REPLACING_OTHER = "join: replaces its static instance, choice of protocol changes"
    REJOIN_FOLLOWER_SAME = "join again: follower, metadata unchanged"
    REJOIN_LEADER_SAME = "join again: leader, metadata unchanged"
    REJOIN_CHANGED = "join again: metadata changed"
    SYNC_FOLLOWER = "sync: follower"
    SYNC_LEADER = "sync: leader"
    HEARTBEAT = "heartbeat"
    LEAVE = "leave"
    COMMIT = "offset commit: member"
    COMMIT_SIMPLE = "offset commit: no member id, generation -1"
    DELETE = "delete"


class Reaction(enum.Enum):
    """What the group does about it; the alternative is an error code."""

    PARK = "waits for the end of the phase"
    REBALANCE = "starts a rebalance and waits"
    ANSWER = "answered from the group as it is"
    STORE = "stored, then answered"
    ASSIGN = "stored, then everybody is answered"
    REMOVE = "removed; a rebalance starts"
    REMOVE_PARKED = "removed; the phase may end"
    ACCEPT = "accepted"


_25: Final = ErrorCode.UNKNOWN_MEMBER_ID
_27: Final = ErrorCode.REBALANCE_IN_PROGRESS
_15: Final = ErrorCode.COORDINATOR_NOT_AVAILABLE
_68: Final = ErrorCode.NON_EMPTY_GROUP
_PARK: Final = Reaction.PARK
_REBALANCE: Final = Reaction.REBALANCE
_ANSWER: Final = Reaction.ANSWER
_ACCEPT: Final = Reaction.ACCEPT

_COLUMNS: Final = (State.EMPTY, State.PREPARING, State.COMPLETING, State.STABLE, State.DEAD)
# A group without members has none that could be recognised: those cells are there for completeness.
_ROWS: Final[Mapping[Ask, tuple[Reaction | ErrorCode, ...]]] = {
    # What each is asked for: Empty, PreparingRebalance, CompletingRebalance, Stable, Dead.
    Ask.JOIN_NEW: (_REBALANCE, _PARK, _REBALANCE, _REBALANCE, _15),
    # While the leader computes, it knows the old id: its assignment would miss the new one. So all join again.
    Ask.JOIN_REPLACING_SAME: (_25, _PARK, _REBALANCE, Reaction.STORE, _15),
    Ask.JOIN_REPLACING_OTHER: (_25, _PARK, _REBALANCE, _REBALANCE, _15),
    Ask.REJOIN_FOLLOWER_SAME: (_25, _PARK, _ANSWER, _ANSWER, _15),
    # A leader that comes again wants a new assignment; between join and sync it only lost the answer.
    Ask.REJOIN_LEADER_SAME: (_25, _PARK, _ANSWER, _REBALANCE, _15),
    Ask.REJOIN_CHANGED: (_25, _PARK, _REBALANCE, _REBALANCE, _15),
    Ask.SYNC_FOLLOWER: (_25, _27, _PARK, _ANSWER, _15),
    Ask.SYNC_LEADER: (_25, _27, Reaction.ASSIGN, _ANSWER, _15),
    # Accepted while the leader computes: 27 would send members back to join, and a big group might never settle.
    Ask.HEARTBEAT: (_25, _27, _ACCEPT, _ACCEPT, _15),
    Ask.LEAVE: (_25, Reaction.REMOVE_PARKED, Reaction.REMOVE, Reaction.REMOVE, _15),
    # Accepted in PreparingRebalance: that is when clients commit what they are about to give up.
    Ask.COMMIT: (_25, _ACCEPT, _27, _ACCEPT, _15),
    Ask.COMMIT_SIMPLE: (_ACCEPT, _25, _25, _25, _15),
    Ask.DELETE: (Reaction.STORE, _68, _68, _68, _15),
}
REACTIONS: Final[Mapping[tuple[Ask, State], Reaction | ErrorCode]] = {
    (ask, state): reaction
    for ask, row in _ROWS.items()
    for state, reaction in zip(_COLUMNS, row, strict=True)
}
"""How each request is taken in each state, once member id, instance id and generation have been found right."""

HEARTBEATS: Final[Mapping[State, ErrorCode]] = {
    state: reaction if isinstance(reaction, ErrorCode) else ErrorCode.NONE
    for (ask, state), reaction in REACTIONS.items()
    if ask is Ask.HEARTBEAT
}
"""The row of heartbeats as error codes: by far the most frequent request."""


def drawing() -> str:
    """The states and what leads from one to another, as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {state.value}: {found.value}" for found, state in RESTORED.items()]
    for (source, event), target in TRANSITIONS.items():
        lines.append(f"    {source.value} --> {target.value}: {event.value}")
    lines.append(f"    {State.DEAD.value} --> [*]")
    return "\n".join(lines)


def reaction_table() -> str:
    """How each request is taken in each state, as a Markdown table."""
    lines = [
        "| asks to | " + " | ".join(state.value for state in _COLUMNS) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for ask, row in _ROWS.items():
        cells = (cell.value if isinstance(cell, Reaction) else f"{cell.name} ({cell.value})" for cell in row)
        lines.append(f"| {ask.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

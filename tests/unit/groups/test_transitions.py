"""The tables of the classic protocol: complete, kept to by the machine entry by entry, and shown in the docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.groups.group_support import NO_DELAY, SESSION_MS, Driver
from warp.errors import ErrorCode
from warp.groups.model import CodeAnswer, Delete, GroupSettings, Leaver
from warp.groups.slots import CoordinatorLimits
from warp.groups.transitions import (
    HEARTBEATS,
    REACTIONS,
    RESTORED,
    TRANSITIONS,
    Ask,
    Event,
    Reaction,
    Restored,
    State,
    drawing,
    reaction_table,
)

DOCS = Path(__file__).parents[3] / "docs" / "groups.md"
ALIVE = [state for state in State if state is not State.DEAD]
FIELDS: dict[str, Any] = {"protocols": (("a", b"1"), ("b", b"2"))}
CHANGED = (("a", b"3"), ("b", b"2"))
OTHER_CHOICE = (("b", b"2"), ("a", b"1"))

# A transition that is tested: from a group in the first state, what leads to the second.
STEPS: dict[tuple[State, Event], Callable[[Driver], object]] = {
    (State.EMPTY, Event.REBALANCE): lambda driver: driver.join(id_required=False),
    (State.EMPTY, Event.DELETED): lambda driver: driver.send(Delete()),
    (State.PREPARING, Event.JOINED): lambda driver: driver.advance(SESSION_MS),
    (State.PREPARING, Event.EMPTIED): lambda driver: driver.leave(
        *[member.member_id for member in driver.group.roster]
    ),
    (State.COMPLETING, Event.ASSIGNED): lambda driver: driver.sync(
        str(driver.group.leader), driver.group.generation
    ),
    (State.COMPLETING, Event.REBALANCE): lambda driver: driver.join(id_required=False, **FIELDS),
    (State.STABLE, Event.REBALANCE): lambda driver: driver.join(id_required=False, **FIELDS),
} | {
    (state, Event.LOST): lambda driver: driver.take(driver.group.abandon(ErrorCode.NOT_COORDINATOR))
    for state in ALIVE
}


def group_in(state: State) -> Driver:
    """A group of three static members i0 (the leader), i1 and i2 in this state; of none in Empty and Dead."""
    driver = Driver()
    if state is State.EMPTY:
        driver.group.settings = replace(NO_DELAY, initial_rebalance_delay_ms=3_000)
        return driver
    if state is State.DEAD:
        driver.take(driver.group.abandon(ErrorCode.NOT_COORDINATOR))
        return driver
    ids: list[str] = []
    for number in range(3):
        token = driver.join(instance_id=f"i{number}", **FIELDS)
        for other in ids:
            driver.join(other, **FIELDS)
        ids.append(driver.joined(token).member_id)
    if state is not State.COMPLETING:
        for member_id in (ids[1], ids[2], ids[0]):
            driver.sync(member_id, 3, {member_id: member_id.encode() for member_id in ids})
    if state is State.PREPARING:
        driver.join(ids[0], **FIELDS)
        driver.join(ids[1], **FIELDS)
    driver.answers.clear()
    assert driver.state() is state
    return driver


def member(driver: Driver, instance_id: str) -> str:
    found = driver.group.roster.of_instance(instance_id)
    return found.member_id if found is not None else "nobody"


def test_every_transition_of_the_table_is_tested() -> None:
    assert STEPS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize(("state", "event"), TRANSITIONS, ids=lambda value: value.name)
def test_event_leads_where_the_table_says(state: State, event: Event) -> None:
    driver = group_in(state)
    STEPS[state, event](driver)
    assert driver.state() is TRANSITIONS[state, event]


@pytest.mark.parametrize(
    ("state", "event"),
    [(state, event) for state in State for event in Event if (state, event) not in TRANSITIONS],
    ids=lambda value: value.name,
)
def test_what_is_not_in_the_table_is_a_bug(state: State, event: Event) -> None:
    with pytest.raises(KeyError):
        group_in(state).group.move(event)


def test_every_state_can_be_reached_and_only_dead_is_final() -> None:
    reached = set(RESTORED.values()) | set(TRANSITIONS.values())
    assert reached == set(State)
    assert {source for source, _ in TRANSITIONS} == set(ALIVE)


def test_every_request_has_a_reaction_in_every_state() -> None:
    assert REACTIONS.keys() == {(ask, state) for ask in Ask for state in State}
    assert HEARTBEATS.keys() == set(State)


def act(driver: Driver, ask: Ask) -> ErrorCode | None:
    """Ask for it; the error that it got at once, or None when it waits."""
    generation = driver.group.generation
    follower, leader = member(driver, "i2"), member(driver, "i0")
    match ask:
        case Ask.JOIN_NEW:
            token = driver.join(id_required=False, **FIELDS)
        case Ask.JOIN_REPLACING_SAME:
            token = driver.join(instance_id="i2", protocols=CHANGED)
        case Ask.JOIN_REPLACING_OTHER:
            for number in (0, 1):
                found = driver.group.roster.of_instance(f"i{number}")
                if found is not None:
                    found.protocols = OTHER_CHOICE  # So that one more vote turns the choice.
            token = driver.join(instance_id="i2", protocols=OTHER_CHOICE)
        case Ask.REJOIN_FOLLOWER_SAME:
            token = driver.join(follower, **FIELDS)
        case Ask.REJOIN_LEADER_SAME:
            token = driver.join(leader, **FIELDS)
        case Ask.REJOIN_CHANGED:
            token = driver.join(follower, protocols=CHANGED)
        case Ask.SYNC_FOLLOWER:
            token = driver.sync(follower, generation)
        case Ask.SYNC_LEADER:
            token = driver.sync(leader, generation)
        case Ask.HEARTBEAT:
            return driver.heartbeat(follower, generation)
        case Ask.LEAVE:
            answer = driver.leave(Leaver(follower))
            return answer.members[0].error if answer.members else answer.error
        case Ask.COMMIT:
            return driver.commit(follower, generation)
        case Ask.COMMIT_SIMPLE:
            return driver.commit()
        case _:
            return driver.ask(Delete(), CodeAnswer).error
    return getattr(driver.answers.get(token), "error", None)


# (error at once or None when parked, state afterwards where it changes)
OUTCOMES: dict[tuple[Reaction, State], tuple[ErrorCode | None, State]] = {
    # The one member that was missing has come: the phase is over, and its join is answered.
    (Reaction.PARK, State.PREPARING): (ErrorCode.NONE, State.COMPLETING),
    (Reaction.PARK, State.COMPLETING): (None, State.COMPLETING),
    (Reaction.REBALANCE, State.EMPTY): (None, State.PREPARING),
    (Reaction.REBALANCE, State.COMPLETING): (None, State.PREPARING),
    (Reaction.REBALANCE, State.STABLE): (None, State.PREPARING),
    (Reaction.ANSWER, State.COMPLETING): (ErrorCode.NONE, State.COMPLETING),
    (Reaction.ANSWER, State.STABLE): (ErrorCode.NONE, State.STABLE),
    (Reaction.STORE, State.STABLE): (ErrorCode.NONE, State.STABLE),
    (Reaction.STORE, State.EMPTY): (ErrorCode.NONE, State.DEAD),
    (Reaction.ASSIGN, State.COMPLETING): (ErrorCode.NONE, State.STABLE),
    (Reaction.REMOVE, State.COMPLETING): (ErrorCode.NONE, State.PREPARING),
    (Reaction.REMOVE, State.STABLE): (ErrorCode.NONE, State.PREPARING),
    (Reaction.REMOVE_PARKED, State.PREPARING): (ErrorCode.NONE, State.COMPLETING),
    (Reaction.ACCEPT, State.EMPTY): (ErrorCode.NONE, State.EMPTY),
    (Reaction.ACCEPT, State.PREPARING): (ErrorCode.NONE, State.PREPARING),
    (Reaction.ACCEPT, State.COMPLETING): (ErrorCode.NONE, State.COMPLETING),
    (Reaction.ACCEPT, State.STABLE): (ErrorCode.NONE, State.STABLE),
}
# An Empty group has no instance that could be replaced.
NOBODY_THERE = {(Ask.JOIN_REPLACING_SAME, State.EMPTY), (Ask.JOIN_REPLACING_OTHER, State.EMPTY)}
# A rebalance of a group whose others are away ends once they have come; a newcomer beside a missing member waits too.
WAITS_FOR_OTHERS = {(Ask.JOIN_NEW, State.PREPARING), (Ask.REJOIN_LEADER_SAME, State.PREPARING)}


@pytest.mark.parametrize(
    ("ask", "state"),
    [key for key in REACTIONS if key not in NOBODY_THERE],
    ids=lambda value: value.name,
)
def test_group_reacts_as_the_table_says(ask: Ask, state: State) -> None:
    driver = group_in(state)
    members = len(driver.group.roster)
    reaction = REACTIONS[ask, state]
    error = act(driver, ask)
    if isinstance(reaction, ErrorCode):
        assert (error, driver.state()) == (reaction, state)
    elif (ask, state) in WAITS_FOR_OTHERS:
        assert (error, driver.state()) == (None, state)
    else:
        assert (error, driver.state()) == OUTCOMES[reaction, state]
    if reaction in (Reaction.REMOVE, Reaction.REMOVE_PARKED):
        assert len(driver.group.roster) == members - 1


@pytest.mark.parametrize("found", Restored, ids=lambda found: found.name)
def test_group_goes_on_after_a_takeover_where_the_table_says(found: Restored) -> None:
    state = {
        Restored.NOTHING: State.EMPTY,
        Restored.EMPTY: State.STABLE,
        Restored.ASSIGNED: State.STABLE,
        Restored.UNASSIGNED: State.COMPLETING,
    }[found]
    driver = group_in(state)
    if found is Restored.EMPTY:
        driver.leave(*[present.member_id for present in driver.group.roster])
    driver.take_over()
    assert driver.state() is RESTORED[found]


@pytest.mark.parametrize(
    ("name", "made"), [("drawing", f"```mermaid\n{drawing()}\n```"), ("reactions", reaction_table())]
)
def test_docs_show_the_tables_as_they_are(name: str, made: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0] == made


def shown(name: str, value: int) -> str:
    """A limit as the docs write it."""
    return f"{value // 2**20} MiB" if "bytes" in name else f"{value:,}"


def test_docs_name_every_limit_of_a_group() -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    limits = {
        "groups of an agent": shown("", CoordinatorLimits().groups_max),
        "what the members of all groups hold": shown("bytes", CoordinatorLimits().members_bytes_max),
    } | {
        words: shown(name, getattr(GroupSettings(), name))
        for name, words in {
            "members_max": "members of a group",
            "pending_members_max": "member ids of a group",
            "protocols_max": "protocols of a member",
            "member_metadata_bytes_max": "metadata of a member",
            "group_metadata_bytes_max": "metadata of a group",
            "member_assignment_bytes_max": "assignment of a member",
            "group_assignment_bytes_max": "assignments of a group",
            "deferred_requests_max": "requests to a group",
        }.items()
    }
    for words, limit in limits.items():
        (row,) = [row for row in rows if row.startswith(f"| {words}")]
        assert limit in row.split("|")[2], words

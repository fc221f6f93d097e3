"""What has to be true of a classic group after every step, whatever has happened to it."""

from __future__ import annotations

from dataclasses import replace

from warp.groups.members import metadata_bytes
from warp.groups.model import Now
from warp.groups.state import ClassicGroup
from warp.groups.stored import snapshot
from warp.groups.transitions import State
from warp.metadata.group_model import StoredGroup


def check(group: ClassicGroup, stored: StoredGroup | None) -> None:
    """AssertionError when the group, or what is stored of it, is not as it has to be."""
    check_roster(group)
    check_state(group)
    if group.is_settled:
        check_timers(group)
        check_stored(group, stored)
    else:
        assert group.wake_ms is None


def check_roster(group: ClassicGroup) -> None:
    roster = group.roster
    members = list(roster)
    assert all(roster.get(member.member_id) is member for member in members)
    statics = [member for member in members if member.instance_id is not None]
    assert all(roster.of_instance(member.instance_id) is member for member in statics)
    assert len(roster._by_instance) == len(statics)
    assert roster.parked == sum(member.joining is not None for member in members)
    assert not any(member_id in roster for member_id in roster.pending)
    supported: dict[str, int] = {}
    for member in members:
        for name, _ in member.protocols:
            supported[name] = supported.get(name, 0) + 1
    assert roster._supported == supported
    assert roster.metadata_bytes == sum(metadata_bytes(member.protocols) for member in members)
    assert not members or len(members) in supported.values(), "no protocol that all support"


def check_state(group: ClassicGroup) -> None:
    state, members = group.state, list(group.roster)
    if state is State.DEAD:
        assert all(member.joining is member.syncing is None for member in members), (
            "somebody waits for the dead"
        )
        assert not group._deferred
        return
    assert state is not State.EMPTY or not members
    assert state in (State.EMPTY, State.PREPARING) or members
    assert state is State.PREPARING or all(member.joining is None for member in members)
    assert state is State.COMPLETING or all(member.syncing is None for member in members)
    assert all(member_id in group.roster for member_id in group.pending_sync)
    if state in (State.COMPLETING, State.STABLE):
        assert str(group.leader) in group.roster
        assert group.protocol is not None
        assert group.roster._supported[group.protocol] == len(members)
        assert not any(member.is_new for member in members)
    assert state is not State.COMPLETING or str(group.leader) in group.pending_sync


def check_timers(group: ClassicGroup) -> None:
    """Everybody who may fall silent has a deadline, and nobody else."""
    waiting = {
        member.member_id
        for member in group.roster
        if (member.joining is None and member.syncing is None)
        or (member.is_new and member.joining is not None)
    } | set(group.roster.pending)
    assert set(group.sessions._due) == waiting
    has_phase = group.state is State.PREPARING or bool(group.pending_sync)
    assert (group.phase_due_ms is not None) == has_phase
    first_ms = min(
        [*group.sessions._due.values(), *([group.phase_due_ms] if group.phase_due_ms is not None else [])],
        default=None,
    )
    wake_ms = group.wake_ms
    assert (wake_ms is None) == (first_ms is None)
    assert wake_ms is None or first_ms is None or wake_ms <= first_ms
    assert len(group.sessions._heap) <= 3 * len(waiting) + 70


def check_stored(group: ClassicGroup, stored: StoredGroup | None) -> None:
    """A successor would find the same generation; of a group at rest it would find everything."""
    if stored is None:
        assert group.generation == 0
        return
    assert stored.generation == group.generation
    if group.state in (State.STABLE, State.COMPLETING, State.EMPTY):
        now = snapshot(group, Now(0, stored.changed_ms))
        if group.state is State.EMPTY:
            now = replace(now, protocol_type=stored.protocol_type)
        assert now == stored

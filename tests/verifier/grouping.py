"""Generations of groups: they rise, have one leader and one plan, and nobody shares a partition (P6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.verifier.context import Context
from tests.verifier.operations import (
    Assigned,
    Committed,
    DeleteGroup,
    Heartbeat,
    Joined,
    JoinGroup,
    OffsetCommit,
    Partition,
    StoredGroup,
    Synced,
    SyncGroup,
)
from tests.verifier.recorder import Op, State


@dataclass(slots=True)
class Generation:
    """One generation of a group."""

    leader: str = ""
    plans: list[dict[str, bytes]] = field(default_factory=list)
    """What was sent by members; no more than one is in force."""
    plausible: set[int] = field(default_factory=set)
    """Which of the plans agree with all shares that were told so far."""
    has_shares: bool = False
    holders: dict[Partition, str] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """What is known of a group."""

    generation: int = -1
    """The highest that a member was let into."""
    stored: int = -1
    generations: dict[int, Generation] = field(default_factory=lambda: defaultdict(Generation))

    @property
    def fence(self) -> int:
        """The highest generation that has begun for sure: what is sent from now on in an older one is refused."""
        return max(self.generation, self.stored)


class Grouping:
    """All generations of a history."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._groups: dict[str, Group] = defaultdict(Group)
        self._before: dict[int, int] = {}
        """By operation, the generation that had begun when it was sent."""

    def began(self, op: Op) -> None:
        """Note what is known."""
        operation = op.operation
        if isinstance(operation, JoinGroup):
            self._before[op.number] = self._groups[operation.group].generation
        elif isinstance(operation, SyncGroup):
            group = self._groups[operation.group]
            self._before[op.number] = group.generation
            if operation.shares:
                generation = group.generations[operation.generation]
                if not generation.has_shares:
                    generation.plausible.add(len(generation.plans))
                generation.plans.append(dict(operation.shares))
        elif isinstance(operation, Heartbeat | OffsetCommit):
            self._before[op.number] = self._groups[operation.group].fence

    def ended(self, op: Op, moment: int) -> None:
        """Judge an answer."""
        before = self._before.pop(op.number, -1)
        operation, answer = op.operation, op.answer
        if op.state is not State.ANSWERED:
            return
        if isinstance(operation, JoinGroup):
            assert isinstance(answer, Joined)
            self._joined(operation.group, answer, before, moment)
        elif isinstance(operation, SyncGroup):
            assert isinstance(answer, Synced)
            self._accepted(op, operation.group, operation.member, operation.generation, before, moment)
            self._holds(operation.group, operation.generation, operation.member, answer.share, moment)
            self._assigned(operation.group, operation.generation, operation.member, answer.partitions, moment)
        elif isinstance(operation, Assigned):
            if operation.share is not None:
                self._holds(operation.group, operation.generation, operation.member, operation.share, moment)
            self._assigned(
                operation.group, operation.generation, operation.member, operation.partitions, moment
            )
        elif isinstance(operation, Heartbeat):
            self._accepted(op, operation.group, operation.member, operation.generation, before, moment)
        elif isinstance(operation, OffsetCommit):
            assert isinstance(answer, Committed)
            if operation.generation >= 0 and not all(answer.parts.values()):
                self._accepted(op, operation.group, operation.member, operation.generation, before, moment)
        elif isinstance(operation, StoredGroup):
            self._stored(operation, moment)
        elif isinstance(operation, DeleteGroup):
            self._groups.pop(operation.group, None)

    def _joined(self, name: str, joined: Joined, before: int, moment: int) -> None:
        context, group = self._context, self._groups[name]
        context.looked("generations only rise")
        if joined.generation < before:
            text = f"{name}: {joined.member} was let into generation {joined.generation} after {before} had begun"
            context.violate("generations only rise", text, moment)
        group.generation = max(group.generation, joined.generation)
        generation = group.generations[joined.generation]
        context.looked("one leader per generation")
        if joined.is_leader:
            if generation.leader not in ("", joined.member):
                leaders = f"{generation.leader} and by {joined.member}"
                text = f"{name}: generation {joined.generation} is led by {leaders}"
                context.violate("one leader per generation", text, moment)
            generation.leader = joined.member

    def _accepted(self, op: Op, name: str, member: str, generation: int, before: int, moment: int) -> None:
        self._context.looked("old generations are fenced")
        if generation < before:
            what = f"{type(op.operation).__name__} of {member} in generation {generation}"
            text = f"{name}: {what} was accepted after {before} had begun"
            self._context.violate("old generations are fenced", text, moment)

    def _holds(self, name: str, number: int, member: str, share: bytes, moment: int) -> None:
        """A member's share must be from the one plan of its generation."""
        generation, check = self._groups[name].generations[number], "members hold what they were sent"
        self._context.looked(check)
        generation.has_shares = True
        fitting = {plan for plan in generation.plausible if generation.plans[plan].get(member) == share}
        if fitting:
            generation.plausible = fitting
        elif not share:
            self._context.violate(check, f"{name}: {member} was left out of generation {number}", moment)
        elif any(plan.get(member) == share for plan in generation.plans):
            text = f"{name}: generation {number} has two plans; {member} holds {share!r} of the other"
            self._context.violate(check, text, moment)
        else:
            text = (
                f"{name}: {member} in generation {number} holds {share!r}, which the leader did not send it"
            )
            self._context.violate(check, text, moment)

    def _assigned(
        self, name: str, number: int, member: str, partitions: Sequence[Partition], moment: int
    ) -> None:
        holders = self._groups[name].generations[number].holders
        for partition in partitions:
            self._context.looked("assignments never overlap")
            holder = holders.setdefault(partition, member)
            if holder != member:
                text = f"{name}: in generation {number} {partition} is held by {holder} and by {member}"
                self._context.violate("assignments never overlap", text, moment)

    def _stored(self, stored: StoredGroup, moment: int) -> None:
        group = self._groups[stored.group]
        self._context.looked("generations only rise")
        if stored.generation < group.stored:
            text = f"{stored.group}: the stored generation went from {group.stored} to {stored.generation}"
            self._context.violate("generations only rise", text, moment)
        group.stored = max(group.stored, stored.generation)

"""Committed offsets, as they happen: none is lost, none goes back, none passes by what nobody has processed (P6).

An offset of a group and partition is a register. A value that is told must have been written, and not have been
overwritten for sure before it was asked for: that is, no write that began after it had ended was acknowledged by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.verifier.context import Context
from tests.verifier.operations import (
    Committed,
    CommittedOffsets,
    DeleteGroup,
    DeleteTopic,
    OffsetCommit,
    OffsetFetch,
    Partition,
    StoredGroup,
)
from tests.verifier.recorder import Op, State
from tests.verifier.timeline import NEVER
from warp.errors import ErrorCode

Place = tuple[str, Partition]
"""A group, and a partition that it reads."""
NOTHING = -1
"""What is told where nothing is committed."""
REFUSED = frozenset(
    {
        ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.FENCED_INSTANCE_ID, ErrorCode.GROUP_AUTHORIZATION_FAILED, ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.INVALID_GROUP_ID, ErrorCode.OFFSET_METADATA_TOO_LARGE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.NON_EMPTY_GROUP,
    }
)  # fmt: skip
"""Nothing was stored. After other errors it may be, now or later."""


@dataclass(slots=True)
class Register:
    """One committed offset: when each value was written, and which writes are over for sure."""

    first_began: dict[int, int] = field(default_factory=lambda: {NOTHING: -1})
    last_ended: dict[int, int] = field(default_factory=lambda: {NOTHING: -1})
    """NEVER while a write is on its way, or was lost."""
    on_their_way: dict[int, int] = field(default_factory=dict)
    """Writes by value, as long as they have no answer."""
    overwritten_before: int = -2
    """Writes that had ended by this moment are no more."""
    highest: int = NOTHING
    """The highest that was acknowledged or told."""
    acknowledged: int = NOTHING
    stored: int | None = None
    """As the store was seen last."""


class Expected(NamedTuple):
    """What an OffsetFetch has to show, as of when it was sent."""

    overwritten_before: int
    highest: int


class Committing:
    """All committed offsets of a history."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._registers: dict[Place, Register] = defaultdict(Register)
        self._expected: dict[int, dict[Partition, Expected]] = {}
        self._processed: dict[Place, set[int]] = defaultdict(set)
        self._floors: dict[Place, int] = defaultdict(int)
        self._processing_groups: set[str] = set()

    def began(self, op: Op, moment: int) -> None:
        """Note what is written, or what has to be told."""
        operation = op.operation
        if isinstance(operation, OffsetFetch):
            self._expected[op.number] = {
                partition: self._expect((operation.group, partition)) for partition in operation.partitions
            }
        for place, value in self._writes(op):
            register = self._registers[place]
            register.first_began.setdefault(value, moment)
            register.on_their_way[value] = register.on_their_way.get(value, 0) + 1
            register.last_ended[value] = NEVER

    def ended(self, op: Op, moment: int) -> None:
        """Note what was written, or judge what was told."""
        operation, answer = op.operation, op.answer
        if isinstance(operation, StoredGroup):
            self._stored(operation, moment)
        elif isinstance(operation, OffsetFetch):
            expected = self._expected.pop(op.number)
            if isinstance(answer, CommittedOffsets) and op.state is State.ANSWERED:
                for partition, offset in answer.offsets.items():
                    if partition in expected:
                        self._told(op, (operation.group, partition), expected[partition], offset, moment)
        elif op.state is not State.LOST:
            for place, value in self._writes(op):
                self._written(op, place, value, moment)

    def _expect(self, place: Place) -> Expected:
        register = self._registers[place]
        return Expected(register.overwritten_before, register.highest)

    def _writes(self, op: Op) -> Iterable[tuple[Place, int]]:
        operation = op.operation
        if isinstance(operation, OffsetCommit):
            return [((operation.group, p), offset) for p, offset in operation.offsets.items()]
        if isinstance(operation, DeleteGroup):
            return [(place, NOTHING) for place in self._registers if place[0] == operation.group]
        if isinstance(operation, DeleteTopic):
            return [(place, NOTHING) for place in self._registers if place[1].topic == operation.topic]
        return []

    def _written(self, op: Op, place: Place, value: int, moment: int) -> None:
        """The answer to a write has come."""
        register = self._registers[place]
        if value not in register.on_their_way:
            return  # Of a group or topic that was deleted before it had this one.
        code = op.error_code
        if isinstance(op.answer, Committed):
            code = op.answer.parts.get(place[1], NOTHING)
        if code and code not in REFUSED:
            return
        register.on_their_way[value] -= 1
        if not register.on_their_way[value]:
            del register.on_their_way[value]
            register.last_ended[value] = moment
        if code:
            return
        began = self._context.timeline.began[op.number]
        register.overwritten_before = max(register.overwritten_before, began)
        if isinstance(op.operation, OffsetCommit):
            self._acknowledged(op, place, register, value, moment)
        else:
            register.highest = register.acknowledged = NOTHING
            self._floors.pop(place, None)
            self._processed.pop(place, None)

    def _acknowledged(self, op: Op, place: Place, register: Register, offset: int, moment: int) -> None:
        group, partition = place
        if group in self._context.rules.rising_groups and register.stored is not None:
            self._context.looked("committed offsets never go back")
            if register.stored < offset:
                text = f"{group}: {op.client} was told that {offset} of {partition} is committed; it is not stored"
                self._context.violate("committed offsets never go back", text, moment)
        register.highest = max(register.highest, offset)
        register.acknowledged = max(register.acknowledged, offset)
        self._skips_nothing(place, offset, "committed", moment)

    def _told(self, op: Op, place: Place, expected: Expected, offset: int, moment: int) -> None:
        group, partition = place
        self._judge(
            place,
            expected,
            offset,
            f"{group}: {op.client} was told that {partition} stands at {offset}",
            moment,
        )
        self._skips_nothing(place, offset, "told", moment)

    def _judge(self, place: Place, expected: Expected, offset: int, what: str, moment: int) -> None:
        context, register = self._context, self._registers[place]
        context.looked("committed offsets were committed")
        context.looked("committed offsets never go back")
        if offset not in register.first_began:
            context.violate("committed offsets were committed", f"{what}, which nobody has committed", moment)
            return
        is_old = register.last_ended[offset] < expected.overwritten_before
        if place[0] in context.rules.rising_groups:
            is_old = is_old or offset < expected.highest
        if is_old:
            context.violate(
                "committed offsets never go back",
                f"{what}, not {register.highest}, which came after it",
                moment,
            )
            return
        register.overwritten_before = max(register.overwritten_before, register.first_began[offset])
        register.highest = max(register.highest, offset)

    def _stored(self, stored: StoredGroup, moment: int) -> None:
        """The store, seen after each transaction of the agents."""
        known = {place for place in self._registers if place[0] == stored.group}
        for place in sorted(known | {(stored.group, partition) for partition in stored.offsets}):
            offset = stored.offsets.get(place[1], NOTHING)
            register = self._registers[place]
            if register.stored == offset:
                continue
            what = f"{stored.group}: {place[1]} went from {register.stored} to {offset} in the store"
            expected = Expected(
                register.overwritten_before, NOTHING if register.stored is None else register.stored
            )
            self._judge(place, expected, offset, what, moment)
            self._skips_nothing(place, offset, "stored", moment)
            register.stored = offset

    # What members have processed.

    def processed(self, number: int) -> None:
        """A member is done with a record."""
        history = self._context.history
        sightings = history.processed
        group = history.groups.all[sightings.who[number]]
        self._processing_groups.add(group)
        place = (group, history.partitions.all[sightings.partition[number]])
        self._processed[place].add(sightings.offset[number])

    def floor(self, place: Place) -> int:
        """The first offset that nobody in the group has processed."""
        floor, processed = self._floors[place], self._processed[place]
        while floor in processed:
            processed.discard(floor)
            floor += 1
        self._floors[place] = floor
        return floor

    def _skips_nothing(self, place: Place, offset: int, what: str, moment: int) -> None:
        group, partition = place
        if group not in self._processing_groups:
            return
        self._context.looked("groups skip nothing")
        if offset > self.floor(place):
            text = f"{group}: {offset} of {partition} is {what}; {self.floor(place)} was not processed"
            self._context.violate("groups skip nothing", text, moment)

    # In the end.

    def settle(self, ends: Mapping[Partition, int]) -> None:
        """Groups that are to finish have; and what is read back is what was committed."""
        context = self._context
        for group, partitions in sorted(context.rules.groups_that_finish.items()):
            for partition in sorted(set(partitions) & ends.keys()):
                context.looked("groups process everything")
                floor, end = self.floor((group, partition)), ends[partition]
                if floor < end:
                    text = f"{group}: nobody has processed {partition} offset {floor}; it ends at {end}"
                    context.violate("groups process everything", text)
        before: dict[Place, tuple[str, int]] = {}
        for readback in context.readbacks:
            for group, offsets in sorted(readback.committed.items()):
                for partition, offset in sorted(offsets.items()):
                    place = (group, partition)
                    self._agree(
                        place, before.setdefault(place, (readback.agent, offset)), readback.agent, offset
                    )
                    what = f"{group}: in the end {readback.agent} says that {partition} stands at {offset}"
                    self._judge(place, self._expect(place), offset, what, NEVER)

    def _agree(self, place: Place, before: tuple[str, int], agent: str, offset: int) -> None:
        """When nothing is on its way any more all agents tell the same."""
        self._context.looked("agents agree")
        if self._context.rules.is_quiet and offset != before[1]:
            group, partition = place
            text = (
                f"{group}: {partition} stands at {before[1]} through {before[0]}, at {offset} through {agent}"
            )
            self._context.violate("agents agree", text)

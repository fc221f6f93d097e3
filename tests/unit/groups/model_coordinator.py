"""A coordinator in virtual time: runs one group, stores its changes after a while or not at all, dies, comes back.

It also is the witness: it sees every reply that leaves, and holds them against each other and against what is stored.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tests.unit.groups.group_invariants import check
from warp.errors import ErrorCode
from warp.groups.answers import answer_without_group, refusal
from warp.groups.model import (
    Answer,
    GroupSettings,
    Join,
    JoinAnswer,
    Now,
    Remove,
    Reply,
    Request,
    Save,
    Step,
    Sync,
    SyncAnswer,
)
from warp.groups.state import ClassicGroup
from warp.metadata.group_model import StoredGroup

Answered = Callable[[Answer | None], None]
"""Gets the answer, or None when the connection was lost."""


class World:
    """Virtual time, in milliseconds: what is planned happens in order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = 0
        self._plan: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0

    def after(self, delay_ms: int, do: Callable[[], None]) -> None:
        self._planned += 1
        heapq.heappush(self._plan, (self.now_ms + delay_ms, self._planned, do))

    def run_until(self, end_ms: int) -> None:
        while self._plan and self._plan[0][0] <= end_ms:
            self.now_ms, _, do = heapq.heappop(self._plan)
            do()
        self.now_ms = end_ms


@dataclass
class Trouble:
    """How likely it is, per save, that it fails; and after how long a coordinator dies, 0: never."""

    save_fails: float = 0.0
    life_ms: int = 0


@dataclass
class Witness:
    """What members have been told about generations, over all coordinators."""

    leaders: dict[int, str] = field(default_factory=dict)
    plans: dict[int, bytes] = field(default_factory=dict)
    latest: int = 0

    def joined(self, answer: JoinAnswer, stored: StoredGroup | None) -> None:
        assert stored is not None, "a generation of a group that is not stored"
        assert stored.generation == answer.generation >= self.latest, (
            "a generation that is not the current one"
        )
        self.latest = answer.generation
        if answer.members and not answer.skip_assignment:
            leader = self.leaders.setdefault(answer.generation, answer.member_id)
            assert leader == answer.member_id == answer.leader, "two leaders of one generation"
            assert answer.member_id in [member.member_id for member in answer.members]

    def synced(self, request: Sync, answer: SyncAnswer, stored: StoredGroup | None) -> None:
        """A share says of which generation it is and by which attempt of its leader it was made."""
        assert stored is not None
        assert stored.generation == request.generation, (
            "an assignment of a generation that is not the stored one"
        )
        (member,) = [one for one in stored.members if one.member_id == request.member_id]
        assert member.assignment == answer.assignment, "an assignment that is not what is stored"
        plan = answer.assignment.rsplit(b"|", 1)[0]
        assert plan.startswith(b"%d|" % request.generation), "an assignment of another generation"
        assert self.plans.setdefault(request.generation, plan) == plan, "two assignments of one generation"


class ModelCoordinator:
    """Serves the group `g` to whoever sends requests."""

    def __init__(self, world: World, settings: GroupSettings, trouble: Trouble) -> None:
        self.world = world
        self.settings = settings
        self.trouble = trouble
        self.stored: StoredGroup | None = None
        self.group: ClassicGroup | None = None
        self.witness = Witness()
        self.waiting: dict[int, tuple[Request, Answered]] = {}
        self._is_up = True
        self._life = 0
        self._tokens = 0
        self._wake_ms: int | None = None
        self._plan_death()

    @property
    def now(self) -> Now:
        return Now(self.world.now_ms, 10**12 + self.world.now_ms)

    def send(self, request: Request, answered: Answered) -> None:
        """Take a request; its answer comes at once or later, exactly once."""
        if not self._is_up:
            answered(refusal(request, ErrorCode.NOT_COORDINATOR))
            return
        if self.group is None:
            if self.stored is None and (answer := answer_without_group(request, self.settings)) is not None:
                answered(answer)
                return
            self._load()
        assert self.group is not None
        self._tokens += 1
        self.waiting[self._tokens] = (request, answered)
        if isinstance(request, Join):
            request = replace(request, fresh_id=f"id{self._tokens}-{self._life}")
        self._take(self.group.handle(self._tokens, request, self.now))

    # The life of a coordinator.

    def _load(self) -> None:
        if self.stored is None:
            self.group = ClassicGroup("g", self.settings)
        else:
            self.group = ClassicGroup.restore(self.stored, self.settings, self.now)
        self._plan_wake()

    def _plan_death(self) -> None:
        if self.trouble.life_ms:
            self.world.after(self.world.random.randint(1, 2 * self.trouble.life_ms), self._may_die)

    def _may_die(self) -> None:
        if self.trouble.life_ms:
            self.die()

    def die(self) -> None:
        """Without a word, or handing over: then those who wait are told. Another one comes after a while."""
        group, self.group = self.group, None
        self._is_up = False
        self._life += 1
        if group is not None and not group.is_dead and self.world.random.random() < 0.5:
            self._tell(group.abandon(ErrorCode.NOT_COORDINATOR).replies)
            assert not self.waiting, "requests that nobody will answer"
        waiting, self.waiting = self.waiting, {}
        for _, answered in waiting.values():
            answered(None)
        self.world.after(self.world.random.choice([0, 100, 5_000]), self._come_back)

    def _come_back(self) -> None:
        self._is_up = True
        if self.stored is not None:
            self._load()
        self._plan_death()

    # What a step leads to.

    def _take(self, step: Step) -> None:
        self._tell(step.replies)
        group = self.group
        assert group is not None
        check(group, self.stored)
        if step.change is not None:
            change, life = step.change, self._life
            delay_ms = self.world.random.choice([0, 1, 5, 50])
            self.world.after(delay_ms, lambda: self._end_save(group, change, life))
        self._plan_wake()

    def _end_save(self, group: ClassicGroup, change: Save | Remove, life: int) -> None:
        fails = self.world.random.random() < self.trouble.save_fails
        # A coordinator that is gone may still have written: its successor has not loaded before that was settled.
        if life != self._life:
            return
        if not fails or self.world.random.random() < 0.3:
            self.stored = change.group if isinstance(change, Save) else None
        if fails:
            # Whether it was written after all is unknown.
            self.group = None
            self._tell(group.save_failed(ErrorCode.COORDINATOR_NOT_AVAILABLE).replies)
            assert not self.waiting, "requests that nobody will answer"
            if self.stored is not None:
                self._load()
            return
        self._take(group.saved(self.now))

    def _tell(self, replies: Sequence[Reply]) -> None:
        for token, answer in replies:
            assert isinstance(token, int)
            request, answered = self.waiting.pop(token)
            if isinstance(answer, JoinAnswer) and not answer.error:
                self.witness.joined(answer, self.stored)
            if isinstance(answer, SyncAnswer) and not answer.error:
                assert isinstance(request, Sync)
                self.witness.synced(request, answer, self.stored)
            answered(answer)

    def _plan_wake(self) -> None:
        group = self.group
        wake_ms = group.wake_ms if group is not None else None
        if wake_ms is not None and (self._wake_ms is None or wake_ms < self._wake_ms):
            self._wake_ms = wake_ms
            self.world.after(max(wake_ms - self.world.now_ms, 0), lambda: self._wake(wake_ms))

    def _wake(self, wake_ms: int) -> None:
        if self._wake_ms == wake_ms:
            self._wake_ms = None
            if self.group is not None and self.group.is_settled:
                self._take(self.group.tick(self.now))
            self._plan_wake()

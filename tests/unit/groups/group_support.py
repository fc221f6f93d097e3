"""A hand that drives one classic group: it owns the time, a store, and the tokens of requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from warp.errors import ErrorCode
from warp.groups.model import (
    Answer,
    CheckCommit,
    CodeAnswer,
    GroupSettings,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaver,
    Note,
    Now,
    Remove,
    Request,
    Save,
    Step,
    Sync,
    SyncAnswer,
)
from warp.groups.state import ClassicGroup
from warp.groups.transitions import State
from warp.metadata.group_model import StoredGroup

A = TypeVar("A")

WALL_MS = 1_700_000_000_000
NO_DELAY = GroupSettings(initial_rebalance_delay_ms=0)
SESSION_MS = 10_000
REBALANCE_MS = 60_000
RANGE = (("range", b"subscribes t"),)


def joining(member_id: str = "", **fields: Any) -> Join:
    """A join of a consumer with the range assignor; fields as given."""
    base = Join(
        member_id=member_id,
        instance_id=None,
        client_id="c",
        client_host="/127.0.0.1",
        session_timeout_ms=SESSION_MS,
        rebalance_timeout_ms=REBALANCE_MS,
        protocol_type="consumer",
        protocols=RANGE,
        fresh_id="",
        reason="test",
    )
    return replace(base, **fields)


class Driver:
    """Drives a group. Saves are done at once unless `holds_saves`; then `save()` or `fail_save()` ends them."""

    def __init__(self, settings: GroupSettings = NO_DELAY, group: ClassicGroup | None = None) -> None:
        self.settings = settings
        self.group = group or ClassicGroup("g", settings)
        self.ticks_ms = 0
        self.holds_saves = False
        self.saving: Save | Remove | None = None
        self.stored: StoredGroup | None = None
        self.saves: list[StoredGroup] = []
        self.answers: dict[int, Answer] = {}
        self.notes: list[Note] = []
        self._tokens = 0

    @property
    def now(self) -> Now:
        return Now(self.ticks_ms, WALL_MS + self.ticks_ms)

    def state(self) -> State:
        return self.group.state

    # Requests; each gives its token.

    def send(self, request: Request) -> int:
        self._tokens += 1
        if isinstance(request, Join):
            request = replace(request, fresh_id=f"id{self._tokens}")
        self.take(self.group.handle(self._tokens, request, self.now))
        return self._tokens

    def ask(self, request: Request, kind: type[A]) -> A:
        """The answer, which has to be there at once."""
        return self.answer(self.send(request), kind)

    def answer(self, token: int, kind: type[A]) -> A:
        """The answer to an earlier request; it is forgotten with that."""
        answer = self.answers.pop(token)
        assert isinstance(answer, kind)
        return answer

    def join(self, member_id: str = "", **fields: Any) -> int:
        return self.send(joining(member_id, **fields))

    def joined(self, token: int) -> JoinAnswer:
        return self.answer(token, JoinAnswer)

    def join_at_once(self, member_id: str = "", **fields: Any) -> JoinAnswer:
        return self.joined(self.join(member_id, **fields))

    def sync(
        self, member_id: str, generation: int, assignments: dict[str, bytes] | None = None, **fields: Any
    ) -> int:
        request = Sync(member_id, None, generation, assignments=tuple((assignments or {}).items()))
        return self.send(replace(request, **fields))

    def synced(self, token: int) -> SyncAnswer:
        return self.answer(token, SyncAnswer)

    def heartbeat(self, member_id: str, generation: int, instance_id: str | None = None) -> ErrorCode:
        return self.ask(Heartbeat(member_id, instance_id, generation), CodeAnswer).error

    def leave(self, *leavers: Leaver | str) -> LeaveAnswer:
        who = tuple(Leaver(leaver) if isinstance(leaver, str) else leaver for leaver in leavers)
        return self.ask(Leave(who), LeaveAnswer)

    def commit(
        self,
        member_id: str = "",
        generation: int = -1,
        instance_id: str | None = None,
        is_transactional: bool = False,
    ) -> ErrorCode:
        request = CheckCommit(member_id, instance_id, generation, is_transactional)
        return self.ask(request, CodeAnswer).error

    # Time and store.

    def advance(self, ms: int) -> None:
        """Let time pass; what is due happens when it is due."""
        end_ms = self.ticks_ms + ms
        while (due_ms := self.group.wake_ms) is not None and due_ms <= end_ms:
            self.ticks_ms = max(self.ticks_ms, due_ms)
            self.take(self.group.tick(self.now))
        self.ticks_ms = end_ms

    def take(self, step: Step) -> None:
        self.notes += step.notes
        for token, answer in step.replies:
            assert isinstance(token, int)
            assert token not in self.answers, "two replies to one request"
            self.answers[token] = answer
        if step.change is not None:
            assert self.saving is None, "a change while another is being stored"
            self.saving = step.change
            if not self.holds_saves:
                self.save()

    def save(self) -> None:
        change, self.saving = self.saving, None
        assert change is not None
        self.stored = change.group if isinstance(change, Save) else None
        if self.stored is not None:
            self.saves.append(self.stored)
        self.take(self.group.saved(self.now))

    def fail_save(self, error: ErrorCode = ErrorCode.COORDINATOR_NOT_AVAILABLE) -> None:
        assert self.saving is not None
        self.saving = None
        self.take(self.group.save_failed(error))

    def take_over(self) -> None:
        """Another coordinator goes on with what is stored."""
        self.saving = None
        if self.stored is None:
            self.group = ClassicGroup("g", self.settings)
        else:
            self.group = ClassicGroup.restore(self.stored, self.settings, self.now)

    # Groups in a state.

    def new_member(self, **fields: Any) -> tuple[str, int]:
        """A dynamic member that has used its id: the id, and the token of its join."""
        answer = self.join_at_once(**fields)
        assert answer.error is ErrorCode.MEMBER_ID_REQUIRED
        return answer.member_id, self.join(answer.member_id, **fields)

    def completing(self, members: int = 1, **fields: Any) -> list[str]:
        """A group whose members have joined; the ids, the leader's first."""
        ids: list[str] = []
        for _ in range(members):
            member_id, token = self.new_member(**fields)
            for other in ids:
                self.join(other, **fields)
            ids.append(member_id)
            self.answers.pop(token)
        self.answers.clear()
        assert self.state() is State.COMPLETING
        assert self.group.leader == ids[0]
        return ids

    def stable(self, members: int = 1, **fields: Any) -> list[str]:
        """A stable group; each member's assignment is its own id."""
        ids = self.completing(members, **fields)
        tokens = [self.sync(member_id, self.group.generation) for member_id in ids[1:]]
        tokens.append(
            self.sync(ids[0], self.group.generation, {member_id: member_id.encode() for member_id in ids})
        )
        for token in tokens:
            assert self.synced(token).error is ErrorCode.NONE
        assert self.state() is State.STABLE
        return ids

"""A classic consumer group as a pure state machine: (group, request, now) → (replies, changes, timers).

The coordinator owns one `ClassicGroup` per group and calls it on one thread:

* `handle(token, request, now)` takes a request; its reply comes out of this step or of a later one, exactly once.
* a step with a `change` wants it stored. Then `saved(now)`, or `save_failed(error)` whatever the failure: after that
  the group is Dead, everybody who waits has been told to find the coordinator again, and the next request has to meet
  a group made anew of what the store holds. So memory and store never differ, also when it is unknown which of the two
  outcomes the write had.
* `wake_ms` is when to call `tick(now)`; to be read again after each step. Heartbeats never bring it forward.

While a change is being stored nothing else is decided: requests wait inside, in order, and no session runs out.
"""

from __future__ import annotations

from collections import deque

from warp.errors import ErrorCode
from warp.groups.answers import refusal, refused
from warp.groups.join import join
from warp.groups.leave import leave
from warp.groups.model import (
    CLASSIC_GROUP_TYPE,
    NO_MEMBER_ID,
    NOTHING,
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    GroupOverview,
    GroupSettings,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    Now,
    Remove,
    Reply,
    Request,
    Step,
    Sync,
    SyncAnswer,
)
from warp.groups.rebalance import GROUP_LOST, GroupCore
from warp.groups.stored import fill
from warp.groups.sync import sync
from warp.groups.transitions import HEARTBEATS, REACTIONS, Ask, Event, State
from warp.groups.views import commit_error, describe, offset_delete_answer, subscribed_topics
from warp.groups.weight import request_weight
from warp.metadata.group_model import StoredGroup

SLOW_SAVE_MS = 1_000
"""A change that took longer to store than this has kept members waiting: their sessions start anew."""


class ClassicGroup(GroupCore):
    """One classic group. Not for more than one thread."""

    def __init__(self, group_id: str, settings: GroupSettings) -> None:
        super().__init__(group_id, settings)
        self._held: list[Reply] = []
        self._deferred: deque[tuple[object, Request]] = deque()
        self._deferred_bytes = 0
        self._saving_since_ms: int | None = None

    @classmethod
    def restore(cls, stored: StoredGroup, settings: GroupSettings, now: Now) -> ClassicGroup:
        """The group that a former coordinator has stored. Its members go on; all their sessions start anew."""
        group = cls(stored.group_id, settings)
        fill(group, stored, now)
        return group

    # Steps.

    def handle(self, token: object, request: Request, now: Now) -> Step:
        """Take a request. `token` is what its reply will carry; it must not be None."""
        if self.state is State.DEAD:
            return Step((Reply(token, refusal(request, ErrorCode.COORDINATOR_NOT_AVAILABLE)),))
        if self._saving_since_ms is not None:
            if len(self._deferred) >= self.settings.deferred_requests_max:
                return Step((Reply(token, refusal(request, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)),))
            self._deferred.append((token, request))
            self._deferred_bytes += request_weight(request)
            return NOTHING
        self._decide(token, request, now)
        return self._step(now)

    def heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, ticks_ms: int
    ) -> ErrorCode | None:
        """A heartbeat's answer without the ceremony of a step. None: it has to wait, so hand it to `handle`."""
        if self._saving_since_ms is not None or self.state is State.DEAD:
            return None
        return self._heartbeat(member_id, instance_id, generation, ticks_ms)

    def _heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, ticks_ms: int
    ) -> ErrorCode:
        member = self.roster.identify(member_id, instance_id)
        if isinstance(member, ErrorCode):
            return member
        if generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if member.joining is None and member.syncing is None:
            self.sessions.set(member.member_id, ticks_ms + member.session_timeout_ms)
        return HEARTBEATS[self.state]

    def tick(self, now: Now) -> Step:
        """Do what is due: give up members that are silent, end phases that have taken their time."""
        if not self.is_settled:
            return NOTHING
        while self._change is None:
            silent = self.sessions.pop_due(now.ticks_ms)
            if silent is None:
                break
            self._give_up(silent, now)
        if self._change is None and self.phase_due_ms is not None and now.ticks_ms >= self.phase_due_ms:
            if self.state is State.PREPARING:
                self.join_phase_timeout(now)
            else:
                self.sync_phase_timeout(now)
        return self._step(now)

    def saved(self, now: Now) -> Step:
        """The change of the last step is stored: out come the replies that tell of it, and requests that came since."""
        if self._saving_since_ms is None:
            raise RuntimeError(f"group {self.group_id} has no change under way")
        waited_ms = now.ticks_ms - self._saving_since_ms
        self._saving_since_ms = self._shown = None
        if self._removing:
            self._replies, self._held = self._held, []
            self._end(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return self._step(now)
        if waited_ms > SLOW_SAVE_MS:
            self.restart_sessions(now)
            if self.phase_due_ms is not None:
                self.phase_due_ms += waited_ms
        while self._deferred and self._change is None:
            # Should this fail, abandon() finds whoever has not been answered.
            token, request = self._deferred[0]
            self._decide(token, request, now)
            self._deferred.popleft()
            self._deferred_bytes -= request_weight(request)
        ready, self._held = self._held, []
        step = self._step(now)
        return Step((*ready, *step.replies), step.change, step.notes)

    def save_failed(self, error: ErrorCode) -> Step:
        """The change of the last step may or may not be stored. The group is Dead and has to be loaded again.

        `error` is NOT_COORDINATOR when the lease is lost, else COORDINATOR_NOT_AVAILABLE; all who wait get it.
        """
        if self._saving_since_ms is None:
            raise RuntimeError(f"group {self.group_id} has no change under way")
        return self.abandon(error)

    def abandon(self, error: ErrorCode) -> Step:
        """Somebody else coordinates the group from now on, or nobody: all who wait get the error. The group is Dead.

        After a step that failed with an exception, too; then somebody may be answered twice.
        """
        self._replies = [
            Reply(token, refused(answer, error)) for token, answer in (*self._held, *self._replies)
        ]
        self._held = []
        self._removing = False
        self.note(GROUP_LOST, NO_MEMBER_ID, error.name)
        self._end(error)
        step = Step(self._replies, None, self._notes)
        self._replies, self._notes = [], []
        return step

    # Views: what may be looked at between steps.

    @property
    def wake_ms(self) -> int | None:
        """When to call `tick`, in ticks; None: no need to. May be earlier than anything is really due."""
        if not self.is_settled:
            return None
        session_ms = self.sessions.next_due()
        if self.phase_due_ms is None or (session_ms is not None and session_ms < self.phase_due_ms):
            return session_ms
        return self.phase_due_ms

    @property
    def is_settled(self) -> bool:
        """No change is being stored, and the group is not Dead."""
        return self._saving_since_ms is None and self.state is not State.DEAD

    @property
    def weight_bytes(self) -> int:
        """About what clients make it keep in memory; 0 when it is Dead."""
        return 0 if self.state is State.DEAD else self.roster.weight_bytes + self._deferred_bytes

    @property
    def is_idle(self) -> bool:
        """Nobody is in it or about to be: it may be dropped from memory, if the store has all there is to know."""
        return self.state is State.EMPTY and self.is_settled and not self.roster.pending

    @property
    def is_calm(self) -> bool:
        """Nobody waits for anything, and what the store has is all there is to know of its members."""
        return self.is_settled and self.state in (State.STABLE, State.EMPTY)

    @property
    def is_dead(self) -> bool:
        """It takes no requests any more; the next one has to meet a new object."""
        return self.state is State.DEAD

    def overview(self) -> GroupOverview:
        """The group's line in a list of groups."""
        state = self._shown or self.state
        return GroupOverview(
            self.group_id, CLASSIC_GROUP_TYPE, state.value, self.protocol_type, len(self.roster)
        )

    def subscribed_topics(self) -> frozenset[str] | None:
        """Topics that members of a consumer group subscribe to; None when that can't be told. See views.py."""
        return subscribed_topics(self)

    def restart_sessions(self, now: Now) -> None:
        """Give every member its full session: for when it was not the members who were silent, but this process."""
        for member in self.roster:
            if member.joining is None and member.syncing is None:
                self.sessions.set(member.member_id, now.ticks_ms + member.session_timeout_ms)

    # Decisions.

    def _decide(self, token: object, request: Request, now: Now) -> None:
        match request:
            case Heartbeat():
                error = self._heartbeat(
                    request.member_id, request.instance_id, request.generation, now.ticks_ms
                )
                self.reply(token, CodeAnswer(error))
            case Join():
                join(self, token, request, now)
            case Sync():
                sync(self, token, request, now)
            case Leave():
                leave(self, token, request, now)
            case CheckCommit():
                self.reply(token, CodeAnswer(commit_error(self, request, now)))
            case CheckOffsetDelete():
                self.reply(token, offset_delete_answer(self))
            case Describe():
                self.reply(token, describe(self))
            case Delete():
                self._delete(token)

    def _delete(self, token: object) -> None:
        reaction = REACTIONS[Ask.DELETE, self.state]
        if isinstance(reaction, ErrorCode):
            self.reply(token, CodeAnswer(reaction))
            return
        self.reply(token, CodeAnswer(ErrorCode.NONE))
        self.change_to(Remove(self.group_id), self.state)
        self._removing = True

    def _give_up(self, member_id: str, now: Now) -> None:
        """A member, or an id that was given out, has been silent for its session."""
        if member_id in self.roster.pending:
            self.forget_pending(member_id)
            self.maybe_end_join_phase(now)
            return
        member = self.roster.get(member_id)
        if member is not None:
            self.remove_member(member, "it was silent for its session")
            self.after_removal(now, f"{member_id} was silent for its session")

    def _end(self, error: ErrorCode) -> None:
        """Answer all who wait, and keep nothing."""
        for member in self.roster:
            self.answer_join(member, JoinAnswer(error, member.member_id))
            self.answer_sync(member, SyncAnswer(error))
        for token, request in self._deferred:
            self.reply(token, refusal(request, error))
        self._deferred.clear()
        self._deferred_bytes = 0
        self.sessions.clear()
        self.roster.pending.clear()
        self.phase_due_ms = self._change = self._saving_since_ms = self._shown = None
        self.move(Event.DELETED if self._removing else Event.LOST)

    def _step(self, now: Now) -> Step:
        """What has been decided; replies stay behind when there is a change to store first."""
        replies, self._replies = self._replies, []
        notes, self._notes = self._notes, []
        change, self._change = self._change, None
        if change is None:
            return Step(replies, None, notes)
        self._held = replies
        self._saving_since_ms = now.ticks_ms
        return Step((), change, notes)

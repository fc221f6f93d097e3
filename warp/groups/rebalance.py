"""What all requests to a classic group share: its state, its phases, and the way from a decision to a step.

A rebalance is two phases. In the join phase members park their joins until all have come or the time is up; then a new
generation begins. In the sync phase they park until the leader brings the assignment. Each end of a phase is stored
before anybody hears of it, so no generation is ever given out twice, whatever happens to the coordinator.
"""

from __future__ import annotations

from typing import Final

from warp.errors import ErrorCode
from warp.groups.members import Member, Roster
from warp.groups.model import (
    NO_MEMBER_ID,
    Answer,
    Change,
    GroupSettings,
    JoinAnswer,
    JoinedMember,
    Note,
    Now,
    Reply,
    Save,
    SyncAnswer,
)
from warp.groups.stored import snapshot
from warp.groups.timers import Deadlines
from warp.groups.transitions import TRANSITIONS, Event, State

GENERATION_MAX: Final = 2**31 - 1
PHASE_RETRY_MIN_MS: Final = 1_000
"""Between two looks at a join phase that cannot end because only static members that are away are left."""

# Events of notes.
REBALANCE_STARTED: Final = "rebalance"
GENERATION_STARTED: Final = "generation"
ASSIGNMENT_STORED: Final = "assigned"
MEMBER_ADDED: Final = "member added"
MEMBER_REMOVED: Final = "member removed"
MEMBER_REPLACED: Final = "member replaced"
GROUP_EMPTY: Final = "empty"
GROUP_LOST: Final = "lost"
EVENTS: Final = (
    REBALANCE_STARTED, GENERATION_STARTED, ASSIGNMENT_STORED, MEMBER_ADDED, MEMBER_REMOVED, MEMBER_REPLACED,
    GROUP_EMPTY, GROUP_LOST,
)  # fmt: skip


class GroupCore:
    """The state of one classic group, and its phases. Decisions on requests are in the modules beside this one."""

    def __init__(self, group_id: str, settings: GroupSettings) -> None:
        self.group_id = group_id
        self.settings = settings
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol: str | None = None
        self.leader: str | None = None
        self.roster = Roster()
        self.sessions: Deadlines[str] = Deadlines()
        """When silent members and unused ids are given up. Of parked members only new ones have a deadline."""
        self.phase_due_ms: int | None = None
        """When the join phase ends, or members that have not synced are given up."""
        self.pending_sync: dict[str, None] = {}
        """Members of this generation that have not asked for their assignment yet."""
        self._is_initial = False
        self._initial_left_ms = 0
        self._has_newcomer = False
        self._replies: list[Reply] = []
        self._notes: list[Note] = []
        self._change: Change | None = None
        self._shown: State | None = None
        self._removing = False

    # From a decision to a step.

    def reply(self, token: object, answer: Answer) -> None:
        """Answer a request, as soon as the change of this step, if any, is stored."""
        self._replies.append(Reply(token, answer))

    def note(self, event: str, member_id: str, reason: str) -> None:
        """Say what happened, for the log."""
        self._notes.append(Note(event, member_id, reason))

    def store(self, now: Now, shown: State) -> None:
        """Store the group as it is now; until that is done, others see it in the state `shown`."""
        self.change_to(Save(snapshot(self, now)), shown)

    def change_to(self, change: Change, shown: State) -> None:
        """The one change of this step."""
        if self._change is not None:
            raise RuntimeError(f"two changes of group {self.group_id} in one step")
        self._change = change
        self._shown = shown

    def move(self, event: Event) -> None:
        """Go where the event leads. KeyError when it cannot happen in this state: a bug."""
        self.state = TRANSITIONS[self.state, event]

    # Members.

    def renew(self, member: Member, now: Now) -> None:
        """The member has shown that it lives. While it is parked its session stands still."""
        if member.joining is None and member.syncing is None:
            self.sessions.set(member.member_id, now.ticks_ms + member.session_timeout_ms)

    def park_join(self, member: Member, token: object, now: Now) -> None:
        """The member waits for the join phase to end. Its last join, if that waits still, is answered: try again."""
        self.answer_join(member, JoinAnswer(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))
        self.roster.park(member, token)
        if not member.is_new:
            self.sessions.cancel(member.member_id)
        elif member.member_id not in self.sessions:
            # Nothing shows that it lives while it waits: it has no generation to send heartbeats with.
            self.sessions.set(member.member_id, now.ticks_ms + self.settings.new_member_wait_max_ms)

    def answer_join(self, member: Member, answer: JoinAnswer) -> None:
        """Answer the member's parked join, if there is one."""
        token = self.roster.unpark(member)
        if token is not None:
            self.reply(token, answer)

    def park_sync(self, member: Member, token: object) -> None:
        """The member waits for the leader's assignment."""
        self.answer_sync(member, SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
        member.syncing = token
        self.sessions.cancel(member.member_id)

    def answer_sync(self, member: Member, answer: SyncAnswer) -> None:
        """Answer the member's parked sync, if there is one."""
        token, member.syncing = member.syncing, None
        if token is not None:
            self.reply(token, answer)

    def remove_member(self, member: Member, reason: str) -> None:
        """The member is out; what it waits for is answered. The caller goes on with `after_removal`."""
        self.answer_join(member, JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, NO_MEMBER_ID))
        self.answer_sync(member, SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID))
        self.sessions.cancel(member.member_id)
        self.pending_sync.pop(member.member_id, None)
        self.roster.remove(member)
        if self.leader == member.member_id:
            self.leader = None
        self.note(MEMBER_REMOVED, member.member_id, reason)

    def fence(self, member: Member) -> None:
        """Whoever speaks with the member's present id has been replaced; what waits for an answer is told so."""
        self.answer_join(member, JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, member.member_id))
        self.answer_sync(member, SyncAnswer(ErrorCode.FENCED_INSTANCE_ID))

    def rename_member(self, member: Member, member_id: str) -> None:
        """Give a member that is not parked another id. The caller renews its session."""
        if member.member_id in self.pending_sync:
            del self.pending_sync[member.member_id]
            self.pending_sync[member_id] = None
        if self.leader == member.member_id:
            self.leader = member_id
        self.sessions.cancel(member.member_id)
        self.roster.rename(member, member_id)

    def forget_pending(self, member_id: str) -> None:
        """An id that was given out will not be used. The caller goes on with `maybe_end_join_phase`."""
        self.roster.pending.pop(member_id, None)
        self.sessions.cancel(member_id)

    def after_removal(self, now: Now, reason: str) -> None:
        """Members have gone: the others need a new generation, or have waited for nobody else."""
        if self.state in (State.STABLE, State.COMPLETING):
            self.start_rebalance(now, reason)
        else:
            self.maybe_end_join_phase(now)

    # The join phase.

    def start_rebalance(self, now: Now, reason: str) -> None:
        """Begin the join phase: everybody has to come again. It may end at once.

        The first of an Empty group waits for company for the initial rebalance delay, and again as long as somebody
        came meanwhile, up to the rebalance timeout: a group that starts would go through a rebalance per member else.
        """
        if self.state is State.COMPLETING:
            for member in self.roster:
                self.answer_sync(member, SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
                self.renew(member, now)
        self.pending_sync.clear()
        self._is_initial = self.state is State.EMPTY
        self.move(Event.REBALANCE)
        self.note(REBALANCE_STARTED, NO_MEMBER_ID, reason)
        timeout_ms = self.roster.rebalance_timeout_ms()
        if not self._is_initial:
            self.phase_due_ms = now.ticks_ms + timeout_ms
            self.maybe_end_join_phase(now)
            return
        delay_ms = self.settings.initial_rebalance_delay_ms
        self._has_newcomer = False
        self._initial_left_ms = max(timeout_ms - delay_ms, 0)
        self.phase_due_ms = now.ticks_ms + delay_ms
        if delay_ms <= 0:
            self.end_join_phase(now)

    def resume_rebalance(self, now: Now, reason: str) -> None:
        """Go on in a join phase that was taken over; its members have to come again."""
        self._is_initial = False
        self.phase_due_ms = now.ticks_ms + self.roster.rebalance_timeout_ms()
        self.note(REBALANCE_STARTED, NO_MEMBER_ID, reason)

    def note_newcomer(self) -> None:
        """Somebody has come while an Empty group waits for company."""
        self._has_newcomer = self.state is State.PREPARING and self._is_initial

    def maybe_end_join_phase(self, now: Now) -> None:
        """End the join phase if there is one that waits for nobody else."""
        if self.state is State.PREPARING and not self._is_initial and self.roster.all_joined:
            self.end_join_phase(now)

    def join_phase_timeout(self, now: Now) -> None:
        """The join phase has taken as long as it may, or the wait for company is over unless there is more of it."""
        if self._is_initial and self._has_newcomer and self._initial_left_ms > 0:
            self._has_newcomer = False
            delay_ms = min(self.settings.initial_rebalance_delay_ms, self._initial_left_ms)
            self._initial_left_ms -= delay_ms
            self.phase_due_ms = now.ticks_ms + delay_ms
            return
        self.end_join_phase(now)

    def end_join_phase(self, now: Now) -> None:
        """Begin the next generation with those who have come; dynamic members that have not are out."""
        for member in self.roster.absent():
            if member.instance_id is None:
                self.remove_member(member, "it did not join again in time")
        leader = self.roster.choose_leader(self.leader)
        if leader is None and len(self.roster):
            # Static members that are away: their sessions will end it, if they don't come.
            wait_ms = max(self.roster.rebalance_timeout_ms(), PHASE_RETRY_MIN_MS)
            self.phase_due_ms = now.ticks_ms + wait_ms
            return
        self._is_initial = False
        self.generation = self.generation + 1 if self.generation < GENERATION_MAX else 1
        self.leader = leader
        self.protocol = self.roster.choose_protocol()
        if leader is None:
            self.phase_due_ms = None
            self.move(Event.EMPTIED)
            self.note(GROUP_EMPTY, NO_MEMBER_ID, "nobody is left")
        else:
            self._start_sync_phase(now)
        self.store(now, State.PREPARING)

    # The sync phase.

    def _start_sync_phase(self, now: Now) -> None:
        self.move(Event.JOINED)
        self.phase_due_ms = now.ticks_ms + self.roster.rebalance_timeout_ms()
        for member in self.roster:
            member.is_new = False
            self.pending_sync[member.member_id] = None
            self.answer_join(member, self.generation_answer(member))
            self.renew(member, now)
        self.note(GENERATION_STARTED, self.leader or NO_MEMBER_ID, f"{len(self.roster)} members have joined")

    def generation_answer(self, member: Member) -> JoinAnswer:
        """What a member is told of the generation; the leader learns of all members."""
        members: tuple[JoinedMember, ...] = ()
        if member.member_id == self.leader:
            members = self.joined_members()
        return JoinAnswer(
            ErrorCode.NONE,
            member.member_id,
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader or NO_MEMBER_ID,
            members=members,
        )

    def joined_members(self) -> tuple[JoinedMember, ...]:
        """All members, with their metadata for the protocol of this generation."""
        return tuple(
            JoinedMember(member.member_id, member.instance_id, member.metadata(self.protocol))
            for member in self.roster
        )

    def has_synced(self, member: Member) -> None:
        """The member has asked for its assignment."""
        self.pending_sync.pop(member.member_id, None)
        if not self.pending_sync and self.state is not State.PREPARING:
            self.phase_due_ms = None

    def sync_phase_timeout(self, now: Now) -> None:
        """Members that have joined but never asked for their assignment are out."""
        reason = "it did not ask for its assignment in time"
        for member_id in list(self.pending_sync):
            member = self.roster.get(member_id)
            if member is not None:
                self.remove_member(member, reason)
        self.pending_sync.clear()
        self.phase_due_ms = None
        self.after_removal(now, "members did not ask for their assignment in time")

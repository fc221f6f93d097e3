"""Runs the machines of this agent's slots: hands them requests, sends their replies, stores their changes, wakes them.

Memory never runs ahead of the store: a reply that tells of a change leaves after the change is stored, and a group
whose change was not stored goes on from what certainly is. Where that can't be told, or the lease is lost, the whole
slot is given up, and read anew under a new lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from warp.clock import Clock
from warp.errors import ErrorCode
from warp.groups.alarm import Alarm
from warp.groups.answers import answer_while_loading, answer_without_group, group_id_error, refusal
from warp.groups.loading import SlotEvents, SlotKeeper
from warp.groups.model import (
    Answer,
    CheckCommit,
    Delete,
    Describe,
    GroupSettings,
    Now,
    Remove,
    Reply,
    Request,
    Save,
    Step,
)
from warp.groups.observer import GroupObserver
from warp.groups.rebalance import GENERATION_STARTED, GROUP_EMPTY, MEMBER_REMOVED
from warp.groups.saving import GroupSaver, Outcome, PendingChange
from warp.groups.session import SessionGuard
from warp.groups.slots import CoordinatorLimits, GroupStore, SlotPolicy, Tenure
from warp.groups.state import ClassicGroup
from warp.groups.transitions import State
from warp.groups.weight import MembersWeight
from warp.ids import BrokerId
from warp.metadata.group_model import SLOTS, Lease, StoredGroup, slot_of

_log = logging.getLogger("warp.groups")

STALLS_APART_MS = 30_000
"""An agent that stands still again and again has members given up all the same."""

_WORTH_A_LINE = (GENERATION_STARTED, GROUP_EMPTY, MEMBER_REMOVED)
"""What is logged as information; the rest is for debugging."""


class GroupRunner:
    """The groups of one agent, on one event loop."""

    def __init__(
        self,
        store: GroupStore,
        clock: Clock,
        *,
        holder: BrokerId,
        settings: GroupSettings,
        limits: CoordinatorLimits,
        policy: SlotPolicy,
        observer: GroupObserver,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._limits = limits
        self._observer = observer
        self._tenures: list[Tenure | None] = [None] * SLOTS
        self._weight = MembersWeight(limits.members_bytes_max)
        self._is_closing = False
        self._restarted_ms = -STALLS_APART_MS
        self.let_go: list[Lease] = []
        """Leases that were held when this was closed."""
        self._alarm = Alarm(
            self._ticks_ms,
            self._wake,
            self._stalled,
            stall_ms=limits.stall_ms,
            wakes_max=limits.ticks_max,
            may_fire=lambda: self.guard.is_serving,
        )
        events = SlotEvents(self._began, self._loaded, self._slot_lost)
        self.keeper = SlotKeeper(store, holder, limits, policy, events)
        self.guard = SessionGuard(
            policy, limits.watch_s, lapsed=self._lapsed, check=self.keeper.check, revived=self._revived
        )
        self.saver = GroupSaver(store, limits, self._change_ended)

    def close(self) -> None:
        """Answer everybody with NOT_COORDINATOR, from now on too, and wake nobody any more."""
        if self._is_closing:
            return
        self._is_closing = True
        self.let_go += self.keeper.stop()
        for tenure in self.held():
            self.let_go.append(tenure.lease)
            self.end(tenure, ErrorCode.NOT_COORDINATOR)
        self._alarm.close()

    # What is asked of it.

    def ask(self, group_id: str, request: Request) -> asyncio.Future[Any]:
        """The answer to a request to one group; see `GroupCoordinator.request`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.guard.is_serving:
            answer.set_result(refusal(request, ErrorCode.NOT_COORDINATOR))
            return answer
        tenure = self._tenures[slot_of(group_id)]
        group = None if tenure is None else tenure.live.get(group_id)
        if tenure is None or group is None:
            met = self._meet(group_id, request)
            if not isinstance(met, tuple):
                answer.set_result(met)
                return answer
            tenure, group = met
        else:
            refused = self._weight.refusal(group, request)
            if group.is_dead:
                # Its members were sent away while a change of it was being stored: that is still to be told.
                refused = refusal(request, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            if refused is not None:
                answer.set_result(refused)
                return answer
        try:
            step = group.handle(answer, request, self._now())
        except Exception:  # noqa: BLE001 - a bug: told there
            answer.set_result(refusal(request, ErrorCode.UNKNOWN_SERVER_ERROR))
            self._broken(tenure, group)
        else:
            self._take(tenure, group, step)
        return answer

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode | None:
        """The answer to a heartbeat of a group that lives and is not being stored."""
        if not self.guard.is_serving:
            return ErrorCode.NOT_COORDINATOR
        tenure = self._tenures[slot_of(group_id)]
        group = None if tenure is None else tenure.live.get(group_id)
        if group is None:
            return None
        return group.heartbeat(member_id, instance_id, generation, self._ticks_ms())

    def slot(self, group_id: str, *, may_be_empty: bool = False) -> Tenure | ErrorCode:
        """The tenure of a group's slot, once it is loaded; or why there is none."""
        error = group_id_error(group_id, may_be_empty=may_be_empty)
        if error is not None:
            return error
        if not self.guard.is_serving:
            return ErrorCode.NOT_COORDINATOR
        slot = slot_of(group_id)
        tenure = self._tenures[slot]
        if tenure is not None and tenure.is_loaded and group_id not in tenure.reaping:
            return tenure
        if self._is_closing or (tenure is None and not self.keeper.is_wanted(slot)):
            return ErrorCode.NOT_COORDINATOR
        away = ErrorCode.COORDINATOR_NOT_AVAILABLE
        return away if self.keeper.is_away else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    def holds(self, group_id: str) -> bool:
        """Is the group's slot this agent's, or about to be?"""
        slot = slot_of(group_id)
        has_slot = self._tenures[slot] is not None or self.keeper.is_wanted(slot)
        return has_slot and self.guard.is_serving

    def held(self) -> Iterator[Tenure]:
        """The tenures there are."""
        return iter([tenure for tenure in self._tenures if tenure is not None])

    def census(self) -> tuple[Counter[str], int]:
        """How many groups are in each state, and how many members all have."""
        states: Counter[str] = Counter()
        members = 0
        for tenure in self.held():
            states[State.EMPTY.value] += len(tenure) - len(tenure.live)
            for group in tenure.live.values():
                line = group.overview()
                states[line.state] += 1
                members += line.members
        return states, members

    def some_groups(self, count: int) -> tuple[list[str], bool]:
        """The ids of that many groups, and whether these are all. Those with members come first, by id."""
        live = sorted(group_id for tenure in self.held() for group_id in tenure.live)
        resting = (
            group_id for tenure in self.held() for group_id in tenure.stored if group_id not in tenure.live
        )
        found = [*live[: count + 1], *islice(resting, max(0, count + 1 - len(live)))]
        return found[:count], len(found) <= count

    @property
    def has_room(self) -> bool:
        """May there be another group?"""
        return sum(map(len, self.held())) < self._limits.groups_max

    def end(self, tenure: Tenure, error: ErrorCode) -> None:
        """Give a slot up: all who wait for its groups get the error. It is taken anew, unless somebody else has it."""
        if tenure.is_over:
            return
        tenure.is_over = True
        self._tenures[tenure.slot] = None
        live, tenure.live = tenure.live, {}
        for group_id, group in live.items():
            self._alarm.set(group_id, None)
            self._weight.set(group_id, 0)
            if not group.is_dead:
                step = group.abandon(error)
                self._reply(step.replies)
                self._note(group, step)
        if not self._is_closing:
            level = logging.DEBUG if error is ErrorCode.NOT_COORDINATOR else logging.WARNING
            _log.log(level, "coordinator slot %d is given up (%s)", tenure.slot, error.name)
            self.keeper.lost(tenure, to_another=error is ErrorCode.NOT_COORDINATOR)

    def commits_settled(self, tenure: Tenure, group_id: str) -> None:
        """No commit of the group is under way any more: it may be removed, should it wait for that."""
        group = tenure.removals.pop(group_id, None)
        if group is not None and not tenure.is_over:
            self.saver.add(tenure, group, Remove(group_id))

    # Groups come and go.

    def _meet(self, group_id: str, request: Request) -> tuple[Tenure, ClassicGroup] | Answer:
        """The group that a request is to, made now; or the answer that it gets without one."""
        tenure = self.slot(group_id, may_be_empty=isinstance(request, CheckCommit | Describe | Delete))
        match tenure:
            case ErrorCode.COORDINATOR_LOAD_IN_PROGRESS | ErrorCode.COORDINATOR_NOT_AVAILABLE:
                return answer_while_loading(request, tenure)
            case ErrorCode():
                return refusal(request, tenure)
        if group_id not in tenure.stored:
            answer = answer_without_group(request, self._settings)
            if answer is None and not self.has_room:
                answer = refusal(request, ErrorCode.GROUP_MAX_SIZE_REACHED)
            if answer is not None:
                return answer
        refused = self._weight.refusal(None, request)
        if refused is not None:
            return refused
        return tenure, self._enliven(tenure, group_id)

    def _enliven(self, tenure: Tenure, group_id: str) -> ClassicGroup:
        """The group as it is stored, or a new one."""
        stored = tenure.stored.get(group_id)
        if stored is None:
            group = ClassicGroup(group_id, self._settings)
        else:
            group = ClassicGroup.restore(stored, self._settings, self._now())
        tenure.enliven(group)
        self._weight.set(group_id, group.weight_bytes)
        self._alarm.set(group_id, group.wake_ms)
        return group

    def _drop(self, tenure: Tenure, group_id: str) -> None:
        """Keep no more of a group than what is stored."""
        tenure.drop(group_id)
        self._weight.set(group_id, 0)
        self._alarm.set(group_id, None)

    def _restart(self, tenure: Tenure, group_id: str) -> None:
        """Go on from what is stored."""
        self._drop(tenure, group_id)
        stored = tenure.stored.get(group_id)
        if stored is not None and stored.members:
            self._enliven(tenure, group_id)

    def _send_away(self, tenure: Tenure, group: ClassicGroup) -> None:
        """Let everybody go who waits for a group. It goes on from what is stored, as soon as that is certain."""
        is_certain = group.is_settled
        step = group.abandon(ErrorCode.NOT_COORDINATOR)
        self._reply(step.replies)
        self._note(group, step)
        self._weight.set(group.group_id, 0)
        self._alarm.set(group.group_id, None)
        if is_certain:
            self._restart(tenure, group.group_id)

    # The session in the cluster.

    def _lapsed(self) -> None:
        """Others may have the slots by now: nobody is to wait here, and nothing is decided."""
        self._alarm.pause()
        for tenure in self.held():
            for group in list(tenure.live.values()):
                if not (group.is_calm or group.is_dead):
                    self._send_away(tenure, group)

    def _revived(self) -> None:
        """The slots that are left have been this agent's all the time. Their members were sent away: all start anew."""
        now = self._now()
        for tenure in self.held():
            for group_id, group in tenure.live.items():
                if not group.is_dead:
                    group.restart_sessions(now)
                    self._alarm.set(group_id, group.wake_ms)
        self._alarm.resume()

    # Slots come and go.

    def _slot_lost(self, tenure: Tenure) -> None:
        self.end(tenure, ErrorCode.NOT_COORDINATOR)

    def _began(self, tenure: Tenure) -> None:
        self._tenures[tenure.slot] = tenure

    def _loaded(self, tenure: Tenure, groups: Sequence[StoredGroup]) -> None:
        for stored in groups:
            tenure.keep(stored)
            if stored.members:
                self._enliven(tenure, stored.group_id)
        tenure.is_loaded = True

    # Steps.

    def _take(self, tenure: Tenure, group: ClassicGroup, step: Step) -> None:
        """Do what a step leads to."""
        self._reply(step.replies)
        self._note(group, step)
        group_id = group.group_id
        self._weight.set(group_id, group.weight_bytes)
        if step.change is not None:
            self._alarm.set(group_id, None)
            if isinstance(step.change, Remove) and group_id in tenure.committing:
                tenure.removals[group_id] = group
            else:
                self.saver.add(tenure, group, step.change)
        elif group.is_dead or group.is_idle:
            self._drop(tenure, group_id)
        elif group.is_settled:
            self._alarm.set(group_id, group.wake_ms)

    def _reply(self, replies: Sequence[Reply]) -> None:
        for token, answer in replies:
            assert isinstance(token, asyncio.Future), "tokens are the futures of the answers"
            if not token.done():
                token.set_result(answer)

    def _note(self, group: ClassicGroup, step: Step) -> None:
        for event, member_id, reason in step.notes:
            self._observer.noted(event)
            level = logging.INFO if event in _WORTH_A_LINE else logging.DEBUG
            _log.log(
                level,
                "group %s, generation %d: %s %s: %s",
                group.group_id,
                group.generation,
                event,
                member_id,
                reason,
            )

    def _change_ended(self, pending: PendingChange, outcome: Outcome) -> None:
        """A group's change is stored, or not."""
        tenure, group, change = pending
        group_id = group.group_id
        if tenure.is_over or tenure.live.get(group_id) is not group:
            return
        match outcome:
            case Outcome.DONE:
                if isinstance(change, Save):
                    tenure.keep(change.group)
                else:
                    tenure.forget(group_id)
                if group.is_dead:
                    self._restart(tenure, group_id)
                    return
                try:
                    step = group.saved(self._now())
                except Exception:  # noqa: BLE001 - a bug: told there
                    self._broken(tenure, group)
                else:
                    self._take(tenure, group, step)
            case Outcome.AWAY:
                self._fail(tenure, group, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            case Outcome.REFUSED:
                self._fail(tenure, group, ErrorCode.UNKNOWN_SERVER_ERROR)
            case Outcome.LEASE_LOST:
                self.end(tenure, ErrorCode.NOT_COORDINATOR)
            case Outcome.UNKNOWN:
                self.end(tenure, ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def _fail(self, tenure: Tenure, group: ClassicGroup, error: ErrorCode) -> None:
        """A group's change is certainly not stored."""
        if not group.is_dead:
            step = group.save_failed(error)
            self._reply(step.replies)
            self._note(group, step)
        self._restart(tenure, group.group_id)

    def _broken(self, tenure: Tenure, group: ClassicGroup) -> None:
        """A machine has failed: a bug. Its memory can't be trusted; what is stored can, unless that is changing."""
        _log.exception("bug in group %s, generation %d", group.group_id, group.generation)
        if not group.is_settled:
            self.end(tenure, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        self._reply(group.abandon(ErrorCode.COORDINATOR_NOT_AVAILABLE).replies)
        self._restart(tenure, group.group_id)

    # Time.

    def _ticks_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _now(self) -> Now:
        return Now(int(self._clock.monotonic() * 1000), self._clock.time_ms())

    def _wake(self, group_id: str) -> None:
        """Something of a group's is due."""
        tenure = self._tenures[slot_of(group_id)]
        group = None if tenure is None else tenure.live.get(group_id)
        if tenure is None or group is None:
            return
        try:
            step = group.tick(self._now())
        except Exception:  # noqa: BLE001 - a bug: told there
            self._broken(tenure, group)
        else:
            self._take(tenure, group, step)

    def _stalled(self, late_ms: int) -> None:
        """This process stood still: nobody's silence counts."""
        now = self._now()
        if now.ticks_ms - self._restarted_ms < STALLS_APART_MS:
            return
        self._restarted_ms = now.ticks_ms
        _log.warning("the agent stood still for %d ms: sessions of group members start anew", late_ms)
        for tenure in self.held():
            for group_id, group in tenure.live.items():
                group.restart_sessions(now)
                self._alarm.set(group_id, group.wake_ms)

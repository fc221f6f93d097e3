"""Which coordinator slots an agent of a cluster is to hold.

A slot is never taken from an agent that lives. One that is nobody's, or whose holder is gone, falls to the agent that
rendezvous hashing puts first among those that live and don't leave: all come to the same one, and when an agent dies
its slots are spread over the others. Should that agent not take it in time, anybody does. When all leave, all count:
where the database's clock is wrong every agent distrusts its own and leaves discovery, and the groups have to be served
all the same.

When an agent has come, slots that fall to it from now on are handed over by their holders, once it has been there for
a while. Slots that it did not take then are not offered to it again as long as it lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from warp import rendezvous
from warp.clock import Clock
from warp.ids import BrokerId
from warp.metadata.cluster_model import ClusterRows, ClusterView, LiveAgent
from warp.metadata.group_model import SLOTS, LeaseState, coordinator_lease

WAKE_LATER_S = 0.01
"""A timer is not to come a moment too early."""
PATIENCE_TIMEOUTS = 2
"""After so many times the length of a session, a slot that is still free is taken by whoever sees it."""


class Member(Protocol):
    """The part of an agent's membership in its cluster that the policy needs."""

    @property
    def rows(self) -> ClusterRows | None:
        """What the last beat has read; None before the first: then the view knows of nobody else."""

    @property
    def view(self) -> ClusterView:
        """What this agent knows of the cluster."""

    @property
    def is_live(self) -> bool:
        """Is this agent's session certain to live, as of this very moment?"""

    @property
    def lapses(self) -> int:
        """How many of its sessions have lapsed. Counted no later than the next one begins."""

    def subscribe(self, callback: Callable[[ClusterView], None]) -> None:
        """Call back whenever the view has changed."""


class ClusterSlotPolicy:
    """The `warp.groups.slots.SlotPolicy` of an agent in a cluster. `timeout_s` is the length of a session."""

    is_shared = True

    def __init__(self, member: Member, clock: Clock, *, timeout_s: float) -> None:
        self._member = member
        self._clock = clock
        self._timeout_s = timeout_s
        self._patience_s = PATIENCE_TIMEOUTS * timeout_s
        self._wakes: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._firsts_version: int | None = None
        self._firsts: list[BrokerId] = []
        self._able: frozenset[BrokerId] = frozenset()
        """Who may take slots, in the version of the view that `_firsts` are of."""
        self._clocks_session: int | None = None
        self._free_since_s: dict[int, float] = {}
        """Since when each slot has been free, as far as this agent has seen it."""
        self._here_since_s: dict[tuple[BrokerId, str], float] = {}
        """Since when each agent has been able to take slots, as far as this agent has seen it."""
        self._declined: dict[int, tuple[BrokerId, str]] = {}
        """Slots that were free for long, and who should have taken them."""
        self._is_subscribed = False

    def session(self) -> int | None:
        """As many sessions have lapsed before this one; None when it has lapsed itself."""
        return self._member.lapses if self._member.is_live else None

    def known(self) -> Mapping[str, LeaseState]:
        """The leases, as of the last round."""
        return self._member.view.leases

    def may_take(self, slot: int, state: LeaseState | None) -> bool:
        """Own slots at once; free ones if they fall to this agent, or have been free for long; no other's."""
        view = self._member.view
        if self._member.rows is None or not self._member.is_live:
            return False
        first = self._first(slot)
        if view.own not in self._able:
            return False
        if state is not None and state.holder == view.own:
            return True
        if not _is_free(view, state):
            return False
        if first == view.own:
            return True
        since_s = self._free_since_s.get(slot)
        if since_s is None or self._clock.boottime() - since_s < self._patience_s:
            return False
        self._declined[slot] = _life(view.agents[first])
        return True

    def is_anothers(self, slot: int) -> bool:
        """Does it fall to another agent, which has been there for a while and has not left it alone before?"""
        view = self._member.view
        first = self._first(slot)
        if first == view.own:
            return False
        life = _life(view.agents[first])
        since_s = self._here_since_s.get(life)
        is_settled = since_s is not None and self._clock.boottime() - since_s >= self._timeout_s
        return is_settled and self._declined.get(slot) != life

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the view has changed, and when something has been so for long enough."""
        self._wakes.append(wake)
        if not self._is_subscribed:
            self._is_subscribed = True
            self._member.subscribe(self._seen)
            self._note(self._member.view)

    def close(self) -> None:
        """Wake nobody any more."""
        self._wakes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _first(self, slot: int) -> BrokerId:
        """To whom the slot falls, of those who may take it."""
        self._rank()
        return self._firsts[slot]

    def _rank(self) -> None:
        """Work out to whom the slots fall, where the view is a new one."""
        view = self._member.view
        if view.version != self._firsts_version:
            staying = [agent.broker_id for agent in view.agents.values() if not agent.is_leaving]
            able = staying or list(view.agents)
            firsts = [rendezvous.first(coordinator_lease(number), able) for number in range(SLOTS)]
            self._firsts = [BrokerId(first) for first in firsts if first is not None]
            self._able = frozenset(able)
            self._firsts_version = view.version

    def _seen(self, view: ClusterView) -> None:
        self._note(view)
        self._wake_all()

    def _note(self, view: ClusterView) -> None:
        """Start the clocks of what is new, and stop those of what is no more."""
        now_s = self._clock.boottime()
        if self._member.lapses != self._clocks_session:
            # What this agent has not seen for a while may have changed and changed back.
            self._clocks_session = self._member.lapses
            self._free_since_s.clear()
            self._here_since_s.clear()
        for slot in range(SLOTS):
            if _is_free(view, view.leases.get(coordinator_lease(slot))):
                self._free_since_s.setdefault(slot, now_s)
            else:
                self._free_since_s.pop(slot, None)
        self._rank()
        lives = [_life(view.agents[broker_id]) for broker_id in view.agents if broker_id in self._able]
        self._here_since_s = {life: self._here_since_s.get(life, now_s) for life in lives}
        self._declined = {slot: life for slot, life in self._declined.items() if life in self._here_since_s}
        self._arm(now_s)

    def _arm(self, now_s: float) -> None:
        """Wake those who ask when the next clock has run for as long as it has to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dues_s = [since_s + self._patience_s for since_s in self._free_since_s.values()]
        dues_s += [since_s + self._timeout_s for since_s in self._here_since_s.values()]
        next_s = min((due_s for due_s in dues_s if due_s > now_s), default=None)
        if next_s is not None and self._wakes:
            self._timer = asyncio.get_running_loop().call_later(next_s - now_s + WAKE_LATER_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self._arm(self._clock.boottime())
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake()


def _is_free(view: ClusterView, state: LeaseState | None) -> bool:
    """Does nobody that lives hold the lease?"""
    return state is None or state.holder is None or state.holder not in view.agents


def _life(agent: LiveAgent) -> tuple[BrokerId, str]:
    return agent.broker_id, agent.incarnation

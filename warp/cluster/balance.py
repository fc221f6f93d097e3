"""How many connections agents have beside each other: who gets one more, and who gives one away.

Agents know each other's numbers, each as told by its last beat. They are never quite right, so nothing here follows
them closely. An agent sends clients away only to others that have clearly fewer connections than it, few at a time, and
those that it has just sent away are counted where they will be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from warp.clock import Clock
from warp.ids import BrokerId
from warp.metadata.cluster_model import ClusterView


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """When one agent has more connections than another, so that something is done about it."""

    crowded_ratio: float = 1.25
    """An agent with more than this, times the average, is crowded."""
    crowded_slack: int = 8
    """Connections that an agent may have beyond that."""
    fewer_ratio: float = 0.8
    """An agent with fewer than this, times those of another one, has clearly fewer than that."""
    fewer_slack: int = 2
    """By how many it must have fewer than that."""
    move_share: float = 0.05
    """The share of its connections that an agent sends away within `move_every_s`, but one at least."""
    move_every_s: float = 10.0


class Balance:
    """The numbers of connections that one agent sees, with what it has sent away itself."""

    def __init__(self, clock: Clock, limits: LoadLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._sent: dict[BrokerId, int] = {}
        self._sent_since: ClusterView | None = None
        self._moved = 0
        self._moved_since_s = clock.monotonic()

    def next_for(self, view: ClusterView, order: Sequence[BrokerId]) -> BrokerId:
        """The first of some agents, best first, that is not crowded; it is taken to get a connection.

        Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016).
        """
        loads = self._loads(view, order)
        most = self._limits.crowded_ratio * _mean(loads) + self._limits.crowded_slack
        chosen = next(broker_id for broker_id in order if loads[broker_id] <= most)
        self._send(chosen)
        return chosen

    def better_than(
        self, view: ClusterView, kept: BrokerId, order: Iterable[BrokerId], agents: Sequence[BrokerId]
    ) -> BrokerId | None:
        """Whom a client that is at `kept` should go to now: the first in `order` that is clearly better off.

        That is one that has clearly fewer connections than `kept`, and fewer than `agents` have on average. None: the
        client should stay, at least for now, for clients go at a bounded pace.
        """
        loads = self._loads(view, agents)
        limits = self._limits
        fewer_than = min(_mean(loads), limits.fewer_ratio * loads[kept] - limits.fewer_slack)
        found = next((broker_id for broker_id in order if loads[broker_id] < fewer_than), None)
        if found is None or not self._may_move(view):
            return None
        self._send(found)
        return found

    def _loads(self, view: ClusterView, agents: Iterable[BrokerId]) -> dict[BrokerId, int]:
        if view is not self._sent_since:
            # What was sent away before that has arrived, and is in the numbers of the others.
            self._sent_since = view
            self._sent.clear()
        return {
            broker_id: view.agents[broker_id].facts.connections + self._sent.get(broker_id, 0)
            for broker_id in agents
        }

    def _send(self, broker_id: BrokerId) -> None:
        self._sent[broker_id] = self._sent.get(broker_id, 0) + 1

    def _may_move(self, view: ClusterView) -> bool:
        """May one more client be sent away? If so, that is counted."""
        now_s = self._clock.monotonic()
        if now_s - self._moved_since_s >= self._limits.move_every_s:
            self._moved_since_s = now_s
            self._moved = 0
        if self._moved >= max(1, int(self._limits.move_share * view.agents[view.own].facts.connections)):
            return False
        self._moved += 1
        return True


def _mean(loads: dict[BrokerId, int]) -> float:
    return sum(loads.values()) / len(loads)

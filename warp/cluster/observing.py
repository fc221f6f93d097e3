"""Who lives, decided from what the registrations show: rows of the store go in, a view of the cluster comes out.

An agent's registration carries a counter that it keeps moving. It is gone once the counter has stood still for the
length of a session on the observer's own boot-time clock, and with it all that it held. Only time in which the observer
did read counts: when the store is away from it, it may be away from the others too, and they can't move anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warp.ids import BrokerId
from warp.metadata.cluster_model import (
    AgentFacts,
    AgentRow,
    AgentState,
    ClusterRows,
    ClusterView,
    LiveAgent,
)
from warp.metadata.group_model import LeaseState

FIRST_SIGHT_AGE_MAX_MS = 120_000
"""Of the last beat of an agent that is seen for the first time, by the database's clock. One that has been silent for
longer is taken for gone at once; should its clock be that wrong, its next beat shows that it lives. A mistake costs it
leases, and loses nothing: no write under a lease that was taken lands."""


@dataclass(slots=True)
class Stillness:
    """For how long a mark has been the same, as far as it was looked at: boot-time seconds.

    `see` is told of every look: when it was asked for, and when the answer came. What was read may be as old as the
    asking, so a new mark counts from its answer, and stillness up to the asking. Between two looks no more than `gap_s`
    counts.
    """

    gap_s: float
    still_s: float = 0.0
    _mark: Any = None
    _until_s: float | None = None

    def see(self, mark: Any, sent_s: float, received_s: float) -> bool:
        """Has the mark moved since the look before? True of the first look."""
        if self._until_s is None or mark != self._mark:
            self._mark, self._until_s, self.still_s = mark, received_s, 0.0
            return True
        self.still_s += min(max(sent_s - self._until_s, 0.0), self.gap_s)
        self._until_s = max(sent_s, self._until_s)
        return False

    def restart(self, received_s: float) -> None:
        """Begin to count at an answer, with the mark as it is."""
        self.still_s, self._until_s = 0.0, received_s


@dataclass(slots=True)
class _Observed:
    """What this agent has seen of one process."""

    incarnation: str
    stillness: Stillness
    is_gone: bool = False


@dataclass(slots=True)
class Observer:
    """What one agent makes of all that it reads; `view` is the latest.

    `timeout_s` is how long the counter of an agent that lives may stand still.
    """

    own: BrokerId
    timeout_s: float
    view: ClusterView
    _observed: dict[BrokerId, _Observed] = field(default_factory=dict)
    _is_interrupted: bool = False

    def interrupted(self) -> None:
        """A read has failed: all that stand still have their time anew, from the next answer on."""
        self._is_interrupted = True

    def observe(self, rows: ClusterRows, own: LiveAgent, sent_s: float, received_s: float) -> bool:
        """Take in what was read by a request sent and answered at these times; has anything but load changed?"""
        agents = {own.broker_id: own}
        for row in rows.agents:
            if row.broker_id != self.own and self._lives(row, rows.time_ms, sent_s, received_s):
                is_leaving = row.state is AgentState.LEAVING
                is_silent = self._observed[row.broker_id].stillness.still_s > self.timeout_s / 2
                agents[row.broker_id] = LiveAgent(
                    row.broker_id, row.incarnation, row.facts, is_leaving, is_silent
                )
        self._is_interrupted = False
        present = {row.broker_id for row in rows.agents}
        self._observed = {key: seen for key, seen in self._observed.items() if key in present}
        return self._replace(agents, rows.leases)

    def own_changed(self, own: LiveAgent) -> bool:
        """This agent itself is another; has anything but load changed?"""
        return self._replace({**self.view.agents, own.broker_id: own}, self.view.leases)

    def _lives(self, row: AgentRow, time_ms: int, sent_s: float, received_s: float) -> bool:
        if row.state is AgentState.GONE:
            self._observed.pop(row.broker_id, None)
            return False
        seen = self._observed.get(row.broker_id)
        if seen is None or seen.incarnation != row.incarnation:
            is_old = abs(time_ms - row.beat_ms) > FIRST_SIGHT_AGE_MAX_MS
            seen = _Observed(row.incarnation, Stillness(gap_s=self.timeout_s / 2), is_gone=is_old)
            seen.stillness.see(row.counter, sent_s, received_s)
            self._observed[row.broker_id] = seen
        elif seen.stillness.see(row.counter, sent_s, received_s):
            seen.is_gone = False
        elif self._is_interrupted:
            seen.stillness.restart(received_s)
        elif seen.stillness.still_s > self.timeout_s:
            seen.is_gone = True
        return not seen.is_gone

    def _replace(self, agents: Mapping[BrokerId, LiveAgent], leases: Mapping[str, LeaseState]) -> bool:
        old = self.view
        ordered = {broker_id: agents[broker_id] for broker_id in sorted(agents)}
        are_others = _lasting(ordered) != _lasting(old.agents)
        self.view = ClusterView(old.version + are_others, self.own, ordered, leases)
        return are_others or _tenures(leases) != _tenures(old.leases)


def alone(own: LiveAgent) -> ClusterView:
    """A cluster of one agent, as far as that one knows."""
    return ClusterView(1, own.broker_id, {own.broker_id: own})


def _lasting(agents: Mapping[BrokerId, LiveAgent]) -> list[tuple[Any, ...]]:
    """What a new version of the view tells of: all but load."""
    return [
        (agent.broker_id, agent.incarnation, agent.is_leaving, agent.is_silent, *_lasting_facts(agent.facts))
        for agent in agents.values()
    ]


def _lasting_facts(facts: AgentFacts) -> tuple[Any, ...]:
    return (
        facts.endpoints, facts.peer, facts.peer_certificate, facts.zone, facts.group, facts.roles, facts.version,
        facts.started_ms,
    )  # fmt: skip


def _tenures(leases: Mapping[str, LeaseState]) -> dict[str, tuple[BrokerId | None, int]]:
    return {name: (state.holder, state.epoch) for name, state in leases.items()}

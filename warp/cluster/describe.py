"""The cluster as one agent sees it, in the form in which it is shown to people: `GET /v1/cluster`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentRow, AgentState, ClusterRows, ClusterView, LiveAgent
from warp.metadata.group_model import COORDINATOR_LEASE_PREFIX, SLOTS

SERVING, LEAVING, LOST, GONE = "serving", "leaving", "lost", "gone"
"""What an agent is to the others: lost without a word, or gone with a goodbye."""


class Seer(Protocol):
    """The agent that is asked, as far as it is shown."""

    name: str
    is_shared: bool

    @property
    def rows(self) -> ClusterRows | None:
        """What the last beat has read."""

    @property
    def view(self) -> ClusterView:
        """Who lives."""

    @property
    def is_live(self) -> bool:
        """Does its session last?"""

    @property
    def lapses(self) -> int:
        """How many of its sessions have lapsed."""

    @property
    def beat_age_s(self) -> float | None:
        """How long ago the last beat that went through was sent."""

    @property
    def clock_skew_ms(self) -> int | None:
        """By how much its clock is ahead of the database's."""

    @property
    def is_clock_trusted(self) -> bool:
        """Is that little enough?"""


def describe(seer: Seer, now_ms: int) -> dict[str, Any]:
    """All that is known of a cluster, for JSON. `now_ms` is the wall time of the agent that is asked.

    * `own`: that agent: `broker_id`, `name`, `is_shared` (is it in a cluster at all), `session` (live, lapsed),
      `session_lapses`, `beat_age_s`, `clock_skew_ms` (positive: it is ahead), `is_clock_trusted`;
    * `agents`, by broker id: all that are registered, with their `state` (serving, leaving, lost, gone), what they tell
      of themselves, `uptime_s` (None of those that don't live), `silent_s` since their last beat by the database's
      clock and theirs, and `slots`, the coordinator slots that they hold;
    * `slots`: how many there are, are held by agents that live (`held`) and are not (`free`);
    * `jobs`, by name: all other leases, with their `holder` (None when that does not live) and `epoch`.

    Before the first beat, and of an agent on a database of its own, no leases are known.
    """
    view, rows = seer.view, seer.rows
    time_ms = now_ms if rows is None else rows.time_ms
    slots = _slots_by_holder(view)
    held = sum(count for holder, count in slots.items() if holder in view.agents)
    found = {row.broker_id: row for row in rows.agents} if rows is not None else {}
    broker_ids = sorted({*found, *view.agents})
    return {
        "own": _own(seer),
        "agents": [
            _agent(broker_id, view.agents.get(broker_id), found.get(broker_id), time_ms, seer)
            | {"slots": slots[broker_id]}
            for broker_id in broker_ids
        ],
        "slots": {"total": SLOTS, "held": held, "free": SLOTS - held},
        "jobs": _jobs(view),
    }


def states(view: ClusterView, rows: ClusterRows | None) -> dict[str, int]:
    """How many agents there are, by state: those that live, and those that were lost and not forgotten yet."""
    counts = {SERVING: 0, LEAVING: 0, LOST: 0}
    for agent in view.agents.values():
        counts[LEAVING if agent.is_leaving else SERVING] += 1
    for row in () if rows is None else rows.agents:
        counts[LOST] += row.broker_id not in view.agents and row.state is not AgentState.GONE
    return counts


def _own(seer: Seer) -> dict[str, Any]:
    return {
        "broker_id": seer.view.own,
        "name": seer.name,
        "is_shared": seer.is_shared,
        "session": "live" if seer.is_live else "lapsed",
        "session_lapses": seer.lapses,
        "beat_age_s": _rounded(seer.beat_age_s),
        "clock_skew_ms": seer.clock_skew_ms,
        "is_clock_trusted": seer.is_clock_trusted,
    }


def _agent(
    broker_id: BrokerId, agent: LiveAgent | None, row: AgentRow | None, time_ms: int, seer: Seer
) -> dict[str, Any]:
    if agent is not None:
        state, facts = LEAVING if agent.is_leaving else SERVING, agent.facts
    else:
        assert row is not None, "an agent is in the view or in the rows"
        state, facts = GONE if row.state is AgentState.GONE else LOST, row.facts
    uptime_s = max(time_ms - facts.started_ms, 0) / 1000 if agent is not None and facts.started_ms else None
    silent_s = max(time_ms - row.beat_ms, 0) / 1000 if row is not None else None
    return {
        "broker_id": broker_id,
        "name": row.name if row is not None else seer.name,
        "state": state,
        "endpoints": list(facts.endpoints),
        "peer": facts.peer,
        "zone": facts.zone,
        "group": facts.group,
        "roles": list(facts.roles),
        "version": facts.version,
        "uptime_s": _rounded(uptime_s),
        "silent_s": _rounded(silent_s),
        "connections": facts.connections,
        "produced_bytes_per_s": facts.produced_bytes_per_s,
        "fetched_bytes_per_s": facts.fetched_bytes_per_s,
    }


def _slots_by_holder(view: ClusterView) -> Mapping[BrokerId, int]:
    held = Counter[BrokerId]()
    for state in view.leases.values():
        if state.name.startswith(COORDINATOR_LEASE_PREFIX) and state.holder is not None:
            held[state.holder] += 1
    return held


def _jobs(view: ClusterView) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "holder": None if (holder := view.holder(name)) is None else holder.broker_id,
            "epoch": view.leases[name].epoch,
        }
        for name in sorted(view.leases)
        if not name.startswith(COORDINATOR_LEASE_PREFIX)
    ]


def _rounded(seconds: float | None) -> float | None:
    """To a tenth; what is not a time is not shown."""
    return None if seconds is None or seconds == float("inf") else round(seconds, 1)

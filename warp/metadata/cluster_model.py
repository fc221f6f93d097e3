"""What the metadata store knows of the agents of a cluster, and what an agent makes of it.

An agent's registration has a counter, which it moves every so often. An agent whose counter has stood still for a
certain time, on the observer's own clock, is gone, and with it all leases that it held: they have no counters of their
own to be moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from typing import Any, NamedTuple

from warp.ids import BrokerId
from warp.metadata.group_model import LeaseState

PRODUCE, FETCH, JOBS = "produce", "fetch", "jobs"
ROLES = (PRODUCE, FETCH, JOBS)


class AgentState(IntEnum):
    """What an agent says of itself; `GONE` is the last thing that one says which stops in good order."""

    GONE = 0
    SERVING = 1
    LEAVING = 2


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What an agent tells the others of itself, with every beat. Stored as JSON, so that releases can add to it.

    `endpoints[i]` is what clients of its listener i are told, as "HOST:PORT"; `peer` is where other agents reach its
    HTTP face, None when they can't: "HOST:PORT", or "https://HOST:PORT" when that speaks TLS, which releases before
    that leave alone. `peer_certificate` is the SHA-256 of the certificate that it shows there, in hex. The numbers are
    its load, for those who choose among agents; `connections` leaves out those whose clients were told to work
    elsewhere. `merge_debt_permille` is what waits to be merged beside what may wait, in thousandths, as the one agent
    tells that measures it, and `quarantined_extents` how many jobs can't read; 0 of the others.
    """

    endpoints: tuple[str, ...] = ()
    peer: str | None = None
    zone: str | None = None
    group: str | None = None
    roles: tuple[str, ...] = ROLES
    version: str = ""
    started_ms: int = 0
    connections: int = 0
    produced_bytes_per_s: int = 0
    fetched_bytes_per_s: int = 0
    peer_certificate: str = ""
    merge_debt_permille: int = 0
    quarantined_extents: int = 0

    def to_json(self) -> str:
        """The stored form."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AgentFacts:
        """The reverse of `to_json`, also for what another release has written: it takes what it knows.

        Raises ValueError when the text is not such facts at all.
        """
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise ValueError("the facts of an agent are not a JSON object")
        known: dict[str, Any] = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
        for name, value in known.items():
            if name in _TUPLES and isinstance(value, list) and all(isinstance(item, str) for item in value):
                known[name] = tuple(value)
            elif name in _TUPLES or not isinstance(value, _KINDS.get(name, int)) or isinstance(value, bool):
                raise ValueError(f"the facts of an agent hold {value!r} as its {name}")
        return cls(**known)


_TUPLES = frozenset(("endpoints", "roles"))
_KINDS: Mapping[str, Any] = {
    "peer": str | None,
    "zone": str | None,
    "group": str | None,
    "version": str,
    "peer_certificate": str,
}
"""Of the facts that are no tuples; the others are whole numbers."""


class AgentRow(NamedTuple):
    """A registration as it is stored. `incarnation` is random text, another one for each process."""

    broker_id: BrokerId
    name: str
    incarnation: str
    state: AgentState
    counter: int
    beat_ms: int
    """The agent's own wall time of its last beat."""
    facts: AgentFacts


@dataclass(frozen=True, slots=True)
class ClusterRows:
    """The cluster at one moment: all registrations by broker id, and all leases by name.

    `counter` is the asking agent's own, after the beat that asked; None when the registration is another's by now.
    """

    counter: int | None
    time_ms: int
    """The database's wall time."""
    agents: tuple[AgentRow, ...]
    leases: Mapping[str, LeaseState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveAgent:
    """An agent that lives, as far as this one can tell."""

    broker_id: BrokerId
    incarnation: str
    facts: AgentFacts
    is_leaving: bool = False
    """It finishes what it has begun: nobody is to be sent there any more."""
    is_silent: bool = False
    """No sign of life for half of a session: nobody is sent there for now, but what it holds is still its own."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What one agent knows of the cluster: never changed, but followed by a newer one.

    `agents` are those that live, by broker id in rising order, this agent itself (`own`) always among them. `version`
    rises when one comes, goes, leaves or has other facts than before; load and leases alone leave it as it is.
    """

    version: int
    own: BrokerId
    agents: Mapping[BrokerId, LiveAgent]
    leases: Mapping[str, LeaseState] = field(default_factory=dict)

    @property
    def merge_debt(self) -> float:
        """The largest debt of merging that an agent which lives tells of; above 1 producers are held back."""
        return max((agent.facts.merge_debt_permille for agent in self.agents.values()), default=0) / 1000

    @property
    def quarantined_extents(self) -> int:
        """The most extents that an agent which lives says can't be read."""
        return max((agent.facts.quarantined_extents for agent in self.agents.values()), default=0)

    def holder(self, lease_name: str) -> LiveAgent | None:
        """Who holds a lease and lives; None when nobody does, as far as is known here."""
        state = self.leases.get(lease_name)
        return None if state is None or state.holder is None else self.agents.get(state.holder)

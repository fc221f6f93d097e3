"""Which agent a client is told to talk to.

Any agent serves any partition, so who "leads" is a matter of cost and load alone, and this is where it is decided: one
agent for all that a client does, in its own zone, chosen by rendezvous hashing on its client.id and address, so that
all agents answer alike without talking about it: the client's home. A client that was sent elsewhere while its home was
away stays there while it is at work, until its home has clearly fewer connections. So a client is told of two agents at
most, whoever it asks, and once it has gone home nobody sends it away again. What an agent told a client once is no
reason to say so again, for others may have told it something else since.

Where many connections have the same client.id and address, as behind a gateway or with a client library's default id,
they are spread by load instead, each by itself.

Nothing here waits or fails: the answer comes out of the view of the cluster, and without anybody better an agent names
itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from warp.clock import Clock
from warp.cluster.agent_map import AgentMap, Pool
from warp.cluster.balance import Balance, LoadLimits
from warp.cluster.client_features import (
    VALUE_CHARACTERS_MAX,
    ClientFeatures,
    Strategy,
    client_features,
)
from warp.cluster.rare_log import RareLog
from warp.ids import BrokerId
from warp.metadata.cluster_model import FETCH, AgentFacts, ClusterView, LiveAgent
from warp.metadata.group_model import coordinator_lease, slot_of
from warp.rendezvous import first, ranking

_log = logging.getLogger("warp.discovery")


class HostPort(Protocol):
    """A host and a TCP port."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class AgentAddress(NamedTuple):
    """An agent as clients of one listener are told of it; `rack` is its zone."""

    broker_id: BrokerId
    host: str
    port: int
    rack: str | None


@dataclass(frozen=True, slots=True)
class DiscoveryLimits:
    """The bounds of what is remembered, and of the load that one agent gets."""

    load: LoadLimits = field(default_factory=LoadLimits)
    at_work_s: float = 15.0
    """A connection that has produced or fetched within this time shows that its client is here."""
    has_left_s: float = 120.0
    """A connection that has not for so long, and then asks, shows that its client is elsewhere."""
    leave_s: float = 5.0
    """What comes through a connection so long after its client was sent away may have been on its way."""
    alike_max: int = 8
    """Connections of one client.id and address that go to one agent; if there are more they are spread."""
    steered_max: int = 100_000
    """Partitions whose readers were sent to another agent, and of which that is remembered."""
    steer_again_s: float = 60.0
    """A reader that is back sooner was not helped: it is served here."""
    steer_rest_s: float = 300.0
    """How long such a reader is served before it is sent there again."""


class Caller:
    """A connection whose client has asked whom to talk to. Made by `Discovery.caller`; `leave` ends it."""

    __slots__ = (
        "_discovery",
        "candidates",
        "features",
        "home",
        "is_elsewhere",
        "is_kept",
        "key",
        "leader",
        "left_s",
        "listener",
        "number",
        "rack",
        "steered",
    )

    def __init__(
        self, discovery: Discovery, key: bytes, features: ClientFeatures, listener: int, number: int
    ) -> None:
        self._discovery = discovery
        self.key = key
        """Client.id and address, hashed."""
        self.features = features
        self.listener = listener
        self.number = number
        self.leader: BrokerId | None = None
        """Who it was told last."""
        self.is_elsewhere = False
        """That is another agent, for all that it does."""
        self.is_kept = False
        """That was chosen for this connection alone, so it is remembered here or nowhere."""
        self.left_s = -math.inf
        """Who produces or fetches after this time (monotonic) is here again, although it was sent away."""
        self.candidates: tuple[BrokerId, ...] = ()
        self.home: BrokerId | None = None
        """The one of those agents that this caller goes to, whoever is asked."""
        self.rack: str | None = None
        """The zone that it has read from, when that is the zone of an agent (KIP-392)."""
        self.steered: dict[int, tuple[float, bool]] = {}
        """By log: when its reader may be sent away (again), and whether it came back before that."""

    def leave(self) -> None:
        """The connection is gone."""
        self._discovery._left(self)


class Choice:
    """Who leads what, for one client, at one moment."""

    __slots__ = ("_agents", "_caller", "_pool", "_replicas", "is_spread", "leader")

    def __init__(self, agents: AgentMap, pool: Pool, leader: BrokerId, caller: Caller) -> None:
        self._agents = agents
        self._pool = pool
        self._caller = caller
        self._replicas: dict[BrokerId, tuple[BrokerId, ...]] = {}
        self.leader = leader
        """The agent for all that the client does; it is the controller too."""
        self.is_spread = caller.features.strategy is Strategy.CONSISTENT and len(pool.agents) > 1
        """Each partition has a leader of its own: ask `leaders`."""

    def leaders(self, topic_id: bytes, partitions: int) -> Sequence[BrokerId]:
        """The leaders of a topic's partitions from 0 to `partitions` - 1, when they are spread."""
        return self._pool.leaders(topic_id, partitions)

    def replicas(self, leader: BrokerId) -> tuple[BrokerId, ...]:
        """The leader, and at most one agent of each of two other zones."""
        found = self._replicas.get(leader)
        if found is None:
            caller = self._caller
            found = self._agents.replicas(caller.listener, caller.features.role, leader)
            self._replicas[leader] = found
        return found


class Discovery:
    """Answers for one agent, out of its `view` of the cluster.

    While its session has lapsed (not `is_live`) it names others: it can't reach the metadata store, and they may.
    """

    def __init__(
        self,
        view: Callable[[], ClusterView],
        clock: Clock,
        limits: DiscoveryLimits | None = None,
        *,
        is_live: Callable[[], bool] = lambda: True,
    ) -> None:
        self._view = view
        self._is_live = is_live
        self._clock = clock
        self._limits = limits or DiscoveryLimits()
        self._agents: AgentMap | None = None
        self._alike: dict[bytes, int] = {}
        self._callers_made = 0
        self._elsewhere = 0
        self._balance = Balance(clock, self._limits.load)
        self._steered = 0
        self._unknown_log = RareLog(_log, clock)

    @property
    def own(self) -> BrokerId:
        """This agent."""
        return self._map().own

    @property
    def is_alone(self) -> bool:
        """Nobody but this agent can be named to clients."""
        return self._map().is_alone

    @property
    def is_cut_off(self) -> bool:
        """This agent's session has lapsed, and there are others that clients can be sent to."""
        agents = self._map()
        return not agents.is_serving and not agents.is_alone

    def broker_ids(self) -> Collection[BrokerId]:
        """All agents that live, whatever their group."""
        return self._view().agents.keys()

    def agents(self, listener: int, own: HostPort) -> list[AgentAddress]:
        """The agents that clients of a listener are told of, by broker id; `own` is this agent's address there.

        They live, are not about to leave, and have such a listener. Those of other groups than this agent's are there
        for the consumer groups that they coordinate: none of them leads anything. When nobody of this agent's group is
        there, this agent is named all the same.
        """
        agents = self._map()
        found = []
        for broker_id in agents.named(listener):
            endpoint = own if broker_id == agents.own else agents.endpoint(broker_id, listener)
            assert endpoint is not None, "who has no endpoint is not named"
            found.append(AgentAddress(broker_id, endpoint.host, endpoint.port, agents.zone(broker_id)))
        return found

    def coordinator(self, name: str, listener: int) -> AgentAddress | None:
        """The other agent that coordinates a group or transactional id, whatever its group.

        None when it is this agent, nobody who lives, or an agent without an address for clients of the listener.
        """
        holder = self._view().holder(coordinator_lease(slot_of(name)))
        agents = self._map()
        if holder is None or holder.broker_id == agents.own:
            return None
        endpoint = agents.endpoint(holder.broker_id, listener)
        if endpoint is None:
            return None
        return AgentAddress(holder.broker_id, endpoint.host, endpoint.port, holder.facts.zone)

    # Connections.

    def caller(self, before: Caller | None, client_id: str | None, host: str, listener: int) -> Caller:
        """The caller that a connection from `host` is, given what it was `before`, which ends if it is another."""
        key = _key(client_id, host)
        if before is not None:
            if before.key == key:
                return before
            before.leave()
        features = client_features(client_id)
        for pair in features.unknown:
            self._unknown_log.warning(pair, "a client.id has %r, which is not known: the default holds", pair)
        self._alike[key] = self._alike.get(key, 0) + 1
        self._callers_made += 1
        return Caller(self, key, features, listener, self._callers_made)

    @property
    def elsewhere(self) -> int:
        """Connections that are open while their clients were told to work at another agent: no load to speak of."""
        return self._elsewhere

    def _left(self, caller: Caller) -> None:
        self._count_elsewhere(caller, is_elsewhere=False)
        self._steered -= len(caller.steered)
        caller.steered.clear()
        left = self._alike.get(caller.key, 0) - 1
        if left > 0:
            self._alike[caller.key] = left
        else:
            self._alike.pop(caller.key, None)

    # Leaders.

    def choose(self, caller: Caller, *, used_s: float | None) -> Choice:
        """Who leads for a caller. `used_s`: when its connection produced or fetched last (monotonic), None if never."""
        agents = self._map()
        pool = agents.pool(caller.listener, self._zone(agents, caller), caller.features.role)
        caller.leader = self._leader(agents.own, pool, caller, used_s)
        choice = Choice(agents, pool, caller.leader, caller)
        self._count_elsewhere(caller, is_elsewhere=caller.leader != agents.own and not choice.is_spread)
        return choice

    def _count_elsewhere(self, caller: Caller, *, is_elsewhere: bool) -> None:
        self._elsewhere += is_elsewhere - caller.is_elsewhere
        caller.is_elsewhere = is_elsewhere

    def _leader(self, own: BrokerId, pool: Pool, caller: Caller, used_s: float | None) -> BrokerId:
        is_spread = caller.features.strategy is Strategy.CONSISTENT
        is_alike = self._alike.get(caller.key, 0) > self._limits.alike_max
        if len(pool.agents) == 1 or is_spread:
            return _home(pool, caller)
        if own in pool.agents and self._is_at_work(caller, used_s):
            chosen = self._kept(own, pool, caller, is_alike=is_alike)
            caller.is_kept = is_alike
            if chosen != own:
                caller.left_s = self._clock.monotonic() + self._limits.leave_s
            return chosen
        if (caller.is_kept or is_alike) and caller.leader is not None and caller.leader in pool.agents:
            caller.is_kept = True
            if caller.leader == own and self._has_left(used_s):
                return self._balance.next_for(self._view(), _order(pool, caller, but=own))
            return self._kept(caller.leader, pool, caller, is_alike=is_alike)
        caller.is_kept = is_alike
        return self._balance.next_for(self._view(), _order(pool, caller)) if is_alike else _home(pool, caller)

    def _is_at_work(self, caller: Caller, used_s: float | None) -> bool:
        """Has the client shown by what it does that it is here? This is the one thing that no other agent knows."""
        if used_s is None:
            return False
        return used_s > caller.left_s and self._clock.monotonic() - used_s <= self._limits.at_work_s

    def _has_left(self, used_s: float | None) -> bool:
        """Did the client work here, and does no more? So it was told of another agent by somebody, who may be right.

        To yield makes those that a client asks agree in the end, even if none of them can know what others have said.
        """
        return used_s is not None and self._clock.monotonic() - used_s > self._limits.has_left_s

    def _kept(self, kept: BrokerId, pool: Pool, caller: Caller, *, is_alike: bool) -> BrokerId:
        """The agent that a client is at, or a better one, if there is one: its home, and for many alike any."""
        if is_alike:
            order = _order(pool, caller)
        else:
            order = [_home(pool, caller)]
            if order == [kept]:
                return kept
        return self._balance.better_than(self._view(), kept, order, pool.agents) or kept

    def _zone(self, agents: AgentMap, caller: Caller) -> str | None:
        """The zone of a caller, if it gives one and agents are there."""
        zone = caller.features.zone
        if zone is not None:
            if zone in agents.zones(caller.listener):
                return zone
            self._zone_is_unknown(zone)
        return caller.rack if caller.rack in agents.zones(caller.listener) else None

    def _zone_is_unknown(self, zone: str) -> None:
        if not self.is_alone:
            self._unknown_log.warning(
                zone,
                "clients say that they are in zone %r, where there is no agent: they get agents of all zones",
                zone,
            )

    # Readers that name their rack (KIP-392).

    def is_near(self, rack: str) -> bool:
        """A reader in this rack needs no look at who else is there: this agent is of that zone, or alone."""
        agents = self._map()
        return agents.is_alone or rack == agents.zone(agents.own)

    def nearer(self, caller: Caller, rack: str) -> BrokerId | None:
        """The agent that a reader which names its rack should read from instead of this one. None: it should stay.

        That is an agent of that very zone, and the one that Metadata has as a replica: clients accept no other.
        """
        if self.is_near(rack):
            return None
        agents = self._map()
        if rack not in agents.zones(caller.listener):
            if caller.features.zone is None:
                self._zone_is_unknown(rack[:VALUE_CHARACTERS_MAX])
            return None
        asked_for = caller.features.zone
        if asked_for != rack and asked_for in agents.zones(caller.listener):
            return None
        caller.rack = rack
        for broker_id in agents.replicas(caller.listener, caller.features.role, agents.own)[1:]:
            if agents.zone(broker_id) == rack and FETCH in agents.roles(broker_id):
                caller.leader = broker_id
                caller.is_kept = True
                return broker_id
        return None

    def may_steer(self, caller: Caller, log_id: int) -> bool:
        """May the reader of a log be sent away now? If so, that is remembered.

        One that comes back at once could not go where it was sent: it knows other replicas, or can't reach that agent.
        To send it there again and again would give it no records at all.
        """
        now_s = self._clock.monotonic()
        again_s, came_back = caller.steered.get(log_id, (0.0, False))
        if log_id not in caller.steered:
            if self._steered >= self._limits.steered_max:
                return False
            self._steered += 1
        elif now_s < again_s:
            if not came_back:
                caller.steered[log_id] = (now_s + self._limits.steer_rest_s, True)
            return False
        caller.steered[log_id] = (now_s + self._limits.steer_again_s, False)
        return True

    def _map(self) -> AgentMap:
        """The agents as the view has them."""
        view, is_live = self._view(), self._is_live()
        agents = self._agents
        if agents is None or view.version != agents.version or is_live != agents.is_serving:
            agents = self._agents = AgentMap(view, is_serving=is_live)
        return agents


def _home(pool: Pool, caller: Caller) -> BrokerId:
    """The agent of a pool for everybody of that client.id and address; all agents come to the same."""
    if caller.candidates != pool.agents or caller.home is None:
        found = first(caller.key.hex(), pool.agents)
        assert found is not None, "no pool is empty"
        caller.candidates, caller.home = pool.agents, BrokerId(found)
    return caller.home


def _order(pool: Pool, caller: Caller, but: BrokerId | None = None) -> list[BrokerId]:
    """The agents of a pool for one connection, best first: another order for each, whatever they have in common."""
    agents = [broker_id for broker_id in pool.agents if broker_id != but]
    return [BrokerId(found) for found in ranking(f"{caller.key.hex()} {caller.number}", agents)]


def _key(client_id: str | None, host: str) -> bytes:
    text = f"{client_id or ''}\0{host}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def alone(own: BrokerId, facts: AgentFacts) -> ClusterView:
    """The view of an agent that is the whole cluster."""
    return ClusterView(1, own, {own: LiveAgent(own, "", facts)})

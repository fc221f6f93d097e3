"""The agents that clients can be sent to, sorted by listener, zone and role: one view of the cluster, looked at often.

It is made anew for each version of the view, and works out what is asked for when it is first asked for. What it keeps
is bounded by the cluster: listeners, zones and roles that agents have, never by what clients say.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

from warp.config_values import Address, parse_address
from warp.ids import BrokerId
from warp.metadata.cluster_model import FETCH, PRODUCE, ClusterView, LiveAgent
from warp.rendezvous import first, ranking

_log = logging.getLogger("warp.discovery")

REPLICAS_MAX = 3
"""Agents that stand for the replicas of a partition, its leader among them."""
SLOTS = 4_096
"""In how many parts the partitions of all topics are spread over agents. All agents have to agree on it."""
_WEIGHT_BYTES = 4


class Pool:
    """Agents that are all as good as each other for some clients; never none."""

    def __init__(self, agents: tuple[BrokerId, ...]) -> None:
        self.agents = agents
        """By broker id, rising."""
        self._slots: list[BrokerId] = []

    def leaders(self, topic_id: bytes, partitions: int) -> list[BrokerId]:
        """Who leads the partitions of a topic from 0 to `partitions` - 1, when they are spread over these agents.

        A partition falls into a slot, the next one into the next slot, and each slot is an agent's by rendezvous. So no
        hash has to be worked out per partition, and still only those partitions move whose agent comes or goes.
        """
        if not self._slots:
            self._slots = _slots(self.agents) * 2
        start = crc32(topic_id) % SLOTS
        if partitions <= SLOTS:
            return self._slots[start : start + partitions]
        return (self._slots[start : start + SLOTS] * (partitions // SLOTS + 1))[:partitions]


def _slots(agents: Sequence[BrokerId]) -> list[BrokerId]:
    """The agent of each slot."""
    columns = []
    for broker_id in agents:
        salt = broker_id.to_bytes(8, "big", signed=True)
        digests = [
            blake2b(block.to_bytes(4, "big"), digest_size=64, salt=salt).digest()
            for block in range(SLOTS * _WEIGHT_BYTES // 64)
        ]
        weights = struct.unpack(f">{SLOTS}I", b"".join(digests))
        columns.append([(weight, broker_id) for weight in weights])
    return [max(candidates)[1] for candidates in zip(*columns, strict=True)]


class AgentMap:
    """The agents of one version of the view, as far as discovery is concerned.

    Where this agent itself can't serve (`is_serving`), it is as good as leaving.
    """

    def __init__(self, view: ClusterView, *, is_serving: bool = True) -> None:
        self.version = view.version
        self.is_serving = is_serving
        self.own = view.own
        self._agents = view.agents
        group = view.agents[view.own].facts.group
        self._members = [
            agent
            for _, agent in sorted(view.agents.items())
            if agent.facts.group == group
            and not agent.is_leaving
            and (is_serving or agent.broker_id != view.own)
        ]
        self._strangers = [
            agent.broker_id
            for agent in view.agents.values()
            if agent.facts.group != group and not agent.is_leaving
        ]
        """Agents of other groups: clients are not sent to them, but one may coordinate their consumer group."""
        self.is_alone = all(agent.broker_id == view.own for agent in self._members)
        """This agent is the only one that clients may be sent to."""
        self._endpoints: dict[tuple[BrokerId, int], Address | None] = {}
        self._eligible: dict[int, tuple[BrokerId, ...]] = {}
        self._zones: dict[int, frozenset[str]] = {}
        self._pools: dict[tuple[int, str | None, str | None], Pool] = {}
        self._shared_pools: dict[tuple[BrokerId, ...], Pool] = {}
        self._replicas: dict[tuple[int, str | None, BrokerId], tuple[BrokerId, ...]] = {}

    def zone(self, broker_id: BrokerId) -> str | None:
        """The zone of an agent."""
        return self._agents[broker_id].facts.zone

    def roles(self, broker_id: BrokerId) -> tuple[str, ...]:
        """The roles of an agent."""
        return self._agents[broker_id].facts.roles

    def endpoint(self, broker_id: BrokerId, listener: int) -> Address | None:
        """What another agent tells clients of such a listener to connect to; None when it has none."""
        place = (broker_id, listener)
        if place not in self._endpoints:
            self._endpoints[place] = _endpoint(self._agents[broker_id], listener)
        return self._endpoints[place]

    def eligible(self, listener: int) -> tuple[BrokerId, ...]:
        """Who may be named to clients of a listener, by broker id; when there is nobody, this agent."""
        found = self._eligible.get(listener)
        if found is None:
            members = [agent.broker_id for agent in self._members]
            found = tuple(
                broker_id
                for broker_id in members
                if broker_id == self.own or self.endpoint(broker_id, listener) is not None
            )
            found = self._eligible[listener] = found or (self.own,)
        return found

    def named(self, listener: int) -> list[BrokerId]:
        """Whom clients of a listener are told of, by broker id: those who are eligible, and agents of other groups.

        Many clients (librdkafka, franz-go, aiokafka, KafkaJS) talk to no coordinator that Metadata has not named.
        """
        strangers = [
            broker_id for broker_id in self._strangers if self.endpoint(broker_id, listener) is not None
        ]
        return sorted({*self.eligible(listener), *strangers})

    def zones(self, listener: int) -> frozenset[str]:
        """The zones of those who are eligible."""
        known = self._zones.get(listener)
        if known is None:
            each = [self.zone(broker_id) for broker_id in self.eligible(listener)]
            known = self._zones[listener] = frozenset(zone for zone in each if zone is not None)
        return known

    def pool(self, listener: int, zone: str | None, role: str | None) -> Pool:
        """Who may lead for clients of a listener, in a zone that `zones` has (None: in any), with a role.

        A role that is asked for counts for more than the zone, and is let go only when nobody has it at all. Who asks
        for none gets agents that produce and fetch, if there are such, otherwise those that produce, otherwise anybody.
        """
        place = (listener, zone, role)
        pool = self._pools.get(place)
        if pool is None:
            found = self._of_zone(listener, zone, role) or self._of_zone(listener, None, role)
            pool = self._pools[place] = self._shared_pools.setdefault(found, Pool(found))
        return pool

    def replicas(self, listener: int, role: str | None, leader: BrokerId) -> tuple[BrokerId, ...]:
        """The leader, and one agent of each other zone, chosen by rendezvous for this leader; at most REPLICAS_MAX."""
        place = (listener, role, leader)
        found = self._replicas.get(place)
        if found is None:
            key = f"replicas {leader}"
            zones = sorted(self.zones(listener) - {self.zone(leader)})
            chosen = [first(key, self._of_zone(listener, zone, role)) for zone in zones]
            others = ranking(key, [broker_id for broker_id in chosen if broker_id is not None])
            found = (leader, *(BrokerId(broker_id) for broker_id in others[: REPLICAS_MAX - 1]))
            self._replicas[place] = found
        return found

    def _of_zone(self, listener: int, zone: str | None, role: str | None) -> tuple[BrokerId, ...]:
        """The best of those who are eligible in a zone; none if none of them has a role that somebody has.

        Silent ones lead for nobody, while they are still named: librdkafka moves at once from a leader to another, but
        waits for its next look from one that has vanished.
        """
        eligible = self.eligible(listener)
        found = (
            tuple(broker_id for broker_id in eligible if not self._agents[broker_id].is_silent) or eligible
        )
        if role is not None:
            found = self._with(found, role) or found
        if zone is not None:
            found = tuple(broker_id for broker_id in found if self.zone(broker_id) == zone)
        if role is None:
            found = self._with(found, PRODUCE, FETCH) or self._with(found, PRODUCE) or found
        return found

    def _with(self, agents: tuple[BrokerId, ...], *roles: str) -> tuple[BrokerId, ...]:
        """Those of the agents that have all these roles."""
        return tuple(broker_id for broker_id in agents if set(roles) <= set(self.roles(broker_id)))


def _endpoint(agent: LiveAgent, listener: int) -> Address | None:
    if not 0 <= listener < len(agent.facts.endpoints):
        return None
    text = agent.facts.endpoints[listener]
    try:
        address = parse_address(text)
    except ValueError as error:
        _log.warning("agent %d says that it is at %r: %s", agent.broker_id, text, error)
        return None
    return address if address.port else None

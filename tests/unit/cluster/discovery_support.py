"""Clusters to choose agents from, made up by hand."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from warp.cluster.discovery import Caller, Discovery, DiscoveryLimits
from warp.ids import BrokerId
from warp.metadata.cluster_model import ROLES, AgentFacts, ClusterView, LiveAgent
from warp.metadata.group_model import LeaseState, coordinator_lease


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def boottime(self) -> float:
        return self.now_s


class Place(NamedTuple):
    """A host and a port."""

    host: str
    port: int


OWN = Place("own.test", 1)
CLIENTS = [f"app-{number}" for number in range(300)]


def facts(number: int, **given: object) -> AgentFacts:
    """The facts of an agent with two listeners."""
    endpoints = (f"agent-{number}.test:9092", f"agent-{number}.inner:9093")
    return AgentFacts(**{"endpoints": endpoints, "roles": ROLES, **given})  # type: ignore[arg-type]


class FakeCluster:
    """A view that the test changes, and the discovery of one of the agents in it."""

    def __init__(self, own: int = 1, limits: DiscoveryLimits | None = None, **agents: str | None) -> None:
        """`agents` are the zones of agents 1, 2, … by names that don't matter."""
        self.agents: dict[BrokerId, LiveAgent] = {}
        self.leases: dict[str, LeaseState] = {}
        self.own = BrokerId(own)
        self.clock = HandClock()
        self._version = itertools.count(1)
        for number, zone in enumerate(agents.values(), 1):
            self.agents[BrokerId(number)] = LiveAgent(BrokerId(number), "", facts(number, zone=zone))
        self.view = ClusterView(next(self._version), self.own, self.agents)
        self.changed()
        self.is_live = True
        self.discovery = Discovery(lambda: self.view, self.clock, limits, is_live=lambda: self.is_live)

    def changed(self) -> None:
        """The view is a new one."""
        self.view = ClusterView(next(self._version), self.own, dict(self.agents), dict(self.leases))

    def put(self, number: int, *, is_leaving: bool = False, is_silent: bool = False, **given: object) -> None:
        """An agent with these facts is there."""
        broker_id = BrokerId(number)
        self.agents[broker_id] = LiveAgent(broker_id, "", facts(number, **given), is_leaving, is_silent)
        self.agents = dict(sorted(self.agents.items()))
        self.changed()

    def drop(self, number: int) -> None:
        """An agent is gone."""
        del self.agents[BrokerId(number)]
        self.changed()

    def load(self, connections: dict[int, int]) -> None:
        """The agents say how many connections they have; nothing else is new."""
        for number, count in connections.items():
            old = self.agents[BrokerId(number)].facts
            given = facts(number, zone=old.zone, group=old.group, roles=old.roles, connections=count)
            self.agents[BrokerId(number)] = LiveAgent(BrokerId(number), "", given)
        self.view = ClusterView(self.view.version, self.own, dict(self.agents), self.leases)

    def hold(self, slot: int, holder: int | None) -> None:
        """Somebody holds the lease of a coordinator slot."""
        name = coordinator_lease(slot)
        self.leases[name] = LeaseState(name, None if holder is None else BrokerId(holder), 1, 1)
        self.changed()

    def caller(self, client_id: str | None = "app", host: str = "192.0.2.1", listener: int = 0) -> Caller:
        """A new connection."""
        return self.discovery.caller(None, client_id, host, listener)

    def leader(self, client_id: str | None = "app", host: str = "192.0.2.1", listener: int = 0) -> int:
        """Who leads for a connection that has come just for that."""
        caller = self.caller(client_id, host, listener)
        leader = self.discovery.choose(caller, used_s=None).leader
        caller.leave()
        return leader

    def named(self, listener: int = 0) -> list[int]:
        """Who is in Metadata."""
        return [agent.broker_id for agent in self.discovery.agents(listener, OWN)]


def two_zones(own: int = 1) -> FakeCluster:
    """Agents 1 and 2 in zone a, 3 and 4 in zone b."""
    return FakeCluster(own, one="a", two="a", three="b", four="b")

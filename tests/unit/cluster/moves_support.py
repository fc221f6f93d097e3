"""Clients with long-lived connections, and the agents that tell them whom to talk to, in virtual time.

What is real is discovery. Around it each agent sees the others as they were at its last beat, and learns only after a
time-out that one has died; clients ask again every five minutes, or at once when who they work at is gone.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from enum import Enum

from tests.unit.cluster.discovery_support import HandClock, facts
from warp.cluster.discovery import Caller, Discovery
from warp.ids import BrokerId
from warp.metadata.cluster_model import ClusterView, LiveAgent

BEAT_S = 2.0
AGENT_TIMEOUT_S = 2.0
REFRESH_S = 300.0
IDLE_S = 600.0
_ON_ITS_WAY_S = 0.2
"""Requests still arrive so long after their client was told to go."""


class Asks(Enum):
    """Whom a client asks for Metadata."""

    ANYBODY = "any agent"
    CONNECTED = "any agent that it has a connection to"
    LEADER = "the agent that it works at, and another one only when that is gone"


class Agent:
    """One life of an agent. It remembers nothing of the one before."""

    def __init__(self, world: World, number: int) -> None:
        self.number = BrokerId(number)
        self.started_s = world.clock.now_s
        self.lost_s: float | None = None
        self.connections: dict[Connection, None] = {}
        self.others = 0
        """Connections of clients that don't take part."""
        self.view = ClusterView(0, self.number, {self.number: LiveAgent(self.number, "", facts(number))})
        self.discovery = Discovery(lambda: self.view, world.clock)

    @property
    def load(self) -> int:
        """The connections that it tells the others of."""
        return len(self.connections) - self.discovery.elsewhere + self.others

    def see(self, agents: list[Agent]) -> None:
        """Take in who lives, and with how many connections."""
        seen = {
            agent.number: LiveAgent(
                agent.number,
                "",
                facts(agent.number, connections=agent.load),
            )
            for agent in sorted(agents, key=lambda agent: agent.number)
        }
        version = self.view.version + (seen.keys() != self.view.agents.keys())
        self.view = ClusterView(version, self.number, seen)


class Connection:
    """One between a client and an agent."""

    def __init__(self, agent: Agent, caller: Caller, now_s: float) -> None:
        self.agent = agent
        self.caller = caller
        self.used_s: float | None = None
        self.active_s = now_s
        agent.connections[self] = None

    def close(self) -> None:
        """The agent forgets it."""
        self.caller.leave()
        del self.agent.connections[self]


class Client:
    """It works without pause at the agent that it was told last."""

    def __init__(self, world: World, client_id: str, host: str, asks: Asks) -> None:
        self._world = world
        self._name = (client_id, host)
        self._asks = asks
        self.connections: dict[BrokerId, Connection] = {}
        self.leader: BrokerId | None = None
        self.moves_s: list[float] = []
        """When it went from one agent to another."""
        self._round = 0

    def ask(self) -> None:
        """Ask somebody for Metadata, and again later."""
        world, now_s = self._world, self._world.clock.now_s
        self._round += 1
        self._drop_idle(now_s)
        connection = self._connect(self._whom(), now_s)
        connection.active_s = now_s
        at_work = self._working()
        if at_work is not None:
            at_work.used_s = now_s
        told = connection.agent.discovery.choose(connection.caller, used_s=connection.used_s).leader
        if told not in world.agents:
            # It is dead, which the agent has not noticed yet.
            self._ask_in(world.rng.uniform(0.1, 1.0))
            return
        if told != self.leader:
            if at_work is not None:
                at_work.used_s = at_work.active_s = now_s + _ON_ITS_WAY_S
            if self.leader is not None:
                self.moves_s.append(now_s)
            self.leader = told
            self._connect(told, now_s)
        self._ask_in(REFRESH_S * world.rng.uniform(0.9, 1.0))

    def lost(self, agent: Agent) -> None:
        """An agent is gone."""
        if self.connections.pop(agent.number, None) is not None and self.leader == agent.number:
            self._round += 1
            self._ask_in(self._world.rng.uniform(0.0, 1.0))

    def _ask_in(self, delay_s: float) -> None:
        number = self._round

        def ask() -> None:
            if self._round == number:
                self.ask()

        self._world.at(self._world.clock.now_s + delay_s, ask)

    def _working(self) -> Connection | None:
        return None if self.leader is None else self.connections.get(self.leader)

    def _whom(self) -> BrokerId:
        working = self._working()
        if self._asks is Asks.LEADER and working is not None:
            return working.agent.number
        candidates = self._world.agents if self._asks is Asks.ANYBODY else self.connections
        return self._world.rng.choice(sorted(candidates or self._world.agents))

    def _connect(self, number: BrokerId, now_s: float) -> Connection:
        connection = self.connections.get(number)
        if connection is None:
            agent = self._world.agents[number]
            caller = agent.discovery.caller(None, *self._name, 0)
            connection = self.connections[number] = Connection(agent, caller, now_s)
        return connection

    def _drop_idle(self, now_s: float) -> None:
        for number, connection in list(self.connections.items()):
            if number != self.leader and now_s - connection.active_s > IDLE_S:
                connection.close()
                del self.connections[number]


class World:
    """Agents 1 to `count`, and clients that come within the first minute."""

    def __init__(self, seed: int, count: int = 3) -> None:
        self.rng = random.Random(seed)
        self.clock = HandClock()
        self.start_s = self.clock.now_s
        self.agents: dict[BrokerId, Agent] = {}
        self._lost: list[Agent] = []
        self.clients: list[Client] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        for number in range(1, count + 1):
            self.start(number)
        self.run(5.0)

    def at(self, time_s: float, what: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._events, (time_s, next(self._number), what))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end_s = self.clock.now_s + seconds
        while self._events and self._events[0][0] <= end_s:
            self.clock.now_s, _, what = heapq.heappop(self._events)
            what()
        self.clock.now_s = end_s

    def join(self, count: int, asks: Asks, *, are_alike: bool = False) -> None:
        """So many clients come."""
        for number in range(count):
            name = ("rdkafka", "192.0.2.1") if are_alike else (f"app-{number}", f"192.0.2.{number % 50}")
            client = Client(self, *name, asks)
            self.clients.append(client)
            self.at(self.clock.now_s + self.rng.uniform(0.0, 60.0), client.ask)

    def start(self, number: int) -> None:
        """An agent begins to live; the others see it at their next beat."""
        agent = self.agents[BrokerId(number)] = Agent(self, number)
        agent.see(list(self.agents.values()))
        self.at(self.clock.now_s + self.rng.uniform(0.0, BEAT_S), lambda: self._beat(agent))

    def kill(self, number: int) -> None:
        """An agent dies; the others notice after a time-out, those who worked there at once."""
        agent = self.agents.pop(BrokerId(number))
        agent.lost_s = self.clock.now_s
        self._lost.append(agent)
        for client in self.clients:
            client.lost(agent)

    def restart(self, number: int, seconds: float) -> None:
        """An agent dies and is back after so long."""
        self.kill(number)
        self.run(seconds)
        self.start(number)

    def _beat(self, agent: Agent) -> None:
        if agent.lost_s is not None:
            return
        now_s = self.clock.now_s
        unnoticed = [
            lost
            for lost in self._lost
            if lost.number not in self.agents
            and now_s - (lost.lost_s or 0.0) < AGENT_TIMEOUT_S
            and lost.number in agent.view.agents
        ]
        agent.see([*self.agents.values(), *unnoticed])
        self.at(now_s + BEAT_S, lambda: self._beat(agent))

    # What has come of it.

    def working(self) -> Counter[int]:
        """How many clients work at each agent."""
        counted = Counter({int(number): 0 for number in self.agents})
        counted.update(int(client.leader) for client in self.clients if client.leader is not None)
        return counted

    def moves(self, since_s: float) -> list[int]:
        """How often each client has moved since then."""
        return [sum(moved_s >= since_s for moved_s in client.moves_s) for client in self.clients]

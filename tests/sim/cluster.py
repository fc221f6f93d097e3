"""What a world has besides when its agents make up a cluster: notices, more misfortunes, and how it has to end."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.sim import requests
from tests.sim.administrator import Administrator
from tests.sim.client import Connection, Lost
from tests.sim.faults import Weather
from tests.sim.hosts import Host
from tests.sim.loop import OUTSIDE
from tests.sim.notices import NoticeBus, NoticeWeather
from warp.groups.offsets import OffsetCommitter
from warp.groups.saving import GroupSaver
from warp.metadata.group_model import SLOTS, coordinator_lease

if TYPE_CHECKING:
    from tests.sim.world import World

SEEDS_PER_CLUSTER = 4
CLUSTER_SEED = 1
"""Of so many seeds in a row, this one has a cluster."""
MISFORTUNES = (
    *("crash", "crash soon", "freeze", "freeze", "succeed", "succeed", "cut off", "cut off"),
    *("ambush", "ambush", "ambush", "ambush", "ambush", "notices", "notices", "deaf", "clock", "retire"),
    *("crash at a step", "crash at a step", "flaky", "flaky", "flaky"),
)
LOAD_S = 12.0
"""How long things happen to it: others take the place of an agent that has gone, and are there when it comes back."""
PAUSE_S = 1.2
"""Between two misfortunes."""
AMBUSHED = (OffsetCommitter._run.__qualname__, GroupSaver._run.__qualname__)
"""What writes under leases."""
HOLDERS = """
    select l.name, a.name from leases l left join agents a on a.broker_id = l.holder where l.name like 'coordinator%'
"""


def has_cluster(seed: int) -> bool:
    """Does the world of this seed have a cluster?"""
    return seed % SEEDS_PER_CLUSTER == CLUSTER_SEED


class Cluster:
    """Several agents of one world that know of each other. It has chances of its own."""

    def __init__(self, world: World) -> None:
        self.chance = random.Random(f"{world.seed} cluster")
        self.size = self.chance.choice((2, 3, 3, 4))
        self.agent_timeout_ms = self.chance.choice((600, 1_000, 2_000))
        self.idle_s = self.chance.choice((0.05, 0.2, 2.0))
        """After so long the database gives up a transaction that stands still, and what it has locked."""
        self.bus = NoticeBus(world.loop, random.Random(self.chance.random()))
        self._world = world
        self._is_calm = False
        self.administrator = Administrator(world, random.Random(self.chance.random()))
        self._probes: list[asyncio.Task[None]] = []
        if self.chance.random() < 0.3:
            self.bus.weather = NoticeWeather.rough(self.chance)

    @property
    def _session_s(self) -> float:
        return self.agent_timeout_ms / 1000

    # What happens to it.

    def misfortune(self) -> None:
        """Something bad happens to one agent, or to the notices of all."""
        host = self._some_host()
        match self.chance.choice(MISFORTUNES):
            case "crash":
                self._world.crash(host)
            case "crash soon":
                self._world.crash_after(host, self.chance.randint(1, 300))
            case "freeze":
                self.freeze(host, self.chance.choice((0.5, 1.1, 2.0)) * self._session_s)
            case "ambush":
                # What it was about to write, it writes when others have had its place for long.
                host.way.ambushed = AMBUSHED
                host.way.ambush = partial(self.freeze, host, self.chance.choice((2.5, 5.0, 8.0)))
            case "succeed":
                self.freeze(host, self.chance.choice((0.9, 2.0, 4.0)) * self._session_s)
                delay_s = self.chance.uniform(0.0, 0.5) * self._session_s
                self._world.loop.call_later(delay_s, self._succeed, host, context=OUTSIDE)
            case "cut off":
                self.cut_off(host, self.chance.choice((0.3, 1.0, 3.0, 6.0, 8.0)))
            case "notices":
                self.bus.weather = NoticeWeather.rough(self.chance)
                self._world.history.add("world", f"notices {self.bus.weather}")
            case "deaf":
                if host.current is not None and host.current.notices is not None:
                    self._world.history.add(host.current.name, "hears no notices for a while")
                    self.bus.cut(host.current.notices, self.chance.choice((0.3, 3.0)))
            case "clock":
                host.set_clock(self.chance.choice((-900, -100, 300, 5_000, -20_000, 65_000)))
            case "crash at a step":
                self._world.crash_at_a_step(host, self.chance.randint(1, 60))
            case "flaky":
                self._world.sky.weather = self._flaky()
                self._world.history.add("world", f"weather {self._world.sky.weather}")
            case "retire":
                self._world.retire(host)

    def _flaky(self) -> Weather:
        """Now and then a statement or a COMMIT of somebody goes wrong, and is done again."""
        return Weather(
            statement_fails=self.chance.choice((0.0, 0.02)),
            statement_stalls=self.chance.choice((0.0, 0.01)),
            statement_stall_s=0.3,
            contention=self.chance.choice((0.0, 0.05)),
            commit_fails=self.chance.choice((0.0, 0.05)),
            commit_answer_is_lost=self.chance.choice((0.0, 0.1, 0.4)),
            get_is_cut=self.chance.choice((0.0, 0.2)),
            put_is_ambiguous=self.chance.choice((0.0, 0.2)),
        )

    def _some_host(self) -> Host:
        """Some machine, most often one whose agent coordinates a group."""
        hosts = self._world.hosts
        group_id = self.chance.choice(self._world.groups).group_id
        for host in hosts:
            if host.agent is not None and host.agent.groups.coordinator.coordinates(group_id):
                return host if self.chance.random() < 0.6 else self.chance.choice(hosts)
        return self.chance.choice(hosts)

    async def probe(self) -> None:
        """Ask every agent now and then, whether it takes a member for one: only the coordinator may, and it knows."""
        while not self._is_calm:
            await asyncio.sleep(self.chance.expovariate(1 / 0.7))
            group = self.chance.choice(self._world.groups)
            self._probes += [self._world.spawn(group.probe(host.address)) for host in self._world.hosts]
        await asyncio.gather(*self._probes)

    def freeze(self, host: Host, seconds: float) -> None:
        """Let a machine stand still."""
        host.freeze(self._world.loop, seconds, self.idle_s)

    def cut_off(self, host: Host, seconds: float) -> None:
        """Let a machine reach everything but the metadata store."""
        if not host.way.is_cut:
            self._world.history.add(host.name, f"can't reach the metadata store for {seconds} s")
            host.way.is_cut = True
            host.way.hang_s = self.chance.choice((0.0, 0.1, 3.0, 10.0))
            self._world.loop.call_later(seconds, self._mend, host, context=OUTSIDE)

    def _mend(self, host: Host) -> None:
        host.way.is_cut = False

    def _succeed(self, host: Host) -> None:
        if not self._is_calm:
            host.succeed()

    def calm(self) -> None:
        """Nothing bad happens any more."""
        self._is_calm = True
        self.administrator.calm()
        self.bus.weather = NoticeWeather()
        for host in self._world.hosts:
            host.set_clock(self.chance.randint(-400, 400))
            host.way.is_cut = False
            host.way.ambush = None

    # How it has to end.

    async def settle(self, timeout_s: float) -> None:
        """See all agents know of each other, and have all slots."""
        for what, is_so in (
            ("every agent names all agents", self._is_complete),
            ("every slot has one holder", self._has_all_slots),
            ("every agent names the same coordinators", self._is_agreed),
        ):
            if not await self._within(timeout_s, is_so):
                self._world.history.violate("P6", f"it never came to this: {what}")
        await self.administrator.settle(timeout_s)
        for host in self._world.hosts:
            for elder in host.elders:
                self._world.history.violate("P6", f"{elder.name} goes on though its place was taken")

    async def _within(self, timeout_s: float, is_so: Callable[[], Awaitable[bool]]) -> bool:
        deadline_s = self._world.loop.time() + timeout_s
        while self._world.loop.time() < deadline_s:
            try:
                if await is_so():
                    return True
            except Lost as error:
                self._world.history.add("auditor", f"the cluster: {error}")
            await asyncio.sleep(0.3)
        return False

    async def _is_complete(self) -> bool:
        expected = sorted(host.address for host in self._world.hosts)
        for host in self._world.hosts:
            connection = await Connection.open(self._world.network, host.address, "auditor")
            try:
                response = await connection.ask(requests.metadata(), requests.METADATA_VERSION)
            finally:
                connection.close()
            found = sorted(broker.host for broker in response.brokers)
            if found != expected:
                self._world.history.add("auditor", f"{host.name} names {found}")
                return False
        return True

    async def _has_all_slots(self) -> bool:
        """In the store, and as the agents see it."""
        connection = sqlite3.connect(self._world.database_path)
        try:
            stored = dict(connection.execute(HOLDERS).fetchall())
        finally:
            connection.close()
        held = {
            tenure.lease.name: f"{host.name}:9092"
            for host in self._world.hosts
            if host.agent is not None
            for tenure in host.agent.groups.coordinator._runner.held()
        }
        for name in map(coordinator_lease, range(SLOTS)):
            if name not in stored or held.get(name) != stored[name]:
                found = f"{stored.get(name)} in the store, {held.get(name)} as they say"
                self._world.history.add("auditor", f"{name} is held by {found}")
                return False
        return True

    async def _is_agreed(self) -> bool:
        for group in self._world.groups:
            answers = {await group.coordinator(host.address) for host in self._world.hosts}
            if len(answers) != 1:
                return False
        return True

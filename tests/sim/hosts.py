"""Machines: each runs one agent, and runs it again after it has died.

The machine of an agent that stands still may be given up for lost, and another process started in its place. The one
before wakes up some day, and finds out that its registration was taken.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from tests.sim.database import SimDatabase, Way
from tests.sim.loop import OUTSIDE, Process, SimClock, SimLoop
from warp.agent import Agent
from warp.agent_log import LogLimits
from warp.config import config_of
from warp.errors import StartError
from warp.ids import IdSource
from warp.log.hedge import HedgeLimits
from warp.metadata.store import MetadataStore

if TYPE_CHECKING:
    from tests.sim.notices import SimNotices
    from tests.sim.world import World

HEDGES = HedgeLimits(
    delay_ratio=1.1,
    delay_min_s=0.005,
    delay_unknown_s=0.05,
    samples_min=8,
    extra_ratio=0.2,
    burst_requests=10.0,
)
"""Lives are short here, and chances few: so requests count as slow soon, and many may be sent twice."""
START_AGAIN_S = 0.2


class MachineClock(SimClock):
    """A machine's clock: its wall time may be wrong."""

    skew_ms = 0

    def time_ms(self) -> int:
        """What the machine takes for wall time."""
        return super().time_ms() + self.skew_ms


class Life:
    """One process of an agent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = Process(name)
        self.database: SimDatabase | None = None
        self.notices: SimNotices | None = None
        self.agent: Agent | None = None
        """Once it serves, as long as it lives."""
        self.must_end: str | None = None
        """Why, if the agent has said that it must."""


class Host:
    """A machine that runs one agent at a time, or thinks so."""

    def __init__(self, world: World, number: int) -> None:
        self.name = f"agent-{number}"
        self.address = self.name
        self.lives = 0
        self.current: Life | None = None
        self.elders: list[Life] = []
        """Processes that stood still when another was started in their place."""
        self.booting: asyncio.Task[None] | None = None
        self.clock = MachineClock(world.loop)
        self.way = Way()
        self._world = world
        self.ids = IdSource(self.clock, world.ids.random_bytes)
        self._config = world.config
        if world.cluster is not None:
            advertised = config_of(
                listen="127.0.0.1:9092", http="off", advertise=f"{self.name}:9092"
            ).advertise
            self._config = dataclasses.replace(world.config, advertise=advertised)

    @property
    def process(self) -> Process | None:
        """Its present life's."""
        return None if self.current is None else self.current.process

    @property
    def agent(self) -> Agent | None:
        """The agent that serves here."""
        return None if self.current is None else self.current.agent

    @property
    def is_alive(self) -> bool:
        """A process runs here, perhaps a frozen one."""
        return self.current is not None and self.current.process.is_alive

    def set_clock(self, skew_ms: int) -> None:
        """Put its wall clock wrong."""
        self.clock.skew_ms = skew_ms
        self._world.skews_ms.append(skew_ms)
        self._world.history.add(self.name, f"has a clock that is {skew_ms} ms ahead")

    def boot(self) -> Life:
        """Start an agent on the stores as they are."""
        self.lives += 1
        life = self.current = Life(f"{self.name}.{self.lives}")
        self.booting = self._world.loop.start(life.process, self._serve(life))
        return life

    async def serves(self) -> Agent:
        """Boot, and wait until the agent serves."""
        self.boot()
        assert self.booting is not None
        await self.booting
        assert self.agent is not None
        return self.agent

    def succeed(self) -> None:
        """Start another process in the place of one that stands still."""
        life = self.current
        if life is not None and life.process.is_frozen and life.process.is_alive and not self.elders:
            self.elders.append(life)
            self._world.history.add(self.boot().name, f"is started in the place of {life.name}")

    def crash(self) -> None:
        """The agent dies where it stands; what it held in memory is gone."""
        if self.current is not None:
            self.kill(self.current)

    def kill(self, life: Life) -> None:
        """A process dies where it stands."""
        if not life.process.is_alive:
            return
        self._world.history.add(life.name, "dies")
        self._world.judge_hedges(life)
        life.process.is_alive = False
        self._world.network.stop_listening(self.address, life.process)
        self._world.network.process_died(life.process)
        if life.database is not None:
            life.database.die()
        life.agent = None
        if life in self.elders:
            self.elders.remove(life)

    async def _serve(self, life: Life) -> None:
        world = self._world
        while True:
            agent = self._make(life)
            try:
                await agent.start(listen=False)
                break
            except Exception as error:  # noqa: BLE001  the same as a program that exits with 1 and is run again
                if not isinstance(error, StartError):
                    world.history.add(life.name, f"did not start: {type(error).__name__}: {error}")
                await asyncio.sleep(START_AGAIN_S)
                if self._gives_way(life, error):
                    return
        life.agent = agent
        if life.must_end is not None:
            self._end(life)
            return
        world.history.add(life.name, "serves")
        world.network.listen(self.address, life.process, agent.server.connect)

    def _make(self, life: Life) -> Agent:
        world = self._world
        if world.cluster is not None:
            life.notices = world.cluster.bus.join(life.process)
        life.database = SimDatabase(
            world.database_path,
            world.sky,
            world.clock if world.cluster is not None else self.clock,
            life.process,
            world.check_commit,
            world.store_of,
            way=self.way,
            is_shared=world.cluster is not None,
            notices=life.notices,
        )
        return Agent(
            self._config,
            clock=self.clock,
            ids=self.ids,
            object_store=world.objects,
            metadata=MetadataStore(life.database, self.clock, self.ids),
            name=self.name if world.cluster is None else None,
            log_limits=LogLimits(hedge=HEDGES, chunk_bytes=world.chunk_bytes),
            lifecycle_limits=world.jobs.limits,
            ended=lambda reason: self._told_to_end(life, reason),
        )

    def _gives_way(self, life: Life, error: Exception) -> bool:
        """Has a process that was to start found that another one of this machine lives? Then it starts no more."""
        if life is not self.current:
            self.kill(life)
            return True
        if not (isinstance(error, StartError) and "another agent that lives" in str(error)):
            return False
        for elder in self.elders:
            if elder.must_end is None:
                self._world.history.add(elder.name, "goes on")
                self.elders.remove(elder)
                self.current = elder
                self.kill(life)
                return True
        return False

    def _told_to_end(self, life: Life, reason: str) -> None:
        """The agent has said that it must not go on: its process exits."""
        self._world.history.add(life.name, f"must end: {reason}")
        life.must_end = reason
        if life is self.current:
            self._world.history.violate("P6", f"{life.name} had to end, and nobody took its place: {reason}")
        if life.agent is not None:
            self._end(life)

    def _end(self, life: Life) -> None:
        self._world.spawn_in(life.process, self._close(life))

    async def _close(self, life: Life) -> None:
        assert life.agent is not None
        await life.agent.close()
        # Not from within, or the end of the process would be the end of this.
        self._world.loop.call_soon(self._closed, life, context=OUTSIDE)

    def _closed(self, life: Life) -> None:
        self.kill(life)
        if life is self.current:
            self.boot()

    def freeze(self, loop: SimLoop, seconds: float, idle_s: float | None) -> None:
        """Stand still; where `idle_s` says so, the database does not wait for longer than that in transactions."""
        life = self.current
        if life is None or not life.process.is_alive or life.process.is_frozen:
            return
        self._world.history.add(life.name, f"stands still for {seconds} s")
        loop.freeze(life.process, seconds)
        if idle_s is not None:
            loop.call_later(idle_s, self._break_off, life, idle_s, context=OUTSIDE)

    def _break_off(self, life: Life, idle_s: float) -> None:
        if life.process.is_frozen and life.process.is_alive and life.database is not None:
            life.database.break_off()
            self._world.loop.call_later(idle_s, self._break_off, life, idle_s, context=OUTSIDE)

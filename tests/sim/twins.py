"""Jobs at an agent that wrongly believes it holds their leases, beside those of the agent that does.

So it is for a while when a machine stood still and another took its jobs over. Leases only save work: two who merge,
compact and delete the same things at once have to leave everything as it should be.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.sim.hosts import Host
from warp.agent import Agent
from warp.agent_lifecycle import AgentLifecycle
from warp.cluster.jobs import Job, job_lease
from warp.errors import MetadataError, ObjectStoreError
from warp.metadata.group_model import Lease

if TYPE_CHECKING:
    from tests.sim.world import World

PAUSE_S = 3.0
WORK_S = (1.0, 4.0)
INTERVAL_S_MAX = 1.0


class Twins:
    """Lets such agents work now and then."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.passes = 0
        self._world = world
        self._chance = chance
        self._is_calm = False

    def calm(self) -> None:
        """No more of them."""
        self._is_calm = True

    async def run(self) -> None:
        """Until all is well."""
        while not self._is_calm:
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_S))
            host = self._world.any_host()
            life, agent = host.current, host.agent
            if life is None or agent is None or not life.process.is_alive:
                continue
            self._world.history.add(life.name, "does the jobs of others as well")
            lifecycle = self._twin_of(host, agent)
            ends_s = self._world.loop.time() + self._chance.choice(WORK_S)
            for job in lifecycle.jobs:
                _ = self._world.loop.start(life.process, self._work(job, ends_s, life.name))

    def _twin_of(self, host: Host, agent: Agent) -> AgentLifecycle:
        """Other jobs of the same agent, over the same stores."""
        return AgentLifecycle(
            agent.config,
            agent._metadata,
            self._world.objects,
            agent.clock,
            host.ids,
            agent.catalogue,
            agent.cluster,
            lambda log_id, offset: None,
            lambda: agent.log.flusher.committed_bytes,
            has_conditional_puts=True,
            limits=self._world.jobs.limits,
        )

    async def _work(self, job: Job, ends_s: float, name: str) -> None:
        while self._world.loop.time() < ends_s and not self._is_calm:
            await asyncio.sleep(min(job.interval_s, INTERVAL_S_MAX))
            lease = self._lease_of(job.name)
            if lease is None:
                continue
            try:
                await job.run(lease)
                self.passes += 1
            except (MetadataError, ObjectStoreError) as error:
                self._world.history.add(name, f"job {job.name}, done twice, was cut short: {error}")
            except Exception as error:  # noqa: BLE001  whatever it is, it is a bug
                self._world.history.violate("P7", f"{name}: job {job.name}, done twice: {error!r}")

    def _lease_of(self, name: str) -> Lease | None:
        """As its holder has it."""
        for host in self._world.hosts:
            runner = None if host.agent is None else host.agent.cluster.jobs
            for lease in () if runner is None else runner.held:
                if lease.name == job_lease(name):
                    return lease
        return None

"""Somebody who changes entries of the catalogue, through one agent after another, and sees whether all agents know."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tests.sim.hosts import Host
from tests.sim.notices import NoticeWeather
from warp.errors import MetadataError
from warp.metadata.entries import EntryChange, EntryKind

if TYPE_CHECKING:
    from tests.sim.world import World

PAUSE_S = 0.5
"""Between two changes while things happen to the agents."""
KNOWN_S = 1.0
"""After so long a change is in force at every agent."""
COUNT = "count"
KIND = EntryKind.ACL
"""Nobody lives by them here: the agents have no authorization."""
STORED = "select key, value from catalogue_entries where kind = 'acl' and value is not null"


class Administrator:
    """Every change raises a count by one, sets an entry of its own, and deletes that of the one before if it is there.

    So an update that is lost shows in the count, and what was acknowledged shows in the entries.
    """

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._changes = 0
        self._acknowledged: list[int] = []
        self._is_calm = False

    async def run(self) -> None:
        """Change something now and then, at two agents at once, until all is well."""
        while not self._is_calm:
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_S))
            for host in self._chance.sample(self._world.hosts, 2):
                self._change(host)

    def calm(self) -> None:
        """All is well."""
        self._is_calm = True

    async def settle(self, timeout_s: float) -> None:
        """See that a change is known everywhere a second after, with notices and without, and that none was lost."""
        assert self._world.cluster is not None
        if not await self._within(timeout_s):
            self._world.history.violate("P10", "it never came to this: every agent knows all entries")
            return
        for weather in (NoticeWeather(lost=1.0), NoticeWeather(), NoticeWeather(publish_fails=1.0)):
            self._world.cluster.bus.weather = weather
            await asyncio.sleep(self._chance.random())
            task = self._change(self._chance.choice(self._world.hosts))
            if task is None:
                self._world.history.violate("P6", "an agent takes no changes of entries")
                return
            await asyncio.wait([task], timeout=timeout_s)
            if not task.done() or not task.result():
                self._world.history.violate("P6", "entries could not be changed in fine weather")
                return
            await asyncio.sleep(KNOWN_S)
            self._compare()
        self._world.cluster.bus.weather = NoticeWeather()

    async def _within(self, timeout_s: float) -> bool:
        """Will every agent know all entries, once the last question has ended that hung when the store was away?"""
        deadline_s = self._world.loop.time() + timeout_s
        while self._world.loop.time() < deadline_s:
            stored = self._stored()
            agents = [host.agent for host in self._world.hosts]
            if all(agent is not None and agent.catalogue.entries(KIND) == stored for agent in agents):
                return True
            await asyncio.sleep(0.3)
        return False

    def _compare(self) -> None:
        stored = self._stored()
        for host in self._world.hosts:
            assert host.agent is not None
            known = dict(host.agent.catalogue.entries(KIND))
            if known != stored:
                self._world.history.violate("P10", f"{host.name} knows {known}, and it is {stored}")
        if int(stored[COUNT]) < len(self._acknowledged):
            count = len(self._acknowledged)
            self._world.history.violate(
                "P10", f"{count} changes were acknowledged, {stored[COUNT]} are there"
            )
        last = self._acknowledged[-1]
        if str(last) not in stored:
            self._world.history.violate("P10", f"change {last} was acknowledged and is not there: {stored}")

    def _stored(self) -> dict[str, str]:
        connection = sqlite3.connect(self._world.database_path)
        try:
            return dict(connection.execute(STORED).fetchall())
        finally:
            connection.close()

    def _change(self, host: Host) -> asyncio.Task[bool] | None:
        """Let an agent that serves begin a change."""
        life = host.current
        if life is None or life.agent is None or not life.process.is_alive:
            return None
        self._changes += 1
        number = self._changes
        catalogue = life.agent.catalogue

        async def change() -> bool:
            try:
                await catalogue.change_entries(KIND, partial(_decide, number))
            except MetadataError as error:
                self._world.history.add("root", f"change {number} at {host.name}: {error}")
                return False
            self._acknowledged.append(number)
            self._world.history.add("root", f"change {number} at {host.name} is done")
            return True

        return self._world.loop.start(life.process, change())


def _decide(number: int, entries: Mapping[str, str]) -> Sequence[EntryChange]:
    count = int(entries.get(COUNT, "0")) + 1
    return [EntryChange(COUNT, str(count)), EntryChange(str(number), ""), EntryChange(str(number - 1), None)]

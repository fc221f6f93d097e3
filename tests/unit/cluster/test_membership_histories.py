"""Members of a cluster through whatever happens to them: nobody is taken for gone who holds to its own session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.unit.cluster.membership_support import LIMITS, Member, Rig, in_virtual_time
from warp.errors import MetadataUnavailable, StartError
from warp.metadata.cluster_model import ClusterView

NAMES = tuple(f"agent-{number}.example:9092" for number in range(4))
HISTORY_S = 60.0
CALM_S = 3 * LIMITS.timeout_s


class Watcher(Member):
    """A member that notes who was certain of its session when it asked, and whom it has then taken for gone."""

    def __init__(self, town: Town, name: str, incarnation: str) -> None:
        super().__init__(town.rig, name, incarnation)
        self.town = town
        self.name = name
        self.certain: set[str] = set()
        self.before: set[str] = set()
        self.last_answer_s = 0.0
        asking = self.store.beat

        async def beat(*arguments: object) -> object:
            self.certain = {member.process.name for member in town.members if member.is_certain()}
            return await asking(*arguments)  # type: ignore[arg-type]

        self.store.beat = beat  # type: ignore[assignment,method-assign]
        self.membership.subscribe(self._seen)

    def is_certain(self) -> bool:
        """Does its own session last, as it would say itself at this moment, and has it not said goodbye?"""
        return self.process.is_alive and not self.is_ending and self.is_live()

    is_ending = False

    def _seen(self, view: ClusterView) -> None:
        now = {agent.incarnation for agent in view.agents.values()}
        wronged = (self.before - now) & self.certain
        # Who said goodbye while the answer was on its way was certain when it was asked for.
        wronged -= {member.process.name for member in self.town.members if member.is_ending}
        self.town.wronged += [(self.process.name, other) for other in sorted(wronged)]
        self.before = now


class Town:
    """Agents, each run again after it has ended, and what befalls them."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self.rig = rig
        self.chance = chance
        self.members: list[Watcher] = []
        self.wronged: list[tuple[str, str]] = []
        self.running: dict[str, Watcher] = {}
        self._lives = 0

    async def begin(self, name: str) -> None:
        """Start a process, again and again until it has the registration."""
        while True:
            self._lives += 1
            member = Watcher(self, name, f"life-{self._lives}")
            try:
                await member.serve()
            except StartError:
                await asyncio.sleep(1)
                continue
            self.members.append(member)
            self.running[name] = member
            return

    async def history(self) -> None:
        """All kinds of trouble, one after another and several at once."""
        troubles = [
            self._kill,
            self._restart,
            self._freeze,
            self._cut_off,
            self._slow_down,
            self._cut_all_off,
        ]
        under_way = []
        until_s = self.rig.loop.time() + HISTORY_S
        while self.rig.loop.time() < until_s:
            await asyncio.sleep(self.chance.uniform(0.1, 1.2))
            trouble = self.chance.choice(troubles)
            under_way.append(asyncio.ensure_future(trouble(self.chance.choice(NAMES))))
        await asyncio.gather(*under_way)

    def _at(self, name: str) -> Iterator[Watcher]:
        """The process that runs there, if one does."""
        member = self.running.get(name)
        if member is not None:
            yield member

    async def _kill(self, name: str) -> None:
        for member in self._at(name):
            del self.running[name]
            member.kill()
            await asyncio.sleep(self.chance.uniform(0, 4))
            await self.begin(name)

    async def _restart(self, name: str) -> None:
        for member in self._at(name):
            if member.process.is_frozen:
                return
            del self.running[name]
            member.is_ending = True
            await member.run(member.membership.leave())
            await member.run(member.membership.close())
            await self.begin(name)

    async def _freeze(self, name: str) -> None:
        for member in self._at(name):
            if not member.process.is_frozen:
                seconds = self.chance.uniform(0.1, 8)
                self.rig.loop.freeze(member.process, seconds)
                await asyncio.sleep(seconds + 0.01)

    async def _cut_off(self, name: str) -> None:
        for member in self._at(name):
            member.store.fault = MetadataUnavailable("connection refused")
            await asyncio.sleep(self.chance.uniform(0.1, 6))
            member.store.fault = None

    async def _slow_down(self, name: str) -> None:
        for member in self._at(name):
            member.store.delay_s = self.chance.uniform(0, 2.5)
            member.store.answer_delay_s = self.chance.uniform(0, 2.5)
            await asyncio.sleep(self.chance.uniform(0.1, 8))
            member.store.delay_s = member.store.answer_delay_s = 0.0

    async def _cut_all_off(self, name: str) -> None:
        await asyncio.gather(*(self._cut_off(other) for other in NAMES))


@pytest.mark.parametrize("seed", range(25))
def test_whoever_holds_to_its_session_is_taken_for_gone_by_nobody_and_in_the_end_all_know_all(
    seed: int,
) -> None:
    async def main(rig: Rig) -> None:
        town = Town(rig, random.Random(seed))
        await asyncio.gather(*(town.begin(name) for name in NAMES))
        await asyncio.sleep(2 * LIMITS.beat_s)
        await town.history()
        assert town.wronged == []
        await asyncio.sleep(CALM_S)
        assert town.wronged == []
        living = [town.running[name] for name in NAMES]
        broker_ids = sorted(member.own for member in living)
        assert broker_ids == [1, 2, 3, 4], "an agent keeps its broker id"
        for member in living:
            assert member.is_live()
            assert member.stops == []
            assert list(member.membership.view.agents) == broker_ids
            assert not any(agent.is_leaving for agent in member.membership.view.agents.values())
            assert member.store.running_max == 1
        assert {agent.incarnation for agent in living[0].membership.view.agents.values()} == {
            member.process.name for member in living
        }

    in_virtual_time(main)

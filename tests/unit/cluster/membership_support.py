"""Members of one cluster in virtual time, each with a clock and a way to the database that tests can trouble."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.sim.loop import Process, SimClock, SimLoop
from tests.support.log import run_sim
from warp.cluster.membership import BeatOutcome, Membership, MembershipLimits
from warp.ids import BrokerId, IdSource
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState, ClusterRows, ClusterView
from warp.metadata.session import parse_statements
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

T = TypeVar("T")
LIMITS = MembershipLimits()
LAPSE_S = LIMITS.timeout_s - LIMITS.margin_s


class MachineClock(SimClock):
    """The clock of one machine, which sleeps and is set as a test wants it."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__(loop)
        self.skew_ms = 0
        self.slept_s = 0.0

    def time_ms(self) -> int:
        return super().time_ms() + self.skew_ms

    def boottime(self) -> float:
        return super().boottime() + self.slept_s


class TroubledStore:
    """One agent's way to the metadata store, which fails and waits as it is told."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.fault: Exception | None = None
        """Raised by every request while it is set, in place of the request."""
        self.late_faults: list[BaseException] = []
        """Raised by the next requests after they have been done."""
        self.delay_s = 0.0
        """Before a request is done."""
        self.answer_delay_s = 0.0
        """After it has been done."""
        self.beats_begun_s: list[float] = []
        self.running = 0
        self.running_max = 0
        self.altered: Callable[[ClusterRows], ClusterRows] = lambda rows: rows
        self.is_committed_answer = True
        self.keys_asked: list[str] = []

    async def _through(self, request: Callable[[], Awaitable[T]]) -> T:
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await asyncio.sleep(self.delay_s)
            if self.fault is not None:
                raise self.fault
            answer = await request()
            await asyncio.sleep(self.answer_delay_s)
            if self.late_faults:
                raise self.late_faults.pop(0)
            return answer
        finally:
            self.running -= 1

    async def register_agent(self, name: str) -> BrokerId:
        return await self._through(lambda: self.store.register_agent(name))

    async def find_agent(self, name: str) -> AgentRow | None:
        return await self._through(lambda: self.store.find_agent(name))

    async def join_agent(
        self, name: str, incarnation: str, facts: AgentFacts, seen: AgentRow | None
    ) -> BrokerId | None:
        return await self._through(lambda: self.store.join_agent(name, incarnation, facts, seen))

    async def beat(
        self, broker_id: BrokerId, incarnation: str, state: AgentState, facts: AgentFacts, now_ms: int
    ) -> ClusterRows:
        self.beats_begun_s.append(asyncio.get_running_loop().time())
        rows = await self._through(
            lambda: self.store.beat(broker_id, incarnation, state, facts, now_ms),
        )
        return self.altered(rows)

    async def forget_agents(self, seen: Sequence[AgentRow]) -> list[BrokerId]:
        return await self._through(lambda: self.store.forget_agents(seen))

    async def is_committed(self, key: str) -> bool:
        self.keys_asked.append(key)

        async def answer() -> bool:
            return self.is_committed_answer

        return await self._through(answer)


class Member:
    """One process of an agent, and what it was told."""

    def __init__(self, rig: Rig, name: str, incarnation: str, *, is_shared: bool = True) -> None:
        self.rig = rig
        self.clock = MachineClock(rig.loop)
        self.store = TroubledStore(rig.store)
        self.process = Process(incarnation)
        self.facts = AgentFacts(endpoints=(name,), zone="z1", started_ms=self.clock.time_ms())
        self.stops: list[str] = []
        self.views: list[ClusterView] = []
        self.outcomes: list[BeatOutcome] = []
        self.was_live: list[bool] = []
        """At each outcome of a beat."""
        self.last_commit: str | None = None
        self.membership = Membership(
            self.store,
            self.clock,
            name=name,
            incarnation=incarnation,
            facts=lambda: self.facts,
            limits=LIMITS,
            is_shared=is_shared,
            stop=self.stops.append,
            last_commit=lambda: self.last_commit,
            beaten=self._beaten,
        )
        self.membership.subscribe(self.views.append)

    @property
    def others(self) -> list[BrokerId]:
        """Those that live, as this one sees it."""
        view = self.membership.view
        return [broker_id for broker_id in view.agents if broker_id != view.own]

    @property
    def own(self) -> BrokerId:
        return self.membership.view.own

    def is_live(self) -> bool:
        return self.membership.is_live

    def is_trusted(self) -> bool:
        return self.membership.is_clock_trusted

    def run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something in the member's process."""
        return self.rig.loop.start(self.process, coroutine)

    def _beaten(self, outcome: BeatOutcome) -> None:
        self.outcomes.append(outcome)
        self.was_live.append(self.membership.is_live)

    async def join(self) -> Member:
        await self.run(self.membership.join())
        return self

    async def serve(self) -> Member:
        await self.join()
        self.process.context.run(self.membership.start)
        return self

    def kill(self) -> None:
        self.process.is_alive = False


class Rig:
    """A database, and the agents on it."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.clock = SimClock(loop)
        self.database = SqliteDatabase(":memory:", now_ms=self.clock.time_ms, is_shared=True)
        self.store = MetadataStore(
            self.database, self.clock, IdSource(self.clock, random.Random(1).randbytes)
        )
        self._incarnations = 0

    def member(self, name: str, *, is_shared: bool = True) -> Member:
        self._incarnations += 1
        return Member(self, name, f"incarnation-{self._incarnations}", is_shared=is_shared)

    async def serving(self, *names: str) -> list[Member]:
        """Members that serve and know each other; all have just beaten, and will again in nearly a beat's time."""
        members = [await self.member(name).serve() for name in names]
        await asyncio.sleep(3 * LIMITS.beat_s + 0.1)
        return members

    async def row(self, name: str) -> AgentRow:
        row = await self.store.find_agent(name)
        assert row is not None
        return row

    async def write(self, sql: str) -> None:
        """Change the database behind everybody's back."""
        [statement] = parse_statements(f"-- name: raw\n{sql}").values()
        await self.database.execute(statement)


def in_virtual_time(main: Callable[[Rig], Awaitable[T]]) -> T:
    """Run a test with a rig; what its members leave running ends with it."""

    async def whole(loop: SimLoop) -> T:
        rig = Rig(loop)
        await rig.store.open()
        try:
            return await main(rig)
        finally:
            await rig.store.close()

    return run_sim(whole)


@contextmanager
def lines(caplog: Any, *words: str) -> Iterator[list[str]]:
    """The log lines within the block that hold one of the words, there once it is left."""
    found: list[str] = []
    begin = len(caplog.records)
    yield found
    texts = (record.getMessage() for record in caplog.records[begin:])
    found.extend(text for text in texts if any(word in text for word in words))

"""One simulation: agents, stores, clients, faults, and the verdict."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import random
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.sim import cluster, requests
from tests.sim.bugs import BugWatch, failure_of
from tests.sim.client import Connection, Lost
from tests.sim.cluster import Cluster, has_cluster
from tests.sim.database import Store
from tests.sim.facts import Batch, Facts, Partition
from tests.sim.faults import SimObjectStore, Sky, Weather
from tests.sim.groups import Group, groups_of
from tests.sim.guard import Guard, is_guarded
from tests.sim.guests import PLACE, Guests
from tests.sim.history import History
from tests.sim.hosts import HEDGES, Host, Life
from tests.sim.jobs import Jobs
from tests.sim.life import DataLife, has_life
from tests.sim.loop import OUTSIDE, Process, SimClock, SimLoop
from tests.sim.network import Network
from tests.sim.outcome import Outcome, outcome_of
from tests.sim.producers import IdempotentProducer, PairProducer
from tests.sim.readers import Consumer, doubt
from tests.sim.rows import RowServer
from tests.sim.turns import EmbeddedStore, WriteTurn
from tests.sim.verifying import Verifying
from warp.agent import Agent
from warp.config import AgentConfig, config_of
from warp.errors import ErrorCode
from warp.ids import IdSource
from warp.metadata.sqlite import SqliteDatabase

TOPICS = {"apples": 2, "pears": 1, "left": 1, "right": 1}
SHARED = [Partition("apples", 0), Partition("apples", 1), Partition("pears", 0)]
PAIR = (Partition("left", 0), Partition("right", 0))
PAIR_ENDS = """
    select l.next_offset from logs l join topics t on t.topic_id = l.topic_id where t.name in ('left', 'right')
"""
MISFORTUNES = (
    *("crash", "crash soon", "crash at a step", "weather", "weather", "fine", "cut", "network", "freeze"),
    "clock",
)
SKEWS_MS = (-20_000, -900, -100, 300, 5_000, 65_000)
LOAD_S = 10.0
PAUSE_S = 0.7
SETTLE_S = 120.0
"""How long producers may take, once all is well again, until everything is acknowledged."""


class World:
    """Everything that one seed decides."""

    def __init__(self, seed: int, directory: Path, settle_s: float) -> None:
        self.seed = seed
        self._settle_s = settle_s
        self.chance = random.Random(seed)
        self.loop = SimLoop(random.Random(self.chance.random()))
        self.clock = SimClock(self.loop)
        self.history = History(self.loop.time)
        self.verifying = Verifying(self)
        self.facts = Facts(self.verifying.recorder)
        self.network = Network(self.loop, random.Random(self.chance.random()))
        self.sky = Sky(self.loop, random.Random(self.chance.random()))
        self.turn = WriteTurn()
        self.database_path = directory / f"metadata-{seed}.sqlite"
        self.rows = RowServer(self.database_path, self.loop, self.clock.time_ms)
        self.objects = SimObjectStore(self.sky, self.clock, requests_are_free=self.chance.random() < 0.5)
        self.ids = IdSource(self.clock, random.Random(self.chance.random()).randbytes)
        self.cluster = Cluster(self) if has_cluster(seed) else None
        self.guard = Guard(self) if is_guarded(seed) else None
        self.jobs = Jobs(self)
        self.objects.deleting = self.jobs.check_deletion
        self.chunk_bytes: int | None = None
        """Of agents' caches; None: as they make them."""
        self.config = self.jobs.configured(self._config())
        self.groups: list[Group] = groups_of(self, [*SHARED, *PAIR])
        agents = self.chance.choice((1, 1, 2))
        if self.guard is not None:
            # Agents that don't know of each other tell each other nothing.
            agents = 1
        agents = agents if self.cluster is None else self.cluster.size
        self.hosts = [Host(self, number) for number in range(agents)]
        self.skews_ms = [0]
        """By how much wall clocks were ahead."""
        self.guests = None if self.guard is None else Guests(self, self.guard)
        self.life = DataLife(self) if has_life(seed) else None
        self.places = [*SHARED, *PAIR] if self.guard is None else [*SHARED, *PAIR, PLACE]
        """All partitions that there are."""
        self.crashes = 0
        self.hedges = 0
        self.hedges_won = 0
        self.held_back = self.evictions = self.without_memory = 0
        self._is_stormy = False
        self._doubts: list[asyncio.Task[None]] = []
        self._retired: list[Process] = []
        self._retiring: list[asyncio.Task[None]] = []

    def _config(self) -> AgentConfig:
        """Small bounds, below what users may set, so that they are reached."""
        guarded = {} if self.guard is None else self.guard.options()
        return dataclasses.replace(
            config_of(**{"listen": "127.0.0.1:9092", "http": "off", **guarded}),
            sasl_session_max_ms=0 if self.guard is None else self.guard.session_ms,
            flush_interval_ms=self.chance.choice((1, 50, 250)),
            flush_bytes_max=self.chance.choice((300, 2_000, 8_000_000)),
            flush_uploads_max=self.chance.choice((1, 2, 4)),
            request_memory_bytes_max=self.chance.choice((400_000, 200_000_000)),
            fetch_memory_bytes_max=self.chance.choice((3_000, 20_000, 20_000, 100_000_000, 100_000_000)),
            cache_bytes_max=self._cache_bytes(),
            group_session_min_ms=1_000,
            group_rebalance_delay_ms=200,
            agent_timeout_ms=2_000 if self.cluster is None else self.cluster.agent_timeout_ms,
        )

    def _cache_bytes(self) -> int:
        """At times too small for what is read at once, with chunks that do not hold a batch."""
        self.chunk_bytes = self.chance.choice((None, None, 3_000, 16_000))
        if self.chunk_bytes is None:
            return self.chance.choice((4 * 2**20, 64 * 2**20))
        return self.chunk_bytes * self.chance.choice((1, 3, 12))

    @property
    def all_places(self) -> list[Partition]:
        """Also those of topics whose records go."""
        return self.places if self.life is None else [*self.places, *self.life.places]

    @property
    def clock_spread_ms(self) -> int:
        """How far wall clocks have been apart."""
        return max(self.skews_ms) - min(self.skews_ms)

    def any_host(self) -> Host:
        """Some agent, alive or not."""
        return self.chance.choice(self.hosts)

    def any_address(self) -> str:
        """Where some agent listens, if it lives."""
        return self.any_host().address

    def store_of(self, database: SqliteDatabase) -> Store:
        """Where an agent writes to, whose own connection this is."""
        return EmbeddedStore(database, self.turn) if self.cluster is None else self.rows

    def connect(self) -> sqlite3.Connection:
        """To the database, without faults, beside the agents."""
        return sqlite3.connect(self.database_path)

    def acknowledged(self, batch: Batch) -> None:
        """Some acknowledgements are put in doubt at once."""
        if self.chance.random() < (0.2 if self.cluster is None else 0.4):
            self._doubts.append(self.loop.create_task(doubt(self, batch)))

    def check_commit(self, connection: sqlite3.Connection) -> None:
        """After each commit: what stands in the database now has to be right."""
        self._check_pair(connection)
        self.jobs.check_commit(connection)
        if self.life is not None:
            self.life.see(connection)
        for group in self.groups:
            group.facts.see_stored(connection)

    def _check_pair(self, connection: sqlite3.Connection) -> None:
        """What is written to both of a pair of partitions has made both equally long (P2)."""
        ends = [end for (end,) in connection.execute(PAIR_ENDS)]
        if len(ends) == len(PAIR) and ends[0] != ends[1]:
            self.history.violate("P2", f"a commit left the pair of partitions ending at {ends}")

    async def run(self) -> None:
        """Live, suffer, recover, and be judged."""
        for host in self.hosts:
            await host.serves()
        await self.create_topics()
        producers = [
            IdempotentProducer(self, f"producer-{number}", SHARED)
            for number in range(self.chance.randint(1, 3))
        ]
        others = [PairProducer(self, f"pairs-{number}", *PAIR) for number in range(2)]
        consumers = [Consumer(self, f"consumer-{number}", [*SHARED, *PAIR]) for number in range(2)]
        clients: list[IdempotentProducer | PairProducer | Consumer] = [*producers, *others, *consumers]
        tasks = [self.spawn(client.run()) for client in clients]
        beside = [task for group in self.groups for task in group.start()]
        if self.cluster is not None:
            beside += [self.spawn(self.cluster.probe()), self.spawn(self.cluster.administrator.run())]
        if self.guests is not None:
            beside += self.guests.start()
        if self.life is not None:
            await self.life.start()
        await self._storm()
        self.history.add("world", "all is well again")
        for group in self.groups:
            group.calm()
        if self.guests is not None:
            self.guests.calm()
        if self.life is not None:
            self.life.calm()
        for client in clients:
            client.is_stopping = True
        _, late = await asyncio.wait(tasks, timeout=self._settle_s)
        if late:
            for place in self.loop.waiting_places():
                self.history.add("waits", place)
            self.history.violate(
                "P6", f"{len(late)} clients did not finish after {self._settle_s} s of fine weather"
            )
        if self._doubts:
            await asyncio.wait(self._doubts)
        await self._see_retired_go()
        for group in self.groups:
            await group.settle(self._settle_s)
        if beside:
            await asyncio.wait(beside)
        for task in (*tasks, *beside, *self._doubts, *self._retiring):
            if task.done() and (failure := failure_of(task)) is not None:
                self.history.violate("P7", f"a client failed: {failure!r}")
        for host in self.hosts:
            assert host.booting is not None
            await host.booting
        if self.cluster is not None:
            await self.cluster.settle(self._settle_s)
        if self.guests is not None:
            await self.guests.settle()
        if self.life is not None:
            await self.life.settle(self._settle_s)
        for host in self.hosts:
            await self.verifying.read_back(host.name, host.address)
        for host in self.hosts:
            life, agent = host.current, host.agent
            assert life is not None
            assert agent is not None, f"{life.name} does not serve"
            if agent.server.handler_bugs:
                self.history.violate("P7", f"{life.name} had {agent.server.handler_bugs} bugs")
            if not await agent.stop(30.0):
                self.history.violate("P6", f"{life.name} did not drain")
            self._check_memory(agent, life.name)
            self.judge_hedges(life)
            life.agent = None
            host.crash()
        await self.jobs.finish()
        for key in self.objects.keys_used_twice:
            self.history.violate("P1", f"two PUTs had the key {key}")

    def judge_hedges(self, life: Life) -> None:
        """At the end of an agent: what it sent twice, and whether that was within its budget."""
        if life.agent is None:
            return
        self.jobs.count(life.agent)
        self.held_back += life.agent.lifecycle.hold_back.times
        self.evictions += life.agent.log.cache.evictions
        self.without_memory += life.agent.log.fetch.counters.answers_without_memory
        for hedges in (life.agent.log.flusher.put_hedges, life.agent.log.cache.hedges):
            if hedges is not None:
                self.hedges += hedges.started
                self.hedges_won += hedges.won
                if hedges.started > HEDGES.extra_ratio * hedges.requests + HEDGES.burst_requests:
                    self.history.violate(
                        "P8", f"{life.name} sent {hedges.started} of {hedges.requests} requests a second time"
                    )

    def _check_memory(self, agent: Agent, name: str) -> None:
        """Nothing is held by an agent that has nothing to do."""
        log = agent.log
        held = {
            "requests": log.request_memory.used_bytes,
            "answers": log.fetch_memory.used_bytes,
            "the cache": log.cache.held_bytes,
        }
        for what, size_bytes in held.items():
            if size_bytes:
                self.history.violate("P8", f"{name} still holds {size_bytes} bytes of {what}")

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A client, in a context of its own."""
        return self.loop.create_task(coroutine, context=contextvars.Context())

    def spawn_in(self, process: Process, coroutine: Coroutine[Any, Any, None]) -> None:
        """Something that a process does at its end; that it fails is seen in the end."""
        self._retiring.append(self.loop.start(process, coroutine))

    async def create_topics(self) -> None:
        """By some agent."""
        if self.guard is not None:
            await self.guard.prepare()
        topics = TOPICS if self.guard is None else {**TOPICS, PLACE.topic: 1}
        for _ in range(100):
            try:
                connection = await Connection.open(self.network, self.any_address(), "admin")
                response = await connection.ask(
                    requests.create_topics(topics), requests.CREATE_TOPICS_VERSION
                )
                connection.close()
            except Lost:
                await asyncio.sleep(0.1)
                continue
            codes = {topic.name: ErrorCode(topic.error_code) for topic in response.topics}
            self.history.add("admin", f"topics: {[code.name for code in codes.values()]}")
            if all(code in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS) for code in codes.values()):
                return
        self.history.violate("P6", "topics could not be created")

    async def _storm(self) -> None:
        """Faults at random times, each with an end; when it is over everything works."""
        self._is_stormy = True
        load_s, pause_s = (LOAD_S, PAUSE_S) if self.cluster is None else (cluster.LOAD_S, cluster.PAUSE_S)
        end = self.loop.time() + load_s
        while self.loop.time() < end:
            await asyncio.sleep(self.chance.expovariate(1 / pause_s))
            await self._misfortune()
        self._is_stormy = False
        self.sky.weather = Weather.fine()
        self.network.calm()
        if self.cluster is not None:
            self.cluster.calm()
        else:
            for host in self.hosts:
                host.set_clock(0)
        for host in self.hosts:
            if not host.is_alive:
                host.boot()

    async def _misfortune(self) -> None:
        if self.cluster is not None and self.chance.random() < 0.75:
            self.cluster.misfortune()
            return
        match self.chance.choice(MISFORTUNES):
            case "crash":
                self.crash(self.any_host())
            case "crash soon":
                # At a moment of the machinery rather than of the clock: after so many more steps of the loop.
                self.crash_after(self.any_host(), self.chance.randint(1, 300))
            case "crash at a step":
                self.crash_at_a_step(self.any_host(), self.chance.randint(1, 40))
            case "network":
                self.history.add("world", self.network.trouble(self.chance.randint(1, 5)))
            case "clock":
                self.any_host().set_clock(self.chance.choice(SKEWS_MS))
            case "weather":
                self.sky.weather = self._rough_weather()
                self.history.add("world", f"weather {self.sky.weather}")
            case "fine":
                self.sky.weather = Weather.fine()
            case "freeze":
                host, seconds = self.any_host(), self.chance.choice((0.3, 2.0, 8.0))
                host.freeze(self.loop, seconds, None if self.cluster is None else self.cluster.idle_s)
            case "cut":
                self.history.add("world", f"cuts {self.network.cut(self.chance.randint(1, 5))} connections")

    def _rough_weather(self) -> Weather:
        weather = Weather.rough(self.chance)
        if self.cluster is not None:
            # All share one lock on writing here: agents would keep each other from showing that they live.
            weather.stall_s *= 0.1
        return weather

    def crash_after(self, host: Host, steps: int) -> None:
        """Crash so many steps of the loop later."""
        if steps == 0:
            self.crash(host)
        else:
            self.loop.call_soon(self.crash_after, host, steps - 1)

    def crash_at_a_step(self, host: Host, steps: int) -> None:
        """Crash before or after one of the next things that it asks of its stores."""
        life = host.current
        if life is not None and life.process.is_alive:
            life.process.set_trap(steps, lambda: self.crash(host) if host.current is life else None)

    def crash(self, host: Host) -> None:
        """Let an agent die, and another one be started before long."""
        if self._is_stormy and host.is_alive:
            self.crashes += 1
            host.crash()
            self.loop.call_later(self.chance.uniform(0.05, 1.5), self._boot_again, host, host.current)

    def retire(self, host: Host) -> None:
        """Stop an agent as an operator does, and start it again."""
        life = host.current
        if life is None or not life.process.is_alive or life.agent is None or life.process in self._retired:
            return
        self.history.add(life.name, "is told to stop")
        self._retired.append(life.process)
        self._retiring.append(self.loop.start(life.process, self._retire(host, life, life.agent)))

    async def _retire(self, host: Host, life: Life, agent: Agent) -> None:
        is_done = await agent.stop(self.chance.choice((0.2, 3.0)))
        self.history.add(life.name, f"has stopped, drained: {is_done}")
        # Not from within, or the end of the process would be the end of this.
        self.loop.call_soon(self._ended, host, life, context=OUTSIDE)

    async def _see_retired_go(self) -> None:
        for _ in range(200):
            if not any(process.is_alive for process in self._retired):
                return
            await asyncio.sleep(0.1)
        self.history.violate("P6", "an agent did not stop when it was told to")

    def _ended(self, host: Host, life: Life) -> None:
        host.kill(life)
        if host.current is life:
            host.boot()

    def _boot_again(self, host: Host, life: Life | None) -> None:
        if host.current is life:
            host.boot()


def simulate(seed: int, *, settle_s: float = SETTLE_S) -> Outcome:
    """Run one seed to its end. `settle_s` is how long clients may take once all is well again."""
    return play(seed, World.run, settle_s=settle_s)


def play(
    seed: int, story: Callable[[World], Coroutine[Any, Any, None]], *, settle_s: float = SETTLE_S
) -> Outcome:
    """Let a story happen in a world of its own."""
    product_log = logging.getLogger("warp")
    with tempfile.TemporaryDirectory(prefix="warp-sim-", dir=_fast_directory()) as directory:
        world = World(seed, Path(directory), settle_s)
        watch = BugWatch(world.history)
        propagates, product_log.propagate = product_log.propagate, False
        product_log.addHandler(watch)
        asyncio.set_event_loop(world.loop)
        try:
            world.loop.run_until_complete(story(world))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  whatever it is, it comes with the history
            world.history.violate("P6", f"the simulation ended in {type(error).__name__}: {error}")
        finally:
            virtual_s = world.loop.time()
            world.verifying.judge()
            if world.life is not None:
                world.life.judge()
            for problem in world.loop.problems:
                world.history.violate("P7", problem)
            world.history.add("world", f"{world.loop.steps} steps")
            world.history.is_over = True
            world.loop.bury()
            for connection in world.turn.abandoned:
                connection.close()
            world.rows.close()
            asyncio.set_event_loop(None)
            product_log.removeHandler(watch)
            product_log.propagate = propagates
    return outcome_of(world, virtual_s)


def _fast_directory() -> str | None:
    """Memory, where there is some to put files in: what SQLite syncs need not reach a disk here."""
    shared_memory = Path("/dev/shm")
    return str(shared_memory) if shared_memory.is_dir() else None

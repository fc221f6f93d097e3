"""The weather that all stores share, and an object store that is slow, fails, and leaves one in doubt by it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from tests.sim.loop import OUTSIDE, SimClock, SimLoop, at_a_step
from warp.errors import ObjectStoreError
from warp.objectstore.base import Buffer, ObjectInfo
from warp.objectstore.memory import MemoryStore

OBJECTS_BYTES_MAX = 2**30


@dataclass(slots=True)
class Weather:
    """How the stores behave right now: chances between 0 and 1, mean delays in seconds."""

    put_s: float = 0.01
    get_s: float = 0.005
    slow_share: float = 0.0
    """Of PUTs and GETs: those that take `slow_s` more."""
    slow_s: float = 2.0
    statement_s: float = 0.0
    statement_fails: float = 0.0
    """Any statement, also within a transaction, which is over then."""
    statement_stalls: float = 0.0
    statement_stall_s: float = 0.5
    contention: float = 0.0
    """Where agents share the database: statements that were in the way of another's."""
    swap_waits: float = 0.0
    """Transactions that swap merged segments: those that begin seconds late. So others come between their parts."""
    stall_s: float = 0.0
    """Before each COMMIT."""
    put_fails: float = 0.0
    put_is_ambiguous: float = 0.0
    """Answered with an error, though the object is there, or will be in a while."""
    get_fails: float = 0.0
    get_is_cut: float = 0.0
    """The answer ends before all of it has come."""
    delete_fails: float = 0.0
    list_fails: float = 0.0
    begin_fails: float = 0.0
    commit_fails: float = 0.0
    commit_answer_is_lost: float = 0.0
    """Of transactions that write: half of them were applied."""

    @classmethod
    def fine(cls) -> Weather:
        """No faults at all."""
        return cls()

    @classmethod
    def rough(cls, chance: random.Random) -> Weather:
        """Some of everything, never the same."""

        def some(most: float) -> float:
            return chance.choice((0.0, 0.0, most * chance.random()))

        return cls(
            put_s=chance.choice((0.001, 0.02, 0.2, 1.0)),
            get_s=chance.choice((0.001, 0.02, 0.3)),
            slow_share=chance.choice((0.0, 0.03, 0.1, 0.6)),
            slow_s=chance.choice((0.5, 2.0, 30.0)),
            statement_s=chance.choice((0.0, 0.0, 0.002)),
            statement_fails=chance.choice((0.0, 0.0, 0.01, 0.1)),
            statement_stalls=chance.choice((0.0, 0.0, 0.02)),
            statement_stall_s=chance.choice((0.1, 1.0)),
            contention=chance.choice((0.0, 0.0, 0.05)),
            swap_waits=chance.choice((0.0, 0.0, 0.3, 0.6)),
            stall_s=some(1.5),
            put_fails=some(0.7),
            put_is_ambiguous=some(0.7),
            get_fails=some(0.6),
            get_is_cut=some(0.4),
            delete_fails=some(0.6),
            list_fails=some(0.1),
            begin_fails=some(0.6),
            commit_fails=some(0.6),
            commit_answer_is_lost=some(0.8),
        )


class Sky:
    """The weather, shared by all stores, and the chance that they draw from."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = Weather.fine()
        self.faults = 0

    def strikes(self, likelihood: float) -> bool:
        """Whether a fault happens now."""
        hit = likelihood > 0 and self.chance.random() < likelihood
        self.faults += hit
        return hit

    async def pause(self, mean_s: float, max_s: float = math.inf) -> None:
        """Take some time."""
        if mean_s > 0:
            await asyncio.sleep(min(max_s, self.chance.expovariate(1 / mean_s)))

    def delay_s(self, mean_s: float) -> float:
        """How long a request to the object store takes."""
        slow_s = self.weather.slow_s if self.strikes(self.weather.slow_share) else 0.0
        return slow_s + self.chance.expovariate(1 / mean_s)


class SimObjectStore(MemoryStore):
    """A store at the other end of a network: what was sent to it happens, also when the sender has died."""

    def __init__(self, sky: Sky, clock: SimClock, *, requests_are_free: bool) -> None:
        super().__init__(clock, bytes_max=OBJECTS_BYTES_MAX)
        self.requests_are_free = requests_are_free
        self.puts = 0
        self.on_their_way = 0
        """Objects that will be there some time, whoever waits for it."""
        self.deleting: Callable[[Sequence[str]], None] = lambda keys: None
        """Hears what is about to be deleted."""
        self._sky = sky
        self._keys: set[str] = set()
        self.keys_used_twice: list[str] = []
        """Of PUTs: one may have stored its object, and may still do so, whatever became of it."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store, fail, or leave in doubt."""
        self.puts += 1
        if key in self._keys:
            self.keys_used_twice.append(key)
        self._keys.add(key)
        weather = self._sky.weather
        await at_a_step()
        if self._sky.strikes(weather.put_fails):
            await self._sky.pause(weather.put_s)
            raise ObjectStoreError("the store is down")
        data = b"".join(parts)
        stored = self._sky.loop.create_future()

        self.on_their_way += 1

        def store() -> None:
            self.on_their_way -= 1
            self._store(key, data)
            if not stored.done():
                stored.set_result(None)

        delay_s = self._sky.delay_s(weather.put_s)
        if self._sky.strikes(weather.put_is_ambiguous):
            late_s = delay_s * self._sky.chance.choice((0.5, 3.0))
            self._sky.loop.call_later(late_s, store, context=OUTSIDE)
            await asyncio.sleep(delay_s)
            raise ObjectStoreError("no answer from the store")
        self._sky.loop.call_later(delay_s, store, context=OUTSIDE)
        await stored
        await at_a_step()

    async def create(self, key: str, data: Buffer) -> bool:
        """Store if the key is free, after a while."""
        await at_a_step()
        await self._sky.pause(self._sky.weather.put_s)
        is_new = await super().create(key, data)
        await at_a_step()
        return is_new

    async def get(self, key: str, start: int, length: int) -> bytes:
        """Read, or fail, at once or with half of the answer there."""
        await asyncio.sleep(self._sky.delay_s(self._sky.weather.get_s))
        if self._sky.strikes(self._sky.weather.get_fails):
            raise ObjectStoreError("the store is down")
        found = await super().get(key, start, length)
        if self._sky.strikes(self._sky.weather.get_is_cut):
            await self._sky.pause(self._sky.weather.get_s)
            raise ObjectStoreError(f"the answer ended after {self._sky.chance.randint(0, length)} bytes")
        return found

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove, or fail; then some may be gone all the same."""
        self.deleting(keys)
        weather = self._sky.weather
        await self._sky.pause(weather.put_s)
        fails, in_doubt = self._sky.strikes(weather.delete_fails), self._sky.strikes(weather.put_is_ambiguous)
        await at_a_step()
        await super().delete(keys[: self._sky.chance.randint(0, len(keys))] if fails else keys)
        await at_a_step()
        if fails or in_doubt:
            raise ObjectStoreError("no answer from the store")

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All that is there, or some of it and an error; what others do meanwhile may show or not."""
        await self._sky.pause(self._sky.weather.get_s)
        async for found in super().list(prefix):
            if self._sky.strikes(self._sky.weather.list_fails):
                raise ObjectStoreError("the store is down")
            yield found

    def present(self) -> Sequence[str]:
        """The keys of all objects, as they are at this moment."""
        return sorted(self._objects)

    async def head(self, key: str) -> ObjectInfo:
        """Look, or fail."""
        await self._sky.pause(self._sky.weather.get_s)
        if self._sky.strikes(self._sky.weather.get_fails):
            raise ObjectStoreError("the store is down")
        return await super().head(key)

"""Opens the object store and times small and large requests, under keys of the doctor's own that are removed again.

A directory is measured through a store of its own below it: opening the agent's own would tidy up there, and make it
where it does not exist yet.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from warp.cli.doctor.detached import detached
from warp.cli.doctor.facts import LARGE_BYTES, SMALL_BYTES, ClockFacts, StoreFacts, Timing
from warp.cli.doctor.latency import Latency
from warp.cli.doctor.measure.place import PROBE_PREFIX, nearest_existing
from warp.clock import Clock
from warp.config_values import mask_url
from warp.errors import StartError, WarpError
from warp.ids import IdSource
from warp.objectstore.base import ObjectStore
from warp.objectstore.urls import open_object_store

PROBES: Final = "probe"
OPEN_TIMEOUT_S: Final = 60.0
REQUEST_TIMEOUT_S: Final = 20.0
TIME_MAX_S: Final = 20.0
"""For one kind of request; after it no more samples are taken."""
FAILURES_MAX: Final = 3
"""After so many in a row, the kind of request is given up."""
REMOVE_TIMEOUT_S: Final = 10.0
LAST_PUT_WAIT_S: Final = 2.0
REMOVE_ATTEMPTS: Final = 20
REMOVE_PAUSE_S: Final = 0.05
TICK_MS: Final = 20
"""File systems stamp with the time of the kernel's last tick."""
KEYS_MAX: Final = 8
"""Objects of one size at a time; later ones replace the first."""

Progress = Callable[[str], None]


async def look_at_object_store(
    url: str, *, samples: int, clock: Clock, ids: IdSource, progress: Progress
) -> tuple[StoreFacts, ClockFacts | None]:
    """Open and measure the store that a URL names. Raises UsageError for a URL that no store has."""
    token = f"doctor-{ids.token()}"
    parts = urlsplit(url)
    if parts.scheme != "file":
        store = open_object_store(url, clock=clock, ids=ids)
        facts = StoreFacts(mask_url(url), is_directory=False)
        return await _look(store, facts, f"{PROBES}/{token}", samples, clock, progress)
    directory = Path(unquote(parts.path))
    facts = StoreFacts(f"file://{directory}", is_directory=True)
    if not nearest_existing(directory).is_dir():
        place = nearest_existing(directory)
        return replace(
            facts, refusal=f"{place} is not a directory: name a directory to keep objects in"
        ), None
    own = _own_directory(directory, token)
    try:
        store = open_object_store(parts._replace(path=own.as_uri()[7:]).geturl(), clock=clock, ids=ids)
        found, clocks = await _look(store, facts, PROBES, samples, clock, progress)
        return replace(found, refusal=found.refusal.replace(str(own), str(directory))), clocks
    finally:
        await _remove_directory(own)


def _own_directory(directory: Path, token: str) -> Path:
    """Where to measure: below the store's directory, or beside it where it is not there yet."""
    place = nearest_existing(directory)
    return directory / PROBES / token if place == directory else place / f"{PROBE_PREFIX}{token}"


async def _remove_directory(own: Path) -> None:
    """Remove our own directory; after an interrupt a thread of the store may still be finishing a file in it."""
    for _ in range(REMOVE_ATTEMPTS):
        if await detached(lambda: _is_removed(own), timeout_s=REMOVE_TIMEOUT_S, late=True):
            break
        await asyncio.sleep(REMOVE_PAUSE_S)
    if own.parent.name == PROBES:
        # Another doctor may be at work beside us.
        with suppress(OSError):
            own.parent.rmdir()


def _is_removed(own: Path) -> bool:
    shutil.rmtree(own, ignore_errors=True)
    return not own.exists()


async def _look(
    store: ObjectStore, facts: StoreFacts, prefix: str, samples: int, clock: Clock, progress: Progress
) -> tuple[StoreFacts, ClockFacts | None]:
    progress("opening the object store")
    try:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                abilities = await store.open()
        except TimeoutError:
            refusal = f"no answer within {OPEN_TIMEOUT_S:g} s: see whether its address can be reached"
            return replace(facts, refusal=refusal), None
        except WarpError as error:
            return replace(facts, refusal=str(error)), None
        facts = replace(
            facts,
            conditional_create=abilities.conditional_create,
            checks_content=abilities.checks_content,
        )
        facts = replace(facts, check_refusal=await _check(store))
        probe = StoreProbe(store, prefix, samples, clock, progress)
        facts = await probe.run(facts)
        return facts, probe.clock_facts
    finally:
        await store.close()


async def _check(store: ObjectStore) -> str:
    """Why the check that readiness is told by fails; empty when it doesn't."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await store.check()
    except TimeoutError:
        return f"no answer within {REQUEST_TIMEOUT_S:g} s"
    except WarpError as error:
        return str(error)
    return ""


class StoreProbe:
    """Times requests on an open store, under keys that begin with `prefix`, and removes what it has stored."""

    def __init__(
        self, store: ObjectStore, prefix: str, samples: int, clock: Clock, progress: Progress
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._samples = samples
        self._clock = clock
        self._progress = progress
        self._stored: list[str] = []
        self._last_put: asyncio.Task[None] | None = None
        self.clock_facts: ClockFacts | None = None
        """This machine's clock beside the store's, once it has run."""

    async def run(self, facts: StoreFacts) -> StoreFacts:
        """Everything, and the removal, also when it is cancelled."""
        left_behind = ""
        try:
            self.clock_facts = await self._compare_clocks()
            small = await self._round("small", SMALL_BYTES)
            large = await self._round("large", LARGE_BYTES)
        finally:
            left_behind = await self._remove()
        return replace(
            facts,
            put_small=small[0],
            get_small=small[1],
            put_large=large[0],
            get_large=large[1],
            left_behind=left_behind,
        )

    async def _compare_clocks(self) -> ClockFacts | None:
        """What time the store gives to an object that is stored now; None when it refuses it.

        In HTTP that time is in whole seconds, cut off (RFC 9110, section 8.8.2).
        """
        key = f"{self._prefix}/clock"
        self._stored.append(key)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                before_ms = self._clock.time_ms()
                await self._put(key, b"?")
                after_ms = self._clock.time_ms()
                stamped_ms = (await self._store.head(key)).modified_ms
        except (WarpError, TimeoutError):
            # The same calls are timed next, and what is wrong with them is told there.
            return None
        cut_ms = 1000 if stamped_ms % 1000 == 0 else TICK_MS
        ahead_ms = (before_ms + after_ms) / 2 - (stamped_ms + cut_ms / 2)
        return ClockFacts(ahead_ms / 1000, (after_ms - before_ms + cut_ms) / 2000)

    async def _round(self, name: str, size_bytes: int) -> tuple[Timing, Timing]:
        data = os.urandom(size_bytes)
        keys: list[str] = []

        async def put(number: int) -> None:
            key = f"{self._prefix}/{name}-{number % KEYS_MAX}"
            if key not in self._stored:
                self._stored.append(key)
            await self._put(key, data)
            if key not in keys:
                keys.append(key)

        async def get(number: int) -> None:
            if await self._store.get(keys[number % len(keys)], 0, size_bytes) != data:
                raise StartError("the store gave back other bytes than it was given")

        put_times = await self._time(put, f"PUT {name}")
        get_times = await self._time(get, f"GET {name}") if keys else Timing(None)
        return put_times, get_times

    async def _time(self, call: Callable[[int], Awaitable[None]], what: str) -> Timing:
        times_s: list[float] = []
        failures, in_a_row, failure = 0, 0, ""
        deadline_s = self._clock.monotonic() + TIME_MAX_S
        for number in range(self._samples):
            self._progress(f"{what} {number + 1}/{self._samples}")
            began_s = self._clock.monotonic()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await call(number)
                times_s.append(self._clock.monotonic() - began_s)
                in_a_row = 0
            except (WarpError, TimeoutError) as error:
                failures, in_a_row = failures + 1, in_a_row + 1
                failure = failure or str(error) or f"no answer within {REQUEST_TIMEOUT_S:g} s"
            if in_a_row == FAILURES_MAX or self._clock.monotonic() > deadline_s:
                break
        return Timing(Latency.of(times_s), failures, failure)

    async def _put(self, key: str, data: bytes) -> None:
        """Store an object, to the end whatever becomes of the caller: cut off, it might arrive after its removal."""
        self._last_put = asyncio.get_running_loop().create_task(self._store.put(key, [data]))
        await asyncio.shield(self._last_put)

    async def _remove(self) -> str:
        """Remove what was or may have been stored; the reason when that fails."""
        self._progress("removing the probe objects")
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT_S):
                if self._last_put is not None:
                    await asyncio.wait([self._last_put], timeout=LAST_PUT_WAIT_S)
                await self._store.delete(self._stored)
        except TimeoutError:
            return f"no answer within {REMOVE_TIMEOUT_S:g} s"
        except WarpError as error:
            return str(error)
        return ""

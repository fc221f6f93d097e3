"""How the doctor measures object stores: on good and on failing ones, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warp.cli.doctor.facts import ClockFacts, StoreFacts
from warp.cli.doctor.measure import object_store as measure_store
from warp.cli.doctor.measure.object_store import KEYS_MAX, StoreProbe, look_at_object_store
from warp.clock import SystemClock
from warp.errors import ObjectStoreError, StartError
from warp.ids import IdSource
from warp.objectstore.base import Abilities, Buffer, ObjectInfo
from warp.objectstore.memory import MemoryStore

CLOCK = SystemClock()


def silent(_what: str) -> None:
    return None


def ids() -> IdSource:
    return IdSource(CLOCK, random.Random(7).randbytes)


class Faulty(MemoryStore):
    """A store whose calls fail as a test says; `clock_skew_s` is what some stores know."""

    def __init__(self, **failures: BaseException) -> None:
        super().__init__(CLOCK, bytes_max=2**27)
        self.failures = failures
        self.is_closed = False

    def _fail(self, name: str) -> None:
        if name in self.failures:
            raise self.failures[name]

    async def open(self) -> Abilities:
        self._fail("open")
        return await super().open()

    async def check(self) -> None:
        self._fail("check")

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._fail("put")
        await super().put(key, parts)

    async def get(self, key: str, start: int, length: int) -> bytes:
        self._fail("get")
        found = await super().get(key, start, length)
        return bytes(len(found)) if "damage" in self.failures else found

    async def delete(self, keys: Sequence[str]) -> None:
        self._fail("delete")
        await super().delete(keys)

    async def close(self) -> None:
        self.is_closed = True

    async def keys(self) -> list[str]:
        return [found.key async for found in self.list()]


def probe(store: Faulty, samples: int = 3) -> Awaitable[StoreFacts]:
    facts = StoreFacts("s3://bucket", is_directory=False)
    return StoreProbe(store, "probe/doctor-x", samples, CLOCK, silent).run(facts)


async def remote(store: Faulty, monkeypatch: pytest.MonkeyPatch) -> tuple[StoreFacts, Any]:
    """Look at a store as at one behind a URL."""

    def opened(*_: object, **__: object) -> Faulty:
        return store

    monkeypatch.setattr(measure_store, "open_object_store", opened)
    return await look_at_object_store(
        "s3://bucket/p?secret=x", samples=2, clock=CLOCK, ids=ids(), progress=silent
    )


def test_a_store_is_timed_and_left_as_it_was() -> None:
    async def run() -> None:
        store = Faulty()
        await store.put("segments/kept", [b"x"])
        facts = await probe(store, KEYS_MAX + 2)
        for timing in (facts.put_small, facts.put_large, facts.get_small, facts.get_large):
            assert timing is not None
            assert timing.latency is not None
            assert (len(timing.latency.samples_s), timing.failures) == (KEYS_MAX + 2, 0)
        assert (facts.left_behind, await store.keys()) == ("", ["segments/kept"])

    asyncio.run(run())


def test_requests_that_fail_are_counted_and_given_up() -> None:
    async def run() -> None:
        facts = await probe(Faulty(put=ObjectStoreError("SlowDown")), 10)
        assert facts.put_small is not None
        assert (facts.put_small.latency, facts.put_small.failures, facts.put_small.failure) == (
            None,
            3,
            "SlowDown",
        )
        assert facts.get_small is not None
        assert (facts.get_small.latency, facts.get_small.failures) == (None, 0)
        facts = await probe(Faulty(get=ObjectStoreError("cut")), 10)
        assert facts.get_large is not None
        assert (facts.get_large.failures, facts.get_large.failure) == (3, "cut")
        facts = await probe(Faulty(damage=ValueError()))
        assert facts.get_small is not None
        assert "other bytes" in facts.get_small.failure
        facts = await probe(Faulty(delete=ObjectStoreError("AccessDenied")))
        assert facts.left_behind == "AccessDenied"

    asyncio.run(run())


def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Faulty):
        async def put(self, key: str, parts: Sequence[Buffer]) -> None:
            await asyncio.Event().wait()

        async def delete(self, keys: Sequence[str]) -> None:
            await asyncio.Event().wait()

    async def run() -> None:
        monkeypatch.setattr(measure_store, "REQUEST_TIMEOUT_S", 0.01)
        monkeypatch.setattr(measure_store, "REMOVE_TIMEOUT_S", 0.01)
        facts = await probe(Hanging())
        assert facts.put_small is not None
        assert facts.put_small.failure == "no answer within 0.01 s"
        assert facts.left_behind == "no answer within 0.01 s"

    asyncio.run(run())


def test_probe_objects_are_removed_when_it_is_interrupted() -> None:
    class Slow(Faulty):
        def __init__(self) -> None:
            super().__init__()
            self.is_stored = asyncio.Event()

        async def put(self, key: str, parts: Sequence[Buffer]) -> None:
            await super().put(key, parts)
            self.is_stored.set()
            await asyncio.sleep(60)

    async def run() -> None:
        store = Slow()
        task = asyncio.ensure_future(probe(store))
        await store.is_stored.wait()
        assert len(await store.keys()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.keys() == []

    asyncio.run(run())


def test_a_store_that_refuses_to_open_says_why_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Faulty(open=StartError("there is no such bucket"))
    facts, clock = asyncio.run(remote(store, monkeypatch))
    assert (facts.refusal, facts.put_small, clock, store.is_closed) == (
        "there is no such bucket",
        None,
        None,
        True,
    )
    assert facts.url == "s3://bucket/p?secret=********"


def test_a_store_that_fails_its_light_check_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    facts, _ = asyncio.run(remote(Faulty(check=ObjectStoreError("HeadBucket: S3 answered 403")), monkeypatch))
    assert facts.check_refusal == "HeadBucket: S3 answered 403"
    assert facts.put_small is not None
    facts, _ = asyncio.run(remote(Faulty(), monkeypatch))
    assert facts.check_refusal == ""


def test_a_store_that_does_not_open_in_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Faulty):
        async def open(self) -> Abilities:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(measure_store, "OPEN_TIMEOUT_S", 0.01)
    facts, _ = asyncio.run(remote(Hanging(), monkeypatch))
    assert facts.refusal.startswith("no answer within 0.01 s")


def test_the_stores_clock_is_the_time_that_it_gives_to_a_new_object() -> None:
    class Late(Faulty):
        """A server whose clock is 90 s behind, and which tells the time as HTTP does."""

        async def head(self, key: str) -> ObjectInfo:
            found = await super().head(key)
            return replace(found, modified_ms=(found.modified_ms - 90_000) // 1000 * 1000)

    async def clock_of(store: Faulty) -> ClockFacts | None:
        made = StoreProbe(store, "probe/doctor-x", 1, CLOCK, silent)
        await made.run(StoreFacts("s3://bucket", is_directory=False))
        return made.clock_facts

    late = asyncio.run(clock_of(Late()))
    assert late is not None
    assert abs(late.ahead_s - 90) <= late.uncertainty_s + 0.001
    assert 0.5 <= late.uncertainty_s < 5
    right = asyncio.run(clock_of(Faulty()))
    assert right is not None
    assert abs(right.ahead_s) <= right.uncertainty_s + 0.001
    assert asyncio.run(clock_of(Faulty(put=ObjectStoreError("AccessDenied")))) is None


def look_at_directory(path: Path) -> tuple[StoreFacts, Any]:
    return asyncio.run(
        look_at_object_store(path.as_uri(), samples=2, clock=CLOCK, ids=ids(), progress=silent)
    )


def test_a_directory_of_objects_is_left_as_it_was(tmp_path: Path) -> None:
    left_over = tmp_path / ".tmp" / "of-an-agent"
    left_over.parent.mkdir()
    left_over.write_bytes(b"half")
    facts, clock = look_at_directory(tmp_path)
    assert (facts.refusal, facts.is_directory, clock is not None) == ("", True, True)
    assert facts.get_large is not None
    assert facts.get_large.latency is not None
    assert [path.name for path in tmp_path.iterdir()] == [".tmp"]
    assert left_over.read_bytes() == b"half"


def test_a_directory_of_objects_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    facts, _ = look_at_directory(tmp_path / "a" / "objects")
    assert (facts.refusal, facts.put_small is not None) == ("", True)
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_no_directory_of_objects(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    facts, _ = look_at_directory(tmp_path / "file" / "objects")
    assert facts.refusal.startswith(f"{tmp_path / 'file'} is not a directory")
    facts, _ = look_at_directory(Path("/proc/warp-objects"))
    assert "/proc/warp-objects can't be written" in facts.refusal

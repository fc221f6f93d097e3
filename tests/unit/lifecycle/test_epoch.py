"""Of two databases that speak of one bucket, one alone deletes; a database that went back in time starts no agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from warp.clock import SystemClock
from warp.errors import ObjectStoreError, StartError
from warp.ids import IdSource
from warp.lifecycle import epoch
from warp.lifecycle.epoch import EPOCHS_KEPT, EpochCheck, begin_epoch, epoch_key, newest_epoch
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore

CLOCK = SystemClock()


def new_ids() -> IdSource:
    return IdSource(CLOCK, os.urandom)


def bucket() -> MemoryStore:
    return MemoryStore(CLOCK, bytes_max=1_000_000)


class Settings:
    """Those of one database; `copy` is what a clone or a backup has."""

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def copy(self) -> Settings:
        return Settings(self.values)

    async def setting(self, name: str) -> str | None:
        return self.values.get(name)

    async def set_setting(self, name: str, value: str) -> None:
        self.values[name] = value

    async def forget_settings(self, prefix: str) -> None:
        self.values = {name: value for name, value in self.values.items() if not name.startswith(prefix)}


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def check_of(objects: MemoryStore, settings: Settings, said: list[str] | None = None) -> EpochCheck:
    return EpochCheck(objects, settings, new_ids(), refused=None if said is None else said.append)


def test_a_bucket_without_epochs_begins_with_the_first_and_restarts_take_none() -> None:
    async def start_thrice() -> None:
        objects, settings = bucket(), Settings()
        assert [await begin_epoch(objects, settings, new_ids(), "mem://") for _ in range(3)] == [1, 1, 1]
        assert [found.key async for found in objects.list("")] == [epoch_key(1)]

    run(start_thrice())


def test_each_deleting_pass_takes_the_next_epoch_and_old_ones_go() -> None:
    async def delete_often() -> None:
        objects, settings = bucket(), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://")
        check = check_of(objects, settings)
        for _ in range(EPOCHS_KEPT + 5):
            assert await check.may_delete()
        numbers = range(6 + 1, 6 + EPOCHS_KEPT + 1)
        assert [found.key async for found in objects.list("epoch/")] == [epoch_key(n) for n in numbers]
        assert sum(name.startswith("epoch.") for name in settings.values) == EPOCHS_KEPT

    run(delete_often())


def test_of_two_databases_on_one_bucket_the_second_to_delete_stops_and_says_so_once() -> None:
    async def clone() -> None:
        objects, settings = bucket(), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://")
        said: list[str] = []
        cloned = settings.copy()
        original, clone = check_of(objects, settings), check_of(objects, cloned, said)
        assert await original.may_delete()
        assert [await clone.may_delete() for _ in range(3)] == [False, False, False]
        assert await original.may_delete()
        assert not await clone.may_delete()
        assert said == [f"its newest epoch, {n}, was taken with other ones" for n in (2, 3)]
        assert clone.refusals == 4

    run(clone())


def test_an_older_database_starts_no_agent_and_the_message_says_what_to_do() -> None:
    async def go_back() -> None:
        objects, settings = bucket(), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://")
        backup = settings.copy()
        assert await check_of(objects, settings).may_delete()
        before = [found async for found in objects.list("")]
        with pytest.raises(
            StartError, match=r"epoch, 2, was taken with other ones.*run `warp restore`"
        ) as refused:
            await begin_epoch(objects, backup, new_ids(), "s3://bucket")
        assert "\n" not in str(refused.value)
        assert [found async for found in objects.list("")] == before

    run(go_back())


def test_a_database_from_before_epochs_does_not_start_on_a_bucket_that_has_some() -> None:
    async def go_far_back() -> None:
        objects = bucket()
        await begin_epoch(objects, Settings(), new_ids(), "mem://")
        with pytest.raises(StartError, match="epoch, 1, was taken"):
            await begin_epoch(objects, Settings(), new_ids(), "mem://")

    run(go_far_back())


def test_a_bucket_that_lost_its_epochs_is_refused() -> None:
    async def lose() -> None:
        said: list[str] = []
        objects, settings = bucket(), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://")
        await objects.delete([epoch_key(1)])
        with pytest.raises(StartError, match="now it has none"):
            await begin_epoch(objects, settings, new_ids(), "mem://")
        assert not await check_of(objects, settings, said).may_delete()
        assert len(said) == 1
        assert [found async for found in objects.list("")] == []

    run(lose())


def test_an_agent_that_starts_while_another_begins_the_first_epoch_takes_that() -> None:
    class Settling(Settings):
        """Those of an agent that is slow to ask: another one starts from nothing before it is answered."""

        async def setting(self, name: str) -> str | None:
            if not self.values:
                others = Settings(self.values)
                assert await begin_epoch(objects, others, new_ids(), "mem://") == 1
                self.values = others.values
            return await super().setting(name)

    objects = bucket()

    async def start() -> None:
        assert await begin_epoch(objects, Settling(), new_ids(), "mem://") == 1
        assert [found.key async for found in objects.list("")] == [epoch_key(1)]

    run(start())


def test_a_crash_between_token_and_object_leaves_a_bucket_that_starts() -> None:
    async def crash() -> None:
        objects, settings = bucket(), Settings()
        objects_fail = True

        class Failing(MemoryStore):
            async def create(self, key: str, data: Buffer) -> bool:
                if objects_fail:
                    raise ObjectStoreError("cut")
                return await super().create(key, data)

        objects = Failing(CLOCK, bytes_max=1_000_000)
        with pytest.raises(StartError, match="can't tell the epoch"):
            await begin_epoch(objects, settings, new_ids(), "mem://")
        objects_fail = False
        assert await begin_epoch(objects, settings, new_ids(), "mem://") == 1
        objects_fail = True
        with pytest.raises(ObjectStoreError):
            await check_of(objects, settings).may_delete()
        assert await begin_epoch(objects, settings, new_ids(), "mem://") == 1

    run(crash())


def test_two_agents_of_one_database_may_both_delete_though_one_was_first() -> None:
    async def race() -> None:
        settings = Settings()
        rounds = 0

        class Overtaken(MemoryStore):
            async def create(self, key: str, data: Buffer) -> bool:
                nonlocal rounds
                rounds += 1
                if rounds == 2:
                    assert await check_of(self, settings).may_delete()
                return await super().create(key, data)

        objects = Overtaken(CLOCK, bytes_max=1_000_000)
        await begin_epoch(objects, settings, new_ids(), "mem://")
        assert await check_of(objects, settings).may_delete()
        newest = await newest_epoch(objects)
        assert newest is not None
        assert newest.number == 2

    run(race())


def test_the_one_who_is_overtaken_by_a_clone_does_not_delete() -> None:
    async def race() -> None:
        settings = Settings()
        clone: list[Settings] = []

        class Overtaken(MemoryStore):
            async def create(self, key: str, data: Buffer) -> bool:
                if clone:
                    assert await check_of(self, clone.pop()).may_delete()
                return await super().create(key, data)

        objects = Overtaken(CLOCK, bytes_max=1_000_000)
        await begin_epoch(objects, settings, new_ids(), "mem://")
        clone.append(settings.copy())
        assert not await check_of(objects, settings, []).may_delete()

    run(race())


def test_a_store_without_conditional_create_keeps_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "SETTLE_S", 0.01)

    async def race() -> None:
        class Unconditional(MemoryStore):
            async def create(self, key: str, data: Buffer) -> bool:
                raise AssertionError("this store can't")

        objects, settings = Unconditional(CLOCK, bytes_max=1_000_000), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://", is_conditional=False)
        checks = [
            EpochCheck(objects, own, new_ids(), is_conditional=False, refused=lambda _: None)
            for own in (settings, settings.copy())
        ]
        assert sorted(await asyncio.gather(*(check.may_delete() for check in checks))) == [False, True]

    run(race())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b'{"token": "%"}', b'{"token": 1}', b" " * 5000]
)
def test_a_damaged_epoch_is_nobodys(content: bytes) -> None:
    async def damage() -> None:
        objects, settings = bucket(), Settings()
        await begin_epoch(objects, settings, new_ids(), "mem://")
        await objects.put(epoch_key(2), [content])
        with pytest.raises(StartError, match="epoch, 2, was taken"):
            await begin_epoch(objects, settings, new_ids(), "mem://")

    run(damage())


def test_objects_of_other_names_are_no_epochs() -> None:
    async def foreign() -> None:
        objects, settings = bucket(), Settings()
        for key in ("epoch/7", "epoch/0000000000079", "epoch/notes.txt"):
            await objects.put(key, [b"x"])
        assert await begin_epoch(objects, settings, new_ids(), "mem://") == 1

    run(foreign())


def test_it_works_on_the_metadata_store() -> None:
    async def delete() -> None:
        objects = bucket()
        store = MetadataStore(SqliteDatabase(IN_MEMORY, now_ms=CLOCK.time_ms), CLOCK, new_ids())
        await store.open()
        await begin_epoch(objects, store, new_ids(), "mem://")
        check = EpochCheck(objects, store, new_ids())
        for _ in range(EPOCHS_KEPT + 1):
            assert await check.may_delete()
        await store.close()

    run(delete())

"""Agents that hear no hints know of changes within a second, by virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.sim.notices import NoticeWeather
from tests.support.log import run_sim
from tests.unit.cluster.hints_support import Cluster, Member
from warp.cluster.catalogue import CatalogueService
from warp.cluster.catalogue_watch import LOOK_INTERVAL_S, LOOK_S_MAX, CatalogueWatch
from warp.cluster.topic_request import TopicRequest
from warp.errors import MetadataUnavailable
from warp.metadata.entries import EntryChange, EntryKind

DEAF = NoticeWeather(lost=1.0)
WATCH_LOG = "warp.cluster.catalogue_watch"


def run(scenario: Any) -> None:
    async def main(loop: Any) -> None:
        cluster = Cluster(loop)
        cluster.bus.weather = DEAF
        members = await cluster.open()
        for member in members:
            member.catalogue.keep_fresh()
        await scenario(cluster, *members)
        for member in members:
            await member.hints.close()
            await member.fetches.close()
            await member.catalogue.close()

    run_sim(main)


async def set_entry(catalogue: CatalogueService, kind: EntryKind, key: str, value: str | None) -> None:
    await catalogue.change_entries(kind, lambda entries: [EntryChange(key, value)])


@pytest.mark.parametrize("kind", EntryKind)
def test_entries_are_known_within_a_second_without_hints(kind: EntryKind) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        for number in range(10):
            await asyncio.sleep(0.13 * number)
            value = str(number) if number % 3 else None
            await set_entry(a.catalogue, kind, "key", value)
            changed_at = cluster.loop.time()
            while b.catalogue.entries(kind).get("key") != value:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            assert cluster.loop.time() - changed_at <= 1.0

    run(scenario)


def test_topics_are_known_within_a_second_without_hints_and_without_being_asked_for() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        await a.create("t", 2)
        await asyncio.sleep(1.0)
        assert b.catalogue.current.by_name.keys() == {"t"}
        assert b.catalogue.at_hand(names=["t"]) is not None, "and an answer by name costs no look"
        await a.catalogue.create([TopicRequest("u", 1)])
        await asyncio.sleep(1.0)
        assert b.catalogue.current.by_name.keys() == {"t", "u"}

    run(scenario)


def test_while_the_store_is_away_what_is_known_stays_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, WATCH_LOG)

    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        await set_entry(a.catalogue, EntryKind.ACL, "key", "1")
        await asyncio.sleep(1.0)
        inner = b.metadata.catalogue_version

        async def away() -> int:
            raise MetadataUnavailable("as told")

        b.metadata.catalogue_version = away  # type: ignore[method-assign]
        await set_entry(a.catalogue, EntryKind.ACL, "key", "2")
        await asyncio.sleep(60)
        assert b.catalogue.entries(EntryKind.ACL) == {"key": "1"}
        [line] = caplog.messages
        assert line.startswith("the catalogue can't be looked at")
        assert line.endswith("as told")
        b.metadata.catalogue_version = inner  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert b.catalogue.entries(EntryKind.ACL) == {"key": "2"}
        assert caplog.messages[1:] == ["the catalogue can be looked at again"]

    run(scenario)


def test_a_look_that_fails_unexpectedly_is_told_once_and_not_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise ZeroDivisionError("a bug")

    async def main(loop: Any) -> None:
        watch = CatalogueWatch(look)
        watch.start()
        await asyncio.sleep(3.1 * LOOK_INTERVAL_S)
        await watch.close()

    run_sim(main)
    assert looks == 3
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_look_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await asyncio.sleep(3600)

    async def main(loop: Any) -> None:
        watch = CatalogueWatch(look)
        watch.start()
        await asyncio.sleep(LOOK_S_MAX + 2.1 * LOOK_INTERVAL_S)
        await watch.close()

    with caplog.at_level(logging.INFO, WATCH_LOG):
        run_sim(main)
    assert looks == 2
    away, back = caplog.messages
    assert away.endswith("no answer within 2 s")
    assert back == "the catalogue can be looked at again"


def test_nothing_is_looked_at_after_the_end_nor_where_nobody_else_is() -> None:
    looks = 0

    async def main(loop: Any) -> None:
        cluster = Cluster(loop, 2)
        a, b = await cluster.open()
        inner = b.metadata.catalogue_version

        async def counted() -> int:
            nonlocal looks
            looks += 1
            return await inner()

        for member in (a, b):
            member.metadata.catalogue_version = counted  # type: ignore[method-assign]
        cluster.database.is_shared = False
        a.catalogue.keep_fresh()
        await asyncio.sleep(5)
        assert looks == 0
        cluster.database.is_shared = True
        b.catalogue.keep_fresh()
        await asyncio.sleep(5.2)
        assert looks == 10
        await b.catalogue.close()
        await asyncio.sleep(5)
        assert looks == 10
        for member in (a, b):
            await member.hints.close()
            await member.fetches.close()
        await a.catalogue.close()

    run_sim(main)

"""Changes of the catalogue beside each other, and what is given out once, to one alone.

Every scenario runs in all orders, and then once more with a fault planted in it, which it has to find.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.isolation.conftest import InWorld
from tests.isolation.stepper import Outcome, Run, sql
from tests.isolation.world import World, without_lock
from warp.errors import ErrorCode
from warp.metadata import agents, catalogue_version, store
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.model import Topic
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

Explored = InWorld[list[Outcome]]
Scenario = Callable[[World], Awaitable[list[Outcome]]]
NONE = ErrorCode.NONE
FOUND = "after these steps"


async def version_of(world: World) -> int:
    [(version,)] = await world.rows("select version from catalogue")
    return int(version)


async def creations_of_one_name(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        a = world.new_topic(2)
        b = world.new_topic(3, a.name)
        before = await version_of(world)

        async def check(outcome: Outcome) -> None:
            [first], [second] = (outcome.answers[name] for name in ("a", "b"))
            created = [answer for answer in (first, second) if isinstance(answer, Topic)]
            assert len(created) == 1
            assert ErrorCode.TOPIC_ALREADY_EXISTS in (first, second)
            stored = await world.rows("select topic_id, partitions from topics where name = $1", a.name)
            assert stored == [(created[0].topic_id, len(created[0].logs))]
            assert await version_of(world) == before + 1

        return world.run(lambda s: s.create_topics([a]), lambda s: s.create_topics([b]), check)

    return await world.explore(prepare)


async def creations_of_two_names(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        a, b = world.new_topic(2), world.new_topic(3)
        before = await version_of(world)

        async def check(outcome: Outcome) -> None:
            assert [len(outcome.answers[name][0].logs) for name in ("a", "b")] == [2, 3]
            changes = await world.store.catalogue_changes(before)
            assert changes is not None
            assert changes.version == before + 2
            assert {topic.name for topic in changes.topics} == {a.name, b.name}
            later = await world.store.catalogue_changes(before + 1)
            assert later is not None
            assert len(later.topics) == 1, "each creation has a version of its own"

        return world.run(lambda s: s.create_topics([a]), lambda s: s.create_topics([b]), check)

    return await world.explore(prepare)


async def deletions_of_one_topic(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        topic = await world.topic(2)
        before = await version_of(world)

        async def check(outcome: Outcome) -> None:
            answers = [outcome.answers[name] for name in ("a", "b")]
            assert sorted(answers) == sorted([[NONE], [ErrorCode.UNKNOWN_TOPIC_ID]])
            assert await version_of(world) == before + 1

        return world.run(
            lambda s: s.delete_topics([topic.topic_id]), lambda s: s.delete_topics([topic.topic_id]), check
        )

    return await world.explore(prepare)


async def growth_beside_growth(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        topic = await world.topic(1)

        async def check(outcome: Outcome) -> None:
            a, b = outcome.answers["a"], outcome.answers["b"]
            assert isinstance(b, Topic), b
            assert len(b.logs) == 3
            if isinstance(a, Topic):
                assert (len(a.logs), b.logs[:2]) == (2, a.logs)
            else:
                assert a == ErrorCode.INVALID_PARTITIONS
            logs = await world.rows(
                "select partition from logs where topic_id = $1 order by 1", topic.topic_id
            )
            assert logs == [(0,), (1,), (2,)]

        return world.run(
            lambda s: s.create_partitions(topic.topic_id, 2),
            lambda s: s.create_partitions(topic.topic_id, 3),
            check,
        )

    return await world.explore(prepare)


CHANGES: dict[str, Scenario] = {
    "creations of one name": creations_of_one_name,
    "creations of two names": creations_of_two_names,
    "deletions": deletions_of_one_topic,
    "growth": growth_beside_growth,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_the_catalogue_come_one_after_the_other(in_world: Explored, name: str) -> None:
    outcomes = in_world(CHANGES[name])
    assert any(outcome.has_waited for outcome in outcomes)
    assert {outcome.comes_before("a commit", "b commit") for outcome in outcomes} == {True, False}


@pytest.mark.parametrize("name", CHANGES)
def test_a_catalogue_that_is_not_locked_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unlocked = without_lock(catalogue_version.LOCK_CATALOGUE)
    monkeypatch.setattr(catalogue_version, "LOCK_CATALOGUE", unlocked)
    with pytest.raises(AssertionError, match=FOUND):
        in_world(CHANGES[name])


# What is given out once


async def cluster_ids(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        await world.rows("delete from settings where name = 'cluster.id'")

        async def check(outcome: Outcome) -> None:
            stored = await world.store.setting("cluster.id")
            assert stored is not None
            assert outcome.answers == {"a": stored, "b": stored}

        return world.run(lambda s: s.cluster_id(None), lambda s: s.cluster_id(None), check)

    return await world.explore(prepare)


def test_a_cluster_has_one_id_whoever_makes_it(in_world: Explored) -> None:
    assert len(in_world(cluster_ids)) > 1


def test_an_id_that_is_made_over_another_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WRITE_SETTING_ONCE", store.WRITE_SETTING)
    with pytest.raises(AssertionError, match=FOUND):
        in_world(cluster_ids)


async def producer_ids(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        async def check(outcome: Outcome) -> None:
            a, b = sorted([outcome.answers["a"], outcome.answers["b"]])
            assert b - a == 10

        return world.run(lambda s: s.allocate_producer_ids(10), lambda s: s.allocate_producer_ids(10), check)

    return await world.explore(prepare)


def test_blocks_of_producer_ids_do_not_overlap(in_world: Explored) -> None:
    assert len(in_world(producer_ids)) == 2


def test_blocks_that_are_read_and_then_moved_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sql("select next_producer_id from producer_ids where id = 1")
    move = sql("update producer_ids set next_producer_id = $1 where id = 1")

    async def allocate(self: MetadataStore, count: int) -> int:
        row = await self._database.one(read)
        assert row is not None
        await self._database.execute(move, row[0] + count)
        return int(row[0])

    monkeypatch.setattr(MetadataStore, "allocate_producer_ids", allocate)
    with pytest.raises(AssertionError, match=FOUND):
        in_world(producer_ids)


# Two processes under one name

FACTS = AgentFacts(endpoints=(), roles=())


async def joining(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        name = f"agent-{world.ids.topic_id().hex()}"
        await world.store.register_agent(name)
        seen = await world.store.find_agent(name)
        assert seen is not None

        async def check(outcome: Outcome) -> None:
            winners = [each for each, broker_id in outcome.answers.items() if broker_id is not None]
            assert len(winners) == 1
            now = await world.store.find_agent(name)
            assert now is not None
            assert (now.incarnation, now.broker_id) == (winners[0], seen.broker_id)
            assert outcome.answers[winners[0]] == seen.broker_id

        return world.run(
            lambda s: s.join_agent(name, "a", FACTS, seen),
            lambda s: s.join_agent(name, "b", FACTS, seen),
            check,
        )

    return await world.explore(prepare)


def test_one_of_two_processes_takes_a_registration_over(in_world: Explored) -> None:
    outcomes = in_world(joining)
    assert any(outcome.has_waited for outcome in outcomes)


def test_a_registration_that_is_taken_unseen_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = agents.TAKE_OVER_AGENT.text.replace(
        "and incarnation = $2 and counter = $3", "and $2 <> '?' and $3 >= 0"
    )
    assert text != agents.TAKE_OVER_AGENT.text
    monkeypatch.setattr(agents, "TAKE_OVER_AGENT", replace(agents.TAKE_OVER_AGENT, text=text))
    with pytest.raises(AssertionError, match=FOUND):
        in_world(joining)

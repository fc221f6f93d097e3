"""Changes of the catalogue beside each other, and what is given out once, to one alone.

Every scenario runs in all orders, and then once more with a fault planted in it, which it has to find.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.isolation.conftest import InWorld
from tests.isolation.stepper import Outcome, Run, sql
from tests.isolation.world import World, without_lock
from warp.errors import ErrorCode
from warp.ids import TopicId
from warp.metadata import agents, catalogue_version, entry_rows, store, topics
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.model import Topic
from warp.metadata.session import Database
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

Explored = InWorld[list[Outcome]]
Scenario = Callable[[World], Awaitable[list[Outcome]]]
NONE = ErrorCode.NONE
ACL, QUOTA = EntryKind.ACL, EntryKind.QUOTA
FOUND = "after these steps"


async def version_of(world: World) -> int:
    [(version,)] = await world.rows("select version from catalogue")
    return int(version)


async def version_of_topic(world: World, topic_id: TopicId) -> int:
    [(version,)] = await world.rows("select version from topics where topic_id = $1", topic_id)
    return int(version)


async def entries_since(world: World, version: int) -> dict[EntryKind, dict[str, str | None]]:
    changes = await world.store.catalogue_changes(version)
    assert changes is not None
    return {kind: dict(found) for kind, found in changes.entries.items()}


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


async def entries_of_one_kind(world: World) -> list[Outcome]:
    """Two that have decided by the same entries."""

    async def prepare() -> Run:
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            [winner] = [name for name in ("a", "b") if outcome.answers[name] is not None]
            assert outcome.answers[winner] == known + 1 == await version_of(world)
            assert await entries_since(world, known) == {ACL: {"key": winner, winner: ""}}

        return world.run(
            lambda s: s.change_entries(ACL, [EntryChange("key", "a"), EntryChange("a", "")], known),
            lambda s: s.change_entries(ACL, [EntryChange("key", "b"), EntryChange("b", "")], known),
            check,
        )

    return await world.explore(prepare)


async def a_deletion_beside_a_change_of_entries(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        await world.store.change_entries(ACL, [EntryChange("key", "old")], await version_of(world))
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            [winner] = [name for name in ("a", "b") if outcome.answers[name] is not None]
            assert outcome.answers[winner] == known + 1 == await version_of(world)
            assert await entries_since(world, known) == {ACL: {"key": None if winner == "a" else "new"}}

        return world.run(
            lambda s: s.change_entries(ACL, [EntryChange("key", None)], known),
            lambda s: s.change_entries(ACL, [EntryChange("key", "new")], known),
            check,
        )

    return await world.explore(prepare)


async def entries_of_two_kinds(world: World) -> list[Outcome]:
    """They have nothing to do with each other, and each change has a version of its own."""

    async def prepare() -> Run:
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            assert sorted(outcome.answers.values()) == [known + 1, known + 2]
            assert await entries_since(world, known) == {ACL: {"key": "a"}, QUOTA: {"key": "b"}}
            [later] = (await entries_since(world, known + 1)).values()
            assert later == {"key": "a" if outcome.answers["a"] == known + 2 else "b"}

        return world.run(
            lambda s: s.change_entries(ACL, [EntryChange("key", "a")], known),
            lambda s: s.change_entries(QUOTA, [EntryChange("key", "b")], known),
            check,
        )

    return await world.explore(prepare)


async def entries_beside_a_creation(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        topic = world.new_topic(2)
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            assert isinstance(outcome.answers["b"][0], Topic)
            versions = {outcome.answers["a"], await version_of_topic(world, topic.topic_id)}
            assert versions == {known + 1, known + 2}
            assert await version_of(world) == known + 2
            assert await entries_since(world, known) == {ACL: {"key": "a"}}

        return world.run(
            lambda s: s.change_entries(ACL, [EntryChange("key", "a")], known),
            lambda s: s.create_topics([topic]),
            check,
        )

    return await world.explore(prepare)


async def configs_of_one_topic(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        topic = await world.topic(2)
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            [winner] = [name for name in ("a", "b") if outcome.answers[name] is not None]
            assert outcome.answers[winner].configs == {"key": winner, winner: ""}
            stored = await world.rows(
                "select name, value from topic_configs where topic_id = $1", topic.topic_id
            )
            assert dict(stored) == {"key": winner, winner: ""}
            assert await version_of(world) == known + 1

        return world.run(
            lambda s: s.set_topic_configs(topic.topic_id, {"key": "a", "a": ""}, known),
            lambda s: s.set_topic_configs(topic.topic_id, {"key": "b", "b": ""}, known),
            check,
        )

    return await world.explore(prepare)


async def configs_beside_growth(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        topic = await world.topic(1)
        known = await version_of(world)

        async def check(outcome: Outcome) -> None:
            a, b = outcome.answers["a"], outcome.answers["b"]
            assert len(b.logs) == 3
            if a is None:
                assert b.configs == {}, "it has grown first, and the configs were decided before"
            else:
                assert (len(a.logs), b.configs) == (1, {"key": "a"})

        return world.run(
            lambda s: s.set_topic_configs(topic.topic_id, {"key": "a"}, known),
            lambda s: s.create_partitions(topic.topic_id, 3),
            check,
        )

    return await world.explore(prepare)


CHANGES: dict[str, Scenario] = {
    "creations of one name": creations_of_one_name,
    "creations of two names": creations_of_two_names,
    "deletions": deletions_of_one_topic,
    "growth": growth_beside_growth,
    "entries of one kind": entries_of_one_kind,
    "a deletion beside a change of entries": a_deletion_beside_a_change_of_entries,
    "entries of two kinds": entries_of_two_kinds,
    "entries beside a creation": entries_beside_a_creation,
    "configs of one topic": configs_of_one_topic,
    "configs beside growth": configs_beside_growth,
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


@pytest.mark.parametrize("name", ["entries of one kind", "a deletion beside a change of entries"])
def test_entries_that_are_changed_whoever_was_faster_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(entry_rows, "NEWER_ENTRY", sql("select $1 where $2 < 0"))
    with pytest.raises(AssertionError, match=FOUND):
        in_world(CHANGES[name])


def test_configs_that_are_set_whoever_was_faster_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_topic_configs = topics.set_topic_configs

    async def set_anyway(database: Database, topic_id: TopicId, configs: dict[str, str], _: int) -> Any:
        return await set_topic_configs(database, topic_id, configs, None)

    monkeypatch.setattr(topics, "set_topic_configs", set_anyway)
    for name in ("configs of one topic", "configs beside growth"):
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

"""Writes under a lease beside its takeover, and beside each other.

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
from tests.unit.metadata.group_support import group, member, offset_row
from tests.unit.metadata.support import NOW_MS
from warp.errors import ErrorCode, MetadataError
from warp.ids import BrokerId
from warp.metadata import group_offsets, groups, leases
from warp.metadata.group_model import (
    Lease,
    LeaseLost,
    OffsetCommit,
    OffsetDeletion,
    OffsetExpiry,
    OffsetKey,
    OffsetQuery,
    coordinator_lease,
    slot_of,
)
from warp.metadata.session import Session
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

Explored = InWorld[list[Outcome]]
NONE, UNKNOWN = ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
FIRST, SECOND = BrokerId(1), BrokerId(2)
FOUND = "after these steps"


class Group:
    """A new group id, its lease, held by the first agent, and a topic whose offsets it commits."""

    def __init__(self, world: World, group_id: str, lease: Lease, topic: str) -> None:
        self.world = world
        self.group_id = group_id
        self.lease = lease
        self.topic = topic

    @classmethod
    async def create(cls, world: World) -> Group:
        topic = await world.topic(2)
        group_id = f"group of {topic.name}"
        [lease] = await world.store.take_leases([coordinator_lease(slot_of(group_id))], FIRST)
        return cls(world, group_id, lease, topic.name)

    def commit(self, offset: int, partition: int = 0, now_ms: int = NOW_MS) -> OffsetCommit:
        rows = [offset_row(self.group_id, self.topic, partition, offset, now_ms=now_ms)]
        return OffsetCommit(self.lease, self.group_id, rows)

    async def committed(self) -> dict[int, int]:
        """Offsets by partition, as everybody sees them."""
        [rows] = await self.world.store.fetch_offsets([OffsetQuery(self.group_id, None)])
        return {row.partition: row.offset for row in rows}

    async def is_stored(self) -> bool:
        return self.group_id in {found.group_id for found in await self.world.store.load_groups(range(64))}


Write = Callable[[MetadataStore, Group], Awaitable[Any]]


async def _take(store: MetadataStore, found: Group) -> list[Lease]:
    return await store.take_leases([found.lease.name], SECOND)


# A write under a lease, beside its takeover

WRITES: dict[str, Write] = {
    "commit offsets": lambda store, g: store.commit_offsets([g.commit(7)]),
    "commit offsets of a new group": lambda store, g: store.commit_offsets([g.commit(7)]),
    "delete offsets": lambda store, g: store.delete_offsets(
        [OffsetDeletion(g.lease, g.group_id, [(g.topic, 0)])]
    ),
    "expire offsets": lambda store, g: store.expire_offsets(
        [OffsetExpiry(g.lease, g.group_id, NOW_MS)], NOW_MS, 10
    ),
    "save groups": lambda store, g: store.save_groups({g.lease: [group(g.group_id, [member("new")])]}),
    "delete groups": lambda store, g: store.delete_groups({g.lease: [g.group_id]}),
    "delete groups without offsets": lambda store, g: store.delete_groups_without_offsets(
        {g.lease: [g.group_id]}
    ),
}


async def write_and_takeover(world: World, name: str) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        if name != "commit offsets of a new group":
            await world.store.save_groups({found.lease: [group(found.group_id, [])]})
        if name in ("commit offsets", "delete offsets", "expire offsets"):
            await world.store.commit_offsets([found.commit(5)])
        before = await state(found)

        async def check(outcome: Outcome) -> None:
            [taken] = outcome.answers["b"]
            assert (taken.holder, taken.epoch) == (SECOND, found.lease.epoch + 1)
            after = await state(found)
            if isinstance(outcome.answers["a"], LeaseLost):
                assert outcome.answers["a"].leases == {found.lease}
                assert "a commit" not in outcome.steps
                assert after == before, "nothing of a write that has failed"
                return
            assert not isinstance(outcome.answers["a"], MetadataError), outcome.answers["a"]
            assert outcome.comes_before("a commit", "b commit"), "a write landed after the takeover"
            assert after != before, "all of a write that has succeeded"

        async def write(store: MetadataStore) -> Any:
            return await WRITES[name](store, found)

        return world.run(write, lambda store: _take(store, found), check)

    return await world.explore(prepare)


async def state(found: Group) -> list[object]:
    stored = [
        each for each in await found.world.store.load_groups(range(64)) if each.group_id == found.group_id
    ]
    return [stored, await found.committed()]


@pytest.mark.parametrize("name", WRITES)
def test_a_write_ends_before_the_takeover_or_fails(in_world: Explored, name: str) -> None:
    outcomes = in_world(lambda world: write_and_takeover(world, name))
    assert {isinstance(outcome.answers["a"], LeaseLost) for outcome in outcomes} == {True, False}
    assert any(outcome.has_waited for outcome in outcomes)


@pytest.mark.parametrize("name", WRITES)
def test_leases_that_are_read_and_not_shared_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for statement in ("SHARE_LEASES", "LOCK_LEASES"):
        monkeypatch.setattr(leases, statement, without_lock(getattr(leases, statement)))
    with pytest.raises(AssertionError, match="landed after the takeover"):
        in_world(lambda world: write_and_takeover(world, name))


# Takeover beside takeover


async def takeovers(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)

        def take(holder: BrokerId) -> Callable[[MetadataStore], Awaitable[list[Lease]]]:
            return lambda store: store.take_leases([found.lease.name], holder)

        async def check(outcome: Outcome) -> None:
            [a], [b] = outcome.answers["a"], outcome.answers["b"]
            assert {a.epoch, b.epoch} == {found.lease.epoch + 1, found.lease.epoch + 2}
            last = a if a.epoch > b.epoch else b
            now = (await world.store.read_leases([found.lease.name]))[found.lease.name]
            assert (now.holder, now.epoch) == (last.holder, last.epoch)

        return world.run(take(SECOND), take(BrokerId(3)), check)

    return await world.explore(prepare)


def test_two_takeovers_have_two_epochs(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(takeovers))


def test_an_epoch_that_is_counted_outside_of_the_row_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = leases.TAKE_LEASES.text.replace(
        "epoch = leases.epoch + 1", "epoch = (select s.epoch from leases s where s.name = excluded.name) + 1"
    )
    assert text != leases.TAKE_LEASES.text
    monkeypatch.setattr(leases, "TAKE_LEASES", replace(leases.TAKE_LEASES, text=text))
    with pytest.raises(AssertionError, match=FOUND):
        in_world(takeovers)


async def takeovers_of_what_was_seen(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        name, new = found.lease.name, f"lease of {found.group_id}"
        seen = {**await world.store.read_leases([name]), new: None}

        def take(holder: BrokerId) -> Callable[[MetadataStore], Awaitable[list[Lease]]]:
            return lambda store: store.take_leases_as_seen(seen, holder)

        async def check(outcome: Outcome) -> None:
            first, second = outcome.answers["a"], outcome.answers["b"]
            winners = {lease.name: (lease.holder, lease.epoch) for lease in [*first, *second]}
            assert len(first) + len(second) == len(winners) == 2, "each has been taken once"
            assert (winners[name][1], winners[new][1]) == (found.lease.epoch + 1, 1)
            now = await world.store.read_leases([name, new])
            assert {key: (state.holder, state.epoch) for key, state in now.items()} == winners

        return world.run(take(SECOND), take(BrokerId(3)), check)

    return await world.explore(prepare)


def test_one_of_those_who_have_seen_a_lease_free_takes_it(in_world: Explored) -> None:
    outcomes = in_world(takeovers_of_what_was_seen)
    # Who comes while the other one is about to take the one that is there gets no more than the new one.
    assert {len(outcome.answers["a"]) for outcome in outcomes} == {0, 1, 2}


def test_a_lease_that_is_taken_though_it_has_moved_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = leases.TAKE_LEASES_AS_SEEN.text.replace("leases.epoch = ", "leases.epoch >= ")
    text = text.replace("leases.counter = ", "leases.counter >= ")
    assert text != leases.TAKE_LEASES_AS_SEEN.text
    monkeypatch.setattr(leases, "TAKE_LEASES_AS_SEEN", replace(leases.TAKE_LEASES_AS_SEEN, text=text))
    with pytest.raises(AssertionError, match=FOUND):
        in_world(takeovers_of_what_was_seen)


# Writes of one holder beside each other


async def commit_and_delete_without_offsets(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        await world.store.save_groups({found.lease: [group(found.group_id)]})

        async def check(outcome: Outcome) -> None:
            assert outcome.answers["a"] == [[NONE]]
            assert outcome.answers["b"] in ({found.group_id}, set())
            assert await found.committed() == {0: 7}, "an acknowledged offset is there"

        return world.run(
            lambda store: store.commit_offsets([found.commit(7)]),
            lambda store: store.delete_groups_without_offsets({found.lease: [found.group_id]}),
            check,
        )

    return await world.explore(prepare)


def test_a_group_is_not_deleted_for_want_of_offsets_while_some_are_committed(in_world: Explored) -> None:
    outcomes = in_world(commit_and_delete_without_offsets)
    assert {len(outcome.answers["b"]) for outcome in outcomes} == {0, 1}


def test_a_deletion_that_only_shares_the_lease_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "lock_leases", leases.share_leases)
    with pytest.raises(AssertionError, match="an acknowledged offset is there"):
        in_world(commit_and_delete_without_offsets)


async def commit_and_expire(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        await world.store.commit_offsets(
            [found.commit(5, now_ms=NOW_MS - 1000), found.commit(6, 1, NOW_MS - 1000)]
        )

        async def check(outcome: Outcome) -> None:
            assert outcome.answers["a"] == [[NONE]]
            assert await found.committed() == {0: 7}, (
                "an acknowledged offset is there, and an expired one is not"
            )
            both = [OffsetKey(found.group_id, found.topic, partition) for partition in (0, 1)]
            assert sorted(outcome.answers["b"]) in (both, both[1:])

        return world.run(
            lambda store: store.commit_offsets([found.commit(7)]),
            lambda store: store.expire_offsets(
                [OffsetExpiry(found.lease, found.group_id, NOW_MS - 1000)], NOW_MS, 10
            ),
            check,
        )

    return await world.explore(prepare)


def test_an_offset_that_is_committed_anew_does_not_expire(in_world: Explored) -> None:
    outcomes = in_world(commit_and_expire)
    assert {len(outcome.answers["b"]) for outcome in outcomes} == {1, 2}


def test_an_expiry_that_does_not_look_again_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_of_them(_session: Session, expired: list[Any]) -> list[Any]:
        return expired

    monkeypatch.setattr(group_offsets, "_unchanged", all_of_them)
    with pytest.raises(AssertionError, match="an acknowledged offset is there"):
        in_world(commit_and_expire)


async def commit_and_save_new(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        saved = group(found.group_id, [member("m")])

        async def check(outcome: Outcome) -> None:
            assert (outcome.answers["a"], outcome.answers["b"]) == ([[NONE]], None)
            assert await state(found) == [[saved], {0: 7}]

        return world.run(
            lambda store: store.commit_offsets([found.commit(7)]),
            lambda store: store.save_groups({found.lease: [saved]}),
            check,
        )

    return await world.explore(prepare)


def test_a_new_group_is_saved_beside_its_first_offsets(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(commit_and_save_new))


async def commits_of_a_new_group(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)

        async def check(outcome: Outcome) -> None:
            assert (outcome.answers["a"], outcome.answers["b"]) == ([[NONE]], [[NONE]])
            assert await found.committed() == {0: 7, 1: 8}

        return world.run(
            lambda store: store.commit_offsets([found.commit(7)]),
            lambda store: store.commit_offsets([found.commit(8, 1)]),
            check,
        )

    return await world.explore(prepare)


def test_the_first_offsets_of_a_group_may_come_twice_at_once(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(commits_of_a_new_group))


@pytest.mark.parametrize("scenario", [commit_and_save_new, commits_of_a_new_group])
def test_a_group_that_has_no_number_because_another_came_first_is_found(
    in_world: Explored,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[World], Awaitable[list[Outcome]]],
) -> None:
    insert = group_offsets.INSERT_SIMPLE_GROUPS
    text = insert.text.replace("do update set slot = groups.slot", "do nothing")
    assert text != insert.text
    monkeypatch.setattr(group_offsets, "INSERT_SIMPLE_GROUPS", replace(insert, text=text))
    with pytest.raises(AssertionError, match="KeyError"):
        in_world(scenario)


# Offsets beside the deletion of their topic

PASSED_OVER = (
    "lock_catalogue", "find_topics", "remember_deleted_logs", "delete_logs", "delete_configs",
    "remember_deleted_topics", "forget_deleted_topics", "delete_topics", "set_catalogue_version",
)  # fmt: skip


async def commit_offsets_and_delete_topic(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        found = await Group.create(world)
        [topic_id] = [
            t[0] for t in await world.rows("select topic_id from topics where name = $1", found.topic)
        ]

        async def check(outcome: Outcome) -> None:
            assert outcome.answers["a"] in ([[NONE]], [[UNKNOWN]])
            assert outcome.answers["b"] == [NONE]
            assert await found.committed() == {}
            new = await world.store.create_topics([world.new_topic(2, found.topic)])
            assert len(new) == 1
            assert await found.committed() == {}, (
                "the offsets of a topic are not those of the next one of its name"
            )
            assert not outcome.has_waited, "commits of records hold these locks"
            if outcome.comes_before("b commit", "a resolve_offsets"):
                assert outcome.answers["a"] == [[UNKNOWN]]

        run = world.run(
            lambda store: store.commit_offsets([found.commit(7)]),
            lambda store: store.delete_topics([topic_id]),
            check,
        )
        # Thousands of orders otherwise: of a deletion, which locks nothing here, a commit sees only its end.
        return replace(run, passed_over=frozenset(PASSED_OVER))

    return await world.explore(prepare)


def test_offsets_go_with_their_topic_and_make_nobody_wait(in_world: Explored) -> None:
    outcomes = in_world(commit_offsets_and_delete_topic)
    assert {tuple(outcome.answers["a"][0]) for outcome in outcomes} == {(NONE,), (UNKNOWN,)}


def test_offsets_that_lock_logs_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = sql("select l.log_id from logs l order by l.log_id lock rows of l")
    share_leases = leases.share_leases

    async def share_too_much(session: Session, shared: set[Lease]) -> None:
        await share_leases(session, shared)
        await session.all(lock)

    monkeypatch.setattr(group_offsets, "share_leases", share_too_much)
    with pytest.raises(AssertionError, match="commits of records hold these locks"):
        in_world(commit_offsets_and_delete_topic)

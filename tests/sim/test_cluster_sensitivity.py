"""That the simulator would notice what is wrong with clusters: the product is broken on purpose, which has to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.sim import hosts
from tests.sim.cluster import AMBUSHED, CLUSTER_SEED, SEEDS_PER_CLUSTER
from tests.sim.producers import IdempotentProducer
from tests.sim.world import SETTLE_S, SHARED, World, play, simulate
from warp.cluster.catalogue import Catalogue, CatalogueService
from warp.cluster.membership import Membership
from warp.cluster.session import Session
from warp.cluster.slot_policy import ClusterSlotPolicy
from warp.errors import MetadataUnavailable
from warp.log.hints import LogHint
from warp.log.tail import TailIndex
from warp.metadata import group_offsets, groups
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.store import MetadataStore

SEEDS = range(CLUSTER_SEED, CLUSTER_SEED + 12 * SEEDS_PER_CLUSTER, SEEDS_PER_CLUSTER)


def complaints(seeds: Iterable[int] = SEEDS, *, settle_s: float = SETTLE_S) -> str:
    """What the first seed with a cluster says that says anything."""
    for seed in seeds:
        violations = simulate(seed, settle_s=settle_s).violations
        if violations:
            return "\n".join(violations)
    return ""


async def a_coordinator_stands_still_before_it_writes(world: World) -> None:
    """What it was about to write, it writes when others have had its place for long."""
    assert world.cluster is not None
    for host in world.hosts:
        await host.serves()
    await world.create_topics()
    producer = IdempotentProducer(world, "producer-0", SHARED)
    tasks = [
        world.spawn(producer.run()),
        *(task for group in world.groups for task in group.start(is_calm=True)),
    ]
    await asyncio.sleep(5.0)
    for _ in range(2):
        name = await world.groups[0].coordinator(world.hosts[0].address)
        host = next(host for host in world.hosts if host.address == name)
        host.way.ambushed = AMBUSHED
        host.way.ambush = partial(world.cluster.freeze, host, 8.0)
        await asyncio.sleep(15.0)
    producer.is_stopping = True
    for group in world.groups:
        await group.settle(60.0)
    await asyncio.wait(tasks)


def test_writes_under_leases_that_others_have_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lenient(*_: Any) -> None:
        """Whoever holds it."""

    assert not play(CLUSTER_SEED, a_coordinator_stands_still_before_it_writes).violations
    monkeypatch.setattr(groups, "share_leases", lenient)
    monkeypatch.setattr(group_offsets, "share_leases", lenient)
    stories = (play(seed, a_coordinator_stands_still_before_it_writes) for seed in SEEDS)
    assert any("group-" in violation for outcome in stories for violation in outcome.violations)


async def a_coordinator_is_cut_off(world: World) -> None:
    """The members go on at another agent, while some clients still ask the one that knows nothing of it."""
    assert world.cluster is not None
    for host in world.hosts:
        await host.serves()
    await world.create_topics()
    group = world.groups[0]
    tasks = group.start(is_calm=True)
    await asyncio.sleep(5.0)
    name = await group.coordinator(world.hosts[0].address)
    world.cluster.cut_off(next(host for host in world.hosts if host.address == name), 20.0)
    for turn in range(26):
        await asyncio.sleep(0.2)
        if turn == 2:
            group.members[0].die(loudly=True)
        await group.probe(name)
    await group.settle(60.0)
    await asyncio.wait(tasks)


def test_a_session_that_never_lapses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not play(CLUSTER_SEED, a_coordinator_is_cut_off).violations
    monkeypatch.setattr(Membership, "is_live", True)
    # Whether somebody asks the one that is cut off in time is a matter of chance.
    stories = (play(seed, a_coordinator_is_cut_off) for seed in SEEDS)
    assert any("was accepted after" in violation for outcome in stories for violation in outcome.violations)


def test_slots_that_are_taken_from_agents_that_live_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever waits for slots to stay waits in vain, and the unbroken life of this seed needs no more than that.
    settle_s = 20.0
    assert not complaints(SEEDS[:1], settle_s=settle_s)
    monkeypatch.setattr(ClusterSlotPolicy, "may_take", lambda *_: True)
    assert "every slot has one holder" in complaints(SEEDS[:1], settle_s=settle_s)


def test_an_agent_that_goes_on_though_another_took_its_place_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deaf(*_: Any) -> str:
        raise MetadataUnavailable("the registration can't be read")

    monkeypatch.setattr(Session, "_lost", deaf)
    assert "goes on though its place was taken" in complaints()


def test_hints_that_are_taken_for_extents_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    hinted = TailIndex.hinted

    def hasty(self: TailIndex, hint: LogHint) -> bool:
        is_news = hinted(self, hint)
        tail = self._tails.get(hint.log_id)
        if tail is not None and tail.end_offset < hint.next_offset:
            tail.end_offset = hint.next_offset
        return is_news

    monkeypatch.setattr(TailIndex, "hinted", hasty)
    found = complaints()
    assert "P3" in found or "P5" in found


def test_topics_of_other_agents_that_are_not_looked_for_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lazy(self: CatalogueService, wanted: Sequence[Any]) -> Catalogue:
        return self.current

    monkeypatch.setattr(CatalogueService, "lookup", lazy)
    monkeypatch.setattr(CatalogueService, "lookup_partitions", lazy)
    assert "P5" in complaints()


def test_entries_that_nobody_looks_at_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CatalogueService, "keep_fresh", lambda self: None)
    assert "P10" in complaints()


def test_entries_that_are_changed_whoever_was_faster_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(MetadataStore):
        async def change_entries(
            self, kind: EntryKind, changes: Sequence[EntryChange], if_version: int
        ) -> int | None:
            return await super().change_entries(kind, changes, 2**40)

    monkeypatch.setattr(hosts, "MetadataStore", Careless)
    assert "changes were acknowledged" in complaints()

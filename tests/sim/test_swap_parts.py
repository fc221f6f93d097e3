"""A segment dies between the parts of the swap that brings it: what it was to hold has to stay where it is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sim import life_requests, requests
from tests.sim.client import Connection
from tests.sim.cluster import has_cluster
from tests.sim.database import SWAPPING
from tests.sim.facts import Batch, Partition
from tests.sim.guard import is_guarded
from tests.sim.life import has_life
from tests.sim.world import World, play
from tests.verifier import DeleteRecords
from warp._records import build_batch
from warp.metadata import swaps

PLACES = [Partition("apples", 0), Partition("apples", 1), Partition("pears", 0)]
FIRST, *_ = PLACES
"""The part of this log comes first."""
ROUNDS = 8
SEEDS = [seed for seed in range(60) if not (has_cluster(seed) or is_guarded(seed) or has_life(seed))][:6]


async def its_segment_dies_between_two_parts(world: World) -> None:
    """The first log loses all of its records while the part of the second waits."""
    limits = world.jobs.limits
    assert limits.merge is not None
    merge = dataclasses.replace(
        limits.merge,
        due_segments=(ROUNDS, 8, 8),
        due_bytes=(2**30, 2**30, 2**30),
        swap_part_rows_max=2,
        swap_rows_max=4_000,
        segment_bytes_max=2**25,
        memory_bytes=4_000_000,
        pass_s=30.0,
    )
    world.jobs.limits = dataclasses.replace(limits, merge=merge)
    world.groups = []
    [host, *_] = world.hosts
    await host.serves()
    await world.create_topics()
    client = await Connection.open(world.network, host.address, "client")
    is_first_in = asyncio.Event()

    def second_part() -> None:
        world.sky.weather.swap_waits = 1.0
        is_first_in.set()

    def first_part() -> None:
        host.way.ambush = second_part

    host.way.ambushed, host.way.ambush = (SWAPPING,), first_part
    recorder = world.verifying.recorder
    for number in range(ROUNDS):
        batches = [batch_of(number, place, world.clock.time_ms()) for place in PLACES]
        sent = world.facts.sends("client", batches, client.life)
        produced = await client.ask(requests.produce(batches, 5_000), requests.PRODUCE_VERSION)
        world.facts.answered(sent, batches, requests.produced(produced))
        await asyncio.sleep(0.3)
    async with asyncio.timeout(30.0):
        await is_first_in.wait()
    await asyncio.sleep(0.1)
    world.sky.weather.swap_waits = 0.0
    op = recorder.begin("client", DeleteRecords({FIRST: -1}), client.life)
    answer = await client.ask(life_requests.delete_records({FIRST: -1}), life_requests.DELETE_RECORDS_VERSION)
    op.answered(life_requests.trimmed(answer))
    await asyncio.sleep(15.0)
    client.close()
    host.crash()
    await world.jobs.finish()


def value_of(number: int, place: Partition) -> bytes:
    return f"{place} {number}".encode()


def batch_of(number: int, place: Partition, now_ms: int) -> Batch:
    value = value_of(number, place)
    return Batch(
        "client", place, number, [value], build_batch([(None, value, (), now_ms)]), is_idempotent=False
    )


def test_what_a_segment_that_died_was_to_hold_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, found = swaps._keep_live_segments, []

    async def watched(*arguments: Any) -> Sequence[int]:
        ids = await keep(*arguments)
        found.append(bool(ids))
        return ids

    monkeypatch.setattr(swaps, "_keep_live_segments", watched)
    for seed in SEEDS:
        outcome = play(seed, its_segment_dies_between_two_parts)
        assert not outcome.violations, "\n".join([*outcome.history.lines[-40:], *outcome.violations])
    assert not all(found), "some have died"


def test_parts_that_go_into_dead_segments_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    live = swaps.KEEP_LIVE_SEGMENTS
    text = live.text.replace(" and s.state = 0", "")
    assert text != live.text
    monkeypatch.setattr(swaps, "KEEP_LIVE_SEGMENTS", dataclasses.replace(live, text=text))
    outcomes = [play(seed, its_segment_dies_between_two_parts) for seed in SEEDS]
    assert any(outcome.violations for outcome in outcomes)

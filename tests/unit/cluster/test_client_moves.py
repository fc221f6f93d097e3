"""Clients that live long: they come back to agents that were restarted, and stay where they are otherwise."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.cluster.moves_support import REFRESH_S, Asks, World
from warp.ids import BrokerId

COUNT = 240


def roll(world: World) -> None:
    """Restart all agents one after the other."""
    for number in sorted(world.agents):
        world.restart(int(number), 5.0)
        world.run(30.0)


def assert_is_balanced(working: Counter[int], share: float = 0.3) -> None:
    """Everybody has about as many clients as the others."""
    mean = sum(working.values()) / len(working)
    assert all(abs(count - mean) <= share * mean for count in working.values()), working


def check_rolling_restart(world: World, *, moves_max: int, strays_max: int = 0) -> None:
    """A settled cluster moves nobody, but for `strays_max` clients; load comes back with few moves of each."""
    world.run(2 * REFRESH_S)
    settled_s = world.clock.now_s
    world.run(3 * REFRESH_S)
    assert sum(world.moves(settled_s)) <= strays_max
    assert_is_balanced(world.working())

    restarted_s = world.clock.now_s
    roll(world)
    assert world.working()[3] < COUNT / 10, "who was restarted last is empty"
    world.run(4 * REFRESH_S)
    assert_is_balanced(world.working())
    world.run(8 * REFRESH_S)
    assert max(world.moves(restarted_s)) <= moves_max

    settled_s = world.clock.now_s
    world.run(6 * REFRESH_S)
    assert sum(world.moves(settled_s)) <= strays_max


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("asks", Asks)
def test_load_comes_back_after_a_rolling_restart(seed: int, asks: Asks) -> None:
    world = World(seed)
    world.join(COUNT, asks)
    check_rolling_restart(world, moves_max=4)


@pytest.mark.parametrize("seed", range(2))
def test_load_comes_back_when_clients_are_all_alike(seed: int) -> None:
    world = World(seed)
    world.join(COUNT, Asks.LEADER, are_alike=True)
    check_rolling_restart(world, moves_max=5)


@pytest.mark.parametrize("seed", range(2))
def test_clients_that_are_alike_settle_although_agents_can_not_know_what_others_told_them(seed: int) -> None:
    world = World(seed)
    world.join(COUNT, Asks.CONNECTED, are_alike=True)
    check_rolling_restart(world, moves_max=10, strays_max=COUNT // 100)


@pytest.mark.parametrize("asks", Asks)
def test_an_agent_that_comes_gets_its_share(asks: Asks) -> None:
    world = World(7)
    world.join(COUNT, asks)
    world.run(2 * REFRESH_S)
    added_s = world.clock.now_s
    world.start(4)
    world.run(4 * REFRESH_S)
    assert_is_balanced(world.working())
    assert max(world.moves(added_s)) <= 1
    movers = [client for client in world.clients if client.moves_s and client.moves_s[-1] >= added_s]
    assert {client.leader for client in movers} == {4}, "nobody moves between those that were there before"


@pytest.mark.parametrize("asks", Asks)
def test_clients_at_home_stay_there_whatever_the_loads(asks: Asks) -> None:
    world = World(8)
    world.join(COUNT, asks)
    world.run(2 * REFRESH_S)
    settled_s = world.clock.now_s
    for number, others in ((1, 1_000), (2, 0), (3, 100)):
        world.agents[BrokerId(number)].others = others
        world.run(2 * REFRESH_S)
    assert sum(world.moves(settled_s)) == 0


def test_clients_go_home_few_at_a_time() -> None:
    world = World(9)
    world.join(COUNT, Asks.LEADER)
    world.run(2 * REFRESH_S)
    roll(world)
    back_s = world.clock.now_s
    for client in world.clients:
        # As if all of them had begun at one moment.
        world.at(back_s + world.rng.uniform(0.0, 1.0), client.ask)
    world.run(5.0)
    each_10_s = COUNT * 2 // 3 // 20
    assert 0 < sum(world.moves(back_s)) <= 2 * each_10_s, "two agents give away a twentieth each"

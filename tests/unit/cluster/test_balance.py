"""When a client goes from one agent to another for the sake of load, and when it doesn't."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from tests.unit.cluster.discovery_support import FakeCluster
from warp.cluster.balance import Balance, LoadLimits
from warp.ids import BrokerId


class Loads:
    """Agents with so many connections each, in the eyes of the first of them."""

    def __init__(self, *connections: int, limits: LoadLimits | None = None) -> None:
        self.cluster = FakeCluster(1, **{f"agent_{number}": None for number in range(len(connections))})
        self.tell(*connections)
        self.balance = Balance(self.cluster.clock, limits or LoadLimits())

    def tell(self, *connections: int) -> None:
        """The agents beat."""
        self.cluster.load(dict(enumerate(connections, 1)))

    def next_for(self, *order: int) -> int:
        return self.balance.next_for(self.cluster.view, [BrokerId(number) for number in order])

    def better_than(self, kept: int, order: Sequence[int]) -> int | None:
        """Who would be better than `kept`."""
        chosen = [BrokerId(number) for number in order]
        return self.balance.better_than(
            self.cluster.view, BrokerId(kept), chosen, list(self.cluster.view.agents)
        )


@pytest.mark.parametrize(
    ("connections", "found"),
    [
        ((60, 60, 0), 3),
        ((60, 60, 39), 3),
        ((60, 60, 50), None),  # not clearly fewer
        ((500, 10, 400), None),  # more than the average
        ((0, 60, 60), None),
        ((2, 2, 0), None),  # a trifle
        ((0, 0, 0), None),
    ],
)
def test_a_client_goes_to_an_agent_with_clearly_fewer_connections(
    connections: tuple[int, ...], found: int | None
) -> None:
    assert Loads(*connections).better_than(1, [3]) == found


def test_of_several_that_are_better_the_first_is_taken() -> None:
    assert Loads(100, 10, 0, 90).better_than(1, [4, 2, 3]) == 2


def test_a_twentieth_of_the_connections_goes_in_ten_seconds() -> None:
    loads = Loads(200, 200, 0)
    for _ in range(3):
        assert [loads.better_than(1, [3]) for _ in range(12)] == [3] * 10 + [None] * 2
        loads.cluster.clock.now_s += 9.9
        assert loads.better_than(1, [3]) is None
        loads.cluster.clock.now_s += 0.1


def test_an_agent_with_few_connections_gives_one_away_at_a_time() -> None:
    loads = Loads(8, 8, 0)
    assert [loads.better_than(1, [3]) for _ in range(2)] == [3, None]


def test_nothing_is_counted_against_the_pace_when_nobody_is_better() -> None:
    loads = Loads(8, 8, 8)
    assert loads.better_than(1, [3]) is None
    loads.tell(8, 8, 0)
    assert loads.better_than(1, [3]) == 3


def test_those_sent_away_count_where_they_go_until_the_numbers_are_new() -> None:
    loads = Loads(100, 100, 50, limits=LoadLimits(move_share=1.0))
    told = [loads.better_than(1, [3]) for _ in range(60)]
    assert told == [3] * 28 + [None] * 32, "0.8 times 100, less 2"
    loads.tell(72, 100, 50)
    assert loads.better_than(1, [3]) == 3


def test_a_crowded_agent_gets_nobody_new() -> None:
    loads = Loads(100, 10, 10)
    assert loads.next_for(1, 2, 3) == 2
    assert loads.next_for(3, 1, 2) == 3
    assert Loads(17, 17, 5).next_for(1, 2, 3) == 1, "a few more than the average is not crowded"


@given(st.lists(st.integers(0, 300), min_size=2, max_size=6))
def test_nobody_goes_back_for_the_same_numbers(connections: list[int]) -> None:
    numbers = range(1, len(connections) + 1)
    found = Loads(*connections).better_than(1, numbers)
    if found is not None:
        connections[0] -= 1
        connections[found - 1] += 1
        # As the agent that it went to sees it.
        assert Loads(*connections).better_than(found, [1]) is None

"""Some lives of brokers and clusters, crashes included; and that the simulator tells the same story twice.

`make sim` runs more of them: what is here is enough to see that the simulator itself works.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.sim.batch import FIGURES, differences, report, run_seed, run_seeds
from tests.sim.cluster import has_cluster
from tests.sim.groups import SEEDS_PER_GROUPS
from tests.sim.life import has_life
from tests.sim.outcome import Outcome
from tests.sim.story import tell
from tests.sim.world import World, play, simulate

SEEDS = range(12)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """Lives that several tests look at."""
    return [simulate(seed) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
def test_promises_hold(seed: int, outcomes: list[Outcome]) -> None:
    outcome = outcomes[seed]
    assert not outcome.violations, report(outcome, outcome.violations)
    assert outcome.acknowledged
    assert outcome.records_read
    has_groups = has_cluster(seed) or seed % SEEDS_PER_GROUPS == 0
    assert bool(outcome.groups) == bool(outcome.group_commits) == has_groups


def test_these_lives_are_full_of_what_they_are_for(outcomes: list[Outcome]) -> None:
    assert sum(outcome.merges > 0 for outcome in outcomes) >= 6
    assert sum(outcome.objects_deleted > 0 for outcome in outcomes) >= 8
    assert sum(outcome.hedges for outcome in outcomes) >= 10
    assert sum(outcome.hedges_won for outcome in outcomes) >= 3
    assert sum(outcome.records_compacted > 0 for outcome in outcomes) >= 2
    assert sum(outcome.starts_moved > 0 for outcome in outcomes) >= 2
    assert 4 <= sum(map(has_life, SEEDS)) < len(SEEDS)
    said = Counter(word for outcome in outcomes for line in outcome.history.lines for word in _deeds(line))
    assert all(said[deed] for deed in DEEDS), said


DEEDS = ("dies", "stands still", "deletes trimmed", "creates renewed", "does the jobs of others", "weather")


def _deeds(line: str) -> list[str]:
    return [deed for deed in DEEDS if deed in line]


def test_the_same_seed_tells_the_same_to_the_byte(outcomes: list[Outcome]) -> None:
    for seed in (1, 2, 3):
        again = simulate(seed)
        assert not differences(outcomes[seed], again)
        assert again.history.lines == outcomes[seed].history.lines


def test_hash_seeds_change_nothing() -> None:
    """An iteration over a set of texts would differ between these processes."""
    digests = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seeds", "4..6", "--digests"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        digests.append(done.stdout)
    assert digests[0].count("\n") == 3
    assert digests[0] == digests[1]


def test_several_processes_tell_what_one_does() -> None:
    several = sorted(run_seeds([2, 6, 7], 2), key=lambda result: result.seed)
    assert [result.seed for result in several] == [2, 6, 7]
    assert several[1].digest == run_seed(6).digest
    assert set(several[1].figures) <= set(FIGURES)


def test_a_failed_seed_is_told_with_what_led_to_it() -> None:
    async def story(world: World) -> None:
        world.history.add("world", "cuts 3 connections")
        await world.hosts[0].serves()
        world.history.add("producer-1", "produce apples-0:1")
        world.history.violate("P1", "producer-1 batch 1 of apples-0 is gone")
        world.history.add("consumer-1", "read pears-0 1..2")

    outcome = play(6, story)
    lines = report(outcome, outcome.violations).splitlines()
    assert lines[0] == "=== seed 6"
    assert any(line.startswith(" !") and "cuts 3 connections" in line for line in lines)
    assert any(line.startswith(">  ") and "produce apples-0:1" in line for line in lines)
    assert any(line.startswith(">x") and "VIOLATION P1" in line for line in lines)
    assert any(line.startswith("   ") and "pears-0" in line for line in lines)
    assert "P1: producer-1 batch 1 of apples-0 is gone" in lines[-3]
    assert "make sim SEEDS=6" in lines[-1]
    assert "VIOLATION" in tell(outcome.history, lines_max=1)

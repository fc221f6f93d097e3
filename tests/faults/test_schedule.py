"""What happens when is a matter of the seed alone, and four seeds meet every kind."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.misfortunes import ACTIONS
from tests.faults.run import MAY_BE_IDLE
from tests.faults.schedule import (
    AGENTS,
    CALM_AFTER_S,
    CLUSTER_KINDS,
    DURATIONS_S,
    LOCAL_KINDS,
    ROUND,
    USUAL_S,
    Kind,
    Schedule,
    draw,
    place_of,
)
from tests.verifier import CHECKS

SECONDS = 60.0


def of_seed(seed: int) -> Schedule:
    return draw(seed, SECONDS, place_of(seed))


@pytest.mark.parametrize("place", sorted(AGENTS))
def test_a_seed_has_the_same_schedule_each_time_and_another_one_another(place: str) -> None:
    schedules = [draw(seed, SECONDS, place) for seed in range(50)]
    assert schedules == [draw(seed, SECONDS, place) for seed in range(50)]
    assert len({schedule.misfortunes for schedule in schedules}) == 50


@pytest.mark.parametrize("begin", range(0, 40 * ROUND, ROUND))
def test_four_seeds_meet_every_kind_of_misfortune_together(begin: int) -> None:
    schedules = [of_seed(seed) for seed in range(begin, begin + ROUND)]
    assert {schedule.place for schedule in schedules} == set(AGENTS)
    met = {misfortune.kind for schedule in schedules for misfortune in schedule.misfortunes}
    assert met == set(Kind)


def test_the_seeds_of_continuous_integration_meet_every_kind_for_long_enough() -> None:
    longest_s: dict[Kind, float] = {}
    for seed in range(ROUND):
        for each in of_seed(seed).misfortunes:
            longest_s[each.kind] = max(each.duration_s, longest_s.get(each.kind, 0.0))
    for kind, duration_s in longest_s.items():
        assert duration_s >= DURATIONS_S.get(kind, USUAL_S)[0], kind


def test_every_kind_happens_somewhere_and_can_be_brought_about() -> None:
    assert set(CLUSTER_KINDS) | set(LOCAL_KINDS) == set(Kind)
    assert set(ACTIONS) == set(Kind)


def test_nothing_happens_twice_at_once_to_one_subject_and_all_ends_before_the_calm() -> None:
    for seed in range(200):
        misfortunes = of_seed(seed).misfortunes
        assert all(each.start_s + each.duration_s <= SECONDS - CALM_AFTER_S + 0.01 for each in misfortunes)
        for subject in {each.subject for each in misfortunes}:
            own = [each for each in misfortunes if each.subject == subject]
            for earlier, later in itertools.pairwise(own):
                assert earlier.start_s + earlier.duration_s <= later.start_s + 0.01, (
                    f"{seed}: {earlier}, {later}"
                )


def test_what_happens_to_an_agent_happens_to_one_that_is_there() -> None:
    for seed in range(200):
        schedule = of_seed(seed)
        for misfortune in schedule.misfortunes:
            assert misfortune.agent is None or misfortune.agent < AGENTS[schedule.place]


def test_what_may_have_nothing_to_look_at_are_checks_of_the_verifier() -> None:
    assert set(CHECKS) >= MAY_BE_IDLE

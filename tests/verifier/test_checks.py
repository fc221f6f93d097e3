"""Each check fails on the fault that it is there for, and on nothing else: not on the same story told rightly."""

from __future__ import annotations

import pytest

from tests.verifier.figures import CHECKS, Verdict
from tests.verifier.judge import judge
from tests.verifier.scene import Scene
from tests.verifier.scenes import STORIES


def told(check: str, *, wrong: bool) -> Verdict:
    scene = Scene()
    STORIES[check](scene, wrong)
    return judge(scene.recorder.history, scene.readbacks, scene.rules, scene.fsck)


def test_there_is_a_story_for_every_check() -> None:
    assert set(STORIES) == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_passes_what_is_right(check: str) -> None:
    verdict = told(check, wrong=False)
    assert not verdict.violations, verdict.report()


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_notices_its_fault_and_says_that_it_has_looked(check: str) -> None:
    verdict = told(check, wrong=True)
    assert check in {violation.check for violation in verdict.violations}, verdict.report()
    assert verdict.figures.checks[check], verdict.report()
    assert check in verdict.report()

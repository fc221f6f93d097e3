"""fsck: what is well is clean, and each kind of damage is found, as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.lifecycle.fsck_support import HOUR_MS, World, kinds, log_of
from tests.unit.metadata.support import NOW_MS
from warp.lifecycle.fsck import NORMAL, QUICK


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.on_sqlite(tmp_path)
    made.produce((0, 3), (1, 2), (0, 1))
    made.produce((1, 4), (2, 1), producer=7)
    made.produce((0, 2))
    yield made
    made.close()


def test_what_is_well_is_clean(world: World) -> None:
    report = world.check()
    assert (report.findings, report.is_clean, report.is_whole) == ([], True, True)
    assert report.counts["extents"] == 5
    assert report.counts["live segments"] == 3
    assert report.counts["logs"] == 3


def test_a_topic_of_many_logs_and_a_log_of_many_extents_are_walked_to_their_ends(world: World) -> None:
    for _ in range(12):
        world.produce((2, 1), (0, 1))
    report = world.check()
    assert (report.findings, report.counts["extents"]) == ([], 29)


def test_merged_segments_are_clean(world: World) -> None:
    world.merge(0)
    report = world.check()
    assert report.findings == []
    assert report.counts["live segments, level 1"] == 1

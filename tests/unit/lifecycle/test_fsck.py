"""fsck: what is well is clean, and each kind of damage to rows is found, as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.lifecycle.fsck_support import World, kinds, log_of
from tests.unit.metadata.support import NOW_MS, postgres_stores
from warp.cluster import marker
from warp.lifecycle import fsck_objects
from warp.lifecycle.epoch import HAS_EPOCHS
from warp.lifecycle.fsck import NORMAL, QUICK
from warp.lifecycle.fsck_report import FINDINGS_MAX, Finding, Kind, Report


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """On both databases, for what leans on their SQL."""
    if request.param == "sqlite":
        made = World.on_sqlite(tmp_path)
    else:
        made = World(postgres_stores(request.getfixturevalue("postgres_url")))
    fill(made)
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.on_sqlite(tmp_path)
    fill(made)
    yield made
    made.close()


def fill(world: World) -> None:
    """Log 0: offsets 0..3 and 4..5, log 1: 0..1 and 2..5, log 2: 0..0."""
    world.produce((0, 3), (1, 2), (0, 1))
    world.produce((1, 4), (2, 1), producer=7)
    world.produce((0, 2), time_ms=NOW_MS + 1000)


def test_what_is_well_is_clean(anywhere: World) -> None:
    report = anywhere.check()
    assert (report.findings, report.is_clean, report.is_whole) == ([], True, True)
    assert report.counts["extents"] == 5
    assert report.counts["live segments"] == 3
    assert report.counts["logs"] == 3
    assert report.counts["producers"] == 2


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


def test_a_log_whose_start_was_moved_is_clean_before_and_after_its_extents_are_trimmed(
    world: World,
) -> None:
    log_id = log_of(world, 0)
    world.store.delete_records({log_id: 4})
    assert world.check().findings == []
    world.execute("delete from extents where log_id = $1 and end_offset = 4", log_id)
    world.execute(
        "update logs set size_bytes = (select sum(e.size_bytes) from extents e where e.log_id = $1) where log_id = $1",
        log_id,
    )
    assert world.check().findings == []


def test_a_deleted_topic_is_clean_while_its_data_go(anywhere: World) -> None:
    anywhere.store.delete_topics([anywhere.topic.topic_id])
    report = anywhere.check()
    assert report.findings == []
    assert report.counts["extents of deleted topics"] == 5


def test_an_extent_that_is_gone_leaves_a_gap(world: World) -> None:
    world.execute("delete from extents where log_id = $1 and end_offset = 2", log_of(world, 1))
    report = world.check()
    assert kinds(report) == ["extent-gap", "log-size"]
    assert report.findings[0].line == (
        "extent-gap: orders-1 (log 2): has no extent for its offsets 0 to 1, its first ones -> "
        "it can't be repaired: restore the metadata or the object store from a backup (docs/backup.md)"
    )


def test_a_last_extent_that_is_gone_leaves_a_gap(world: World) -> None:
    world.execute("delete from extents where log_id = $1 and end_offset = 6", log_of(world, 1))
    assert kinds(world.check()) == ["extent-gap", "log-size"]


def test_a_log_without_any_extent_has_a_gap(world: World) -> None:
    world.execute("delete from extents where log_id = $1", log_of(world, 2))
    assert kinds(world.check()) == ["extent-gap", "log-size"]


def test_a_gap_in_the_middle_is_found(world: World) -> None:
    world.produce((0, 1))
    world.execute("delete from extents where log_id = $1 and end_offset = 6", log_of(world, 0))
    [gap] = [finding for finding in world.check().findings if finding.kind is Kind.EXTENT_GAP]
    assert gap.text == "has no extent for its offsets 4 to 5"


def test_extents_that_overlap_are_found(world: World) -> None:
    world.execute("update extents set base_offset = 3 where log_id = $1 and end_offset = 6", log_of(world, 0))
    assert kinds(world.check(QUICK)) == ["extent-overlap"]
    assert kinds(world.check()) == ["extent-bytes", "extent-overlap"]


def test_an_extent_of_no_offsets_is_found(world: World) -> None:
    world.execute("update extents set base_offset = 6 where log_id = $1 and end_offset = 6", log_of(world, 0))
    assert kinds(world.check(QUICK)) == ["extent-gap", "extent-range"]


def test_an_extent_past_the_end_of_its_log_is_found(world: World) -> None:
    world.execute("update logs set next_offset = 5 where log_id = $1", log_of(world, 0))
    assert kinds(world.check(QUICK)) == ["log-offsets"]


def test_a_log_that_starts_past_its_end_is_found(world: World) -> None:
    world.execute("update logs set start_offset = 7 where log_id = $1", log_of(world, 0))
    assert kinds(world.check(QUICK)) == ["log-offsets"]


def test_an_extent_that_was_moved_to_another_log_is_found(world: World) -> None:
    world.execute(
        "update extents set log_id = $1, end_offset = 2, base_offset = 1 where log_id = $2 and end_offset = 6",
        log_of(world, 2), log_of(world, 0),
    )  # fmt: skip
    found = kinds(world.check(NORMAL))
    assert "extent-foreign" in found
    assert {"extent-gap", "log-offsets", "log-size"} <= set(found)


def test_an_extent_of_no_log_is_found(world: World) -> None:
    world.execute("update extents set log_id = 900 where log_id = $1 and end_offset = 6", log_of(world, 0))
    assert "extent-without-log" in kinds(world.check())


def test_an_extent_of_an_earlier_log_that_is_nowhere_is_found(world: World) -> None:
    world.execute("update extents set log_id = 0 where log_id = $1 and end_offset = 6", log_of(world, 0))
    world.execute("update extents set log_id = -4 where log_id = $1 and end_offset = 4", log_of(world, 0))
    assert world.check(QUICK).found["extent-without-log"] == 2


def test_a_log_row_that_is_gone_is_found(world: World) -> None:
    world.execute("delete from logs where log_id = $1", log_of(world, 1))
    assert kinds(world.check()) == ["extent-without-log", "log-missing", "producer-without-log"]


def test_a_topic_row_that_is_gone_is_found(world: World) -> None:
    world.execute("delete from topics where topic_id = $1", world.topic.topic_id)
    assert world.check().found == {"log-without-topic": 3}


def test_a_log_past_the_partitions_of_its_topic_is_found(world: World) -> None:
    world.execute("update topics set partitions = 2")
    assert kinds(world.check()) == ["log-without-topic"]


def test_a_log_that_is_there_and_deleted_is_found(world: World) -> None:
    world.execute(
        "insert into deleted_logs (log_id, topic_id, partition, deleted_ms) values ($1, $2, 0, 1)",
        log_of(world, 0), world.topic.topic_id,
    )  # fmt: skip
    assert kinds(world.check()) == ["log-undead"]


def test_a_segment_row_that_is_gone_is_found(world: World) -> None:
    world.execute("delete from segments where segment_id = 3")
    report = world.check()
    assert kinds(report) == ["extent-without-segment"]
    assert report.counts["unknown objects, young"] == 1


@pytest.mark.parametrize("state", [1, 2])
def test_an_extent_in_a_dead_segment_is_found(world: World, state: int) -> None:
    world.execute("update segments set state = $1, died_ms = 1 where segment_id = 3", state)
    [finding] = world.check().findings
    assert finding.kind is Kind.EXTENT_IN_DEAD_SEGMENT
    assert "stop all agents" in finding.remedy


@pytest.mark.parametrize(
    ("column", "value"),
    [("position", 0), ("position", -5), ("position", 10**9), ("size_bytes", 0), ("size_bytes", -1)],
)
def test_an_extent_outside_of_its_segment_is_found(world: World, column: str, value: int) -> None:
    world.execute(
        f"update extents set {column} = $1 where log_id = $2 and end_offset = 6", value, log_of(world, 0)
    )
    assert "extent-outside" in kinds(world.check())


def test_an_extent_that_begins_within_another_is_found(world: World) -> None:
    world.execute(
        "update extents set position = 9, size_bytes = 30 where log_id = $1 and end_offset = 2",
        log_of(world, 1),
    )
    found = kinds(world.check(NORMAL))
    assert "extent-shared" in found
    assert "extent-foreign" in found


def test_a_wrong_level_is_found(world: World) -> None:
    world.execute("update segments set level = 2 where segment_id = 3")
    assert "object-damaged" in kinds(world.check(NORMAL))


def test_wrong_offsets_in_a_merged_segment_are_found_by_its_footer(world: World) -> None:
    world.merge(0)
    log_id = log_of(world, 0)
    world.execute(
        "update extents set base_offset = base_offset + 1, end_offset = end_offset + 1 where log_id = $1",
        log_id,
    )
    assert "extent-foreign" in kinds(world.check(NORMAL))


@pytest.mark.parametrize(
    "damage", ["state = 5", "state = 0, died_ms = 4", "state = 1, died_ms = null", "key = 'odd'"]
)
def test_a_segment_row_that_makes_no_sense_is_found(world: World, damage: str) -> None:
    world.execute(
        "insert into segments (key, size_bytes, level, state, created_ms) values ('segments/x', 9, 0, 1, 1)"
    )
    world.execute(f"update segments set {damage} where key = 'segments/x'")
    assert "segment-state" in kinds(world.check(QUICK))


def test_a_producer_past_the_end_of_its_log_is_found(world: World) -> None:
    world.execute("delete from extents where log_id = $1", log_of(world, 2))
    world.execute("update logs set next_offset = 0, size_bytes = 0 where log_id = $1", log_of(world, 2))
    assert kinds(world.check()) == ["producer-state"]


def test_a_producer_that_cant_be_read_is_found(world: World) -> None:
    world.execute("update producers set batches = $1 where log_id = $2", b"123", log_of(world, 2))
    assert kinds(world.check()) == ["producer-state"]


def test_members_of_no_group_are_found_and_offsets_of_none_are_left_to_the_job(anywhere: World) -> None:
    anywhere.execute(
        "insert into group_members (group_number, member_id, place, fields) values (9, $1, 0, $2)", b"m", b"f"
    )
    for group_number in (8, 9):
        anywhere.execute(
            "insert into group_offsets (group_number, log_id, committed_offset, leader_epoch, committed_ms) "
            "values ($1, 1, 5, -1, 1)",
            group_number,
        )
    report = anywhere.check()
    assert kinds(report) == ["member-without-group"]
    assert report.counts["committed offsets to be removed"] == 2


def test_an_epoch_that_the_metadata_dont_know_is_found(world: World) -> None:
    world.replace("epoch/000000000001", b'{"token": "00112233445566778899aabbccddeeff"}')
    assert kinds(world.check()) == ["epoch"]


def test_epochs_that_are_lost_are_found(world: World) -> None:
    world.store.set_setting(HAS_EPOCHS, "1")
    assert kinds(world.check()) == ["epoch"]


def test_a_store_that_has_lost_its_marker_is_found(world: World) -> None:
    assert (fsck_objects.MARKER_KEY, fsck_objects.IS_MARKED) == (marker.MARKER_KEY, marker.IS_MARKED)
    world.store.set_setting(marker.IS_MARKED, "1")
    assert kinds(world.check()) == ["marker"]
    world.replace(marker.MARKER_KEY, b"{}")
    assert world.check().is_clean


def test_findings_are_told_once_and_up_to_a_bound() -> None:
    report = Report()
    for number in range(FINDINGS_MAX + 5):
        for _ in range(2 if number < 10 else 1):
            report.add(Finding(Kind.LOG_SIZE, f"log {number}", "is wrong", "repair it"))
    assert (len(report.findings), report.found.total()) == (FINDINGS_MAX, FINDINGS_MAX + 5)
    assert not report.is_repaired

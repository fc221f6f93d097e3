"""What --repair does: what the report said, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.lifecycle.fsck_support import World, kinds, log_of
from tests.unit.lifecycle.test_fsck_objects import last_key, quarantine
from tests.unit.metadata.support import NOW_MS, postgres_stores
from warp.lifecycle.fsck_report import Kind, Repair, RepairKind

PREFIX = "update extents set prefix_max_timestamp_ms = {} where log_id = 1 and end_offset = {}"
TABLES = ("logs", "extents", "segments", "producers", "quarantined_extents", "topics")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.on_sqlite(tmp_path)
    fill(made)
    yield made
    made.close()


def fill(world: World) -> None:
    world.produce((0, 3), (1, 2), (0, 1))
    world.produce((1, 4), (2, 1), producer=7)
    for place in (3, 1, 2, 5, 4):
        world.produce((0, 2), time_ms=NOW_MS + 1000 * place)


def state(world: World) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables that fsck may touch."""
    return {table: sorted(world.rows(f"select * from {table}"), key=repr) for table in TABLES}


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("update logs set size_bytes = size_bytes + 7 where log_id = 1", Kind.LOG_SIZE),
        ("update logs set max_timestamp_ms = 5 where log_id = 1", Kind.LOG_MAXIMUM),
        (PREFIX.format(5, 8), Kind.EXTENT_PREFIX),
        (PREFIX.format(5, 14), Kind.EXTENT_PREFIX),
        (PREFIX.format(2**60, 6), Kind.EXTENT_PREFIX),
        (PREFIX.format(2**60, 14), Kind.EXTENT_PREFIX),
    ],
)  # fmt: skip
def test_what_can_be_worked_out_anew_is_as_it_was(world: World, damage: str, kind: Kind) -> None:
    before = state(world)
    world.execute(damage)
    damaged = state(world)
    report = world.check()
    assert set(report.found) == {kind}
    assert state(world) == damaged, "a look changes nothing"
    world.repair(report)
    assert (report.repaired, report.is_repaired) == (report.repairs, True)
    assert state(world) == before
    assert world.check().is_clean
    world.repair(report)
    assert state(world) == before


def test_a_log_that_counts_as_compacted_past_its_end_is_compacted_from_its_start(world: World) -> None:
    before = state(world)
    world.execute("update logs set clean_offset = 100 where log_id = 2")
    report = world.check()
    assert kinds(report) == ["clean-offset"]
    world.repair(report)
    assert state(world) == before


def test_a_quarantined_extent_is_released_once_it_can_be_read(world: World) -> None:
    before = state(world)
    quarantine(world, log_of(world, 0), 6, 3)
    whole = world.object(last_key(world))
    damaged = bytearray(whole)
    damaged[70] ^= 1
    world.replace(last_key(world), damaged)
    report = world.check()
    assert report.repairs == []
    world.repair(report)
    assert world.rows("select count(*) from quarantined_extents") == [(1,)]
    world.replace(last_key(world), whole)
    report = world.check()
    assert [repair.kind for repair in report.repairs] == [RepairKind.RELEASE]
    world.repair(report)
    assert state(world) == before


def test_a_quarantined_extent_that_is_gone_is_forgotten(world: World) -> None:
    before = state(world)
    quarantine(world, log_of(world, 0), 600, 3)
    world.repair(world.check())
    assert state(world) == before


def test_a_producer_of_no_log_is_removed_and_no_other(world: World) -> None:
    before = state(world)
    world.execute(
        "insert into producers (log_id, producer_id, epoch, batches, written_ms) values (77, 5, 0, $1, 1)",
        b"",
    )
    report = world.check()
    assert kinds(report) == ["producer-without-log"]
    world.repair(report)
    assert state(world) == before


def test_a_producer_whose_log_has_come_back_stays(world: World) -> None:
    before = state(world)
    report = world.check()
    report.repairs.append(Repair(RepairKind.PRODUCER, log_of(world, 2), 7))
    world.repair(report)
    assert (state(world), report.repaired) == (before, [])


def test_what_cant_be_repaired_is_left_and_said(world: World) -> None:
    world.execute("delete from extents where log_id = 1 and end_offset = 6")
    report = world.check()
    assert kinds(report) == ["extent-gap", "log-size"]
    world.repair(report)
    assert not report.is_repaired
    left = world.check()
    assert kinds(left) == ["extent-gap"]
    assert "can't be repaired: restore" in left.findings[0].remedy


@pytest.mark.postgres
def test_every_repair_works_on_postgres(postgres_url: str) -> None:
    world = World(postgres_stores(postgres_url))
    fill(world)
    before = state(world)
    world.execute("update logs set size_bytes = 1, max_timestamp_ms = 5 where log_id = 1")
    world.execute("update logs set clean_offset = 100 where log_id = 2")
    world.execute(PREFIX.format(2**60, 6))
    quarantine(world, log_of(world, 0), 6, 3)
    world.execute(
        "insert into producers (log_id, producer_id, epoch, batches, written_ms) values (77, 5, 0, $1, 1)",
        b"",
    )
    report = world.check()
    assert {repair.kind for repair in report.repairs} == set(RepairKind)
    world.repair(report)
    assert (report.is_repaired, state(world)) == (True, before)
    world.close()

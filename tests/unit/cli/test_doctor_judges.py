"""What the doctor says of clocks, stores, disks and limits: measurements on both sides of each line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.doctor_facts import (
    BUCKET,
    DATABASE,
    GIB,
    HELD,
    MACHINE,
    NOBODY,
    PLACE,
    UNKNOWN,
    bad,
    milliseconds,
    severities,
    timing,
)
from warp.cli.doctor.facts import ClockFacts, Timing
from warp.cli.doctor.finding import Severity
from warp.cli.doctor.judge.clock import judge_clock
from warp.cli.doctor.judge.machine import judge_machine, memory_bounds
from warp.cli.doctor.judge.object_store import judge_object_directory, judge_object_store
from warp.cli.doctor.judge.place import judge_metadata
from warp.cli.doctor.measure.object_store import FAILURES_MAX
from warp.config import config_of
from warp.units import parse_size

FSYNC = milliseconds(1, 2, 5)
RESERVE_BYTES = 256 * 2**20


@pytest.mark.parametrize(
    ("ahead_s", "uncertainty_s", "severity"),
    [
        (0.0, 0.01, Severity.OK),
        (0.9, 0.01, Severity.OK),
        (1.2, 0.01, Severity.WARNING),
        (-1.2, 0.01, Severity.WARNING),
        (1.2, 0.5, Severity.OK),
        (60.5, 1.0, Severity.WARNING),
        (-62.0, 1.0, Severity.PROBLEM),
        (3600.0, 1.0, Severity.PROBLEM),
    ],
)
def test_a_clock_is_off_when_it_is_surely_off(
    ahead_s: float, uncertainty_s: float, severity: Severity
) -> None:
    (found,) = judge_clock(ClockFacts(ahead_s, uncertainty_s))
    assert found.severity is severity
    assert found.measured["ahead_s"] == ahead_s
    if severity is not Severity.OK:
        assert ("ahead of" if ahead_s > 0 else "behind") in found.text


def test_a_store_that_tells_no_time_is_a_note() -> None:
    (found,) = judge_clock(None)
    assert found.severity is Severity.NOTE


def test_a_good_bucket_has_nothing_wrong_and_says_what_producers_will_wait() -> None:
    findings = list(judge_object_store(BUCKET, FSYNC, 4))
    assert bad(findings) == {}
    produce = next(found for found in findings if found.check == "object-store.produce")
    assert produce.measured == {"p50_ms": 27, "p99_ms": 35, "upload_bytes_per_s": round(4 * 2**20 / 0.09)}
    assert "27 ms (p50) to 35 ms (p99)" in produce.text
    assert "up to 4 run at once" in produce.text


def test_nothing_is_said_of_producers_without_the_figures_for_it() -> None:
    assert "object-store.produce" not in severities(judge_object_store(BUCKET, None, 4))
    half = replace(BUCKET, put_large=Timing(None, 3, "SlowDown"))
    assert "object-store.produce" not in severities(judge_object_store(half, FSYNC, 4))


@pytest.mark.parametrize(
    ("refusal", "text", "remedy"),
    [
        ("there is no bucket 'x'; create it; now", "there is no bucket 'x'", "create it; now"),
        ("S3 answered 501", "S3 answered 501", "docs/object-storage.md explains"),
    ],
)
def test_a_store_that_does_not_open_is_a_problem_with_its_own_words(
    refusal: str, text: str, remedy: str
) -> None:
    (found,) = judge_object_store(replace(BUCKET, refusal=refusal), FSYNC, 4)
    assert (found.severity, found.text) == (Severity.PROBLEM, text)
    assert found.remedy.startswith(remedy)


def test_memory_is_a_note_that_says_what_is_lost() -> None:
    (found,) = judge_object_store(replace(BUCKET, url="mem://"), None, 4)
    assert (found.severity, "gone" in found.text) == (Severity.NOTE, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"check_refusal": "HeadBucket: S3 answered 403"}, {"object-store.check": Severity.PROBLEM}),
        ({"check_refusal": "gone", "is_directory": True}, {"object-store.check": Severity.PROBLEM}),
        ({"conditional_create": False}, {"object-store.abilities": Severity.WARNING}),
        ({"checks_content": False}, {}),
        ({"put_small": timing(160, 170, 180)}, {"object-store.put-small": Severity.WARNING}),
        ({"put_large": timing(160, 170, 180)}, {}),
        ({"put_large": timing(700, 700, 700)}, {"object-store.put-large": Severity.WARNING}),
        ({"get_small": timing(5, 5, 240)}, {}),
        ({"get_small": timing(5, 5, 2000)}, {"object-store.get-small": Severity.WARNING}),
        ({"get_large": timing(50, 50, 400)}, {}),
        ({"get_large": Timing(None, FAILURES_MAX, "SlowDown")}, {"object-store.get-large": Severity.PROBLEM}),
        ({"get_large": Timing(None)}, {"object-store.get-large": Severity.PROBLEM}),
        (
            {"put_small": Timing(milliseconds(20, 21), 1, "SlowDown")},
            {"object-store.put-small": Severity.PROBLEM},
        ),
        ({"left_behind": "AccessDenied"}, {"object-store.open": Severity.WARNING}),
    ],
)
def test_what_a_store_does_badly_is_found(changes: dict[str, Any], expected: dict[str, Severity]) -> None:
    assert bad(judge_object_store(replace(BUCKET, **changes), FSYNC, 4)) == expected


def test_a_directory_is_held_to_what_disks_can_do() -> None:
    directory = replace(BUCKET, is_directory=True, url="file:///objects", checks_content=False)
    slow = replace(directory, put_small=timing(40, 45, 50))
    assert bad(judge_object_store(directory, FSYNC, 4)) == {}
    (found,) = (found for found in judge_object_store(slow, FSYNC, 4) if found.remedy)
    assert (found.check, "disk" in found.remedy) == ("object-store.put-small", True)


def test_a_good_place_has_nothing_wrong() -> None:
    found = severities(judge_metadata(PLACE, DATABASE, NOBODY))
    assert set(found.values()) == {Severity.OK}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fsync": milliseconds(11, 12, 13)}, {"metadata.fsync": Severity.WARNING}),
        ({"fsync": milliseconds(1, 1, 60)}, {"metadata.fsync": Severity.WARNING}),
        ({"fsync": milliseconds(9, 9, 49)}, {}),
        ({"fsync": None}, {}),
        ({"file_system": "tmpfs"}, {"metadata.file-system": Severity.WARNING}),
        ({"file_system": "overlay"}, {"metadata.file-system": Severity.WARNING}),
        ({"file_system": "nfs4"}, {"metadata.file-system": Severity.WARNING}),
        ({"file_system": "xfs"}, {}),
        ({"file_system": None}, {}),
        ({"free_bytes": 63 * 2**20}, {"metadata.space": Severity.PROBLEM}),
        ({"free_bytes": 200 * 2**20}, {"metadata.space": Severity.WARNING}),
        ({"free_bytes": GIB}, {}),
        ({"free_bytes": None}, {}),
        ({"free_files": 9_999}, {"metadata.space": Severity.WARNING}),
        ({"free_files": None}, {}),
        ({"is_there": False, "measured_at": "/var/lib"}, {}),
        ({"refusal": "Permission denied"}, {"metadata.directory": Severity.PROBLEM}),
    ],
)
def test_what_is_wrong_with_a_place_is_found(changes: dict[str, Any], expected: dict[str, Severity]) -> None:
    assert bad(judge_metadata(replace(PLACE, **changes), DATABASE, NOBODY)) == expected


def test_a_directory_that_cannot_be_written_is_all_that_is_said() -> None:
    (found,) = judge_metadata(replace(PLACE, refusal="Read-only file system"), DATABASE, NOBODY)
    assert "Read-only file system" in found.text


def test_a_directory_in_use_by_an_agent_is_fine_and_said_so() -> None:
    found = next(iter(judge_metadata(PLACE, DATABASE, HELD)))
    assert (found.severity, "in use by process 4711" in found.text) == (Severity.OK, True)
    assert found.measured == {"agent_pid": 4711}
    assert next(iter(judge_metadata(PLACE, DATABASE, UNKNOWN))).severity is Severity.NOTE


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({}, Severity.OK, "in WAL mode"),
        ({"is_there": False}, Severity.OK, "first start"),
        ({"size_bytes": 0, "is_sqlite": False, "is_wal": False}, Severity.OK, "empty"),
        ({"is_wal": False}, Severity.NOTE, "not in WAL mode"),
        ({"wal_bytes": 300 * 2**20}, Severity.WARNING, "write-ahead log of 300 MiB"),
        ({"is_sqlite": False, "is_wal": False}, Severity.PROBLEM, "not a SQLite database"),
        ({"refusal": "Permission denied"}, Severity.PROBLEM, "Permission denied"),
    ],
)
def test_the_database_file_is_judged(changes: dict[str, Any], severity: Severity, words: str) -> None:
    findings = judge_metadata(PLACE, replace(DATABASE, **changes), NOBODY)
    found = next(found for found in findings if found.check == "metadata.database")
    assert (found.severity, words in found.text) == (severity, True), found


def test_the_disk_of_an_object_directory_has_to_hold_more_than_the_reserve() -> None:
    def judge(free_bytes: int) -> dict[str, Severity]:
        return bad(judge_object_directory(replace(PLACE, free_bytes=free_bytes), RESERVE_BYTES))

    assert judge(RESERVE_BYTES - 1) == {"object-store.space": Severity.PROBLEM}
    assert judge(RESERVE_BYTES + 1) == {"object-store.space": Severity.WARNING}
    assert judge(4 * RESERVE_BYTES) == {}


def test_a_good_machine_has_nothing_wrong() -> None:
    found = severities(judge_machine(MACHINE, config_of()))
    assert set(found.values()) == {Severity.OK}
    assert len(found) == 7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"open_files_hard": 10_256}, {}),
        ({"open_files_hard": None}, {}),
        ({"open_files_hard": 10_255}, {"limits.open-files": Severity.WARNING}),
        ({"open_files_hard": 300}, {"limits.open-files": Severity.PROBLEM}),
        ({"memory_available_bytes": GIB // 2}, {"limits.memory": Severity.WARNING}),
        ({"memory_available_bytes": GIB // 2, "agent_memory_bytes": GIB * 3 // 2}, {}),
        (
            {"memory_total_bytes": GIB // 2, "memory_available_bytes": GIB // 2},
            {"limits.memory": Severity.PROBLEM},
        ),
        ({"memory_limit_bytes": GIB // 2, "memory_limit_used_bytes": 0}, {"limits.memory": Severity.PROBLEM}),
        ({"memory_limit_bytes": 2 * GIB, "memory_limit_used_bytes": GIB // 8}, {}),
        (
            {"memory_limit_bytes": 2 * GIB, "memory_limit_used_bytes": GIB * 3 // 2},
            {"limits.memory": Severity.WARNING},
        ),
        ({"memory_limit_bytes": 2 * GIB, "memory_limit_used_bytes": None}, {}),
        ({"memory_total_bytes": None}, {}),
        ({"processors": 1}, {}),
        ({"processor_quota": 0.5}, {"limits.processors": Severity.WARNING}),
        ({"processor_quota": 2.0}, {}),
        ({"swap_total_bytes": GIB, "swap_used_bytes": 0}, {}),
        ({"swap_total_bytes": GIB, "swap_used_bytes": GIB * 3 // 4}, {"limits.swap": Severity.WARNING}),
        ({"listen_queue_max": 128}, {"limits.listen-queue": Severity.WARNING}),
        ({"listen_queue_max": 1024}, {}),
        ({"listen_queue_max": None}, {}),
        ({"checksum": "table", "checksums": ("table",)}, {"limits.checksum": Severity.WARNING}),
        ({"sqlite": (3, 34, 1)}, {"limits.software": Severity.PROBLEM}),
        ({"uvloop": ""}, {"limits.software": Severity.PROBLEM}),
    ],
)
def test_what_a_machine_lacks_is_found(changes: dict[str, Any], expected: dict[str, Severity]) -> None:
    assert bad(judge_machine(replace(MACHINE, **changes), config_of())) == expected


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"processors": 1}, "limits.processors"),
        ({"swap_total_bytes": GIB, "swap_used_bytes": 0}, "limits.swap"),
        ({"memory_available_bytes": None}, "limits.memory"),
        ({"listen_queue_max": None}, "limits.listen-queue"),
    ],
)
def test_what_is_worth_knowing_is_a_note(changes: dict[str, Any], check: str) -> None:
    assert severities(judge_machine(replace(MACHINE, **changes), config_of()))[check] is Severity.NOTE


def test_the_sum_of_memory_follows_the_settings() -> None:
    small = config_of(
        request_bytes_max="2MiB",
        request_memory_bytes_max="8MiB",
        flush_bytes_max="1MiB",
        fetch_memory_bytes_max="16MiB",
        cache_bytes_max="16MiB",
        connections_max="100",
    )
    saved = sum(memory_bounds(config_of()).values()) - sum(memory_bounds(small).values())
    requests = parse_size("248MiB") + parse_size("60MiB") + parse_size("7MiB") + parse_size("31MiB")
    consumers = 2 * parse_size("112MiB")
    assert saved == requests + consumers + 9_900 * 6 * 1024


def test_connections_with_tls_count_with_what_they_may_hold() -> None:
    secured = config_of(
        listen=["SSL://127.0.0.1:9092"], tls_certificate="agent.pem", http_tls="true", connections_max="100"
    )
    more = sum(memory_bounds(secured).values()) - sum(
        memory_bounds(config_of(connections_max="100")).values()
    )
    assert more == 100 * (300 * 1024 - 6 * 1024) + parse_size("100MiB")


def test_the_sum_of_memory_has_a_term_for_each_row_of_the_documented_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = text.partition("| what | at most |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    bounds = list(memory_bounds(config_of()))
    assert len(rows) == len(bounds)
    for row, name in zip(rows, bounds, strict=True):
        assert row.startswith(name), row
    assert re.search(r"\| open connections \| 6 KiB each", table)

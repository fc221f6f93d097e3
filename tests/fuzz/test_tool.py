"""The tool around the targets: what it reads from libFuzzer, what it adds up, and how scripts and marks are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import figures, marks
from tests.fuzz.__main__ import Campaign, parse_options
from tests.fuzz.process import Slice, interesting, read_output
from tests.fuzz.script import Script
from tests.fuzz.table import TABLE

OUTPUT = """INFO: Instrumenting warp.ids
#2\tINITED cov: 10 ft: 20 corp: 1/1b exec/s: 0 rss: 50Mb
#512\tpulse  cov: 12 ft: 33 corp: 4/40b lim: 4 exec/s: 100 rss: 51Mb

 === Uncaught Python exception: ===
AssertionError: read more than it was allowed
artifact_prefix='/finds/'; Test unit written to /finds/crash-da39
stat::number_of_executed_units: 513
"""


def test_figures_and_finds_are_read_from_what_is_printed() -> None:
    made = Slice("codecs", output=OUTPUT)
    read_output(made)
    assert (made.executions, made.edges, made.features, made.inputs) == (513, 12, 33, 4)
    assert made.finds == [Path("/finds/crash-da39")]
    assert interesting(made)[:2] == ["", " === Uncaught Python exception: ==="]


def test_the_log_adds_up_per_target_and_in_all(tmp_path: Path) -> None:
    for seconds, executions in ((1800.0, 1000), (1800.0, 3000)):
        made = Slice(
            "frames", seconds=seconds, cpu_seconds=seconds / 2, executions=executions, edges=executions
        )
        figures.note(tmp_path, made, 5.0)
    figures.note(tmp_path, Slice("codecs", seconds=3600.0, cpu_seconds=1.0, finds=[Path("/x/crash-1")]), 6.0)
    lines = figures.table(tmp_path, ["frames", "codecs", "sasl"]).splitlines()
    assert lines[2] == "| frames | 1.00 | 0.50 | 4,000 | 2 | 3,000 | 0 | 0 | 0 |"
    assert lines[3] == "| codecs | 1.00 | 0.00 | 0 | 0 | 0 | 0 | 0 | 1 |"
    assert lines[4] == "| all | 2.00 | 0.50 | 4,000 | 2 | | | | 1 |"


def test_every_target_has_its_turn_however_short_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def instead(target: str, seconds: int, folder: Path, *_: Path) -> Slice:
        assert seconds >= 1
        assert any(folder.iterdir())
        ran.append(target)
        return Slice(target, failure="ended with 1" if target == "codecs" else "")

    monkeypatch.setattr("tests.fuzz.__main__.fuzz", instead)
    places = [f"--{name}={tmp_path / name}" for name in ("corpus", "finds", "log")]
    campaign = Campaign(list(TABLE), parse_options(["--minutes=0", *places]))
    campaign.run()
    assert sorted(ran) == sorted(TABLE)
    assert campaign.failures == ["codecs ended with 1"]
    assert "FAILED: codecs ended with 1" in campaign.report()


def test_a_script_gives_zeros_at_its_end() -> None:
    script = Script(b"\x01\xff\xfeab")
    assert (script.byte(), script.signed(2), script.take(1), bool(script)) == (1, -2, b"a", True)
    assert (script.rest(), bool(script), script.number(3), script.take(5)) == (b"b", False, 0, b"")


def test_marks_are_numbers_within_the_counters_and_the_same_each_time() -> None:
    told: list[int] = []
    marks.tell(told.append)
    try:
        for _ in range(2):
            marks.mark("a", 1)
            marks.mark("a", 2)
    finally:
        marks.tell(None)
    marks.mark("a", 3)
    assert len(told) == 4
    assert told[:2] == told[2:]
    assert len(set(told)) == 2
    assert all(0 <= number < marks.COUNTERS for number in told)


def test_names_and_numbers_in_errors_are_nothing_new() -> None:
    assert marks.said(ValueError("12 bytes in 'a'")) == marks.said(ValueError("7 bytes in 'b'"))

"""How findings are shown, and that each of them stands in the documentation."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from warp.cli.doctor.finding import CHECKS, Finding, Severity, note, ok, problem, warning
from warp.cli.doctor.latency import Latency, time_words
from warp.cli.doctor.report import Progress, as_json, human, summary, wants_colour

FINDINGS = [
    note("limits.swap", "some"),
    problem("ports.listen", "taken", "stop it", subject="127.0.0.1:9092"),
    ok("clock.object-store", "right", measured={"ahead_s": 0.5}),
    warning("metadata.fsync", "slow", "buy a disk"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_people_get_aligned_groups_with_the_remedy_below() -> None:
    assert human("title", FINDINGS, colour=False).splitlines() == [
        "title",
        "",
        "Clock",
        "  ok       against the object store  right",
        "",
        "Metadata",
        "  warning  fsync 4 KiB               slow",
        "                                     -> buy a disk",
        "",
        "Ports",
        "  problem  Kafka 127.0.0.1:9092      taken",
        "                                     -> stop it",
        "",
        "Limits",
        "  note     swap                      some",
        "",
        "1 problem, 1 warning, 1 note",
    ]


def test_colour_changes_nothing_but_colour() -> None:
    plain, painted = (human("title", FINDINGS, colour=colour) for colour in (False, True))
    assert "\x1b[31mproblem" in painted
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"):
        painted = painted.replace(code, "")
    assert painted == plain


def test_the_summary_counts() -> None:
    assert summary([]) == "no problems, no warnings"
    assert summary([FINDINGS[1]] * 2) == "2 problems, no warnings"


def test_scripts_get_every_field() -> None:
    found = json.loads(as_json({"data-dir": "/d"}, FINDINGS))
    assert found["looked_at"] == {"data-dir": "/d"}
    assert (found["healthy"], found["counts"]) == (False, {"ok": 1, "note": 1, "warning": 1, "problem": 1})
    assert found["findings"][0] == {
        "check": "clock.object-store",
        "subject": "",
        "severity": "ok",
        "text": "right",
        "remedy": None,
        "measured": {"ahead_s": 0.5},
    }
    assert found["findings"][2]["remedy"] == "stop it"
    assert json.loads(as_json({}, FINDINGS[2:3]))["healthy"] is True


def test_progress_is_for_terminals() -> None:
    nowhere, terminal = io.StringIO(), Terminal()
    for stream in (nowhere, terminal):
        progress = Progress(stream)
        progress("PUT 1/2")
        progress.clear()
        progress.clear()
    assert nowhere.getvalue() == ""
    assert terminal.getvalue() == "\r\x1b[KPUT 1/2 ...\r\x1b[K"


def test_colour_is_for_terminals_that_want_it() -> None:
    assert wants_colour(Terminal(), {})
    assert not wants_colour(io.StringIO(), {})
    assert not wants_colour(Terminal(), {"NO_COLOR": "1"})
    assert not wants_colour(Terminal(), {"TERM": "dumb"})


def test_a_remedy_is_there_exactly_when_something_is_to_be_done() -> None:
    with pytest.raises(AssertionError):
        Finding("limits.swap", Severity.WARNING, "some")
    with pytest.raises(AssertionError):
        Finding("limits.swap", Severity.OK, "some", "do something")
    with pytest.raises(AssertionError):
        ok("limits.swop", "some")


def test_percentiles_are_samples() -> None:
    latency = Latency.of(number / 1000 for number in range(100, 0, -1))
    assert latency is not None
    assert (latency.p50_s, latency.p90_s, latency.p99_s, latency.max_s) == (0.050, 0.090, 0.099, 0.100)
    assert latency.words() == "p50 50 ms  p90 90 ms  p99 99 ms  max 100 ms"
    assert latency.measured() == {
        "samples": 100, "p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0,
    }  # fmt: skip
    single = Latency.of([2.5])
    assert single is not None
    assert (single.p50_s, single.p99_s, Latency.of([])) == (2.5, 2.5, None)


@pytest.mark.parametrize(
    ("time_s", "words"), [(0.0000123, "0.0123 ms"), (0.0123, "12.3 ms"), (2.5, "2.5 s"), (3600, "3600 s")]
)
def test_times_are_told_in_three_digits(time_s: float, words: str) -> None:
    assert time_words(time_s) == words


def test_every_check_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text()
    for check in CHECKS:
        assert f"`{check}`" in text, check

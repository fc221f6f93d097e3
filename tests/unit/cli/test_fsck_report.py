"""What `warp fsck` shows: a bar on terminals alone, and reports without what would move a cursor."""

from __future__ import annotations

import io
from pathlib import Path

from warp.cli.fsck.progress import ProgressBar, bar
from warp.cli.fsck.report import human, verdict
from warp.ids import LogId
from warp.lifecycle.fsck_report import Finding, Kind, Repair, RepairKind, Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_how_far_it_is() -> None:
    assert bar("segments", 500, 1000) == "segments     [============            ]  50%  500 of 1,000"
    assert bar("segments", 3000, 1000).startswith("segments     [========================] 100%")
    assert bar("producers", 4, None) == "producers  4"


def test_the_bar_is_rewritten_now_and_then_and_taken_away() -> None:
    now = [0.0]
    terminal = Terminal()
    progress = ProgressBar(terminal, lambda: now[0])
    progress("logs", 1, 2)
    progress("logs", 2, 2)
    assert "2 of 2" not in terminal.getvalue()
    progress("objects", 7, 9)
    now[0] = 1.0
    progress("objects", 8, 9)
    progress.clear()
    progress.clear()
    shown = terminal.getvalue()
    assert "7 of 9" in shown
    assert "8 of 9" in shown
    assert shown.endswith("8 of 9\r\x1b[K")


def test_elsewhere_there_is_no_bar() -> None:
    stream = io.StringIO()
    progress = ProgressBar(stream, lambda: 0.0)
    progress("logs", 1, 2)
    progress.clear()
    assert stream.getvalue() == ""


def test_a_report_is_lines_without_control_characters() -> None:
    report = Report()
    repair = Repair(RepairKind.LOG_SIZE, LogId(4))
    report.add(Finding(Kind.LOG_SIZE, "evil\x1b[2J-0 (log 4)", "is wrong", "mend it", repair))
    report.note("odd\nobject")
    shown = human(report, repairs=False)
    assert shown.startswith("log-size: evil\\x1b[2J-0 (log 4): is wrong -> mend it\n\nnote: odd\\nobject\n")
    assert "--repair would add up the size of log 4 anew" in shown
    assert shown.endswith("1 finding: 1 log-size")
    assert "right by now: add up the size of log 4 anew" in human(report, repairs=True)
    report.repaired.append(repair)
    assert "repaired: add up the size of log 4 anew" in human(report, repairs=True)
    assert verdict(report).endswith("; all repaired")


def test_what_was_not_looked_at_is_said() -> None:
    report = Report()
    report.add(Finding(Kind.UNREAD, "x", "could not be looked at", "again"))
    assert verdict(report) == "1 finding: 1 unread; not everything could be looked at"


def test_every_kind_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "fsck.md").read_text("utf-8")
    assert [kind for kind in Kind if f"`{kind}`" not in text] == []


def test_every_repair_says_what_it_does() -> None:
    texts = [Repair(kind, LogId(3), 5, 6).describe() for kind in RepairKind]
    assert len(set(texts)) == len(RepairKind)
    assert all("3" in text for text in texts)

"""The table of breakages fits the code, and the runner takes nothing for a test that notices but one that fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.breakages.table import BREAKAGES
from tests.breakages.tree import BadBreakage, Breakage, Tree, judge

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_a_breakage_fits_the_code_and_names_tests_that_exist(breakage: Breakage) -> None:
    text = (ROOT / breakage.file).read_text(encoding="utf-8")
    assert breakage.applied_to(text) != text
    for test in breakage.caught_by:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in source, test


def test_every_promise_is_broken_and_no_name_is_there_twice() -> None:
    assert {breakage.promise for breakage in BREAKAGES} == {f"P{number}" for number in range(1, 11)}
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)
    assert all(re.fullmatch(r"[a-z0-9-]+", breakage.name) for breakage in BREAKAGES)


@pytest.mark.parametrize(
    ("exit_code", "output", "caught_by"),
    [
        (1, "FAILED tests/a.py::test_b - assert 1 == 2\n1 failed\n", "tests/a.py::test_b"),
        (1, "FAILED tests/a.py::test_b[x - y] - struct.error: too large\n", "tests/a.py::test_b[x - y]"),
        (1, "FAILED tests/a.py::test_b\n", "tests/a.py::test_b"),
        (1, "FAILED tests/a.py::test_b - x\nERROR tests/a.py::test_b - y\n", "tests/a.py::test_b"),
        (0, "2 passed\n", None),
        (1, "ERROR tests/a.py::test_b - OSError: no such file\n1 error\n", None),
        (1, "FAILED tests/a.py::test_b - NameError: name 'x' is not defined\n", None),
        (1, "FAILED tests/a.py::test_b - Failed: Timeout (>60.0s) from pytest-timeout.\n", None),
        (2, "ERROR tests/a.py - SyntaxError: invalid syntax\n", None),
        (4, "ERROR: not found: tests/a.py::test_b\n", None),
        (5, "no tests ran\n", None),
        (-9, "", None),
    ],
)
def test_only_a_test_that_ran_and_failed_has_noticed(
    exit_code: int, output: str, caught_by: str | None
) -> None:
    printed = "FAILED to answer\n=== short test summary info ===\n"
    assert judge(exit_code, printed + output).caught_by == caught_by


@pytest.mark.parametrize("text", ["nothing", "x = 1\nx = 1\n"])
def test_a_text_that_is_not_there_once_has_to_be_rewritten(text: str) -> None:
    with pytest.raises(BadBreakage, match="rewrite the breakage"):
        Breakage("b", "P1", "f.py", "x = 1\n", "x = 2\n", ()).applied_to(text)


def test_the_copy_is_broken_and_mended_and_what_it_came_from_is_left_alone(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    (root / "value.py").write_text("VALUE = 1\n")
    (root / "deleted.py").write_text("")
    (root / "test_value.py").write_text("from value import VALUE\n\ndef test_it():\n    assert VALUE == 1\n")
    for command in (["init", "--quiet"], ["add", "value.py", "deleted.py", "test_value.py"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "deleted.py").unlink()
    (root / "untracked.py").write_text("")
    tree = Tree(root, copy)
    assert sorted(path.name for path in copy.iterdir()) == ["test_value.py", "value.py"]
    breakage = Breakage("b", "P1", "value.py", "VALUE = 1", "VALUE = 2", ("test_value.py",))
    assert tree.run(breakage.caught_by)[0] == 0
    with tree.broken(breakage):
        assert judge(*tree.run(breakage.caught_by)).caught_by == "test_value.py::test_it"
    assert tree.run(breakage.caught_by)[0] == 0
    assert (root / "value.py").read_text() == "VALUE = 1\n"

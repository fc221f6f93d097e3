"""The tree keeps the rules that it sets itself, as far as a program can tell."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import warp
from tools import check_native_imports, check_wheels, source_digest

ROOT = Path(__file__).resolve().parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINES_MAX = 500
FUNCTION_LINES_MAX = 60
# Files that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
PYTHON_FILES = sorted(path for folder in ("warp", "tools") for path in (ROOT / folder).rglob("*.py"))
NATIVE_FILES = sorted(
    path for pattern in ("*.pyx", "*.pxd", "native/*.h") for path in ROOT.glob(f"warp/{pattern}")
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_version_has_one_source() -> None:
    version = PYPROJECT["project"]["version"]
    assert warp.__version__ == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets
    command = ["make", "--no-print-directory", "help"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listing.splitlines()} == targets


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_module_says_its_reason(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"


@pytest.mark.parametrize("path", [*PYTHON_FILES, *NATIVE_FILES], ids=name_of)
def test_file_is_short_enough_to_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_MAX or name_of(path) in LONG_FILES


def test_every_excuse_for_a_long_file_is_needed() -> None:
    for name, reason in LONG_FILES.items():
        assert reason
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > LINES_MAX, name


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_functions_are_short_enough_to_read(path: Path) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, functions):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


def test_every_native_module_has_its_stub() -> None:
    modules = {path.stem for path in ROOT.glob("warp/*.pyx")}
    assert modules
    assert {path.stem for path in ROOT.glob("warp/*.pyi")} == modules


def test_native_modules_import_only_each_other() -> None:
    assert check_native_imports.violations(ROOT / "warp") == []


@pytest.mark.parametrize(
    "line",
    [
        "from warp.errors import WarpError",
        "import warp.errors as e, os",
        "from .errors import WarpError",
        "from . import errors",
        "cimport warp.errors",
        "    from warp import errors",
    ],
)
def test_an_import_from_a_native_module_upwards_is_noticed(tmp_path: Path, line: str) -> None:
    package = tmp_path / "warp"
    package.mkdir()
    (package / "_leaf.pxd").write_text("from libc.stdint cimport uint8_t\n")
    (package / "_other.pyx").write_text(
        f"from warp._leaf cimport x\nfrom . cimport _leaf\nimport os, struct\n{line}\n"
    )
    (found,) = check_native_imports.violations(package)
    assert "_other.pyx: imports errors" in found


def test_what_users_have_to_install_is_imported_somewhere() -> None:
    files = [path for suffix in ("py", "pyx") for path in sorted((ROOT / "warp").rglob(f"*.{suffix}"))]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE))
    needed = {re.split(r"[<>=~! \[]", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    modules = {"PyJWT": "jwt"}
    assert {modules.get(name, name.replace("-", "_")) for name in needed} <= imported


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    listed = re.findall(r"\]\((\S+)\)", (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8"))
    assert listed == names
    for number, name in enumerate(names, 1):
        assert (ROOT / "docs" / "adr" / name).read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_every_package_stands_in_a_layer() -> None:
    (layers,) = (
        contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"] if contract["id"] == "layers"
    )
    assert layers["exhaustive"] is True
    listed = {name.strip("() ") for layer in layers["layers"] for name in re.split(r"[|:]", layer)}
    packages = {path.parent.name for path in ROOT.glob("warp/*/__init__.py")}
    modules = {path.stem for path in ROOT.glob("warp/*.py")} - {"__init__"}
    assert packages | modules <= listed


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    (tmp_path / "warp").mkdir()
    for name in ("pyproject.toml", "setup.py", "warp/a.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_digest_follows_names_and_contents_of_sources(small_tree: Path) -> None:
    digests = [source_digest.source_digest(small_tree)]
    (small_tree / "warp/a.py").write_text("changed")
    digests.append(source_digest.source_digest(small_tree))
    (small_tree / "warp/a.py").rename(small_tree / "warp/b.py")
    digests.append(source_digest.source_digest(small_tree))
    (small_tree / "setup.py").write_text("changed")
    digests.append(source_digest.source_digest(small_tree))
    assert len(set(digests)) == len(digests)


def test_digest_ignores_what_a_build_makes(small_tree: Path) -> None:
    before = source_digest.source_digest(small_tree)
    (small_tree / "warp/__pycache__").mkdir()
    for name in ("warp/_codec.so", "warp/__pycache__/a.pyc", source_digest.BUILD_INFO):
        (small_tree / name).write_text("made")
    assert source_digest.source_digest(small_tree) == before


def test_missing_and_foreign_wheels_are_named(tmp_path: Path) -> None:
    (tmp_path / "warp_agent-0.0.9.tar.gz").touch()
    found = check_wheels.problems(tmp_path, "0.1.0", "digest")
    assert [line.split()[0] for line in found] == [
        "warp_agent-0.1.0-cp311-*.whl",
        "warp_agent-0.1.0-cp312-*.whl",
        "warp_agent-0.1.0-cp313-*.whl",
        "warp_agent-0.1.0.tar.gz",
        "warp_agent-0.0.9.tar.gz",
    ]

"""A copy of the tree in which one thing at a time is broken, and the tests that are run in it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TEST_TIMEOUT_S = 60
PYTEST_TIMEOUT_S = 600
_FAILED_TESTS = 1
"""pytest's exit code when tests ran and some failed; others mean that it could not run them."""
_KILLED = -9

_MISTAKES = re.compile(
    r"- (?:\w+\.)*(NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b"
)
"""What the text of a breakage itself does wrong."""


class BadBreakage(Exception):
    """A breakage that proves nothing any more, and has to be rewritten."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break the product: in `file` the text `old`, which is there once, becomes `new`.

    `promise` is the one that is broken, `caught_by` the tests (files or node ids) of which one must fail.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]

    def applied_to(self, text: str) -> str:
        """The text of the file when it is broken. Raises BadBreakage."""
        count = text.count(self.old)
        if count != 1:
            raise BadBreakage(f"its text is {count} times in {self.file}, not once: rewrite the breakage")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests said of a breakage: which of them noticed and how, or None and why that does not count."""

    caught_by: str | None
    told: str


def judge(exit_code: int, output: str) -> Verdict:
    """Whether a run of pytest, with `-rfE`, shows that a test has noticed: that it ran, and failed."""
    if exit_code == 0:
        return Verdict(None, "no test noticed")
    _, _, summary = output.rpartition("short test summary info")
    failed = re.search(r"^FAILED (\S+?(?:\[.*?\])?)(?: - .*)?$", summary, re.MULTILINE)
    if exit_code != _FAILED_TESTS or failed is None:
        return Verdict(None, f"the tests could not run (pytest exited with {exit_code})")
    if _MISTAKES.search(failed[0]):
        return Verdict(None, f"the breakage itself is wrong: {failed[0]}")
    if "- Failed: Timeout" in failed[0]:
        return Verdict(None, f"a test hung, which is too slow a way to notice: {failed[0]}")
    return Verdict(failed[1], failed[0])


class Tree:
    """A copy of what git tracks in `root`, as it is in the working tree, with the native modules that are built."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.directory = directory
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        native = [path.relative_to(root) for path in sorted(root.glob(f"warp/*{suffix}"))]
        for name in [*_tracked(root), *native]:
            # What has been deleted and not yet committed is tracked as well.
            if (root / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, directory / name)
        if native:
            self._require_own_package()

    @contextmanager
    def broken(self, breakage: Breakage) -> Iterator[None]:
        """Break it; mend it afterwards. Raises BadBreakage."""
        path = self.directory / breakage.file
        whole = path.read_text(encoding="utf-8")
        text = breakage.applied_to(whole)
        with self._replaced_native(path):
            try:
                _write(path, text)
                if path.suffix == ".pyx":
                    _build(self.directory, path)
                yield
            finally:
                _write(path, whole)

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        """pytest's exit code and output for these tests; where they run on several databases, on SQLite alone."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=short", "--color=no"]
        # Half of a short run goes by while plugins are loaded: none is needed but the one of the limit.
        command += ["-p", "pytest_timeout", f"--timeout={TEST_TIMEOUT_S}", "-p", "no:cacheprovider"]
        command += ["-m", "not postgres", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=self.directory,
                # pytest cuts the lines of its summary at this width.
                env={**os.environ, "COLUMNS": "200", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PYTEST_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return _KILLED, f"pytest was killed after {error.timeout:g} s"
        return done.returncode, done.stdout

    def _require_own_package(self) -> None:
        """An installed package must not stand in for the copy: then every breakage would go unnoticed."""
        command = [sys.executable, "-c", "import warp; print(warp.__file__)"]
        found = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=True).stdout
        if not Path(found.strip()).resolve().is_relative_to(self.directory.resolve()):
            raise RuntimeError(f"the copy in {self.directory} would be tested with {found.strip()}")

    @contextmanager
    def _replaced_native(self, path: Path) -> Iterator[None]:
        """Put the native module of a .pyx back in place at the end."""
        if path.suffix != ".pyx":
            yield
            return
        library = _library(path)
        image = library.read_bytes()
        try:
            yield
        finally:
            library.unlink(missing_ok=True)
            library.write_bytes(image)


def _tracked(root: Path) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    return [Path(name) for name in listing.stdout.split("\0") if name]


def _write(path: Path, text: str) -> None:
    """Change a source. Bytecode is taken for current by size and second alone, so that has to go."""
    path.write_text(text, encoding="utf-8")
    if path.suffix == ".py":
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def _library(path: Path) -> Path:
    return path.with_name(path.stem + sysconfig.get_config_var("EXT_SUFFIX"))


def _build(directory: Path, path: Path) -> None:
    """Compile one .pyx in place, without optimisation: that is quick, and breaks the same. Raises BadBreakage."""
    translated = path.with_suffix(".c")
    library = _library(path)
    # A new file: the compiler must not write into one that is mapped.
    library.unlink(missing_ok=True)
    includes = [f"-I{name}" for name in (".", "warp", "warp/native", sysconfig.get_paths()["include"])]
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    for command in (
        [sys.executable, "-m", "cython", "-3", "-X", "boundscheck=False,wraparound=False", str(path)],
        [*compiler, "-O0", "-w", "-shared", "-fPIC", *includes, str(translated), "-o", str(library)],
    ):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadBreakage(f"it does not compile: {done.stderr.strip()}")
    translated.unlink()

"""The fuzz build sees what it is there for: each kind of planted fault in native code, also behind branches."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.places import ROOT
from tests.fuzz.process import environment

pytestmark = pytest.mark.toolchain

CALL = """
import ctypes, sys
import atheris
library = ctypes.CDLL(sys.argv.pop(1))
function = getattr(library, sys.argv.pop(1))
def check(data):
    if data:
        function(ctypes.c_char_p(data), ctypes.c_size_t(len(data)))
atheris.Setup(sys.argv, check)
atheris.Fuzz()
"""
RUNS_MAX = 2_000_000


def flags() -> list[str]:
    """Those of the fuzz build, as setup.py has them."""
    names: dict[str, Any] = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and "FLAGS" in ast.unparse(node.targets[0]):
            exec(ast.unparse(node), {}, names)  # constants, and names of those before
    found: list[str] = names["COMMON_FLAGS"] + names["COMPILE_FLAGS"]["fuzz"]
    return [flag for flag in found if flag != "-fvisibility=hidden"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("clang")
    if compiler is None:
        pytest.skip("no clang (Debian: apt-get install clang)")
    pytest.importorskip("atheris", reason="no atheris: make fuzz installs it")
    built: Path = tmp_path_factory.mktemp("planted") / "planted.so"
    source, compiled = Path(__file__).with_name("planted.c"), built.with_suffix(".o")
    subprocess.run([compiler, *flags(), "-fPIC", "-c", source, "-o", compiled], check=True)
    subprocess.run([compiler, "-shared", compiled, "-o", built], check=True)
    return built


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("past_the_end", "AddressSanitizer: heap-buffer-overflow"),
        ("after_the_end_of_its_life", "AddressSanitizer: heap-use-after-free"),
        ("more_than_fits", "signed integer overflow"),
        ("shifted_too_far", "shift exponent"),
        ("behind_a_word", "AddressSanitizer: heap-buffer-overflow"),
    ],
)
def test_a_planted_fault_is_seen(library: Path, tmp_path: Path, fault: str, said: str) -> None:
    command = [sys.executable, "-P", "-c", CALL, str(library), fault, f"-runs={RUNS_MAX}", "-seed=1"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"],
        env=environment(is_symbolic=False),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode != 0
    assert said in done.stderr, done.stderr[-3000:]
    (found,) = tmp_path.iterdir()
    if fault == "behind_a_word":
        assert found.read_bytes() == b"Warp"

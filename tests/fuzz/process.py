"""Runs libFuzzer on one target for a while, in a process of its own, and reads from what it prints how it went."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz import corpus
from tests.fuzz.table import TABLE

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "fuzz"

INPUT_S_MAX: Final = 10
"""What one input may take; under the sanitizers everything takes several times as long as usual."""
MEMORY_MIB_MAX: Final = 2048
ALLOCATION_MIB_MAX: Final = 256
"""What one allocation may be. No target allows anything that large."""
STOP_S_MAX: Final = 60
"""How much longer than it was asked to a process may run before it is killed."""

_STATUS = re.compile(r"^#(\d+)\t.*\bcov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_WRITTEN = re.compile(r"Test unit written to (\S+)")

_SANITIZERS: Final = {
    # CPython keeps memory until the process ends, and for ever; an allocation that fails is an error to be handled.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64:malloc_context_size=12",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # So that the address sanitizer sees every object of CPython, too.
    "PYTHONMALLOC": "malloc",
    "PYTHONHASHSEED": "0",
}


@dataclass
class Slice:
    """What became of one process."""

    target: str
    seconds: float = 0.0
    executions: int = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0
    finds: list[Path] = field(default_factory=list)
    output: str = ""
    failure: str = ""
    """Why it did not run as it should, though it found nothing."""


def fuzz(target: str, seconds: int, folder: Path, finds: Path, *arguments: str) -> Slice:
    """Go on from the inputs in `folder`; new ones are put there, and inputs that find something into `finds`."""
    entry = TABLE[target]
    finds.mkdir(parents=True, exist_ok=True)
    words = finds.parent / f"{target}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in entry.load().words), encoding="ascii")
    return run(
        target,
        seconds + STOP_S_MAX,
        f"-max_total_time={seconds}",
        f"-max_len={entry.load().input_bytes_max}",
        f"-dict={words}",
        f"-artifact_prefix={finds}/",
        *arguments,
        str(folder),
    )


def run(target: str, kill_after_s: float, *arguments: str) -> Slice:
    """Run the process with these arguments for libFuzzer."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "tests.fuzz.child",
        target,
        f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-malloc_limit_mb={ALLOCATION_MIB_MAX}",
        "-print_final_stats=1",
        *arguments,
    ]
    began_s = time.monotonic()
    made = Slice(target)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=kill_after_s,
            check=False,
        )
        made.output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as error:
        made.output, code = (error.stdout or b"").decode(errors="replace"), None
    made.seconds = time.monotonic() - began_s
    read_output(made)
    if not made.finds and code != 0:
        made.failure = "had to be killed" if code is None else f"ended with {code}"
    return made


def read_output(made: Slice) -> None:
    """Take the figures out of what libFuzzer has printed."""
    states = _STATUS.findall(made.output)
    if states:
        made.executions = max(int(state[0]) for state in states)
        made.edges, made.features, made.inputs = (int(number) for number in states[-1][1:])
    total = re.search(r"number_of_executed_units: (\d+)", made.output)
    if total is not None:
        made.executions = max(made.executions, int(total[1]))
    made.finds = [Path(path) for path in _WRITTEN.findall(made.output)]


def environment() -> dict[str, str]:
    """That of a process of the fuzz build."""
    import atheris

    library = Path(atheris.path()) / "asan_with_fuzzer.so"
    return {
        **os.environ,
        **_SANITIZERS,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}",
    }


def prepare(target: str, folder: Path) -> None:
    """Put everything that is known into the folder: seeds, the packed corpus, and what has found something before."""
    inputs = [*TABLE[target].load().seeds(), *corpus.packed(target).values(), *corpus.found(target).values()]
    corpus.spread(folder, inputs)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)

"""Runs libFuzzer on one target for a while, in a process of its own, and reads from what it prints how it went."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz import corpus
from tests.fuzz.places import BUILD, ROOT
from tests.fuzz.table import TABLE

INPUT_S_MAX: Final = 60
"""What one input may take; under the sanitizers everything takes several times as long as usual."""
MEMORY_MIB_MAX: Final = 2048
ALLOCATION_MIB_MAX: Final = 256
"""What one allocation may be. No target allows anything that large."""
EXPLAIN_S_MAX: Final = 300
STOP_S_MAX: Final = 1800
"""How much longer than it was asked to a process may run before it is killed. Where others use the processors, and
this goes on beside them, reading a corpus alone may take minutes."""

_STATUS = re.compile(r"^#(\d+)\t.*\bcov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_WRITTEN = re.compile(r"Test unit written to (\S+)")

_running: set[subprocess.Popen[bytes]] = set()

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
    cpu_seconds: float = 0.0
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


def explain(target: str, find: Path) -> Path:
    """Give a find to the target once more, with names in native stacks, which take their time; where that stands."""
    made = run(target, EXPLAIN_S_MAX, f"-timeout={EXPLAIN_S_MAX}", str(find), is_symbolic=True)
    report = find.with_name(f"{find.name}.txt")
    report.write_text("\n".join(interesting(made)) + "\n", encoding="utf-8")
    return report


def run(target: str, kill_after_s: float, *arguments: str, is_symbolic: bool = False) -> Slice:
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
    made = Slice(target)
    began_s = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(is_symbolic=is_symbolic),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _running.add(process)
        killer = threading.Timer(kill_after_s, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        _running.discard(process)
        was_killed = not killer.is_alive()
        killer.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
        output.seek(0)
        made.output = output.read().decode(errors="replace")
    made.seconds = time.monotonic() - began_s
    made.cpu_seconds = usage.ru_utime + usage.ru_stime
    read_output(made)
    if not made.finds and code != 0:
        made.failure = "had to be killed" if was_killed else f"ended with {code}"
    return made


def kill_all() -> None:
    """End what runs; libFuzzer would take a gentler signal as something to report."""
    for process in list(_running):
        process.kill()


def interesting(made: Slice) -> list[str]:
    """The lines that were printed, but for the fuzzer's progress."""
    boring = ("#", "INFO: Instrumenting", "WARNING: Skipping import", "\tNEW_FUNC")
    return [
        line for line in made.output.splitlines() if not line.startswith(boring) and "# Uses:" not in line
    ]


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


def environment(*, is_symbolic: bool) -> dict[str, str]:
    """That of a process of the fuzz build."""
    import atheris

    options = f"{_SANITIZERS['ASAN_OPTIONS']}:symbolize={int(is_symbolic)}"
    library = Path(atheris.path()) / "asan_with_fuzzer.so"
    return {
        **os.environ,
        **_SANITIZERS,
        "ASAN_OPTIONS": options,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}",
    }


def prepare(target: str, folder: Path) -> None:
    """Put everything that is known into the folder: seeds, the packed corpus, and what has found something before."""
    inputs = [*TABLE[target].load().seeds(), *corpus.packed(target), *corpus.found(target).values()]
    corpus.spread(folder, inputs)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)

"""What the macro benchmarks share: the C load driver, CPU accounting of processes, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
BUILD = HERE.parent.parent / "build" / "benchmarks"
GB = 1_000_000_000


def build(source_name: str, *arguments: str) -> Path:
    """Compiles a C program of this folder, unless it is there. Returns its path."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source = HERE / source_name
    program = BUILD / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        subprocess.run([compiler, "-O2", "-o", str(program), str(source), *arguments], check=True)
    return program


def build_load_driver() -> Path:
    """Compiles load.c against the librdkafka inside the confluent-kafka wheel. Returns the program's path."""
    libraries = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(libraries.glob("librdkafka*.so*"))
    if not found:
        sys.exit(
            f"no librdkafka beside confluent-kafka in {libraries}: install confluent-kafka from its wheel"
        )
    return build("load.c", str(found[-1]), f"-Wl,-rpath,{libraries}")


def load(*arguments: object, cpu: int | None = None) -> dict[str, Any]:
    """Runs the load driver (pinned to one processor where asked) and returns its JSON."""
    command = [str(build_load_driver()), *(str(argument) for argument in arguments)]
    if cpu is not None and (os.cpu_count() or 1) > 1:
        command = ["taskset", "-c", str(cpu), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        sys.exit(f"load driver failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def create_topic(bootstrap: str, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(60)


def metrics(http: str) -> dict[str, float]:
    """What an agent's /metrics says, by name and labels as they stand there."""
    with urllib.request.urlopen(f"{http}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads, also those that have ended."""
    # What clock_getcpuclockid(3) makes of a process id on Linux. /proc tells the same in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmRSS")


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmHWM")


class Others:
    """What others take of the processors from now on: foreign processes, and the host of a virtual machine."""

    def __init__(self) -> None:
        self._begin = self._now()

    def describe(self) -> str:
        """In words, since this was made. What the processes that have ended took is known as ours."""
        seconds, busy, own, stolen = (now - then for now, then in zip(self._now(), self._begin, strict=True))
        whole = seconds * (os.cpu_count() or 1)
        return f"others used {max(0.0, busy - own) / whole:.0%} of the processors, {stolen / whole:.0%} was stolen"

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        user, nice, system, _, _, irq, softirq, stolen = ticks[:8]
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        return time.monotonic(), busy, own, stolen / os.sysconf("SC_CLK_TCK")


@dataclass
class Table:
    """Rows of one benchmark, printed as Markdown and stored as JSON."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[list[Any]]
    beside: str = ""
    """What else the machine did meanwhile."""

    def print(self) -> None:
        print(f"\n### {self.title}\n")
        print("| " + " | ".join(self.columns) + " |")
        print("|" + "---|" * len(self.columns))
        for row in self.rows:
            print("| " + " | ".join(_cell(value) for value in row) + " |")
        sys.stdout.flush()

    def as_json(self) -> dict[str, Any]:
        return {"title": self.title, "columns": list(self.columns), "rows": self.rows, "beside": self.beside}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def store(name: str, tables: Sequence[Table]) -> Path:
    """Writes the tables of one run to results/<name>.json, with what the machine was."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = {
        "when": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "librdkafka": confluent_kafka.libversion()[0],
        "tables": {table.name: table.as_json() for table in tables},
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)

"""An agent as a process of its own, and what can be learned of it: by its metrics, its probe, and of Linux."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import AgentProcess, free_port
from tests.support.tls import Certificate

HTTP_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 60.0
MIB = 2**20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Facts:
    """What an agent holds on to, after a garbage collection and a return of free memory to the system."""

    resident_bytes: int
    blocks: int
    """Pieces of memory that Python's objects hold."""
    threads: int
    descriptors: dict[str, int]
    """By kind."""
    tasks: dict[str, int]
    """By the name of their coroutine."""
    types: dict[str, int]
    """Objects by type, the most frequent ones."""
    cached_bytes: int = 0
    """What the cache of record data says that it holds."""
    kept: dict[str, int] = field(default_factory=dict)
    """What has to be 0 when nobody reads: parts of the cache that are kept for readers."""


class LoadAgent(AgentProcess):
    """Listens in the clear and, where a certificate is given, over TLS."""

    def __init__(self, data_dir: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        super().__init__(data_dir, *options, environment=environment)
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._socket = data_dir.parent / f"{data_dir.name}.probe"
        if len(str(self._socket)) > 100:  # Linux takes 107
            self._socket = Path(f"/tmp/warp-load-{os.getpid()}-{self.port}.probe")

    def command(self) -> list[str]:
        """With the probe beside the agent."""
        python, _m, _warp, *words = super().command()
        return [python, "-m", "tests.load.probe", str(self._socket), *words]

    def start(self) -> None:
        """Also after a kill."""
        self._socket.unlink(missing_ok=True)
        super().start()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._socket.unlink(missing_ok=True)

    def facts(self) -> Facts:
        """What it holds on to now."""
        return Facts(**self._ask("facts"))

    def watch_holds(self) -> None:
        """From now on, note how long its event loop is kept from its next turn."""
        self._ask("watch")

    def longest_hold_s(self) -> float:
        """The longest since, in CPU seconds of the loop's thread."""
        return float(self._ask("hold"))

    def _ask(self, word: str) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PROBE_TIMEOUT_S)
            connection.connect(str(self._socket))
            connection.sendall(f"{word}\n".encode())
            with connection.makefile("rb") as stream:
                return json.loads(stream.read())

    def metrics(self) -> dict[str, float]:
        """By name and labels, as Prometheus writes them."""
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=HTTP_TIMEOUT_S) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def metric(self, name: str) -> float:
        """The sum of the samples of one metric."""
        found = self.metrics()
        return sum(value for key, value in found.items() if key.partition("{")[0] == name)

    def count(self, name: str, **labels: str) -> float:
        """One sample of a metric; 0 where there is none yet."""
        inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
        return self.metrics().get(f"{name}{{{inner}}}" if inner else name, 0.0)

    def resident_bytes(self) -> int:
        """Memory that it holds at this moment, what malloc keeps free included."""
        return self._status("VmRSS") * 1024

    def peak_bytes(self) -> int:
        """The most that it has held since its start, or the last `forget_peak`."""
        return self._status("VmHWM") * 1024

    def forget_peak(self) -> None:
        """Let the peak begin with what it holds now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_s(self) -> float:
        """CPU time that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def bugs(self) -> list[str]:
        """Lines of its log that only bugs write."""
        return [line for line in self.output if "Traceback (most recent call last)" in line]

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(f"the kernel tells no {name}")


def with_tls(certificate: Certificate) -> tuple[int, Sequence[str]]:
    """A free port, and the options of an agent that speaks TLS there."""
    port = free_port()
    files = ("--tls-certificate", str(certificate.ca_file), "--tls-key", str(certificate.key_file))
    return port, ("--listen", f"SSL://127.0.0.1:{port}", *files)

"""A `warp agent` as a process of its own: started, killed, frozen and started again by tests."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


PORTS = range(10_000, 30_000)
"""Below those that Linux gives to outgoing connections: an agent that is down for a while finds its port free again."""
_WORKERS_MAX = 8
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS_MAX
_ports = itertools.cycle(
    random.SystemRandom().sample(PORTS[_WORKER::_WORKERS_MAX], len(PORTS) // _WORKERS_MAX)
)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment, and nobody else of these tests takes.

    Workers that share the tests have ports of their own.
    """
    for port in itertools.islice(_ports, len(PORTS)):
        with socket.socket() as probe:
            # As servers do: a connection that has just ended does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port of {PORTS} is free")


class AgentProcess:
    """One agent on ports of its own, of the loopback address unless told. Ports and data stay the same over restarts.

    Use as a context manager: the agent is started on entry and stopped (by its process id) on exit.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.data_dir = data_dir
        self.host = host
        self.port = free_port()
        self.http_port = free_port()
        self.bootstrap = f"{host}:{self.port}"
        self.http = f"http://{host}:{self.http_port}"
        self._options = options
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.output: list[str] = []

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "warp", "agent", "--listen", self.bootstrap,
            "--http", f"{self.host}:{self.http_port}", "--data-dir", str(self.data_dir), *self._options,
        ]  # fmt: skip

    def start(self) -> None:
        """Starts the agent and returns when it serves. Raises AssertionError with its output when it doesn't."""
        environment = {**os.environ, **self._environment}
        process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        self._process = process
        serving = threading.Event()
        self._reader = threading.Thread(target=self._read_output, args=(process, serving), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not serving.wait(0.02):
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError("the agent did not start:\n" + "\n".join(self.output[-50:]))

    def _read_output(self, process: subprocess.Popen[bytes], serving: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip()
                self.output.append(text)
                if re.search(rf"(?i:serv)\w+.*{re.escape(self.bootstrap)}\b", text):
                    serving.set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9, as a crash would be; returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._gone(self._process)

    def stop(self) -> int:
        """SIGTERM, then wait. Returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._gone(self._process)

    def _gone(self, process: subprocess.Popen[bytes]) -> int:
        """Waits for the end of the process and of its output."""
        code = process.wait(STOP_TIMEOUT_S)
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        self._process = None
        return code

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

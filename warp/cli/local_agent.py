"""A `warp agent` as a child process: what the demo runs, and what tests of the product's users do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Final

from warp.config_options import ENVIRONMENT_PREFIX
from warp.errors import StartError

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0
LOG_LINES_KEPT: Final = 200


class LocalAgent:
    """One agent on free ports of the loopback address, with its data in `directory`.

    `options` are those of `warp agent`. Settings in this process's environment do not count. Use it as a context
    manager, or call `start` and `stop`; it may be started again, on the same data and the same ports.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.bootstrap = "127.0.0.1:0"
        """`HOST:PORT` for clients, once it has been started."""
        self.http = "http://127.0.0.1:0"
        """Where /v1/status, /v1/ready and /metrics are, once it has been started with HTTP on."""
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._reader: threading.Thread | None = None

    def __enter__(self) -> LocalAgent:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id. Only while it runs."""
        assert self._process is not None, "the agent does not run"
        return self._process.pid

    @property
    def log(self) -> list[str]:
        """The last lines of its log."""
        return list(self._log)

    def start(self) -> None:
        """Returns when it serves. Raises StartError, with the end of its log, when it doesn't."""
        assert self._process is None, "the agent runs already"
        # A session of its own: Ctrl-C is for the parent, which then stops its agent in order.
        self._process = subprocess.Popen(
            self._command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
        try:
            self._wait_until_it_serves(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """End it in order; by force when it does not end. The exit code; 0 when it did not run."""
        process = self._process
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        return self._ended(process)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._ended(self._process)

    def require_alive(self) -> None:
        """Raises StartError, with the end of its log, when the process is gone."""
        assert self._process is not None, "the agent does not run"
        if self._process.poll() is not None:
            raise StartError(f"the agent ended with code {self._process.returncode}: {self._last_words()}")

    def _command(self) -> list[str]:
        addresses = ["--listen", self.bootstrap]
        if "--http" not in self._options:
            addresses += ["--http", self.http.removeprefix("http://")]
        command = [sys.executable, "-m", "warp", "agent", "--data-dir", str(self.directory), *addresses]
        return [*command, *self._options]

    def _wait_until_it_serves(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read_log, args=(process,), daemon=True)
        self._reader.start()
        # One that hangs before it serves is ended, which ends the wait for its line.
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        match = re.search(r"serves Kafka on ([^\s,;]+)[^;]*;(?: HTTP on (http://[^\s;]+))?", line)
        if match is None:
            process.wait(STOP_TIMEOUT_S)
            self._reader.join(1)
            raise StartError(f"the agent did not start: {self._last_words()}")
        self.bootstrap, self.http = match[1], match[2] or self.http

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._log.append(line.rstrip())

    def _ended(self, process: subprocess.Popen[str]) -> int:
        code = process.wait()
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        self._process = None
        return code

    def _last_words(self) -> str:
        return " / ".join(self.log[-3:]) or "it left no message"


def _environment() -> dict[str, str]:
    """This process's environment without settings for agents, and with the package that is running."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    path = [str(Path(__file__).parents[2]), kept.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, path))}

"""`warp` as users run it: processes with their own standard output and error, ended after each test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


def run_warp(
    *words: str, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path = ROOT
) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "warp", *words],
        input=stdin, capture_output=True, timeout=TIMEOUT_S, env=environment(**(env or {})), cwd=cwd, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Running:
    """A `warp agent` process, or a script that runs one, whose lines are read as they come."""

    def __init__(self, command: list[str], env: dict[str, str], stderr: int) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=env, cwd=ROOT)
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _read_errors(self, stream: IO[bytes] | None) -> None:
        for line in stream or ():
            with self._changed:
                self.errors.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()

    def serving_line(self) -> str:
        """The line that says that it serves; fails with the process's errors when there is none."""
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline().decode()
        if "serves Kafka on" not in line:
            code = self.process.wait(TIMEOUT_S)
            self._reader.join(TIMEOUT_S)
            raise AssertionError(f"exit code {code}, {line!r}: " + "\n".join(self.errors))
        self.bootstrap = re.findall(r"127\.0\.0\.1:\d+", line)[0]
        found = re.search(r"HTTP on (https?://\S+?);", line)
        self.http = found[1] if found else ""
        return line

    def wait_for_error(self, text: str) -> str:
        """The first line of standard error that holds a text; waits for it."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(text in line for line in self.errors), TIMEOUT_S)
            assert found, f"no {text!r} in\n" + "\n".join(self.errors)
            return next(line for line in self.errors if text in line)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.stderr is not None:
            self._reader.join(TIMEOUT_S)
            self.process.stderr.close()


class Spawn:
    """Starts processes; `data_dir` is the directory of each, unless an option says something else."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.started: list[Running] = []

    def agent(self, *options: str, serving: bool = True, env: dict[str, str] | None = None) -> Running:
        """A `warp agent` on free ports; returns when it serves."""
        running = self.python("-m", "warp", "agent", *self.defaults(*options), env=env)
        if serving:
            running.serving_line()
        return running

    def python(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        stderr: int = subprocess.PIPE,
        prefix: Sequence[str] = (),
    ) -> Running:
        """A Python process; `prefix` is a program that runs it."""
        running = Running([*prefix, sys.executable, *words], environment(**(env or {})), stderr)
        self.started.append(running)
        return running

    def defaults(self, *options: str) -> list[str]:
        given = {option for option in options if option.startswith("--")}
        wanted = {"--data-dir": str(self.data_dir), "--listen": "127.0.0.1:0", "--http": "127.0.0.1:0"}
        return [
            *(word for name, value in wanted.items() if name not in given for word in (name, value)),
            *options,
        ]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    made = Spawn(tmp_path / "data")
    yield made
    for running in made.started:
        running.close()

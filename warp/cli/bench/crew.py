"""The worker processes of a run, as the command sees them: started together, told things, listened to, ended."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from warp.cli.bench.tasks import ConsumerTask, ProducerTask, task_to_json
from warp.cli.client import ClientError

COMMAND: Final = (sys.executable, "-m", "warp.cli.bench.worker")
END_TIMEOUT_S: Final = 5.0

Message = tuple[int, dict[str, Any]]
"""Number of a worker and what it tells."""


class Crew:
    """Workers, by number in the order of their tasks. A context manager: none outlives it."""

    def __init__(self, tasks: Sequence[ProducerTask | ConsumerTask]) -> None:
        self._tasks = tasks
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def __enter__(self) -> Crew:
        try:
            for number, task in enumerate(self._tasks):
                self._start(number, task)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next_message(self, timeout_s: float) -> Message | None:
        """What a worker tells next; None when nobody says anything for so long.

        Raises ClientError when a worker has failed, or is gone without its last word.
        """
        try:
            number, content = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if "failure" in content:
            raise ClientError(content["failure"])
        return number, content

    def tell(self, content: dict[str, Any], numbers: Sequence[int] | None = None) -> None:
        """Say something to some workers, or to all. Those that have ended do not hear it."""
        line = json.dumps(content) + "\n"
        for number in range(len(self._processes)) if numbers is None else numbers:
            self._write(self._processes[number], line)

    def close(self) -> None:
        """End all workers that still run."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    # It has ended before; what was not yet written does not matter any more.
                    continue
        for process in self._processes:
            process.kill()
            process.wait(END_TIMEOUT_S)
        for reader in self._readers:
            reader.join(END_TIMEOUT_S)
        for process in self._processes:
            if process.stdout is not None:
                process.stdout.close()

    def _start(self, number: int, task: ProducerTask | ConsumerTask) -> None:
        # A session of its own: Ctrl-C is for the command, which then asks its workers for their results.
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
        self._processes.append(process)
        reader = threading.Thread(
            target=self._read, args=(number, process), name=f"bench-{number}", daemon=True
        )
        self._readers.append(reader)
        reader.start()
        self._write(process, json.dumps(task_to_json(task)) + "\n")

    @staticmethod
    def _write(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            # Its reader thread tells why it is gone.
            return

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        is_over = False
        for line in process.stdout:
            content = json.loads(line)
            is_over = "ended" in content or "failure" in content
            self._messages.put((number, content))
        if not is_over:
            code = process.wait()
            self._messages.put(
                (number, {"failure": f"a worker process ended without a result (exit code {code})"})
            )


def _environment() -> dict[str, str]:
    """This process's environment, and the package that is running."""
    path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}

"""The stub S3 server (stub_s3.c) as a process of its own, and an agent that stores on it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import AGENT_CPU, Run
from benchmarks.macro.harness import median
from tests.support.process import AgentProcess, free_port

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "benchmark"


class S3Stub:
    """A running stub. `settings` are those at the head of stub_s3.c. Use as a context manager.

    It shares the agent's processor: the client keeps its own for itself.
    """

    def __init__(self, **settings: float) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._settings = settings

    def url(self, prefix: str = "warp", **parameters: object) -> str:
        """What an agent is to store on."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"s3://{BUCKET}/{prefix}?region=us-east-1&endpoint={self.endpoint}{more}"

    def set(self, **settings: float) -> None:
        """Change settings while it runs."""
        self._ask("/-/set?" + "&".join(f"{name}={value}" for name, value in settings.items()))

    def counts(self) -> dict[str, int]:
        """Requests by kind, bytes of bodies, and more, since it started."""
        counts: dict[str, int] = json.loads(self._ask("/-/counts"))
        return counts

    def put_p50_ms(self, rounds: int, body: bytes = bytes(1024)) -> float:
        """How long a bare PUT takes, one after the other over one connection."""
        took: list[float] = []
        for number in range(rounds):
            begin = time.perf_counter()
            self._connection.request("PUT", f"/{BUCKET}/bare/{number}", body)
            self._connection.getresponse().read()
            took.append((time.perf_counter() - begin) * 1e3)
        return median(took)

    def _ask(self, path: str) -> bytes:
        try:
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
        except http.client.RemoteDisconnected:
            # It was idle for long. The next request connects again.
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {body!r}")
        return body

    def __enter__(self) -> S3Stub:
        program = harness.build("stub_s3.c")
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        command = [str(program), str(self.port), *settings]
        if (os.cpu_count() or 1) > 1:
            command = ["taskset", "-c", str(AGENT_CPU), *command]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise ChildProcessError("the stub S3 server did not start")
        self.pid = self._process.pid
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def agent_on_s3(*options: str, **settings: float) -> Iterator[tuple[AgentProcess, S3Stub]]:
    """An agent that stores on a stub of its own with these settings."""
    with S3Stub(**settings) as stub, Run(["--object-store", stub.url(), *options], ENVIRONMENT) as agent:
        yield agent, stub

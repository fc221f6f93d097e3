"""Real S3 servers for tests, each in a process of its own on a free loopback port, with a log of what it was asked."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import IO, Protocol

from tests.support.http_log import LoggedRequest
from tests.support.sigv4 import Answer, Credentials, ask

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
ROOT = Path(__file__).parents[2]


class S3Endpoint(Protocol):
    """A running S3 server, whatever it is made of."""

    endpoint: str
    credentials: Credentials

    def new_bucket(self) -> str:
        """The name of a new and empty bucket."""


def s3_url(bucket: str, prefix: str = "", *, endpoint: str, **settings: str) -> str:
    """An object store's URL; settings are its parameters, as `read_timeout="1s"`."""
    parameters = urllib.parse.urlencode({"endpoint": endpoint, "region": "us-east-1", **settings}, safe=":/")
    return f"s3://{bucket}{'/' + prefix if prefix else ''}?{parameters}"


def environment_of(credentials: Credentials) -> dict[str, str]:
    """What a process needs in its environment to use these credentials and no others."""
    return {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        **NO_OTHER_CREDENTIALS,
    }


NO_OTHER_CREDENTIALS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """moto as a process: what `make test` stores on. Use as a context manager.

    It takes any signature; `tests.support.rgw.RgwServer` doesn't.
    """

    def __init__(self, directory: Path) -> None:
        self.endpoint = ""
        self.port = 0
        self.credentials = Credentials("warp-test", "warp-test-secret")
        self._log = directory / "requests.jsonl"
        self._output = directory / "server.txt"
        self._names = (f"bucket-{number}" for number in itertools.count())
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it serves. Raises AssertionError with its output when it doesn't."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.s3_moto", str(self._log)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, cwd=ROOT,
            )  # fmt: skip
        line = _first_line(self._process.stdout)
        if not line.strip().isdigit():
            self.stop()
            raise AssertionError("the S3 server did not start:\n" + self._output.read_text()[-3000:])
        self.port = int(line)
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Kills it, as it has nothing to keep; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def pids(self) -> list[int]:
        """Of its one process."""
        return [] if self._process is None else [self._process.pid]

    def new_bucket(self) -> str:
        name = next(self._names)
        answer = self.ask("PUT", f"/{name}")
        assert answer.status == 200, answer
        return name

    def url(self, prefix: str = "", **settings: str) -> str:
        """The URL of an object store in a new bucket."""
        return s3_url(self.new_bucket(), prefix, endpoint=self.endpoint, **settings)

    def ask(self, method: str, path: str, **options: object) -> Answer:
        """One signed request; options as `sigv4.ask` takes them."""
        return ask(self.endpoint, self.credentials, method, path, **options)  # type: ignore[arg-type]

    def requests(self, since: int = 0, *, bucket: str = "") -> list[LoggedRequest]:
        """What it was asked, in the order of the answers, without the first `since`; of one bucket if one is named."""
        lines = self._log.read_text(encoding="utf-8").splitlines()[since:] if self._log.exists() else []
        found = [LoggedRequest.from_json(line) for line in lines]
        return [request for request in found if not bucket or _bucket_of(request) == bucket]


def _bucket_of(request: LoggedRequest) -> str:
    return request.path.split("/")[1]


def _first_line(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    line: bytes = stream.readline()
    return line

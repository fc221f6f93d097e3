"""Kafka Connect itself, distributed: its connectors, offsets and states live in three compacted topics alone."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.compacted_log import CompactedLog, wait_until_compacted
from tests.clients.members import java
from tests.clients.test_confluent import read_partition
from tests.support.cluster import eventually
from tests.support.process import AgentProcess, free_port

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(240)]

STORES = {"offset": 5, "config": 1, "status": 2}
TOPICS = {"offset": "connect-offsets", "config": "connect-configs", "status": "connect-status"}
CHANGES = 6
LINES = 50
START_S = 90.0


class Worker:
    """One worker of Kafka Connect, which is asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer, None without one. Raises urllib.error.URLError when it is not to be had now."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def has(self, path: str, wanted: str) -> bool:
        """Does an answer hold a word? While there is none, not yet."""
        try:
            return wanted in json.dumps(self.ask("GET", path))
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def worker(bootstrap: str, folder: Path) -> Iterator[Worker]:
    """A worker that serves, on a free port; it ends in order."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = {
        "bootstrap.servers": bootstrap, "group.id": "connect", "listeners": url,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.flush.interval.ms": "100", "scheduled.rebalance.max.delay.ms": "0",
        "plugin.discovery": "only_scan",
    }  # fmt: skip
    for store, partitions in STORES.items():
        settings |= {
            f"{store}.storage.topic": TOPICS[store], f"{store}.storage.replication.factor": "1",
            f"{store}.storage.min.cleanable.dirty.ratio": "0.01", f"{store}.storage.partitions": str(partitions),
        }  # fmt: skip
    del settings["config.storage.partitions"]  # It is one, and refused as an option.
    folder.mkdir(exist_ok=True)
    path = folder / "worker.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [*java(), "org.apache.kafka.connect.cli.ConnectDistributed", str(path)], stdout=log, stderr=log
        )
    try:
        found = Worker(url)
        eventually(lambda: found.has("/", "version"), "the worker serves", START_S)
        eventually(lambda: found.has("/connectors", "["), "it has read its topics to the end", START_S)
        yield found
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait(60)
        print((folder / "worker.log").read_text(errors="replace")[-4000:])


def append(path: Path, first: int) -> None:
    with path.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(first, first + LINES))


def lines(bootstrap: str, count: int) -> list[str]:
    return [(message.value() or b"").decode() for message in read_partition(bootstrap, "lines", count)]


def test_connect_finds_connectors_and_offsets_again_after_compaction_and_restarts(tmp_path: Path) -> None:
    source, folder = tmp_path / "source.txt", tmp_path / "worker"
    options = ("--flush-interval", "5ms", "--compaction-interval", "200ms", "--delete-grace", "1s")
    config = {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "file": str(source), "topic": "lines", "tasks.max": "1",
    }  # fmt: skip
    with AgentProcess(tmp_path / "data", *options) as agent:
        append(source, 0)
        with worker(agent.bootstrap, folder) as connect:
            for number in range(CHANGES):
                connect.ask("PUT", "/connectors/file/config", {**config, "batch.size": str(1000 + number)})
            eventually(
                lambda: connect.has("/connectors/file/status", '"tasks": [{'), "its task runs", START_S
            )
            assert lines(agent.bootstrap, LINES) == [f"line {number}" for number in range(LINES)]
            connect.ask("PUT", "/connectors/other/config", {**config, "topic": "other"})
            connect.ask("DELETE", "/connectors/other")
        with CompactedLog(agent.bootstrap, TOPICS["config"]) as configs:
            written = configs.end_offset()
        agent.kill()
        agent.start()
        # Of the configs of the connector the last one is left at least.
        wait_until_compacted(agent.bootstrap, TOPICS["config"], written - (CHANGES - 1))
        with worker(agent.bootstrap, folder) as connect:
            assert connect.ask("GET", "/connectors") == ["file"]
            assert connect.ask("GET", "/connectors/file/config")["batch.size"] == str(1000 + CHANGES - 1)
            append(source, LINES)
            # Nothing comes a second time: how far the file was read is known from the topic of offsets.
            assert lines(agent.bootstrap, 2 * LINES) == [f"line {number}" for number in range(2 * LINES)]

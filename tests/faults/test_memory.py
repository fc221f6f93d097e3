"""Fifty clients flood an agent with small bounds: its resident memory stays below their documented sum (P8)."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.test_confluent import read_partition
from tests.support.process import AgentProcess

CLIENTS = 50
RECORDS_PER_CLIENT = 150
RECORD_BYTES = 100_000
REQUEST_MEMORY_MIB = 32
CACHE_MIB = 32
FETCH_MEMORY_MIB = 16
FLUSH_MIB = 8
BOUND_MIB = (
    REQUEST_MEMORY_MIB
    + REQUEST_MEMORY_MIB // 2 + FLUSH_MIB  # sealed segments, and one more
    + REQUEST_MEMORY_MIB // 8  # blocks that wait to be used again
    + CACHE_MIB
    + FETCH_MEMORY_MIB
    + 4 * 2  # buffers of the local store's writers
    + 100  # the process
)  # fmt: skip
"""The sum in docs/operations.md, for clients that don't compress."""


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel tells no peak")


@pytest.mark.timeout(300)
def test_memory_stays_bounded_under_a_flood_of_clients(tmp_path: Path) -> None:
    options = [
        "--request-memory", f"{REQUEST_MEMORY_MIB}MiB", "--cache-bytes", f"{CACHE_MIB}MiB",
        "--fetch-memory", f"{FETCH_MEMORY_MIB}MiB", "--request-bytes-max", "8MiB", "--flush-bytes", f"{FLUSH_MIB}MiB",
    ]  # fmt: skip
    payload = random.Random(3).randbytes(RECORD_BYTES)
    failures: list[object] = []

    def flood(bootstrap: str, partition: int) -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "message.timeout.ms": 240_000})
        for _ in range(RECORDS_PER_CLIENT):
            producer.produce("flood", payload, partition=partition,
                             on_delivery=lambda error, _: failures.append(error) if error else None)  # fmt: skip
        if producer.flush(240):
            failures.append("not flushed")

    with AgentProcess(tmp_path / "data", *options) as agent:
        admin = AdminClient({"bootstrap.servers": agent.bootstrap})
        admin.create_topics([NewTopic("flood", 10, 1)])["flood"].result(30)
        threads = [threading.Thread(target=flood, args=(agent.bootstrap, n % 10)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        count = RECORDS_PER_CLIENT * CLIENTS // 10
        assert len(read_partition(agent.bootstrap, "flood", count)) == count
        assert peak_mib(agent.pid) < BOUND_MIB

"""Programs that keep their state in compacted topics: a schema registry, and the three stores of Kafka Connect."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.compacted_log import CompactedLog, ensure_topic, wait_until_compacted
from tests.clients.schema_registry import SchemaRegistry
from tests.support.process import AgentProcess

QUICK = (
    "--flush-interval", "5ms", "--compaction-interval", "200ms", "--merge-interval", "200ms", "--delete-grace", "1s",
    "--retention-check-interval", "200ms",
)  # fmt: skip
SUBJECTS = 10
VERSIONS = 8
ROUNDS = 10


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that compacts all the time, and that a test may kill."""
    with AgentProcess(tmp_path / "data", *QUICK) as process:
        yield process


def has_tombstones(bootstrap: str, topic: str, partitions: int) -> bool:
    with CompactedLog(bootstrap, topic, partitions) as log:
        return log.tombstones_read > 0


def schema(subject: int, version: int) -> str:
    return json.dumps(
        {"type": "record", "name": f"r{subject}", "fields": [{"name": f"f{version}", "type": "int"}]}
    )


def test_a_schema_registry_knows_the_same_after_restarts_of_itself_and_of_the_agent(
    own_agent: AgentProcess,
) -> None:
    with SchemaRegistry(own_agent.bootstrap) as registry:
        ids = {
            (subject, version): registry.register(f"subject-{subject}", schema(subject, version))
            for version in range(VERSIONS)
            for subject in range(SUBJECTS)
        }
        assert sorted(ids.values()) == list(range(1, SUBJECTS * VERSIONS + 1))
        assert registry.register("subject-0", schema(0, 3)) == ids[0, 3]
        known = registry.state()
    with SchemaRegistry(own_agent.bootstrap) as registry:
        assert registry.state() == known
    own_agent.kill()
    own_agent.start()
    with SchemaRegistry(own_agent.bootstrap) as registry:
        assert registry.state() == known
        assert registry.register("another", schema(0, 3)) == ids[0, 3]
        assert registry.register("another", "{}") == SUBJECTS * VERSIONS + 1


def test_a_schema_registry_knows_the_same_after_compaction(own_agent: AgentProcess) -> None:
    with SchemaRegistry(own_agent.bootstrap) as registry:
        for number in range(SUBJECTS):
            registry.register(f"subject-{number}", schema(number, 1))
            for round_number in range(VERSIONS):
                registry.set_compatibility(
                    f"subject-{number}", ("FULL", "NONE", "BACKWARD")[round_number % 3]
                )
        registry.delete("subject-0", 1)
        registry.delete("subject-1", 1)
        registry.delete("subject-1", 1, permanently=True)
        written = registry.log.end_offset()
        known = registry.state()
    # Per subject one schema and one level, and the tombstones; as much again may be dirty by min.cleanable.dirty.ratio.
    wait_until_compacted(own_agent.bootstrap, "_schemas", 2 * (2 * SUBJECTS + 3))
    assert written > SUBJECTS * (VERSIONS + 1)
    for is_restarted in (False, True):
        if is_restarted:
            own_agent.kill()
            own_agent.start()
        with SchemaRegistry(own_agent.bootstrap) as registry:
            assert registry.state() == known
            assert "subject-1" not in registry.subjects()
            assert registry.compatibility("subject-2") == "NONE"
            # Offsets go on where they were, whatever is gone.
            assert registry.log.end_offset() > written


def test_a_registry_that_runs_on_gets_its_own_writes_back_while_the_agent_restarts_and_compacts(
    own_agent: AgentProcess,
) -> None:
    stopping = threading.Event()
    model: dict[bytes, bytes] = {}
    with SchemaRegistry(own_agent.bootstrap) as registry:
        failures: list[BaseException] = []

        def write() -> None:
            try:
                number = 0
                while not stopping.is_set():
                    key, value = b"key-%d" % (number % 7), b"%d" % number
                    registry.log.put(key, None if number % 11 == 10 else value)
                    if number % 11 == 10:
                        model.pop(key, None)
                    else:
                        model[key] = value
                    number += 1
            except BaseException as error:
                failures.append(error)
                raise

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        for _ in range(2):
            enough = registry.log.records_read + 100
            while registry.log.records_read < enough and not failures:
                stopping.wait(0.05)
            own_agent.kill()
            own_agent.start()
        stopping.set()
        writer.join(60)
        assert not failures
        assert not writer.is_alive()
        assert registry.state() == model
        written = registry.log.end_offset()
    wait_until_compacted(own_agent.bootstrap, "_schemas", written // 2)
    with SchemaRegistry(own_agent.bootstrap) as registry:
        assert registry.state() == model


@pytest.mark.parametrize("partitions", [1, 5, 25], ids=["configs", "status", "offsets"])
def test_a_store_of_kafka_connect_is_small_and_the_same_after_compaction(
    own_agent: AgentProcess, partitions: int
) -> None:
    bootstrap, topic = own_agent.bootstrap, "connect-store"
    ensure_topic(bootstrap, topic, partitions, delete_retention_ms="500", min_cleanable_dirty_ratio="0.01")
    tasks = [b'["connector",{"task":%d}]' % number for number in range(40)]
    with CompactedLog(bootstrap, topic, partitions) as store:
        for position in range(ROUNDS):
            store.put_many(dict.fromkeys(tasks, b'{"position":%d}' % position))
        store.put_many(dict.fromkeys(tasks[::4]))  # connectors that were deleted
        known = store.rows()
        assert len(known) == 30
        assert sum(store.end_offset(number) for number in range(partitions)) == (ROUNDS + 1) * len(tasks) - 30
        wait_until_compacted(bootstrap, topic, len(tasks) + partitions, partitions)
        # Tombstones go in a later cleaning of their partition, when they have had their time.
        known |= {b"another-%d" % number: b"" for number in range(300)}
        deadline_s = time.monotonic() + 60
        while has_tombstones(bootstrap, topic, partitions):
            assert time.monotonic() < deadline_s, "tombstones stay"
            store.put_many(dict(known))
        assert store.rows() == known
    own_agent.kill()
    own_agent.start()
    with CompactedLog(bootstrap, topic, partitions) as store:
        assert store.rows() == known
        store.put_many({tasks[0]: b"new"})
        assert store.get(tasks[0]) == b"new"

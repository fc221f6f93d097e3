"""How soon are the clients of an agent that dies served again, by the others?

One agent of three is killed (kill -9) while an idempotent producer writes through it to all partitions at a steady
rate, and two members of a group that it coordinates read them through it and commit. All are librdkafka with its
default settings. A record or a commit is late when it takes longer than `LATE_S`, counted from when the record was due;
clients are in full service again once all that was late has come, and everything after it in time.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from benchmarks.macro import harness
from benchmarks.macro.cluster_agents import FOLDER, SILENT, client_ids, quiet_cluster, settle_slots
from benchmarks.macro.harness import Table, median
from tests.broker.client import Client
from tests.support.cluster import SLOTS, Cluster, ClusterAgent
from tests.support.postgres import PostgresServer
from warp.protocol.messages.groups import FindCoordinatorRequest

PARTITIONS = 6
RECORDS_PER_S = 200
COMMIT_S = 0.1
LATE_S = 0.5
STEADY_S = 3.0
AFTERWARDS_S = 8.0
PATIENCE_S = 60.0
GROUPS_TRIED = 64
STILL_S = 5.0
"""How long nothing has moved before an agent is killed."""


class Events:
    """What was asked for and when it came, by the same clock. Filled by one thread."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.done: dict[int, float] = {}
        self.failed: set[int] = set()

    def ask(self, at: float) -> int:
        """Note something asked for; its number."""
        self.asked.append(at)
        return len(self.asked) - 1

    def finish(self, number: int) -> None:
        """It has come (the first time counts)."""
        self.done.setdefault(number, time.monotonic())

    def fail(self, number: int) -> None:
        """It will not come."""
        self.failed.add(number)

    def served_again(self, killed_at: float) -> float:
        """Seconds from the kill until the last late thing came; where one failed, the next that was asked for."""
        last = killed_at
        following = float("inf")
        for number in range(len(self.asked) - 1, -1, -1):
            came = self.done.get(number)
            if came is not None:
                following = came
            elif number not in self.failed:
                return float("inf")  # never came
            if came is None or came - self.asked[number] > LATE_S:
                last = max(last, following if came is None else came)
        return last - killed_at


class Writer(threading.Thread):
    """Produces records that are due at a steady rate, each with its number as the value, to all partitions in turns."""

    def __init__(self, bootstrap: str, client_id: str, topic: str) -> None:
        super().__init__(name="writer")
        self.events = Events()
        self.errors: list[str] = []
        self.stopping = threading.Event()
        self._topic = topic
        options = {"bootstrap.servers": bootstrap, "client.id": client_id, "enable.idempotence": True}
        self._producer = Producer(options | SILENT)

    def run(self) -> None:
        begun = time.monotonic()
        while not self.stopping.is_set():
            due = begun + len(self.events.asked) / RECORDS_PER_S
            while (left := due - time.monotonic()) > 0:
                self._producer.poll(left)
            number = self.events.ask(due)
            self._producer.produce(
                self._topic,
                str(number).encode(),
                partition=number % PARTITIONS,
                on_delivery=partial(self._delivered, number),
            )
            self._producer.poll(0)
        self._producer.flush(PATIENCE_S)

    def _delivered(self, number: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.events.finish(number)
        else:
            self.errors.append(str(error))
            self.events.fail(number)


class Reader(threading.Thread):
    """A member of a group that tells when it got each record, and commits where it is, also when nothing comes.

    One commit is under way at a time.
    """

    def __init__(self, bootstrap: str, client_id: str, group: str, topic: str, got: dict[int, float]) -> None:
        super().__init__(name="reader")
        self.commits = Events()
        self.stopping = threading.Event()
        self._topic = topic
        self._got = got
        self._next_offsets: dict[int, int] = {}
        self._open_commit: int | None = None
        options: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "on_commit": self._committed,
        }
        self._consumer = Consumer(options | SILENT)
        self._consumer.subscribe([topic], on_assign=self._assigned)

    @property
    def partitions(self) -> set[int]:
        """Of which it has read something since they were assigned to it."""
        return set(self._next_offsets)

    def run(self) -> None:
        commit_at = time.monotonic()
        while not self.stopping.is_set():
            message: Message | None = self._consumer.poll(0.02)
            if message is not None and message.error() is None:
                self._got.setdefault(int(message.value() or b""), time.monotonic())
                self._next_offsets[message.partition() or 0] = (message.offset() or 0) + 1
            now = time.monotonic()
            if now >= commit_at and self._open_commit is None and self._next_offsets:
                self._open_commit = self.commits.ask(now)
                offsets = [
                    TopicPartition(self._topic, partition, offset)
                    for partition, offset in self._next_offsets.items()
                ]
                self._consumer.commit(offsets=offsets, asynchronous=True)
                commit_at = now + COMMIT_S
        deadline = time.monotonic() + PATIENCE_S
        while self._open_commit is not None and time.monotonic() < deadline:
            self._consumer.poll(0.02)
        self._consumer.close()

    def _assigned(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._next_offsets.clear()

    def _committed(self, error: KafkaError | None, _partitions: list[TopicPartition]) -> None:
        if self._open_commit is None:
            return  # the one that closing makes
        if error is None:
            self.commits.finish(self._open_commit)
        else:
            self.commits.fail(self._open_commit)
        self._open_commit = None


def coordinators(agent: ClusterAgent, groups: Sequence[str]) -> dict[str, int]:
    """The port of the agent that coordinates each group, of those that have one."""

    async def ask() -> Any:
        client = await Client.connect(agent.port)
        try:
            return await client.ask(FindCoordinatorRequest(coordinator_keys=list(groups)), 4)
        finally:
            await client.close()

    return {found.key: found.port for found in asyncio.run(ask()).coordinators if not found.error_code}


def noticed_after(
    survivor: ClusterAgent, killed: ClusterAgent, killed_at: float, until: float
) -> tuple[float, float]:
    """Seconds after the kill at which a survivor names the killed agent no more, and every group is coordinated."""
    unnamed = float("inf")
    while time.monotonic() < until:
        view = survivor.view()
        now = time.monotonic() - killed_at
        if killed.bootstrap not in {each["name"] for each in view["agents"] if each["state"] == "serving"}:
            unnamed = min(unnamed, now)
            if view["slots"]["held"] == SLOTS:
                return unnamed, now
        time.sleep(0.05)
    return unnamed, float("inf")


def kill_one(cluster: Cluster, killed: ClusterAgent, number: int) -> list[Any]:
    """One row: clients of one agent, which is killed and started again."""
    topic = f"failover-{number}"
    harness.create_topic(cluster.bootstrap, topic, PARTITIONS)
    place = cluster.agents.index(killed)
    survivor = cluster.agents[place - 1]
    names = [f"failover-{number}-{each}" for each in range(GROUPS_TRIED)]
    group = next(name for name, port in coordinators(survivor, names).items() if port == killed.port)
    ids = [
        client_ids(cluster, topic, f"{name}-{number}")[place] for name in ("writer", "reader-a", "reader-b")
    ]
    got: dict[int, float] = {}
    writer = Writer(cluster.bootstrap, ids[0], topic)
    readers = [Reader(cluster.bootstrap, client_id, group, topic, got) for client_id in ids[1:]]
    try:
        for reader in readers:
            reader.start()
        writer.start()
        deadline = time.monotonic() + PATIENCE_S
        while not all(reader.partitions for reader in readers):
            assert time.monotonic() < deadline, "members of the group read nothing"
            time.sleep(0.05)
        time.sleep(STEADY_S)
        assert coordinators(survivor, [group])[group] == killed.port, "the group has moved"
        killed_at = time.monotonic()
        killed.kill()  # waits for its end, which may take a while
        noticed = noticed_after(survivor, killed, killed_at, killed_at + PATIENCE_S)
        time.sleep(max(0.0, killed_at + AFTERWARDS_S - time.monotonic()))
        writer.stopping.set()
        writer.join()
        deadline = time.monotonic() + PATIENCE_S
        while not writer.events.done.keys() <= got.keys() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        writer.stopping.set()
        for reader in readers:
            reader.stopping.set()
        for thread in [*readers, writer]:
            if thread.ident is not None:
                thread.join()
    return _row(writer, readers, got, killed_at, noticed)


def _row(
    writer: Writer,
    readers: Sequence[Reader],
    got: dict[int, float],
    killed_at: float,
    noticed: tuple[float, float],
) -> list[Any]:
    reads = Events()
    # What came late before the kill, while the members found each other, is not the killed agent's doing.
    first = next(n for n, due in enumerate(writer.events.asked) if due > killed_at - LATE_S)
    for due in writer.events.asked[first:]:
        reads.ask(due)
    reads.done = {number - first: at for number, at in got.items() if number >= first}
    reads.failed = {number - first for number in writer.events.failed if number >= first}
    commits = [_since(reader.commits, killed_at - LATE_S).served_again(killed_at) for reader in readers]
    writes = _since(writer.events, killed_at - LATE_S).served_again(killed_at)
    again = reads.served_again(killed_at)
    lost = len(writer.events.done.keys() - got.keys())
    return [*noticed, writes, again, max(commits), max(writes, again, *commits), lost, len(writer.errors)]


def _since(events: Events, at: float) -> Events:
    """Those asked for from a time on."""
    first = next((number for number, asked in enumerate(events.asked) if asked >= at), len(events.asked))
    found = Events()
    found.asked = events.asked[first:]
    found.done = {number - first: came for number, came in events.done.items() if number >= first}
    found.failed = {number - first for number in events.failed if number >= first}
    return found


def failover(server: PostgresServer, kills: int) -> Table:
    """Kill the agents of one cluster in turns; each starts again before the next one goes."""
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory(prefix="warp-bench-", dir=FOLDER) as folder:
        store = (Path(folder) / "objects").as_uri()
        with quiet_cluster(Path(folder), server, store, 3) as cluster:
            settle_slots(cluster, STILL_S)
            for number, killed in zip(range(kills), itertools.cycle(cluster.agents)):
                rows.append([str(number + 1), *kill_one(cluster, killed, number)])
                killed.start()
                cluster.settle()
                settle_slots(cluster, STILL_S)
    columns = list(zip(*(row[1:7] for row in rows), strict=True))
    failures = [sum(row[place] for row in rows) for place in (7, 8)]
    rows.append(["median", *(median(column) for column in columns), *failures])
    rows.append(["worst", *(max(column) for column in columns), *failures])
    return Table(
        "failover",
        "From kill -9 of the agent that all clients were at to their service by the others (s); late is what takes "
        f"longer than {LATE_S} s. librdkafka's defaults, {RECORDS_PER_S} records/s",
        ["kill", "not named any more", "groups coordinated", "writes", "reads", "commits", "full service (≤ 3)",
         "acknowledged and not read", "writes refused"],
        rows,
    )  # fmt: skip

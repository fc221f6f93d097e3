"""What groups cost an agent, through the wire: a large group that settles, many members that live, many commits.

`python -m benchmarks.macro.bench_groups [--quick]` prints Markdown tables and stores benchmarks/results/groups.json.
The agent runs on one processor; every member is a connection of its own in this process, on the other. Data is on disk
and each change of a group is synced before anybody hears of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.macro import harness
from benchmarks.macro.harness import Others, Table
from tests.support.process import AgentProcess
from warp.protocol import APIS, ApiKey, Request, decode, encode_request_frame, response_body_offset
from warp.protocol.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from warp.protocol.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupMember,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)

DELAY_S = 2.0
"""The rebalance delay: the first member waits for it, and once more because others came meanwhile."""
SETTLES_AFTER_S = 2 * DELAY_S
METADATA = b"\x00\x01\x00\x00\x00\x01\x00\x05topic" + bytes(60)
SHARE = b"\x00\x01\x00\x00\x00\x01\x00\x05topic\x00\x00\x00\x01\x00\x00\x00\x07\xff\xff\xff\xff"
HEARTBEAT_S = 3.0
COMMIT_PARTITIONS = 10
JOIN, SYNC, HEARTBEAT, LEAVE, COMMIT = 9, 5, 4, 5, 9


class Connection(asyncio.Protocol):
    """A connection that answers in order; frames are handed out as they are."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._transport: Any = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, "127.0.0.1", port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 4:
            end = 4 + int.from_bytes(self._data[:4], "big")
            if len(self._data) < end:
                return
            frame = bytes(self._data[4:end])
            del self._data[:end]
            self._waiting.popleft().set_result(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        while self._waiting:
            self._waiting.popleft().set_exception(exc or ConnectionResetError("closed"))

    def send(self, frame: bytes) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write(frame)
        return answer

    def close(self) -> None:
        self._transport.close()


def encoded(request: Request, version: int) -> bytes:
    return b"".join(encode_request_frame(1, "bench", request, version))


def decoded(api: ApiKey, version: int, frame: bytes) -> Any:
    return decode(APIS[api].response, version, frame, response_body_offset(api, version))


class Member:
    """A member of a group."""

    def __init__(self, group: str, connection: Connection) -> None:
        self.group = group
        self.connection = connection
        self.id = ""
        self.generation = -1
        self.others: list[str] = []
        """The ids of all members, when it leads."""
        self.heartbeat_frame = b""
        self.latencies_ms: list[float] = []

    async def _ask(self, request: Request, version: int) -> Any:
        return decoded(request.api, version, await self.connection.send(encoded(request, version)))

    async def join(self) -> None:
        """Join, with the id that is given first."""
        while True:
            answer = await self._ask(
                JoinGroupRequest(
                    group_id=self.group,
                    session_timeout_ms=45_000,
                    rebalance_timeout_ms=60_000,
                    member_id=self.id,
                    protocol_type="consumer",
                    protocols=[JoinGroupRequestProtocol(name="range", metadata=METADATA)],
                ),
                JOIN,
            )
            self.id = answer.member_id
            if not answer.error_code:
                break
            assert answer.error_code == 79, answer.error_code
        self.generation = answer.generation_id
        self.others = [member.member_id for member in answer.members]
        self.heartbeat_frame = encoded(
            HeartbeatRequest(group_id=self.group, generation_id=self.generation, member_id=self.id), HEARTBEAT
        )

    async def sync(self) -> None:
        """Ask for the assignment; the leader brings everybody's."""
        shares = [SyncGroupRequestAssignment(member_id=one, assignment=SHARE) for one in self.others]
        answer = await self._ask(
            SyncGroupRequest(
                group_id=self.group,
                generation_id=self.generation,
                member_id=self.id,
                protocol_type="consumer",
                protocol_name="range",
                assignments=shares,
            ),
            SYNC,
        )
        assert (answer.error_code, answer.assignment) == (0, SHARE), answer

    async def settle(self) -> None:
        await self.join()
        await self.sync()

    async def leave(self) -> None:
        member = LeaveGroupMember(member_id=self.id)
        answer = await self._ask(LeaveGroupRequest(group_id=self.group, members=[member]), LEAVE)
        assert answer.members[0].error_code == 0

    async def heartbeat(self) -> int:
        begun = time.perf_counter()
        frame = await self.connection.send(self.heartbeat_frame)
        self.latencies_ms.append(1000 * (time.perf_counter() - begun))
        error: int = decoded(ApiKey.HEARTBEAT, HEARTBEAT, frame).error_code
        return error

    async def live(self, until: float, first_s: float) -> None:
        """Send heartbeats, beginning after a while of its own."""
        await asyncio.sleep(first_s)
        while time.perf_counter() < until:
            assert await self.heartbeat() == 0
            await asyncio.sleep(HEARTBEAT_S)


async def members_of(groups: Sequence[str], each: int, port: int) -> list[Member]:
    """Connected members, a few hundred connections at a time."""
    members: list[Member] = []
    names = [group for group in groups for _ in range(each)]
    for start in range(0, len(names), 200):
        some = names[start : start + 200]
        connections = await asyncio.gather(*(Connection.open(port) for _ in some))
        members += map(Member, some, connections)
    return members


async def timed(work: Awaitable[Any]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


async def large_group(agent: AgentProcess, count: int) -> list[Any]:
    """How long it takes a group to settle, and to settle again after a member has left."""
    members = await members_of(["large"], count, agent.port)
    cpu = harness.cpu_seconds(agent.pid)
    first = await timed(asyncio.gather(*(member.settle() for member in members)))
    first_cpu = harness.cpu_seconds(agent.pid) - cpu
    gone, *members = members
    cpu = harness.cpu_seconds(agent.pid)
    begun = time.perf_counter()
    await gone.leave()
    await asyncio.gather(*(member.settle() for member in members))
    again = time.perf_counter() - begun
    again_cpu = harness.cpu_seconds(agent.pid) - cpu
    for member in (gone, *members):
        member.connection.close()
    return [count, first - SETTLES_AFTER_S, first_cpu, again, again_cpu]


async def living(agent: AgentProcess, groups: int, each: int, seconds: float) -> list[Any]:
    """What an agent takes for members that do nothing but live."""
    members = await members_of([f"group-{number:04}" for number in range(groups)], each, agent.port)
    settled = await timed(asyncio.gather(*(member.settle() for member in members)))
    source = random.Random(1)
    # Everybody has begun before it is measured.
    until = time.perf_counter() + HEARTBEAT_S + seconds
    lives = [asyncio.create_task(member.live(until, source.uniform(0, HEARTBEAT_S))) for member in members]
    await asyncio.sleep(HEARTBEAT_S)
    for member in members:
        member.latencies_ms.clear()
    begun, cpu = time.perf_counter(), harness.cpu_seconds(agent.pid)
    await asyncio.sleep(max(0.0, until - time.perf_counter()))
    took, used = time.perf_counter() - begun, harness.cpu_seconds(agent.pid) - cpu
    latencies = sorted(latency for member in members for latency in member.latencies_ms)
    await asyncio.gather(*lives)
    memory = harness.resident_mib(agent.pid)
    for member in members:
        member.connection.close()
    return [
        groups * each,
        groups,
        settled - SETTLES_AFTER_S,
        len(latencies) / took,
        used / took,
        1e6 * used / len(latencies),
        latencies[len(latencies) // 2],
        latencies[int(0.99 * len(latencies))],
        memory,
    ]


async def commits(agent: AgentProcess, count: int, seconds: float) -> list[Any]:
    """Consumers, each of a group of its own, that commit ten partitions as soon as the last commit was answered."""
    connections = await asyncio.gather(*(Connection.open(agent.port) for _ in range(count)))
    latencies: list[float] = []

    async def consume(number: int, connection: Connection, until: float) -> None:
        offset = 0
        while (begun := time.perf_counter()) < until:
            offset += 1
            frame = await connection.send(encoded(_commit_of(f"commits-{number}", offset), COMMIT))
            answer = decoded(ApiKey.OFFSET_COMMIT, COMMIT, frame)
            assert not any(part.error_code for topic in answer.topics for part in topic.partitions)
            latencies.append(1000 * (time.perf_counter() - begun))

    begun, cpu = time.perf_counter(), harness.cpu_seconds(agent.pid)
    await asyncio.gather(
        *(consume(number, connection, begun + seconds) for number, connection in enumerate(connections))
    )
    took, used = time.perf_counter() - begun, harness.cpu_seconds(agent.pid) - cpu
    latencies.sort()
    for connection in connections:
        connection.close()
    return [
        count,
        len(latencies) / took,
        latencies[len(latencies) // 2],
        latencies[int(0.99 * len(latencies))],
        1e6 * used / len(latencies),
    ]


def _commit_of(group: str, offset: int) -> OffsetCommitRequest:
    partitions = [
        OffsetCommitRequestPartition(
            partition_index=number, committed_offset=offset, committed_metadata="a consumer's own words"
        )
        for number in range(COMMIT_PARTITIONS)
    ]
    topic = OffsetCommitRequestTopic(name="committed", partitions=partitions)
    return OffsetCommitRequest(group_id=group, generation_id_or_member_epoch=-1, member_id="", topics=[topic])


def with_agent(measure: Callable[[AgentProcess], Coroutine[Any, Any, list[Any]]]) -> list[Any]:
    """Measure with an agent of its own, on the other processor."""
    folder = os.environ.get("TMPDIR", "/var/tmp")
    options = ("--group-rebalance-delay", f"{DELAY_S * 1000:.0f}ms", "--connections-max", "20000")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    processors = os.sched_getaffinity(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="warp-bench-", dir=folder) as data,
            AgentProcess(Path(data) / "data", *options) as agent,
        ):
            if len(processors) > 1:
                os.sched_setaffinity(agent.pid, {min(processors)})
                os.sched_setaffinity(0, processors - {min(processors)})
            harness.create_topic(agent.bootstrap, "committed", COMMIT_PARTITIONS)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(measure(agent))
    finally:
        os.sched_setaffinity(0, processors)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def large_groups(counts: Sequence[int]) -> Table:
    """Groups of so many members."""
    rows = [with_agent(partial(large_group, count=count)) for count in counts]
    columns = ["members", "first settling s", "CPU s", "after one left s", "CPU s"]
    title = "One group: join to stable, beyond the rebalance delay, and again after a member has left"
    return Table("groups_large", title, columns, rows)


def living_members(counts: Sequence[int], seconds: float) -> Table:
    """So many groups of ten members."""
    rows = [with_agent(partial(living, groups=count, each=10, seconds=seconds)) for count in counts]
    columns = [
        "members", "groups", "settling s", "heartbeats/s", "cores", "CPU µs per heartbeat", "p50 ms", "p99 ms",
        "resident MiB",
    ]  # fmt: skip
    return Table("groups_living", "Members that send a heartbeat every 3 s", columns, rows)


def many_commits(counts: Sequence[int], seconds: float) -> Table:
    """So many consumers that commit all the time."""
    rows = [with_agent(partial(commits, count=count, seconds=seconds)) for count in counts]
    columns = ["consumers", "commits/s", "p50 ms", "p99 ms", "CPU µs per commit"]
    return Table("groups_commits", "OffsetCommits of 10 partitions, synced", columns, rows)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few members and seconds: a smoke test")
    arguments = parser.parse_args()
    quick = arguments.quick
    suites: list[Callable[[], Table]] = [
        lambda: large_groups((100,) if quick else (100, 1000)),
        lambda: living_members((100,) if quick else (100, 1000), 3.0 if quick else 30.0),
        lambda: many_commits((1, 10, 100), 1.0 if quick else 10.0),
    ]
    tables = []
    for suite in suites:
        others = Others()
        tables.append(suite())
        tables[-1].beside = others.describe()
        tables[-1].print()
        print(f"\n{tables[-1].beside}", flush=True)
    if not quick:
        print(f"\nstored in {harness.store('groups', tables)}")


if __name__ == "__main__":
    main()

"""A load on all agents of a cluster whose every step is checked, and read back in the end through each of them.

Nothing acknowledged may be lost, moved or there twice, offsets have no holes, and what was committed never goes back.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.client import Client, joined
from tests.broker.groups import fetch_request, offsets_in
from tests.support.client_load import ClientWriter, GroupReader, wait_until_seen
from tests.support.cluster import SETTLE_S, Cluster, ClusterAgent, eventually
from tests.support.raw_load import AGAIN_S, TRY_AGAIN, Committer, Ports, RawClient, RawWriter, Score
from warp._records import iterate_records, scan_batches

TOPIC = "load"
GROUP = "load-readers"
RAW_WRITERS = 3
COMMITTERS = 4
PAUSE_S = 0.03
PROBLEMS_SHOWN = 20
DECOMPRESSED_BYTES_MAX = 1 << 20


class ClusterLoad:
    """Works while its `with` block lasts, and has checked everything when that has ended well.

    Made of an idempotent librdkafka producer and a consumer of one group for each agent, raw idempotent writers that
    go from agent to agent, and committers of groups without members.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        ports = Ports([agent.port for agent in cluster.agents])
        agents = len(cluster.agents)
        self.partitions = agents + RAW_WRITERS
        self._raw_writers = [RawWriter(TOPIC, agents + n, ports, seed=n) for n in range(RAW_WRITERS)]
        self._committers = [Committer(TOPIC, f"load-{n}", ports, seed=100 + 2 * n) for n in range(COMMITTERS)]
        self._writers: list[ClientWriter] = []
        self._readers: list[GroupReader] = []
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    @property
    def scores(self) -> list[Score]:
        """Of all clients."""
        return [*self._single_scores, *(reader.score for reader in self._readers)]

    @property
    def _single_scores(self) -> list[Score]:
        """Of the clients that always have something to do, which one of several consumers may not."""
        return [
            *(writer.score for writer in self._raw_writers),
            *(committer.score for committer in self._committers),
            *(writer.score for writer in self._writers),
        ]

    def __enter__(self) -> Self:
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        admin.create_topics([NewTopic(TOPIC, self.partitions)])[TOPIC].result(30)
        self._thread.start()
        for number, agent in enumerate(self.cluster.agents):
            place = (self.cluster.bootstrap, agent.zone, TOPIC)
            self._writers.append(ClientWriter(*place, number))
            self._readers.append(GroupReader(*place, GROUP, number))
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_writing(error is not None)
        counts = {writer.partition: writer.count for writer in self._raw_writers}
        counts |= {writer.partition: writer.count for writer in self._writers}
        if error is None:
            wait_until_seen(self._readers, counts, 2 * SETTLE_S)
            # What was seen by members whose commits came too late is read again by others.
            eventually(
                lambda: self._committed_by_readers(counts) == counts, "the group commits all", SETTLE_S
            )
        for reader in self._readers:
            reader.stop()
        self._report()
        if error is None:
            self._assert_sound()
            by_group = {committer.group: {0: committer.acknowledged} for committer in self._committers}
            by_group[GROUP] = counts
            for agent in self.cluster.running:
                asyncio.run(_assert_reads_back(agent, counts))
                asyncio.run(self._assert_committed(agent, by_group))

    def go_on(self, times: int = 5, timeout_s: float = SETTLE_S) -> None:
        """Wait until every client has had some success from now on; a group's consumers are as good as one."""
        began_s = time.monotonic()
        for scores in [*([score] for score in self._single_scores), [r.score for r in self._readers]]:
            eventually(
                lambda scores=scores: _successes(scores, began_s) >= times,  # type: ignore[misc]
                f"{scores[0].name} goes on; problems so far: {self._problems()[:10]}",
                timeout_s,
            )

    def longest_pause_s(self, since_s: float) -> tuple[float, str]:
        """The longest time that a client was without success since a moment, and who that was."""
        return max((score.pause_s(since_s), score.name) for score in self._single_scores)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._loop.close()

    async def _work(self) -> None:
        clients: list[RawWriter | Committer] = [*self._raw_writers, *self._committers]
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(client.run(self._stopping, PAUSE_S))

    def _stop_writing(self, has_failed: bool) -> None:
        """What was begun is finished, unless the test has failed anyway."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(0 if has_failed else 2 * SETTLE_S)
        for writer in self._writers:
            (writer.abandon if has_failed else writer.stop)()

    def _problems(self) -> list[str]:
        found = [problem for score in self.scores for problem in score.problems]
        return found if self._failure is None else [repr(self._failure), *found]

    def _report(self) -> None:
        done = ", ".join(f"{score.name}: {len(score.times_s)}" for score in self.scores)
        print(f"load: {done}")

    def _assert_sound(self) -> None:
        assert not self._thread.is_alive(), f"the raw clients do not end: {self._problems()[:10]}"
        problems = self._problems()
        assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:PROBLEMS_SHOWN])

    def _committed_by_readers(self, counts: dict[int, int]) -> dict[int, int]:
        return asyncio.run(_committed(self.cluster.running[0], GROUP, sorted(counts)))

    async def _assert_committed(self, agent: ClusterAgent, by_group: dict[str, dict[int, int]]) -> None:
        """Each agent tells what was committed last."""
        for group, offsets in by_group.items():
            found = await _committed(agent, group, sorted(offsets))
            assert found == offsets, f"{group} through {agent.bootstrap}: {found}, not {offsets}"


def _successes(scores: Sequence[Score], since_s: float) -> int:
    return sum(moment > since_s for score in scores for moment in score.times_s[-200:])


async def _assert_reads_back(agent: ClusterAgent, counts: dict[int, int]) -> None:
    """Through an agent every partition is the numbers from 0 to its count, each at its own offset, and ends there."""
    client = await Client.connect(agent.port)
    for partition, count in counts.items():
        found = [record async for record in _read(client, partition, count)]
        wrong = [pair for number, pair in enumerate(found) if pair != (number, b"%d" % number)]
        assert not wrong, f"partition {partition} through {agent.bootstrap}: {wrong[:5]}"
        assert len(found) == count, f"{len(found)} of {count} in partition {partition}, {agent.bootstrap}"
    await client.close()


async def _read(client: Client, partition: int, count: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """The records of a partition that has `count` of them."""
    offset = 0
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        assert time.monotonic() < deadline_s, f"stuck at offset {offset} of partition {partition}"
        answer = await client.fetch(TOPIC, offset, partition=partition)
        assert answer.error_code in (0, *TRY_AGAIN), f"{answer.error_code} for partition {partition}"
        if answer.error_code:
            await asyncio.sleep(AGAIN_S)
            continue
        end = answer.high_watermark
        assert end <= count, f"partition {partition} ends at {end}, not at {count}"
        # Where there is more to read, the end may be that of a while ago.
        assert offset < end or end == count, (
            f"nothing at {offset} of partition {partition}, which has {count}"
        )
        if offset == count:
            return
        for found, value in _records(joined(answer.records)):
            if found >= offset:
                yield found, value
                offset = found + 1


def _records(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    for span in scan_batches(data):
        whole = data[span.position : span.position + span.size_bytes]
        for record in iterate_records(whole, DECOMPRESSED_BYTES_MAX):
            yield record.offset, record.value


async def _committed(agent: ClusterAgent, group: str, partitions: list[int]) -> dict[int, int]:
    client = RawClient(f"look at {group}", Ports([agent.port]), random.Random(1))
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        answer = await client.ask(fetch_request(8, group, {TOPIC: partitions}), 8)
        if answer is not None and not answer.groups[0].error_code:
            client.close()
            return {partition: found[0] for (_, partition), found in offsets_in(answer.groups[0]).items()}
        assert time.monotonic() < deadline_s, f"no offsets of {group} through {agent.bootstrap}"
        await asyncio.sleep(AGAIN_S)

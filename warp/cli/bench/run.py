"""One run: the topic, the workers, the clock that they share, and the end."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from warp.cli.bench.crew import Crew
from warp.cli.bench.progress import Progress
from warp.cli.bench.report import Report
from warp.cli.bench.results import Side
from warp.cli.bench.schedule import NS_PER_S
from warp.cli.bench.settings import Settings
from warp.cli.bench.tasks import ConsumerTask, ProducerTask, interval_of
from warp.cli.bench.topic import BenchTopic, delete_topic, end_offsets, first_offsets, prepare_topic
from warp.cli.client import Client, ClientError
from warp.cli.interrupt import Interrupt

START_DELAY_NS: Final = NS_PER_S // 4
"""From the order to start to the start itself: time for every worker to hear it."""
LISTEN_S: Final = 0.1
GRACE_S: Final = 5.0
"""What workers may take longer than they were told before they count as hung."""
WORKER_START_S: Final = 2.0
"""What each worker process may take of a busy machine until it runs."""
CONSUMER_CONFIG: Final = {
    "group.id": "warp-bench",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
}


def run_bench(client: Client, settings: Settings, interrupt: Interrupt) -> tuple[Report, ClientError | None]:
    """Do a run; its report, and what ended it before its time if something did.

    Raises ClientError when there is nothing to report, UsageError for client settings that the library refuses.
    """
    if settings.producers:
        client.producer(**settings.producer_config())
    admin = client.admin()
    with interrupt.raising():
        topic = prepare_topic(client, admin, settings)
    try:
        return _Run(client, settings, topic, interrupt).run()
    finally:
        if topic.is_new and settings.delete_topic:
            delete_topic(client, admin, topic.name)


class _Run:
    def __init__(self, client: Client, settings: Settings, topic: BenchTopic, interrupt: Interrupt) -> None:
        self._client = client
        self._settings = settings
        self._topic = topic
        self._interrupt = interrupt
        self._run_id = secrets.randbits(63) if settings.action == "end-to-end" else None
        self._tasks: list[ProducerTask | ConsumerTask] = [*self._producer_tasks(), *self._consumer_tasks()]
        producing = [n for n, task in enumerate(self._tasks) if isinstance(task, ProducerTask)]
        consuming = [n for n, task in enumerate(self._tasks) if isinstance(task, ConsumerTask)]
        self._consuming = consuming
        self._producers = Side(len(producing)) if producing else None
        self._consumers = Side(len(consuming)) if consuming else None
        self._sides = {
            **dict.fromkeys(producing, self._producers),
            **dict.fromkeys(consuming, self._consumers),
        }
        self._progress = Progress(sys.stderr, self._producers, self._consumers)
        self._is_interrupted = False

    def run(self) -> tuple[Report, ClientError | None]:
        failure = None
        with Crew(self._tasks) as crew:
            self._wait_until_ready(crew)
            began = datetime.now(UTC)
            crew.tell({"start_ns": time.monotonic_ns() + START_DELAY_NS})
            try:
                self._work(crew)
            except ClientError as error:
                failure = error
            finally:
                self._progress.close()
        if failure is not None and not any(
            side and side.seconds for side in (self._producers, self._consumers)
        ):
            raise failure
        return Report(
            self._settings,
            self._client.bootstrap,
            self._topic,
            began,
            self._is_interrupted,
            self._producers,
            self._consumers,
        ), failure

    def _wait_until_ready(self, crew: Crew) -> None:
        ready = 0
        deadline = time.monotonic() + self._client.timeout_s + GRACE_S + WORKER_START_S * len(self._tasks)
        while ready < len(self._tasks):
            if self._interrupt.is_set:
                raise ClientError("interrupted before it began")
            if time.monotonic() > deadline:
                raise ClientError(f"{len(self._tasks) - ready} worker processes were not ready in time")
            message = crew.next_message(LISTEN_S)
            ready += message is not None and "ready" in message[1]

    def _work(self, crew: Crew) -> None:
        """Listen to the workers until the last has ended. Raises ClientError."""
        settings = self._settings
        until = None
        if settings.duration_s is not None:
            span_s = settings.warmup_s + settings.duration_s
            until = time.monotonic() + span_s + 3 * settings.drain_s + GRACE_S
        while not self._all_ended():
            if self._interrupt.is_set:
                if self._is_interrupted:
                    raise ClientError("interrupted again; the last answers were not waited for")
                self._interrupt.is_set = False
                self._is_interrupted = True
                self._progress.say("waiting for the last answers; Ctrl-C gives them up")
                crew.tell({"stop": True})
                until = time.monotonic() + 3 * settings.drain_s + GRACE_S
            if until is not None and time.monotonic() > until:
                raise ClientError("a worker process hangs")
            message = crew.next_message(LISTEN_S)
            if message is not None:
                self._take(crew, *message)

    def _take(self, crew: Crew, worker: int, content: dict[str, object]) -> None:
        side = self._sides[worker]
        assert side is not None
        if "ended" not in content:
            side.take(worker, interval_of(content))
            self._progress.update()
            return
        ending = content["ended"]
        assert isinstance(ending, dict)
        side.endings[worker] = ending
        producers = self._producers
        if side is producers and len(producers.endings) == producers.workers and self._consuming:
            # Everything that was acknowledged lies before these offsets.
            crew.tell({"stops": end_offsets(self._client, self._topic)}, self._consuming)

    def _all_ended(self) -> bool:
        return all(
            side is None or len(side.endings) == side.workers for side in (self._producers, self._consumers)
        )

    def _producer_tasks(self) -> Sequence[ProducerTask]:
        settings, count = self._settings, self._settings.producers
        if not count:
            return []
        assert settings.record_bytes is not None
        assert settings.compressible is not None
        assert settings.keys is not None
        assert settings.seed is not None
        assert settings.duration_s is not None
        config = self._client.config({**settings.producer_config(), "client.id": "warp-bench"})
        return [
            ProducerTask(
                topic=settings.topic,
                config=config,
                record_bytes=settings.record_bytes,
                compressible=settings.compressible,
                seed=settings.seed + number,
                keys=settings.keys,
                records_per_s=None if settings.records_per_s is None else settings.records_per_s / count,
                phase=number / count,
                run_id=self._run_id,
                warmup_s=settings.warmup_s,
                duration_s=settings.duration_s,
                drain_s=settings.drain_s,
            )
            for number in range(count)
        ]

    def _consumer_tasks(self) -> Sequence[ConsumerTask]:
        settings = self._settings
        if not settings.consumers:
            return []
        ends = end_offsets(self._client, self._topic)
        reads_all = settings.action == "consume" and not settings.tail
        begins = first_offsets(self._client, self._topic) if reads_all else ends
        partitions = self._topic.partitions
        count = min(settings.consumers, len(partitions))
        config = self._client.config({**CONSUMER_CONFIG, "client.id": "warp-bench"})
        tasks = []
        for number in range(count):
            own = partitions[number::count]
            tasks.append(
                ConsumerTask(
                    topic=settings.topic,
                    config=config,
                    begins={partition: begins[partition] for partition in own},
                    stops={partition: ends[partition] for partition in own} if reads_all else None,
                    run_id=self._run_id,
                    warmup_s=settings.warmup_s,
                    duration_s=settings.duration_s,
                    # The producers wait for their answers first.
                    drain_s=2 * settings.drain_s,
                )
            )
        return tasks

"""One soak: everything at once for a while, then a look at what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka.admin import NewTopic

from tests.soak.bounds import MEMORY_MIB_MAX, Bounds, memory_mib
from tests.soak.clients import Member, Roamer, Worker, Writer, read_whole, reader
from tests.soak.disturbances import Fleeting, Killer, PolicyChanger, Trimmer, Watch, admin_of
from tests.soak.model import KINDS, Stream, problems_of
from tests.soak.places import Facts, Place
from tests.support.client_load import wait_until_seen

GROUP = "soak"
SETTLE_S = 45.0
KILL_EVERY_S = 20.0
LINGER_MS = 30_000
"""Retention looks every second, and takes whole extents, of 10 s here; an agent that is killed looks later."""
PROBLEMS_SHOWN = 30


@dataclass
class Soak:
    """What a soak has found: `problems` is empty when all is as it has to be."""

    place: Place
    seconds: float
    seed: int
    speed: float = 1.0
    problems: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    def run(self) -> None:
        """Work for so many seconds, wait for the jobs, look at everything."""
        self._create()
        self._work()
        self._read_back("at once")  # Also what retention leaves for a few seconds more.
        self._wait_for_jobs()
        self._read_back("at rest")
        for agent in self.place.agents:
            if (code := agent.stop()) != 0:
                self.problems.append(f"an agent ended with exit code {code}")
            self.problems += [f"an agent said: {line}" for line in agent.output if _is_bug(line)][:5]
        code, text = self.place.fsck()
        if code != 0:
            self.problems.append(f"fsck ended with exit code {code}:\n{text[-4000:]}")
        self._say(f"fsck: {text.strip().splitlines()[-1] if text.strip() else ''}")

    def report(self) -> str:
        """For a person."""
        lines = [f"soak of {self.place.name}, seed {self.seed}: {len(self.problems)} problems"]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems[:PROBLEMS_SHOWN])])

    def _create(self) -> None:
        topics = [NewTopic(kind.name, kind.partitions, 1, config=dict(kind.configs)) for kind in KINDS]
        admin = admin_of(self.place.bootstrap)
        for answer in admin.create_topics(topics).values():
            answer.result(60)
        self.streams = [
            Stream(kind, partition, self.seed) for kind in KINDS for partition in range(kind.partitions)
        ]

    def _of(self, *names: str) -> list[Stream]:
        return [stream for stream in self.streams if stream.kind.name in names]

    def _work(self) -> None:
        bootstrap, kept = self.place.bootstrap, self._of("kept")
        writers = [
            Writer(bootstrap, self._of(*names), self.speed)
            for names in (("kept", "brief"), ("sized", "trimmed"), ("latest", "both", "changing"))
        ]
        members = [Member(bootstrap, kept, GROUP, number) for number in range(2)]
        roamer = Roamer(bootstrap, self.streams, self.seed)
        watch = Watch(self._sample)
        trimmer, fleeting = Trimmer(bootstrap, self._of("trimmed")), Fleeting(bootstrap)
        changer = PolicyChanger(bootstrap, "changing")
        killer = Killer(self.place.agents, self.seed, KILL_EVERY_S)
        time.sleep(self.seconds)
        workers: Sequence[Worker] = [killer, fleeting, trimmer, changer, roamer, *writers]
        for worker in workers:
            worker.stop()
        wait_until_seen(members, {stream.partition: stream.acknowledged for stream in kept}, SETTLE_S)
        for member in members:
            member.stop()
        watch.stop()
        scores = [*(worker.score for worker in [*workers, watch]), *(member.score for member in members)]
        for score in scores:
            self.problems += score.problems
            self._say(f"{score.name}: {len(score.times_s)} times")
            if not score.times_s and score is not killer.score:
                self.problems.append(f"{score.name} has done nothing")
        self._judge_memory(watch)

    def _sample(self) -> dict[str, float]:
        return {f"memory of agent {n}": memory_mib(agent) for n, agent in enumerate(self.place.agents)}

    def _judge_memory(self, watch: Watch) -> None:
        for name, largest in watch.largest().items():
            self._say(f"{name}: {largest:.0f} MiB at most")
            if largest > MEMORY_MIB_MAX:
                self.problems.append(f"{name} was {largest:.0f} MiB, more than {MEMORY_MIB_MAX}")

    def _wait_for_jobs(self) -> None:
        """Until all is in proportion to the live data, or for as long as there is patience."""
        deadline_s = time.monotonic() + SETTLE_S
        began_s = time.monotonic()
        while True:
            facts = self.place.facts(int(time.time() * 1000))
            broken = Bounds(facts).broken()
            if not broken or time.monotonic() > deadline_s:
                break
            time.sleep(1.0)
        self._say(f"after {time.monotonic() - began_s:.0f} s: {_described(facts)}")
        self.problems += broken

    def _read_back(self, when: str) -> None:
        """Read every partition from its start to its end."""
        consumer = reader(self.place.bootstrap)
        consumer.list_topics(timeout=60)  # It takes its time with one topic after the other.
        for stream in self.streams:
            try:
                start, found = read_whole(consumer, stream)
            except AssertionError as error:
                self.problems.append(str(error))
                continue
            left = f"{stream.acknowledged} written, starts at {start}, {len(found)} left"
            self._say(f"{when}, {stream.name}: {left}")
            # Retention may have taken something while it was read.
            now_ms = int(time.time() * 1000)
            self.problems += problems_of(stream, start, found, now_ms)
            age_ms = now_ms - stream.times_ms[start] if start < stream.acknowledged else 0
            if stream.kind.retention_ms is not None and age_ms > stream.kind.retention_ms + LINGER_MS:
                self.problems.append(f"{when}, {stream.name} still begins with a record of {age_ms} ms ago")
        consumer.close()

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{self.place.name}: {text}\n")
        sys.stdout.flush()


def _described(facts: Facts) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in facts._asdict().items())


def _is_bug(line: str) -> bool:
    """Only bugs are logged with a traceback."""
    return "Traceback (most recent call last)" in line

"""One soak: everything at once for a while, then a look at what is left."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka.admin import NewTopic

from tests.faults.reading_back import read_back
from tests.soak.bounds import MEMORY_MIB_MAX, Bounds, memory_mib
from tests.soak.clients import Member, Roamer, Worker, Writer
from tests.soak.disturbances import Fleeting, Killer, PolicyChanger, Trimmer, Watch, admin_of
from tests.soak.model import KEPT, KINDS, Stream, rules_of, streams_of
from tests.soak.places import Facts, Place
from tests.support.client_load import wait_until_seen
from tests.verifier import FsckResult, Partition, Readback, Recorder, judge

GROUP = "soak"
SETTLE_S = 45.0
KILL_EVERY_S = 20.0
PROBLEMS_SHOWN = 30
NEEDED = (
    "acknowledged records are there", "what was read stays", "logs can be read", "offsets are dense",
    "one order for everybody", "later writes come later", "agents agree", "once with idempotence",
    "order of producers", "groups process everything", "nothing comes from nowhere", "deleted records stay away",
    "deleted topics stay away", "nothing goes without a reason", "the last of each key stays",
    "old values stay away", "retention takes what is old", "nothing referenced is missing", "read your writes",
    "watermarks never go back",
)  # fmt: skip
"""Checks that have something to look at in every soak: where one of them has not, it has proved nothing."""


@dataclass(slots=True)
class Where:
    """An agent to read from."""

    host: str
    port: int
    name: str


@dataclass
class Soak:
    """What a soak has found: `problems` is empty when all is as it has to be."""

    place: Place
    seconds: float
    seed: int
    speed: float = 1.0
    problems: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    recorder: Recorder = field(default_factory=lambda: Recorder(time.monotonic))
    readbacks: list[Readback] = field(default_factory=list)
    fleeting: list[Partition] = field(default_factory=list)
    """Of topics that are deleted by then."""

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
        self._say(f"fsck: {text.strip().splitlines()[-1] if text.strip() else ''}")
        findings = [f"exit code {code}:\n{text[-4000:]}"] if code != 0 else []
        self._judge(FsckResult(findings, checked=1))

    def report(self) -> str:
        """For a person."""
        lines = [f"soak of {self.place.name}, seed {self.seed}: {len(self.problems)} problems"]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems[:PROBLEMS_SHOWN])])

    def _create(self) -> None:
        topics = [NewTopic(kind.name, kind.partitions, 1, config=dict(kind.configs)) for kind in KINDS]
        admin = admin_of(self.place.bootstrap)
        for answer in admin.create_topics(topics).values():
            answer.result(60)
        self.streams = streams_of(self.recorder, self.seed)

    def _of(self, *names: str) -> list[Stream]:
        return [stream for stream in self.streams if stream.kind.name in names]

    def _work(self) -> None:
        bootstrap, kept = self.place.bootstrap, self._of("kept")
        writers = [
            Writer(bootstrap, self._of(*names), self.speed)
            for names in (("kept", "brief"), ("sized", "trimmed"), ("latest", "both", "changing"))
        ]
        members = [Member(self.recorder, bootstrap, kept, GROUP, number) for number in range(2)]
        roamer = Roamer(self.recorder, bootstrap, self.streams, self.seed)
        watch = Watch(self._sample)
        trimmer = Trimmer(self.recorder, bootstrap, self._of("trimmed"))
        fleeting = Fleeting(self.recorder, bootstrap)
        changer = PolicyChanger(bootstrap, "changing")
        killer = Killer(self.place.agents, self.seed, KILL_EVERY_S)
        time.sleep(self.seconds)
        workers: Sequence[Worker] = [killer, fleeting, trimmer, changer, roamer, *writers]
        for worker in workers:
            worker.stop()
        self.fleeting = fleeting.places
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
        """Read every partition from its start to its end, through each agent."""
        places = [*(stream.place for stream in self.streams), *self.fleeting]
        for number, agent in enumerate(self.place.agents):
            where = Where("127.0.0.1", agent.port, f"agent {number} {when}")
            back = asyncio.run(read_back(self.recorder, where, places, {}))
            self.readbacks.append(back)
            for place, log in back.logs.items():
                self._say(f"{where.name}, {place}: {log.start}..{log.end}, {len(log.offsets)} left")

    def _judge(self, fsck: FsckResult) -> None:
        """What does the verifier say?"""
        verdict = judge(self.recorder.history, self.readbacks, rules_of(GROUP, KEPT), fsck)
        self.problems += map(str, verdict.violations)
        idle = set(verdict.figures.idle())
        self.problems += [f"nothing was there to look at: {check}" for check in NEEDED if check in idle]
        for line in verdict.report().splitlines():
            self._say(line.strip())

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{self.place.name}: {text}\n")
        sys.stdout.flush()


def _described(facts: Facts) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in facts._asdict().items())


def _is_bug(line: str) -> bool:
    """Only bugs are logged with a traceback."""
    return "Traceback (most recent call last)" in line

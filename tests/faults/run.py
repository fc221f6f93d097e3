"""One run: a place, a load, a schedule; then everything is read back and judged."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults import misfortunes
from tests.faults.agents import FaultyAgent
from tests.faults.conductor import Conductor
from tests.faults.load import Load
from tests.faults.places import Place
from tests.faults.reading_back import read_back
from tests.faults.schedule import Kind, Schedule
from tests.faults.topics import AUDIT, EVENTS, GROUP, MEMBERS_GROUP, ORDERS, TOPICS, rules
from tests.support.cluster import eventually
from tests.verifier import FsckResult, Readback, Recorder, Verdict, judge

CALM_S = 40.0
"""How long it may take until all agents are ready, and all clients go on, when nothing disturbs any more."""
CONSUME_S = 40.0
JOBS_S = 25.0
"""How long the jobs may take to clean up after that."""
ORPHAN_AGE_S = 15.0
LEFT_OVER = ("orphans", "live segments without extents", "extents of deleted topics")
TELL_EVERY_S = 10.0
WHOLE_S = 60.0
"""Shorter runs need not come to everything."""
MAY_BE_IDLE = frozenset(
    {
        # The timestamps of all records are in their seals here.
        "records keep their times",
        # Nobody may have been told so, or have had an occasion.
        "nothing is out of order without reason", "topics are known", "requests are seen as one",
        "duplicates have their offsets", "old values stay away", "retention takes what is old",
    }
)  # fmt: skip
"""A check that has looked at nothing proves nothing: all others have to."""


class Run:
    """`problems` is empty when all is as it has to be."""

    def __init__(self, place: Place, schedule: Schedule, say: Callable[[str], None]) -> None:
        self.place = place
        self.schedule = schedule
        self.problems: list[str] = []
        self.verdict = Verdict()
        self.happened: Counter[Kind] = Counter()
        self._say = say
        self._recorder = Recorder(time.monotonic)
        self._load = Load(self._recorder, place.agents, place.bootstrap, schedule.seed)

    def work(self) -> None:
        """All of it."""
        with ThreadPoolExecutor() as starters:
            list(starters.map(FaultyAgent.start, self.place.agents))
        self._wait_until_ready()
        self._say("all is up")
        try:
            self._load.start()
            self._let_it_happen()
            backs = self._finish()
        finally:
            self._load.abandon()
        self._say("looking at the stores")
        self._trust_clocks_again()
        fsck = self._check_stores()
        self._end_agents()
        kinds = {misfortune.kind for misfortune in self.schedule.misfortunes}
        wanted = rules(Kind.CLOCK in kinds, self._load.committer_groups)
        self.verdict = judge(self._recorder.history, backs, wanted, fsck)
        self.problems += [str(violation) for violation in self.verdict.violations]
        if self.schedule.seconds >= WHOLE_S:
            idle = [check for check in self.verdict.figures.idle() if check not in MAY_BE_IDLE]
            self.problems += [f"nothing was there to look at: {check}" for check in idle]

    def report(self) -> str:
        """What was done and looked at, in figures."""
        done = ", ".join(f"{score.name} {score.done}" for score in self._load.scores)
        happened = "; ".join(
            f"{kind.value}: {count}"
            for kind, count in sorted(self.happened.items(), key=lambda each: each[0].value)
        )
        lines = [f"misfortunes: {happened}", *self._ways(), f"clients came to their goal: {done}"]
        lives = sum(agent.life for agent in self.place.agents)
        lines.append(f"agents: {len(self.place.agents)}, processes {lives}")
        failed = sum((agent.failed_starts for agent in self.place.agents), Counter())
        lines += [f"could not start, {count} times: {why[:300]}" for why, count in failed.most_common()]
        return "\n".join([*lines, self.verdict.report()])

    def _ways(self) -> list[str]:
        """What has come of the proxies' work."""
        commits: Counter[str] = Counter()
        for proxy in self.place.databases:
            commits["passed"] += proxy.commits
            for way, count in proxy.happened.items():
                commits[way.name.lower()] += count
        faults = Counter(
            request.fault for store in self.place.stores for request in store.requests() if request.fault
        )
        found = []
        if commits:
            found.append("commits: " + ", ".join(f"{name} {count}" for name, count in commits.items()))
        if self.place.stores:
            found.append(
                "requests that failed on purpose: "
                + ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
            )
        return found

    def _let_it_happen(self) -> None:
        begin_s = time.monotonic()
        conductor = Conductor(
            self.schedule,
            lambda misfortune: misfortunes.begin(self.place, misfortune),
            set(self.place.left_out),
            self._say,
        )
        with conductor:
            try:
                while (now_s := time.monotonic() - begin_s) < self.schedule.seconds:
                    time.sleep(min(TELL_EVERY_S, self.schedule.seconds - now_s))
                    self._tell()
            except BaseException:
                for agent in self.place.agents:  # nobody is to wait for one that can't start
                    agent.give_up()
                raise
            conductor.join()
        self.happened = conductor.happened
        self.problems += conductor.problems

    def _tell(self) -> None:
        history = self._recorder.history
        done = sum(score.done for score in self._load.scores)
        running = sum(agent.is_running for agent in self.place.agents)
        self._say(f"{len(history.ops):,} operations, {done:,} successes, {running} agents run")

    def _finish(self) -> list[Readback]:
        """Everybody goes on, and ends; then all is read back through each agent."""
        for agent in self.place.agents:
            if not agent.is_running:
                self.problems.append(f"{agent.name} has ended by itself")
                agent.start_again()
        self._wait_until_ready()
        if stuck := self._load.go_on(CALM_S):
            self.problems.append(f"not served within {CALM_S:g} s of calm: {', '.join(stuck)}")
        self._say("all is calm; clients end")
        self._load.finish()
        self._wait_for_readers()
        self._load.end_consumers()
        self.problems += self._load.problems
        self._say("reading back")
        places = [place for topic in (*TOPICS, *self._load.deleted_topics) for place in topic.places]
        backs = []
        for agent in self.place.agents:
            groups = {
                **dict.fromkeys(self._load.committer_groups, AUDIT.places),
                GROUP: EVENTS.places,
                MEMBERS_GROUP: ORDERS.places,
            }
            backs.append(asyncio.run(read_back(self._recorder, agent, places, groups)))
        return backs

    def _wait_for_readers(self) -> None:
        """Until the group has read every record that its topic has."""
        wanted = sum(producer.acknowledged for producer in self._load.producers)

        def seen() -> bool:
            return self._load.read_by_consumers() >= wanted

        try:
            eventually(seen, "the consumers read all", CONSUME_S)
        except AssertionError:
            self.problems.append(
                f"consumers have read {self._load.read_by_consumers()} of {wanted} records after {CONSUME_S:g} s"
            )

    def _wait_until_ready(self) -> None:
        def is_ready() -> bool:
            try:
                return all(agent.get("/v1/ready")[0] == 200 for agent in self.place.agents)
            except OSError:
                return False

        try:
            eventually(is_ready, "all agents are ready", CALM_S)
        except AssertionError as error:
            self.problems.append(str(error))

    def _trust_clocks_again(self) -> None:
        """Start agents anew whose clocks have jumped: they would look for orphans a quarter of an hour later."""
        jumped = {each.agent for each in self.schedule.misfortunes if each.kind is Kind.CLOCK}
        for agent in self.place.agents:
            if agent.number in jumped:
                try:
                    agent.end_in_order()
                    agent.start_again()
                except AssertionError as error:
                    self.problems.append(str(error))

    def _check_stores(self) -> FsckResult:
        """fsck beside the agents, again and again until the jobs have cleaned up, or had time enough."""
        deadline_s = time.monotonic() + JOBS_S
        while True:
            code, text = self.place.fsck(ORPHAN_AGE_S)
            try:
                report = json.loads(text)
            except ValueError:
                return FsckResult([f"fsck ended with exit code {code}: {text[-1000:]}"])
            left_over = {name: report["counts"].get(name, 0) for name in LEFT_OVER}
            if not any(left_over.values()) or time.monotonic() > deadline_s:
                break
        found = [f"{each['kind']} {each['where']}: {each['text']}" for each in report["findings"]]
        counts = report["counts"]
        checked = counts.get("extents", 0) + counts.get("objects", 0) + counts.get("live segments", 0)
        return FsckResult(found or ([] if code == 0 else [f"exit code {code}"]), left_over, checked)

    def _end_agents(self) -> None:
        """In order."""
        for agent in self.place.agents:
            try:
                agent.end_in_order()
            except AssertionError as error:
                self.problems.append(str(error))
            bugs = [line for line in agent.output if "Traceback (most recent call last)" in line]
            self.problems += [f"agent {agent.number} has a bug: {line[:1000]}" for line in bugs[:3]]

    def save_logs(self, directory: Path) -> None:
        """What the agents said, and what the verifier and the clients have found."""
        directory.mkdir(parents=True, exist_ok=True)
        for agent in self.place.agents:
            (directory / f"agent-{agent.number}.log").write_text("\n".join(agent.output) + "\n")
        if self.place.postgres is not None:
            (directory / "postgres.log").write_text(self.place.postgres.log())
        (directory / "problems.txt").write_text(
            "\n".join([str(self.schedule), *self.problems, self.report(), ""])
        )

"""Members of consumer groups as programs of their own, whatever their language; and what became of their records.

A program is called as `PROGRAM consume BOOTSTRAP TOPIC GROUP [NAME=VALUE ...]`; some also produce. Settings are
`session_ms`, `heartbeat_ms`, `assignor` (range, cooperative), `instance` (of a static member) and `security` (see
tests/clients/secured.py). It processes records, commits after each batch, and on SIGTERM leaves the group. With
`pause_ms` records are produced one by one, again when they are refused. It prints events, one JSON object a line:

    assigned   `partitions`: all that the member has from now on
    record     `partition`, `offset`, `value`: processed; not yet committed
    committed  `partition`, `offset`: the commit was acknowledged
    produced   `partition`, `offset`, `value`: the record was acknowledged
    problem    `message`: an error that the program goes on after
    closed     the program has left the group
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.toolchain import missing, require_folder, require_tool

FOLDER = Path(__file__).parent
WAIT_S = 60.0


def _python(module: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", f"tests.clients.programs.{module}"]


def _go(name: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        program = FOLDER / "go" / "bin" / name
        if not program.is_file():
            missing(f"{name} is not built: run `make clients`, which builds it with go")
        return [str(program)]

    return command


def _java() -> list[str]:
    return [*java(), "member.Member"]


def java() -> list[str]:
    """The command line of a Java program, but for the name of its class; Kafka's tools are in reach."""
    program = require_tool("java")
    target = require_folder(
        FOLDER / "java" / "target" / "jars", "run `make clients`, which builds it with mvn"
    ).parent
    return [
        program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{target}/classes:{target}/jars/*",
    ]  # fmt: skip


def kafkajs(program: str) -> list[str]:
    """The command line of a program for kafkajs: consume or produce."""
    node = require_tool("node")
    require_folder(FOLDER / "kafkajs" / "node_modules", "run `make clients`, which installs it with npm")
    return [node, str(FOLDER / "kafkajs" / f"{program}.mjs")]


@dataclass(frozen=True)
class Kind:
    """A client: how it is called, and what it can do beyond being an eager, dynamic member."""

    name: str
    command: Callable[[], list[str]]
    is_cooperative: bool = False
    is_static: bool = False
    tells_assignment: bool = True


KINDS = (
    Kind("confluent", _python("confluent_member"), is_cooperative=True, is_static=True),
    Kind("aiokafka", _python("aiokafka_member"), is_static=True),
    Kind("kafka-python", _python("kafka_python_member"), is_static=True),
    Kind("kafkajs", lambda: kafkajs("consume")),
    Kind("franz-go", _go("franz"), is_cooperative=True, is_static=True),
    Kind("kafka-go", _go("kafkago"), tells_assignment=False),
    Kind("java", _java, is_cooperative=True, is_static=True),
)


@dataclass
class Seen:
    """What the members of one group have done, in the order in which it was told."""

    records: list[tuple[int, int, str]] = field(default_factory=list)
    """Partition, offset, value."""
    commits: list[tuple[int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def values(self) -> set[str]:
        return {value for _, _, value in self.records}


class Member:
    """One running member; use as a context manager, which kills it if it still runs."""

    def __init__(
        self, kind: Kind, bootstrap: str, topic: str, group: str, seen: Seen | None = None, **settings: object
    ) -> None:
        self.kind = kind
        self.seen = seen if seen is not None else Seen()
        self.assignments: list[tuple[int, ...]] = []
        """All that the program has told of, in order."""
        self.is_closed = False
        self._changed = threading.Condition()
        pairs = [f"{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            [*kind.command(), "consume", bootstrap, topic, group, *pairs],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def assignment(self) -> tuple[int, ...] | None:
        """The partitions that the member has; None until the program has told of any."""
        return self.assignments[-1] if self.assignments else None

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._note(json.loads(line))
                    self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self._errors.extend(lines)

    def _note(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "assigned":
                self.assignments.append(tuple(event["partitions"]))
            case "record":
                self.seen.records.append((event["partition"], event["offset"], event["value"]))
            case "committed":
                self.seen.commits.append((event["partition"], event["offset"]))
            case "problem":
                self.seen.problems.append(f"{self.kind.name}: {event['message']}")
            case "closed":
                self.is_closed = True

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something holds; fails with what the program said when it doesn't come about."""
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while not is_so():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    break
                self._changed.wait(0.2)
            else:
                return
        raise AssertionError(
            f"{self.kind.name}: waited in vain until {what}; it has {self.assignment}, "
            f"{len(self.seen.records)} records, exit code {self.process.poll()}, said {self.seen.problems[-5:]}, "
            + "".join(self._errors[-20:])
        )

    def stop(self) -> None:
        """SIGTERM: the program leaves the group and ends."""
        self.process.send_signal(signal.SIGTERM)
        self._gone()
        assert self.is_closed, f"{self.kind.name} ended with {self.process.returncode}: {self._errors[-20:]}"

    def kill(self) -> None:
        """kill -9: the group learns of it when the session has timed out."""
        self.process.kill()
        self._gone()

    def _gone(self) -> None:
        self.process.wait(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def produce(
    kind: Kind, bootstrap: str, topic: str, count: int, **settings: object
) -> list[tuple[int, int, str]]:
    """Let a program produce the numbers from 0 on; returns partition, offset and value of each acknowledged record."""
    pairs = [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run(
        [*kind.command(), "produce", bootstrap, topic, str(count), *pairs],
        capture_output=True, timeout=WAIT_S, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return produced_records(done.stdout)


def produced_records(output: str) -> list[tuple[int, int, str]]:
    """What a program says that it has produced, which has come to its end without a problem."""
    events = [json.loads(line) for line in output.splitlines()]
    assert events[-1]["event"] == "closed", output
    assert not [event for event in events if event["event"] == "problem"], output
    return [
        (event["partition"], event["offset"], event["value"])
        for event in events
        if event["event"] == "produced"
    ]


def kinds_named(*names: str) -> Sequence[Kind]:
    """Kinds by name, in the order of the table."""
    return [kind for kind in KINDS if kind.name in names]

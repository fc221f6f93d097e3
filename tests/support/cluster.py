"""A cluster of real processes: agents over one PostgreSQL database and one object store, on the loopback address.

Any of them can be killed, frozen, stopped in order and started again; names, ports and so broker ids stay the same.
Their logs are kept beside their data, and the ends of them printed, which pytest shows of a test that failed.
"""

from __future__ import annotations

import itertools
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from tests.support.process import AgentProcess

SETTLE_S = 30.0
HTTP_TIMEOUT_S = 10.0
LINES_SHOWN = 60
SLOTS = 64


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = SETTLE_S) -> None:
    """Wait until a condition holds. Raises AssertionError when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


class ClusterAgent(AgentProcess):
    """One agent of a cluster."""

    def __init__(
        self,
        directory: Path,
        zone: str,
        options: Sequence[str],
        environment: dict[str, str],
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(directory, "--zone", zone, *options, environment=environment, host=host)
        if "--http-tls" in options:
            self.http = self.http.replace("http://", "https://")
        self.zone = zone
        self.is_frozen = False

    @property
    def is_running(self) -> bool:
        """It has been started and has not ended, as far as anybody has looked."""
        return self._process is not None and self._process.poll() is None

    def freeze(self) -> None:
        """SIGSTOP: nothing of it runs, its connections stay."""
        self._send(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)
        self.is_frozen = False

    def terminate(self) -> None:
        """SIGTERM, without waiting for the end."""
        self._send(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended by itself: its exit code."""
        assert self._process is not None
        return self._gone(self._process)

    def kill(self) -> None:
        """As a crash would be; it may be frozen."""
        super().kill()
        self.is_frozen = False

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        try:
            url = self.http + path
            with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S, context=_any_certificate()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def view(self) -> dict[str, Any]:
        """What it says of the cluster."""
        view: dict[str, Any] = json.loads(self.get("/v1/cluster")[1])
        return view

    def states(self) -> dict[str, str]:
        """By name, what each agent is to this one: serving, leaving, lost or gone."""
        return {agent["name"]: agent["state"] for agent in self.view()["agents"]}

    def broker_id(self) -> int:
        """Its own."""
        return int(self.view()["own"]["broker_id"])

    def metric(self, name: str) -> float:
        """The sum of a metric's samples whose line starts with a text."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Cluster:
    """Agents of some zones, over `metadata` and `object_store`. Use as a context manager.

    `options` are those of every agent, `own_options` those of each one; agents whose numbers are in `own_metadata`
    reach the database by another URL. On entry all are started and see each other.
    """

    def __init__(
        self,
        directory: Path,
        metadata: str,
        object_store: str,
        *,
        zones: Sequence[str] = ("zone-1", "zone-1", "zone-2"),
        options: Sequence[str] = (),
        own_options: Sequence[Sequence[str]] = (),
        own_metadata: Mapping[int, str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.metadata = metadata
        self.object_store = object_store
        self._options = list(options)
        self._own_metadata = own_metadata or {}
        self._environment = environment or {}
        self.agents: list[ClusterAgent] = []
        for zone, own in itertools.zip_longest(zones, own_options, fillvalue=()):
            assert isinstance(zone, str), "there are no more own options than agents"
            self.add(zone, *own)

    @property
    def bootstrap(self) -> str:
        """The addresses of all agents."""
        return ",".join(agent.bootstrap for agent in self.agents)

    @property
    def running(self) -> list[ClusterAgent]:
        """The agents that run and are not frozen."""
        return [agent for agent in self.agents if agent.is_running and not agent.is_frozen]

    def add(self, zone: str, *options: str) -> ClusterAgent:
        """One more agent, not started yet."""
        metadata = self._own_metadata.get(len(self.agents), self.metadata)
        stores = ["--metadata", metadata, "--object-store", self.object_store]
        directory = self.directory / f"agent-{len(self.agents)}"
        agent = ClusterAgent(directory, zone, [*stores, *self._options, *options], self._environment)
        self.agents.append(agent)
        return agent

    def settle(self) -> None:
        """Wait until all agents that run are ready and see each other and nobody else, and every slot is held."""
        wanted = {agent.bootstrap for agent in self.running}

        def is_settled(agent: ClusterAgent) -> bool:
            view = agent.view()
            serving = {other["name"] for other in view["agents"] if other["state"] == "serving"}
            leaving = [other for other in view["agents"] if other["state"] == "leaving"]
            is_ready = agent.get("/v1/ready")[0] == 200
            return is_ready and serving == wanted and not leaving and view["slots"]["held"] == SLOTS

        for agent in self.running:
            eventually(lambda agent=agent: is_settled(agent), f"{agent.bootstrap} sees {sorted(wanted)}")  # type: ignore[misc]

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor() as starters:
                list(starters.map(ClusterAgent.start, self.agents))
            self.settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents:
            agent.kill()
        self.directory.mkdir(parents=True, exist_ok=True)
        for number, agent in enumerate(self.agents):
            (self.directory / f"agent-{number}.log").write_text("\n".join(agent.output) + "\n")
            print(f"--- agent {number}, {agent.bootstrap}, {agent.zone}:")
            print("\n".join(agent.output[-LINES_SHOWN:]))

"""A network namespace for each agent of a run, with a link of its own to each thing that it needs. It takes root.

An agent reaches PostgreSQL over one link, the object store over another, and clients and other agents over a third,
which ends in a bridge. A link that is down loses every packet without a word; TCP sends again when it is up.

Runs have numbers, and by them addresses of their own in 198.18.0.0/16, which is set aside for tests (RFC 2544):
several may go on at once. What runs have left that were killed is removed by the next one.
"""

from __future__ import annotations

import enum
import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

RUNS_MAX = 64
AGENTS_MAX = 16
TIMEOUT_S = 20.0
_NAMESPACES, _DEVICES = "warp-faults-{}-", "wf{}-"
"""What the names of a run's namespaces and devices begin with."""


class Link(enum.Enum):
    """Where to an agent has a link. The number is the place of its addresses among those of the run."""

    AGENTS = 0
    POSTGRES = 64
    STORE = 128


def missing() -> str | None:
    """Why there can be no network namespaces here, None when there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"warp-faults-try-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1")
            _ip("-n", name, "link", "add", "try2", "type", "bridge")
        finally:
            _ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces: {error}"
    return None


class Network:
    """For so many agents. Use as a context manager."""

    def __init__(self, agents: int) -> None:
        assert agents <= AGENTS_MAX
        self._agents = agents
        self._run = -1
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self._run, self._lock = _take_number()
        try:
            _remove(self._run)
            _remove_left_over()
            self._create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self._run)
        if self._lock is not None:
            self._lock.close()

    def address(self, agent: int) -> str:
        """Where an agent listens."""
        return self._address(Link.AGENTS, agent, 2)

    def host_address(self, link: Link, agent: int) -> str:
        """At which address of ours an agent finds what it needs."""
        return self._address(link, agent, 1)

    def command(self, agent: int) -> list[str]:
        """The start of a command line that runs a program as an agent; its process id stays."""
        return ["ip", "netns", "exec", self._namespace(agent)]

    @contextmanager
    def down(self, link: Link, agent: int) -> Iterator[None]:
        """Nothing gets through meanwhile."""
        name = self._device(link, agent)
        _ip("link", "set", name, "down")
        try:
            yield
        finally:
            _ip("link", "set", name, "up")

    def _create(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._address(Link.AGENTS, 0, 1)}/26", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for agent in range(self._agents):
            space = self._namespace(agent)
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            for link in Link:
                self._connect(link, agent)
            _ip("link", "set", self._device(Link.AGENTS, agent), "master", self._bridge)

    def _connect(self, link: Link, agent: int) -> None:
        """One pair of devices: ours, and the agent's."""
        space, device = self._namespace(agent), self._device(link, agent)
        theirs = f"to-{link.name.lower()}"
        _ip("link", "add", device, "type", "veth", "peer", "name", theirs, "netns", space)
        if link is not Link.AGENTS:
            _ip("addr", "add", f"{self._address(link, agent, 1)}/30", "dev", device)
        width = 26 if link is Link.AGENTS else 30
        _ip("-n", space, "addr", "add", f"{self._address(link, agent, 2)}/{width}", "dev", theirs)
        _ip("-n", space, "link", "set", theirs, "up")
        _ip("link", "set", device, "up")

    @property
    def _bridge(self) -> str:
        return f"{_DEVICES.format(self._run)}bridge"

    def _namespace(self, agent: int) -> str:
        return f"{_NAMESPACES.format(self._run)}{agent}"

    def _device(self, link: Link, agent: int) -> str:
        return f"{_DEVICES.format(self._run)}{link.value}-{agent}"

    def _address(self, link: Link, agent: int, end: int) -> str:
        """`end` is 1 for ours, 2 for the agent's; agents share one network and one address of ours on it."""
        if link is Link.AGENTS:
            number = 1 if end == 1 else 2 + agent
        else:
            number = link.value + 4 * agent + end
        return f"198.18.{self._run}.{number}"


def _take_number() -> tuple[int, IO[str]]:
    """A number that no other run has, and the lock that keeps it."""
    for number in range(RUNS_MAX):
        lock = _lock(number)
        if lock is not None:
            return number, lock
    raise AssertionError(f"{RUNS_MAX} runs go on already")


def _lock(run: int) -> IO[str] | None:
    """Keeps a number from others until it is closed; None: somebody has it."""
    lock = Path(tempfile.gettempdir(), f"warp-faults-network-{run}.lock").open("w")  # noqa: SIM115  it stays open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _remove_left_over() -> None:
    """What those runs have left that are no more."""
    found = re.compile(f"(?:{_NAMESPACES.format('([0-9]+)')}|{_DEVICES.format('([0-9]+)')})")
    matches = (found.match(name) for name in (*_namespaces(), *_devices()))
    for run in sorted({int(match[1] or match[2]) for match in matches if match}):
        lock = _lock(run)
        if lock is not None:
            with lock:
                _remove(run)


def _remove(run: int) -> None:
    """All that has a run's number; devices go with their namespaces, a little later."""
    for space in _namespaces():
        if space.startswith(_NAMESPACES.format(run)):
            _ip("netns", "del", space)
    for device in _devices():
        if device.startswith(_DEVICES.format(run)):
            # Where it has gone by itself meanwhile, nothing is left to do.
            _ip("link", "del", device, check=False)


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _devices() -> list[str]:
    return [line.split()[1].split("@")[0].rstrip(":") for line in _ip("-o", "link").splitlines()]


def _ip(*arguments: str, check: bool = True) -> str:
    command: Sequence[str] = ("ip", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if check and done.returncode != 0:
        raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout

"""Where a schedule runs: agents of a cluster behind proxies, or one agent with all its data on a small disk."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import clocks, disks, network, previous
from tests.faults.agents import PROGRAM, FaultyAgent
from tests.faults.clocks import ShiftedClock
from tests.faults.disks import SmallDisk
from tests.faults.network import Link, Network
from tests.faults.schedule import AGENTS, Kind
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import PostgresProxy
from tests.support.rgw import RgwServer, missing_programs
from tests.support.s3 import S3Server, environment_of, s3_url

ROOT = Path(__file__).parents[2]
FSCK_TIMEOUT_S = 120.0
DISK_BYTES = 128 << 20
QUICK = (
    "--flush-bytes", "256KiB", "--flush-interval", "60ms", "--jobs-memory", "64MiB", "--merge-interval", "1s",
    "--compaction-interval", "1s", "--retention-check-interval", "1s", "--delete-grace", "2s",
    "--orphan-age", "6s", "--orphan-interval", "3s", "--cache-bytes", "16MiB",
    "--group-rebalance-delay", "200ms", "--group-session-min", "1s", "--shutdown-timeout", "8s",
    "--log-format", "json",
)  # fmt: skip
"""So that in one run everything happens that an agent does in a day."""
PATIENCE = ("--metadata-timeout", "3s"), ()
"""By seed. Impatient agents give up what hangs; statements of patient ones come through when their leases are gone."""


@dataclass
class Place:
    """Agents at work, and what can be done to them. `metadata` and `objects` are URLs past all proxies."""

    name: str
    directory: Path
    metadata: str = ""
    objects: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    agents: list[FaultyAgent] = field(default_factory=list)
    clocks: list[ShiftedClock] = field(default_factory=list)
    """One for each agent, where there can be any."""
    databases: list[PostgresProxy] = field(default_factory=list)
    """One for each agent."""
    stores: list[FaultProxy] = field(default_factory=list)
    """One for each agent."""
    postgres: PostgresServer | None = None
    is_postgres_held: threading.Lock = field(default_factory=threading.Lock)
    """Whoever does something to its process has it."""
    network: Network | None = None
    disk: SmallDisk | None = None
    left_out: dict[Kind, str] = field(default_factory=dict)
    """Kinds of misfortune that can't be had here, and why."""
    instead: list[str] = field(default_factory=list)
    """What takes the place of something better, and why."""

    @property
    def lacks(self) -> list[str]:
        """All that this place has to do without, for people."""
        return [*self.instead, *(f"{kind.value}: {reason}" for kind, reason in self.left_out.items())]

    @property
    def bootstrap(self) -> str:
        """The addresses of all agents."""
        return ",".join(agent.bootstrap for agent in self.agents)

    def fsck(self, orphan_age_s: float) -> tuple[int, str]:
        """Exit code and output of a deep check; unknown objects count as orphans when they are so old."""
        done = subprocess.run(
            [
                str(PROGRAM), "fsck", "--deep", "--json", "--metadata", self.metadata,
                "--object-store", self.objects, "--orphan-age", f"{orphan_age_s:g}s",
            ],
            capture_output=True, text=True, timeout=FSCK_TIMEOUT_S, check=False, cwd=ROOT,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@contextmanager
def local(directory: Path, seed: int) -> Iterator[Place]:
    """One agent with SQLite and objects in a directory, on a disk of its own where there can be one."""
    with ExitStack() as stack:
        place = Place("local", directory)
        data = directory / "disk" / "data"
        if (reason := disks.missing()) is None:
            place.disk = stack.enter_context(SmallDisk(directory / "disk", DISK_BYTES))
        else:
            place.left_out[Kind.DISK_FULL] = reason
        place.metadata = f"sqlite://{data / 'metadata.sqlite'}"
        place.objects = (data / "objects").as_uri()
        # Without a reserve the disk is full to the last byte, and writing fails wherever it does.
        options = [*QUICK, "--free-space-reserve", ("1MiB", "0")[seed // 4 % 2]]
        _add_agent(stack, place, data, options)
        yield place


@contextmanager
def cluster(directory: Path, seed: int) -> Iterator[Place]:
    """Agents over PostgreSQL and an S3 server, each with a proxy of its own before either."""
    with ExitStack() as stack:
        place = Place("cluster", directory)
        if (reason := network.missing()) is None:
            place.network = stack.enter_context(Network(AGENTS["cluster"]))
        else:
            isolated = (Kind.NO_WAY_TO_POSTGRES, Kind.NO_WAY_TO_STORE, Kind.NO_WAY_TO_AGENT)
            place.left_out.update(dict.fromkeys(isolated, reason))
        place.postgres = PostgresServer()
        stack.push(place.postgres)
        with ThreadPoolExecutor(1) as starter:
            started = starter.submit(place.postgres.__enter__)
            s3 = _s3_server(stack, directory, place.instead)
            started.result()
        place.environment = environment_of(s3.credentials)
        place.metadata, bucket = place.postgres.create_database(), s3.new_bucket()
        place.objects = s3_url(bucket, "warp", endpoint=s3.endpoint)
        for number in range(AGENTS["cluster"]):
            hosts = [
                "127.0.0.1" if place.network is None else place.network.host_address(link, number)
                for link in (Link.POSTGRES, Link.STORE)
            ]
            database = PostgresProxy(place.postgres.port, hosts[0], seed=seed)
            place.databases.append(stack.enter_context(database))
            place.stores.append(stack.enter_context(FaultProxy(s3.endpoint, seed=seed, host=hosts[1])))
            relayed = place.metadata.replace(
                f"127.0.0.1:{place.postgres.port}", f"{hosts[0]}:{database.port}"
            )
            store = s3_url(bucket, "warp", endpoint=place.stores[-1].endpoint, read_timeout="2s")
            options = [*QUICK, *PATIENCE[seed % 2], "--metadata", relayed, "--object-store", store]
            _add_agent(stack, place, directory / f"agent-{number}", options)
        yield place


def _s3_server(stack: ExitStack, directory: Path, instead: list[str]) -> RgwServer | S3Server:
    """Ceph's gateway, or where that is not installed moto."""
    if absent := missing_programs():
        instead.append(f"moto takes the place of Ceph's S3 gateway: {', '.join(absent)} not installed")
        return stack.enter_context(S3Server(directory))
    return stack.enter_context(RgwServer(directory / "rgw"))


def _add_agent(stack: ExitStack, place: Place, data: Path, options: Sequence[str]) -> None:
    number = len(place.agents)
    environment = dict(place.environment)
    if (reason := clocks.missing()) is None:
        clock = ShiftedClock(place.directory / f"clock-{number}")
        place.clocks.append(clock)
        environment |= clock.environment
    else:
        place.left_out[Kind.CLOCK] = reason
    old: list[str] = []
    if (reason := previous.missing()) is None:
        old = previous.only_known(options)
    else:
        place.left_out[Kind.PREVIOUS] = reason
    agent = FaultyAgent(
        number,
        data,
        options,
        environment,
        host="127.0.0.1" if place.network is None else place.network.address(number),
        prefix=() if place.network is None else place.network.command(number),
        previous_options=old,
    )
    place.agents.append(agent)
    stack.callback(agent.close)


PLACES: dict[str, Callable[[Path, int], AbstractContextManager[Place]]] = {"local": local, "cluster": cluster}

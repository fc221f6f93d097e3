"""Runs the checks one after the other: nothing that is timed runs beside something else of ours."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from warp.agent_build import directories_in_use, object_store_url
from warp.agent_settings import listener_configs, tls_settings
from warp.cli.doctor.detached import detached
from warp.cli.doctor.facts import (
    BindState,
    CertificateFacts,
    ClientFacts,
    DatabaseFacts,
    Holder,
    HolderState,
    JobsFacts,
    PlaceFacts,
    PortFacts,
)
from warp.cli.doctor.finding import Finding, note
from warp.cli.doctor.judge.clients import judge_clients, judge_told
from warp.cli.doctor.judge.clock import judge_clock
from warp.cli.doctor.judge.cluster import judge_cluster
from warp.cli.doctor.judge.jobs import judge_jobs
from warp.cli.doctor.judge.machine import judge_machine, judge_software
from warp.cli.doctor.judge.object_store import judge_object_directory, judge_object_store
from warp.cli.doctor.judge.place import judge_metadata
from warp.cli.doctor.judge.ports import judge_http, judge_listener
from warp.cli.doctor.judge.postgres import agent_commit, judge_postgres
from warp.cli.doctor.judge.security import judge_security
from warp.cli.doctor.latency import Latency
from warp.cli.doctor.measure.certificate import look_at_certificate
from warp.cli.doctor.measure.clients import look_as_client, look_at_cluster
from warp.cli.doctor.measure.machine import look_at_machine
from warp.cli.doctor.measure.marker import look_at_marker
from warp.cli.doctor.measure.object_store import look_at_object_store
from warp.cli.doctor.measure.place import find_holder, look_at_database, look_at_place
from warp.cli.doctor.measure.ports import local, look_at_http, look_at_listener
from warp.cli.doctor.measure.postgres import look_at_postgres
from warp.cli.doctor.measure.status import ask_jobs
from warp.clock import Clock
from warp.config import AgentConfig, is_in_memory, is_shared
from warp.config_values import Address
from warp.ids import IdSource
from warp.metadata.urls import open_database
from warp.objectstore.urls import open_object_store

DISK_TIMEOUT_S: Final = 30.0

Say = Callable[[str], None]


class Examination:
    """One visit. `say` is told what is being looked at."""

    def __init__(self, *, samples: int, clock: Clock, ids: IdSource, say: Say) -> None:
        self._samples = samples
        self._clock = clock
        self._ids = ids
        self._say = say

    async def agent(self, config: AgentConfig) -> list[Finding]:
        """Everything that the agent of a configuration depends on. Raises UsageError, as the agent itself would."""
        # Refuse URLs that no store has; nothing is opened by it.
        open_database(config.metadata, self._clock)
        store = open_object_store(object_store_url(config), clock=self._clock, ids=self._ids)
        await store.close()
        holder = await self._holder(config)
        ports = await self._ports(config)
        findings = await self._doors(config, ports, holder)
        findings += await self._security(config)
        if is_shared(config.metadata):
            commit, of_metadata = await self._cluster(config, ports[0])
        else:
            commit, of_metadata = await self._metadata(config, holder)
        findings += of_metadata
        findings += await self._object_store(config, commit)
        findings += judge_jobs(config, await self._jobs(config, holder))
        self._say("looking at limits")
        machine = look_at_machine(holder.pid if holder.state is HolderState.HELD else None)
        return [*findings, *judge_machine(machine, config)]

    async def cluster(self, bootstrap: Address) -> list[Finding]:
        """A cluster as its clients see it, and what this machine is to a client."""
        self._say(f"asking {bootstrap}")
        seen = await look_at_cluster(bootstrap, samples=self._samples, monotonic=self._clock.monotonic)
        return [*judge_clients(seen), judge_software(look_at_machine(None))]

    async def _holder(self, config: AgentConfig) -> Holder:
        unknown = Holder(HolderState.UNKNOWN)
        found = [
            await detached(partial(find_holder, path), timeout_s=DISK_TIMEOUT_S, late=unknown)
            for path in directories_in_use(config)
        ]
        return most_telling(found)

    async def _ports(self, config: AgentConfig) -> list[PortFacts]:
        ports: list[PortFacts] = []
        for address in config.listen:
            self._say(f"looking at {address}")
            ports.append(await look_at_listener(address, monotonic=self._clock.monotonic))
        return ports

    async def _doors(self, config: AgentConfig, ports: Sequence[PortFacts], holder: Holder) -> list[Finding]:
        """The addresses that the agent listens on, and those that clients are told."""
        findings = [judge_listener(port, holder) for port in ports]
        if config.http is not None:
            cluster_id = next((port.broker.cluster_id for port in ports if port.broker), None)
            http = await look_at_http(config.http, is_tls=config.http_tls)
            findings.append(judge_http(http, holder, cluster_id))
        for told, port in zip(told_addresses(config), ports, strict=True):
            findings.append(judge_told(told, port.address, socket.gethostname()))
            if told.port == 0 or (str(told) == str(port.address) and is_wrong(port)):
                # Nobody knows the port before the agent has one; or what is wrong there has been said.
                continue
            self._say(f"asking {told}")
            findings += judge_clients(await self._as_client(told, port))
        return findings

    async def _jobs(self, config: AgentConfig, holder: Holder) -> JobsFacts | None:
        """What the agent of this configuration tells of jobs; None while it does not run."""
        if config.http is None or holder.state is HolderState.NOBODY:
            return None
        facts = await look_at_http(config.http, is_tls=config.http_tls)
        if facts.status is None or facts.status.refusal:
            return None
        self._say("asking about jobs")
        return await ask_jobs(local(config.http), is_tls=config.http_tls)

    async def _security(self, config: AgentConfig) -> list[Finding]:
        """Who gets in, by the settings."""
        settings, facts = tls_settings(config), None
        if settings is not None:
            path = str(settings.certificate)
            late = CertificateFacts(path, str(settings.key or path), refusal=f"{path}: {_no_answer()}")
            facts = await detached(
                partial(look_at_certificate, settings), timeout_s=DISK_TIMEOUT_S, late=late
            )
        return list(judge_security(config, facts, told_addresses(config), self._clock.time_ms() / 1000))

    async def _as_client(self, told: Address, port: PortFacts) -> ClientFacts:
        return await look_as_client(told, port, monotonic=self._clock.monotonic)

    async def _cluster(self, config: AgentConfig, port: PortFacts) -> tuple[Latency | None, list[Finding]]:
        """Findings on the database that agents share and on this one's place among them; how long a commit takes.

        `port` is that of its first listener.
        """
        told = told_addresses(config)[0]
        database = await look_at_postgres(
            config.metadata,
            name=str(told) if told.port else None,
            samples=self._samples,
            clock=self._clock,
            timeout_s=config.metadata_timeout_ms / 1000,
            agent_timeout_s=config.agent_timeout_ms / 1000,
            progress=self._say,
        )
        marker = await look_at_marker(object_store_url(config), clock=self._clock, ids=self._ids)
        findings = list(judge_postgres(database, config.metadata_connections_max))
        findings += judge_cluster(config, database, marker, port)
        return agent_commit(database), findings

    async def _metadata(self, config: AgentConfig, holder: Holder) -> tuple[Latency | None, list[Finding]]:
        """Findings, and how long an fsync takes there, which is most of a commit."""
        if is_in_memory(config.metadata):
            return None, [note("metadata.directory", "in the memory of the agent: gone when it stops")]
        self._say("timing fsync")
        path = Path(unquote(urlsplit(config.metadata).path))
        place = await self._place(path.parent)
        unread = DatabaseFacts(str(path), is_there=True, refusal=_no_answer())
        database = await detached(lambda: look_at_database(path), timeout_s=DISK_TIMEOUT_S, late=unread)
        return place.fsync, list(judge_metadata(place, database, holder))

    async def _object_store(self, config: AgentConfig, commit: Latency | None) -> Sequence[Finding]:
        url = object_store_url(config)
        store, clock = await look_at_object_store(
            url, samples=self._samples, clock=self._clock, ids=self._ids, progress=self._say
        )
        findings = list(judge_object_store(store, commit, config.flush_uploads_max))
        if store.is_directory and not store.refusal:
            place = await self._place(Path(unquote(urlsplit(url).path)), samples=0)
            findings += judge_object_directory(place, config.free_space_reserve_bytes)
        return [*findings, *([] if is_in_memory(url) else judge_clock(clock))]

    async def _place(self, directory: Path, samples: int | None = None) -> PlaceFacts:
        count = self._samples if samples is None else samples
        return await detached(
            lambda: look_at_place(directory, samples=count, monotonic=self._clock.monotonic),
            timeout_s=DISK_TIMEOUT_S,
            late=PlaceFacts(str(directory), str(directory), is_there=True, refusal=_no_answer()),
        )


def most_telling(found: Sequence[Holder]) -> Holder:
    """Of all directories that an agent locks: it runs if it holds any."""
    by_state = {holder.state: holder for holder in reversed(found)}
    for state in (HolderState.HELD, HolderState.UNKNOWN, HolderState.NOBODY):
        if state in by_state:
            return by_state[state]
    return Holder(HolderState.UNKNOWN)


def told_addresses(config: AgentConfig) -> list[Address]:
    """What clients of each listener are told to connect to; port 0 where the listener takes any free one."""
    told = []
    for listener in listener_configs(config):
        endpoint = listener.advertise or listener.bind
        told.append(Address(endpoint.host, endpoint.port))
    return told


def is_wrong(port: PortFacts) -> bool:
    """True when no agent can listen there, and none does."""
    is_broker = port.broker is not None and port.broker.is_broker
    return port.state is not BindState.FREE and not is_broker


def _no_answer() -> str:
    return f"its disk does not answer within {DISK_TIMEOUT_S:g} s"

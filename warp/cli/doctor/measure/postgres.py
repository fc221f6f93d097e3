"""Looks at the PostgreSQL database of a cluster with the agent's own code, and changes nothing in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from warp.cli.doctor.facts import ClockFacts, PostgresFacts, Registration, RegistrationState, Timing
from warp.cli.doctor.judge.clients import is_loopback
from warp.cli.doctor.latency import Latency
from warp.clock import Clock
from warp.errors import MetadataError, StartError
from warp.metadata.cluster_model import AgentState
from warp.metadata.store import CLUSTER_ID

if TYPE_CHECKING:
    from warp.metadata.postgres_look import PostgresLook, ServerLook

TIME_MAX_S: Final = 10.0
"""For one kind of request; after it no more samples are taken."""
CLOCK_SAMPLES: Final = 5
NOTICE_S_MAX: Final = 2.0
WATCH_POLL_S: Final = 0.1

Progress = Callable[[str], None]


async def look_at_postgres(
    url: str,
    *,
    name: str | None,
    samples: int,
    clock: Clock,
    timeout_s: float,
    agent_timeout_s: float,
    progress: Progress,
) -> PostgresFacts:
    """The database that a URL names, and who is registered there under `name`. Raises UsageError for a bad URL."""
    # Only a cluster has to do with PostgreSQL's driver.
    from warp.metadata.postgres_look import PostgresLook  # noqa: PLC0415
    from warp.metadata.postgres_url import parse_postgres_url  # noqa: PLC0415

    parsed = parse_postgres_url(url)
    facts = PostgresFacts(parsed.where)
    look = PostgresLook(parsed, now_ms=clock.time_ms, timeout_s=timeout_s)
    try:
        progress("connecting to the database")
        try:
            facts = _of_server(facts, await look.open(), url)
        except StartError as error:
            return replace(facts, refusal=str(error))
        try:
            progress("timing the database")
            facts = replace(
                facts,
                round_trip=await _time(look.round_trip, samples, clock),
                commit=await _time(look.commit, samples, clock),
                clock=await _compare_clocks(look, clock),
                hears=None if parsed.is_transaction_pooled else await look.hears(NOTICE_S_MAX),
            )
            if facts.is_migrated:
                facts = replace(facts, cluster_id=await look.setting(CLUSTER_ID))
                if name is not None:
                    progress(f"watching whether another agent has {name}")
                    facts = replace(facts, registration=await _watch(look, name, clock, agent_timeout_s))
        except MetadataError as error:
            facts = replace(facts, failure=str(error))
        return facts
    finally:
        await look.close()


def _of_server(facts: PostgresFacts, found: ServerLook, url: str) -> PostgresFacts:
    server = found.server
    mode = dict(parse_qsl(urlsplit(url).query)).get("sslmode") or os.environ.get("PGSSLMODE")
    return replace(
        facts,
        version=server.version,
        schema=server.schema or "",
        is_migrated=found.is_migrated,
        migrations=found.migrations,
        may_create=found.may_create,
        synchronous_commit=server.synchronous_commit,
        standbys=server.standbys,
        fsync=server.fsync,
        connections_max=found.connections_max,
        connections_used=found.connections_used,
        encryption=found.encryption,
        is_verified=mode == "verify-full",
        is_local=not found.client or is_loopback(found.client),
    )


async def _time(request: Callable[[], Awaitable[None]], samples: int, clock: Clock) -> Timing:
    """Times of a request, after one that does not count. The first that fails ends it."""
    times_s: list[float] = []
    deadline_s = clock.monotonic() + TIME_MAX_S
    try:
        await request()
        for _ in range(samples):
            began_s = clock.monotonic()
            await request()
            ended_s = clock.monotonic()
            times_s.append(ended_s - began_s)
            if ended_s > deadline_s:
                break
    except MetadataError as error:
        return Timing(Latency.of(times_s), 1, str(error))
    return Timing(Latency.of(times_s))


async def _compare_clocks(look: PostgresLook, clock: Clock) -> ClockFacts:
    """By the answer that came soonest."""
    found = []
    for _ in range(CLOCK_SAMPLES):
        began_s, sent_ms = clock.monotonic(), clock.time_ms()
        theirs_ms = await look.clock_ms()
        took_s = clock.monotonic() - began_s
        # Either clock tells whole milliseconds.
        found.append(ClockFacts((sent_ms - theirs_ms) / 1000 + took_s / 2, took_s / 2 + 0.001))
    return min(found, key=lambda facts: facts.uncertainty_s)


async def _watch(look: PostgresLook, name: str, clock: Clock, timeout_s: float) -> Registration:
    """Does somebody move the registration, within the time after which an agent counts as gone?"""
    first = await look.find_agent(name)
    if first is None:
        return Registration(name, RegistrationState.NONE)
    if first.state is AgentState.GONE:
        return Registration(name, RegistrationState.GONE, first.broker_id)
    deadline_s = clock.monotonic() + timeout_s
    while clock.monotonic() < deadline_s:
        await asyncio.sleep(WATCH_POLL_S)
        row = await look.find_agent(name)
        if row is not None and (row.incarnation, row.counter) != (first.incarnation, first.counter):
            state = RegistrationState.GONE if row.state is AgentState.GONE else RegistrationState.MOVING
            return Registration(name, state, row.broker_id)
    return Registration(name, RegistrationState.STILL, first.broker_id)

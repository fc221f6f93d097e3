"""The database that the agents of a cluster share: whether it keeps what it acknowledges, and how fast it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warp.cli.doctor.facts import PostgresFacts, Timing
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.cli.doctor.judge.clock import judge_clock
from warp.cli.doctor.latency import Latency, time_words

NOTICE_CONNECTIONS: Final = 1
"""An agent has one more than --metadata-connections-max, for notices."""
COMMIT_ROUND_TRIPS: Final = 5
SLOW_ROUND_TRIP_S: Final = 0.005
SLOW_COMMIT_S: Final = 0.020
UNEVEN_COMMIT_S: Final = 0.100

_SEE: Final = "docs/postgres.md explains each reason"


def judge_postgres(facts: PostgresFacts, connections_max: int) -> Iterator[Finding]:
    """Findings on a database. `connections_max` is what the agent may take, but for the one for notices."""
    yield _judge_open(facts)
    if facts.refusal:
        return
    yield _judge_durability(facts)
    yield _judge_encryption(facts)
    yield _judge_connections(facts, connections_max + NOTICE_CONNECTIONS)
    if facts.round_trip is not None:
        yield _judge_round_trip(facts.round_trip)
    if facts.commit is not None:
        yield _judge_commit(facts.commit, agent_commit(facts))
    yield _judge_notices(facts)
    yield from judge_clock(facts.clock, "clock.metadata", "the database")


def agent_commit(facts: PostgresFacts) -> Latency | None:
    """What an agent's commits come to: the other round trips besides, and not what their statements take."""
    commit = facts.commit.latency if facts.commit is not None else None
    round_trip = facts.round_trip.latency if facts.round_trip is not None else None
    if commit is None or round_trip is None:
        return None
    others_s = (COMMIT_ROUND_TRIPS - 1) * round_trip.p50_s
    return Latency(tuple(time_s + others_s for time_s in commit.samples_s))


def _judge_open(facts: PostgresFacts) -> Finding:
    check = "metadata.open"
    if facts.refusal:
        return problem(check, facts.refusal, f"mend that; {_SEE}")
    measured = {"version": facts.version, "schema": facts.schema or None, "migrations": facts.migrations}
    at = f"version {facts.version} at {facts.where}"
    if facts.failure:
        text = f"{at} answered at first, and then: {facts.failure}"
        return problem(check, text, f"see the server's log; {_SEE}", measured=measured)
    if facts.migrations and not facts.may_create:
        what = f"tables in the schema {facts.schema}" if facts.schema else "the schema of the URL"
        text = f"{at}: the role may not create {what}"
        remedy = (
            "grant it that, or make it the owner of the schema: the first agent to start makes the tables"
        )
        return problem(check, text, remedy, measured=measured)
    if not facts.is_migrated:
        return ok(check, f"{at}; the first agent to start makes the tables", measured=measured)
    if facts.migrations:
        text = f"{at}; this release brings its schema up to date at its first start"
        return note(check, text, measured=measured)
    return ok(check, f"{at}, schema {facts.schema}", measured=measured)


def _judge_durability(facts: PostgresFacts) -> Finding:
    check = "metadata.durability"
    measured = {
        "synchronous_commit": facts.synchronous_commit,
        "fsync": facts.fsync,
        "synchronous_standby_names": facts.standbys,
    }
    if facts.fsync == "off":
        text = "fsync is off: a crash of its machine may lose everything"
        return warning(check, text, "set fsync to on", measured=measured)
    if facts.synchronous_commit == "local" and facts.standbys:
        text = "synchronous_commit is local: a failover may lose acknowledged records"
        return warning(
            check, text, "set synchronous_commit to on, for the role or the server", measured=measured
        )
    text = f"synchronous_commit {facts.synchronous_commit}, fsync {facts.fsync}"
    if facts.standbys:
        return ok(check, f"{text}, synchronous standbys {facts.standbys}", measured=measured)
    return ok(check, f"{text}, no synchronous standby", measured=measured)


def _judge_encryption(facts: PostgresFacts) -> Finding:
    check = "metadata.encryption"
    measured = {"tls": facts.encryption or None}
    if facts.is_local:
        return ok(check, facts.encryption or "none, on this machine", measured=measured)
    remedy = "add sslmode=verify-full and sslrootcert=FILE to the URL"
    if not facts.encryption:
        text = "none: whoever stands between reads and changes what agents and the database say"
        return warning(check, text, remedy, measured=measured)
    if not facts.is_verified:
        text = f"{facts.encryption}, but nobody checks that the server is the one that is meant"
        return warning(check, text, remedy, measured=measured)
    return ok(check, f"{facts.encryption}, the server's certificate and name are checked", measured=measured)


def _judge_connections(facts: PostgresFacts, needed: int) -> Finding:
    check = "metadata.connections"
    free = facts.connections_max - facts.connections_used
    measured = {
        "connections_max": facts.connections_max,
        "connections_used": facts.connections_used,
        "agent_connections_max": needed,
    }
    text = f"{facts.connections_used} of {facts.connections_max} in use; an agent takes up to {needed}"
    remedy = (
        "raise max_connections (or the limit of the role or database), or lower --metadata-connections-max"
    )
    if facts.connections_max < needed:
        return problem(
            check, f"{facts.connections_max} in all; an agent takes up to {needed}", remedy, measured=measured
        )
    if free < needed:
        return warning(check, text, remedy, measured=measured)
    return ok(check, text, measured=measured)


def _judge_round_trip(timing: Timing) -> Finding:
    check = "metadata.round-trip"
    if timing.latency is None:
        return problem(check, f"fails: {timing.failure}", f"see the server's log; {_SEE}")
    latency = timing.latency
    if latency.p50_s > SLOW_ROUND_TRIP_S:
        text = f"{latency.words()}: far away"
        remedy = f"run agents near the database: each commit takes {COMMIT_ROUND_TRIPS} round trips"
        return warning(check, text, remedy, measured=latency.measured())
    return ok(check, latency.words(), measured=latency.measured())


def _judge_commit(timing: Timing, of_agent: Latency | None) -> Finding:
    check = "metadata.commit"
    if timing.latency is None:
        return note(check, f"not measured: {timing.failure}")
    latency = timing.latency
    text = latency.words()
    if of_agent is not None:
        text += f"; an agent's takes {time_words(of_agent.p50_s)} or more, with all its round trips"
    remedy = "give the database's write-ahead log a faster disk, or a nearer synchronous standby: producers wait for it"
    if latency.p50_s > SLOW_COMMIT_S:
        return warning(check, f"{text}: slow", remedy, measured=latency.measured())
    if latency.p99_s > UNEVEN_COMMIT_S:
        return warning(check, f"{text}: uneven", remedy, measured=latency.measured())
    return ok(check, text, measured=latency.measured())


def _judge_notices(facts: PostgresFacts) -> Finding:
    check = "metadata.notices"
    late = "consumers at other agents see records up to half a second later"
    if facts.hears is None and facts.failure:
        return note(check, "not tried")
    if facts.hears is None:
        return note(check, f"none behind a pooler in transaction mode: {late}")
    if not facts.hears:
        text = f"LISTEN hears nothing: {late}"
        remedy = "connect agents without a pooler, or by one in session mode"
        return warning(check, text, remedy)
    return ok(check, "LISTEN and NOTIFY work")

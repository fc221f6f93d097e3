"""What the doctor says of a shared database and of an agent's place in its cluster, by facts that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.cli.doctor_facts import CLUSTER, bad, milliseconds, severities, timing
from warp.cli.doctor.facts import (
    BindState,
    BrokerFacts,
    ClockFacts,
    MarkerFacts,
    PortFacts,
    PostgresFacts,
    Registration,
    RegistrationState,
    Timing,
)
from warp.cli.doctor.finding import Finding, Severity
from warp.cli.doctor.judge.cluster import judge_cluster, judge_peer
from warp.cli.doctor.judge.postgres import agent_commit, judge_postgres
from warp.config import AgentConfig, resolve
from warp.config_values import Address

TOLD = "a.example:9092"
FINE = PostgresFacts(
    "db.example/warp",
    version="15.4",
    schema="public",
    is_migrated=True,
    connections_max=97,
    connections_used=22,
    encryption="TLSv1.3",
    is_verified=True,
    round_trip=timing(0.4, 0.5),
    commit=timing(2, 3),
    hears=True,
    clock=ClockFacts(0.01, 0.001),
    cluster_id=CLUSTER,
    registration=Registration(TOLD, RegistrationState.NONE),
)
FREE = PortFacts(Address("0.0.0.0", 9092), BindState.FREE)
AGENT_HERE = replace(
    FREE, state=BindState.TAKEN, broker=BrokerFacts(Address("127.0.0.1", 9092), cluster_id=CLUSTER)
)


def config_of(**given: str) -> AgentConfig:
    """A cluster's agent; '' leaves an option out."""
    options = {
        "metadata": "postgresql://db.example/warp",
        "object-store": "s3://bucket",
        "listen": "0.0.0.0:9092",
        "advertise": TOLD,
        "http": "0.0.0.0:8080",
        **{name.replace("_", "-"): value for name, value in given.items()},
    }
    return resolve({name: [value] for name, value in options.items() if value}, {}, None).config


def judged(facts: PostgresFacts) -> list[Finding]:
    return list(judge_postgres(facts, 10))


def placed(
    facts: PostgresFacts = FINE, *, marker: str | None = CLUSTER, port: PortFacts = FREE, wanted: str = ""
) -> list[Finding]:
    return list(judge_cluster(config_of(cluster_id=wanted), facts, MarkerFacts(marker), port))


def test_a_database_on_which_nothing_is_wrong_is_fine() -> None:
    assert set(severities([*judged(FINE), *placed()]).values()) == {Severity.OK}


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        ({"failure": "gone"}, "metadata.open", Severity.PROBLEM),
        ({"migrations": 1, "may_create": False}, "metadata.open", Severity.PROBLEM),
        ({"fsync": "off"}, "metadata.durability", Severity.WARNING),
        ({"synchronous_commit": "local", "standbys": "b"}, "metadata.durability", Severity.WARNING),
        ({"encryption": ""}, "metadata.encryption", Severity.WARNING),
        ({"is_verified": False}, "metadata.encryption", Severity.WARNING),
        ({"connections_max": 10, "connections_used": 0}, "metadata.connections", Severity.PROBLEM),
        ({"connections_max": 11, "connections_used": 1}, "metadata.connections", Severity.WARNING),
        ({"round_trip": timing(6, 6, 6)}, "metadata.round-trip", Severity.WARNING),
        ({"round_trip": Timing(None, 1, "gone")}, "metadata.round-trip", Severity.PROBLEM),
        ({"commit": timing(21, 21)}, "metadata.commit", Severity.WARNING),
        ({"commit": timing(1, 1, 101)}, "metadata.commit", Severity.WARNING),
        ({"hears": False}, "metadata.notices", Severity.WARNING),
        ({"clock": ClockFacts(-1.1, 0.001)}, "clock.metadata", Severity.WARNING),
        ({"clock": ClockFacts(61, 0.001)}, "clock.metadata", Severity.PROBLEM),
    ],
)
def test_each_thing_that_is_wrong_is_told_by_itself(
    change: dict[str, Any], check: str, severity: Severity
) -> None:
    assert bad(judged(replace(FINE, **change))) == {check: severity}


@pytest.mark.parametrize(
    "change",
    [
        {"migrations": 1, "is_migrated": False, "cluster_id": None, "registration": None},
        {"migrations": 1},
        {"synchronous_commit": "local"},
        {"synchronous_commit": "remote_apply", "standbys": "b"},
        {"encryption": "", "is_local": True},
        {"connections_max": 11, "connections_used": 0},
        {"hears": None},
        {"commit": Timing(None, 1, "no such function")},
        {"clock": ClockFacts(1.1, 0.2)},
    ],
)
def test_what_is_as_it_may_be_is_no_warning(change: dict[str, Any]) -> None:
    assert bad(judged(replace(FINE, **change))) == {}


def test_a_database_that_no_agent_can_start_on_is_told_with_the_agent_s_words_and_nothing_else() -> None:
    facts = PostgresFacts("db.example/warp", refusal="PostgreSQL at db.example/warp is a standby")
    [finding] = judged(facts)
    assert (finding.check, finding.severity, finding.text) == (
        "metadata.open",
        Severity.PROBLEM,
        facts.refusal,
    )
    # How others reach the agent does not depend on it.
    assert [finding.check for finding in placed(facts)] == ["cluster.http"]


def test_a_commit_of_an_agent_is_that_of_the_database_and_four_more_round_trips() -> None:
    assert agent_commit(replace(FINE, round_trip=timing(1, 1), commit=timing(2, 3))) == milliseconds(6, 7)
    assert agent_commit(replace(FINE, commit=None)) is None


@pytest.mark.parametrize(
    ("stored", "wanted", "marker", "wrong"),
    [
        (None, "", None, {}),
        (None, "x", "x", {}),
        ("x", "x", "x", {}),
        ("x", "", None, {}),
        ("x", "y", "x", {"cluster.id": Severity.PROBLEM}),
        ("x", "", "y", {"cluster.object-store": Severity.PROBLEM}),
        (None, "", "y", {"cluster.object-store": Severity.PROBLEM}),
        (None, "x", "y", {"cluster.object-store": Severity.PROBLEM}),
    ],
)
def test_metadata_bucket_and_option_have_to_name_one_cluster(
    stored: str | None, wanted: str, marker: str | None, wrong: dict[str, Severity]
) -> None:
    assert bad(placed(replace(FINE, cluster_id=stored), marker=marker, wanted=wanted)) == wrong


def test_a_marker_that_cannot_be_read_is_a_warning() -> None:
    found = judge_cluster(config_of(), FINE, MarkerFacts(None, "it holds no cluster id"), FREE)
    assert bad(found) == {"cluster.object-store": Severity.WARNING}


@pytest.mark.parametrize("state", RegistrationState)
@pytest.mark.parametrize("port", [FREE, AGENT_HERE])
def test_a_name_is_taken_only_while_an_agent_elsewhere_moves_it(
    state: RegistrationState, port: PortFacts
) -> None:
    found = placed(replace(FINE, registration=Registration(TOLD, state, 3)), port=port)
    is_taken = state is RegistrationState.MOVING and port is FREE
    assert bad(found) == ({"cluster.name": Severity.PROBLEM} if is_taken else {})


@pytest.mark.parametrize(
    ("given", "severity", "says"),
    [
        ({}, Severity.OK, "a.example:8080"),
        ({"advertise_http": "inside.example"}, Severity.OK, "inside.example:8080"),
        ({"http": "off"}, Severity.NOTE, "reads the bucket by itself"),
        ({"http": "127.0.0.1:8080"}, Severity.WARNING, "from this machine alone"),
        ({"advertise_http": "localhost:8080"}, Severity.WARNING, "themselves"),
        (
            {"listen": "127.0.0.1:9092", "advertise": "", "http": "127.0.0.1:8080"},
            Severity.NOTE,
            "this machine",
        ),
    ],
)
def test_other_agents_have_to_reach_http_where_clients_reach_kafka(
    given: dict[str, str], severity: Severity, says: str
) -> None:
    finding = judge_peer(config_of(**given))
    assert finding.severity is severity, finding
    assert says in finding.text

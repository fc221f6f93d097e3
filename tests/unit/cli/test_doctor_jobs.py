"""What the doctor says of jobs: that somebody runs them, that they keep up, and that they could read everything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.cli.test_doctor_network import says, served
from warp.cli.doctor.facts import JobsFacts
from warp.cli.doctor.finding import Severity
from warp.cli.doctor.judge.jobs import judge_jobs
from warp.cli.doctor.measure import status
from warp.cli.doctor.measure.status import ask_jobs
from warp.config import config_of
from warp.config_values import Address

FINE = JobsFacts(has_jobs=True, merge_debt=0.3)
ALONE = config_of()
IDLE_ALONE = config_of(roles="produce,fetch")
IDLE_MEMBER = config_of(roles="produce", metadata="postgresql://db/warp", object_store="s3://bucket")


def severities(config: Any, facts: JobsFacts | None) -> dict[str, Severity]:
    return {finding.check: finding.severity for finding in judge_jobs(config, facts)}


@pytest.mark.parametrize(
    ("config", "facts", "severity"),
    [
        (ALONE, None, Severity.OK),
        (IDLE_ALONE, None, Severity.PROBLEM),
        (IDLE_MEMBER, None, Severity.NOTE),
        (IDLE_MEMBER, JobsFacts("it does not tell"), Severity.NOTE),
        (IDLE_MEMBER, FINE, Severity.OK),
        (IDLE_MEMBER, JobsFacts(), Severity.PROBLEM),
    ],
)
def test_somebody_has_to_run_jobs(config: Any, facts: JobsFacts | None, severity: Severity) -> None:
    assert severities(config, facts)["jobs.role"] is severity


@pytest.mark.parametrize(
    ("facts", "backlog", "quarantine"),
    [
        (FINE, Severity.OK, Severity.OK),
        (JobsFacts(merge_debt=1.0), Severity.OK, Severity.OK),
        (JobsFacts(merge_debt=1.2), Severity.WARNING, Severity.OK),
        (JobsFacts(quarantined_extents=1), Severity.OK, Severity.PROBLEM),
    ],
)
def test_a_backlog_and_records_that_cant_be_read_are_told(
    facts: JobsFacts, backlog: Severity, quarantine: Severity
) -> None:
    found = severities(ALONE, facts)
    assert (found["jobs.backlog"], found["jobs.quarantine"]) == (backlog, quarantine)


def test_an_agent_that_does_not_tell_is_a_note() -> None:
    assert severities(ALONE, JobsFacts("it does not tell")) == {
        "jobs.role": Severity.OK,
        "jobs.backlog": Severity.NOTE,
    }


def answer(**told: Any) -> bytes:
    body = json.dumps(told).encode()
    return b"HTTP/1.1 200 \r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def agent(state: str, *roles: str) -> dict[str, Any]:
    return {"state": state, "roles": roles}


@pytest.mark.parametrize(
    ("agents", "has_jobs"),
    [
        ([agent("serving", "produce"), agent("leaving", "jobs")], True),
        ([agent("serving", "produce"), agent("lost", "jobs")], False),
    ],
)
def test_only_agents_that_live_run_jobs(agents: list[dict[str, Any]], *, has_jobs: bool) -> None:
    told = answer(agents=agents, merge_debt=0.5, quarantined_extents=2)
    assert asyncio.run(served(says(told), ask_jobs)) == JobsFacts("", has_jobs, 0.5, 2)


def test_a_debt_that_passes_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BACKLOG_PAUSE_S", 0.0)
    debts = [3.0, 2.0, 0.4, 5.0]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(agents=[], merge_debt=debts.pop(0), quarantined_extents=0))
        writer.close()

    assert asyncio.run(served(handler, ask_jobs)).merge_debt == 0.4
    debts[:] = [3.0, 2.0, 1.5, 0.1]
    assert asyncio.run(served(handler, ask_jobs)).merge_debt == 1.5


@pytest.mark.parametrize("told", [{"error": "who are you?"}, {"agents": [], "merge_debt": None}])
def test_who_is_told_nothing_has_a_refusal(told: dict[str, Any]) -> None:
    assert asyncio.run(served(says(answer(**told)), ask_jobs)).refusal


def test_nobody_is_there() -> None:
    async def gone(address: Address) -> JobsFacts:
        return await ask_jobs(Address(address.host, 1))

    assert asyncio.run(served(says(b""), gone)).refusal == "it accepts no connection"

"""`warp cluster status` as people and scripts read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from warp.cli import cluster
from warp.cli.main import main


def agent(broker_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "broker_id": broker_id,
        "name": f"host-{broker_id}:9092",
        "state": "serving",
        "endpoints": [f"host-{broker_id}:9092"],
        "peer": f"host-{broker_id}:8080",
        "zone": "zone-1",
        "group": None,
        "roles": ["produce", "fetch", "jobs"],
        "version": "1.2.3",
        "uptime_s": 93_784.5,
        "silent_s": 0.3,
        "connections": 7,
        "produced_bytes_per_s": 12_345_678,
        "fetched_bytes_per_s": 0,
        "slots": 32,
        **changes,
    }


def status(*agents: dict[str, Any], free: int = 0, **own: Any) -> dict[str, Any]:
    return {
        "own": {
            "broker_id": 1,
            "name": "host-1:9092",
            "is_shared": True,
            "session": "live",
            "session_lapses": 0,
            "beat_age_s": 0.4,
            "clock_skew_ms": -3,
            "is_clock_trusted": True,
            **own,
        },
        "agents": list(agents) or [agent(1), agent(2)],
        "slots": {"total": 64, "held": 64 - free, "free": free},
        "jobs": [
            {"name": "job/sweep", "holder": 2, "epoch": 5},
            {"name": "job/other", "holder": None, "epoch": 1},
        ],
    }


def test_a_cluster_in_good_order_is_a_table_and_who_holds_what() -> None:
    lines = cluster.report(status()).splitlines()
    assert lines[0] == (
        "Asked agent 1 (host-1:9092): session live, last sign of life 0.4 s ago; clock 3 ms behind the database's."
    )
    assert lines[2].split()[:3] == ["ID", "STATE", "ADDRESS"]
    assert lines[3].split() == [
        "1", "serving", "host-1:9092", "zone-1", "-", "produce,fetch,jobs", "1.2.3", "1d", "2h", "7", "12.3", "0.0",
        "32",
    ]  # fmt: skip
    assert lines[6:] == [
        "Coordinator slots: 64 of 64 held.", "job/sweep: agent 2 (epoch 5)", "job/other: - (epoch 1)",
    ]  # fmt: skip
    assert cluster.problems(status()) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (status(session="lapsed", session_lapses=2), "has lapsed"),
        (status(is_clock_trusted=False), "Set the clock"),
        (status(free=3), "3 of 64 coordinator slots are nobody's"),
    ],
)
def test_what_is_out_of_order_is_said_and_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(cluster, "get_json", lambda address, path: found)
    assert main(["cluster", "status"]) == 1
    assert words in capsys.readouterr().out
    assert main(["cluster", "status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == found


def test_lost_agents_are_told_of_and_those_who_said_goodbye_are_not() -> None:
    lost = agent(2, state="lost", uptime_s=None, silent_s=75.0)
    text = cluster.report(status(agent(1), lost, agent(3, state="gone")))
    assert "Agent 2 (host-2:9092) was lost without a goodbye 1m 15s ago" in text
    assert "host-3" not in text
    assert cluster.problems(status(agent(1), lost)) == []


def test_an_agent_with_its_own_metadata_is_the_whole_cluster() -> None:
    alone = status(agent(1), is_shared=False, beat_age_s=None, clock_skew_ms=None, free=64)
    text = cluster.report(alone)
    assert "it is the whole cluster" in text
    assert "slots" not in text.splitlines()[-1]
    assert cluster.problems(alone) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no action was given"),
        (["statsu"], "unknown action statsu; did you mean status?"),
        (["status", "--htp", "x"], "unknown option --htp; did you mean --http?"),
        (["status", "--http", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["cluster", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_agent_alone_tells_how_much_waits_to_be_merged() -> None:
    shown = status(is_shared=False) | {"merge_debt": 0.254, "quarantined_extents": 0}
    assert cluster.report(shown).splitlines()[-1] == (
        "Merging: 25% of what may wait (--merge-backlog-max) waits."
    )
    assert cluster.problems(shown) == []


def test_too_much_that_waits_and_records_that_cant_be_read_are_problems() -> None:
    held, damaged = cluster.problems(status() | {"merge_debt": 2.54, "quarantined_extents": 3})
    assert held.startswith("Producers are held back: 2.5 times as much waits")
    assert damaged.startswith("3 extents are missing or damaged")


def test_a_cluster_in_which_nobody_runs_jobs_is_a_problem() -> None:
    idle = agent(1, roles=["produce", "fetch"])
    gone = agent(2, state="lost")
    [problem] = cluster.problems(status(idle, gone))
    assert problem.startswith("No agent that lives has the role jobs")

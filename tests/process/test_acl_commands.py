"""`warp acl` against a real agent, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.conftest import Running, Spawn, run_warp

ENFORCED = ("--authorization", "enforce", "--super-users", "User:ANONYMOUS")


@pytest.fixture
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    made = Spawn(tmp_path_factory.mktemp("acls") / "data")
    yield made
    for running in made.started:
        running.close()


def acl(agent: Running, *words: str) -> tuple[int, str, str]:
    return run_warp("acl", *words, "--bootstrap", agent.bootstrap)


def listed(agent: Running, *words: str) -> list[dict[str, Any]]:
    code, out, error = acl(agent, "list", "--json", *words)
    assert (code, error) == (0, "")
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def test_acls_are_created_listed_and_deleted_and_outlive_the_agent(spawn: Spawn) -> None:
    agent = spawn.agent(*ENFORCED)
    words = ("--allow", "User:alice", "--consumer", "--topic", "orders", "--group", "billing")
    code, out, error = acl(agent, "create", *words)
    assert (code, error, len(out.splitlines())) == (0, "", 4)
    assert (
        acl(agent, "create", "--deny", "User:*", "--operation", "all", "--topic", "ord", "--prefixed")[0] == 0
    )
    assert [(row["name"], row["operation"]) for row in listed(agent, "--topic", "orders")] == [
        ("orders", "READ"),
        ("orders", "DESCRIBE"),
        ("ord", "ALL"),
    ]
    assert agent.stop() == 0
    agent = spawn.agent(*ENFORCED)
    assert len(listed(agent)) == 4
    assert acl(agent, "delete", "--principal", "User:alice")[0] == 0
    assert len(listed(agent)) == 4
    code, out, _ = acl(agent, "delete", "--principal", "User:alice", "--yes")
    assert code == 0
    assert "deleted 3 ACLs" in out
    assert [row["principal"] for row in listed(agent)] == ["User:*"]
    assert agent.stop() == 0


def test_what_the_agent_refuses_is_one_line(spawn: Spawn) -> None:
    agent = spawn.agent(*ENFORCED)
    words = ("create", "--allow", "User:a", "--operation", "read", "--topic", "t")
    code, out, error = acl(agent, *words, "--host", "example.org")
    assert (code, out) == (1, "")
    assert "neither *, nor an IP address" in error
    assert error.count("\n") == 1
    assert listed(agent) == []


def test_an_agent_without_authorization_says_so(spawn: Spawn) -> None:
    agent = spawn.agent()
    for words in (["list"], ["delete", "--all", "--yes"], ["delete", "--topic", "t"]):
        code, out, error = acl(agent, *words)
        assert (code, out) == (1, "")
        assert error == "warp acl: the broker has no ACLs: its authorization is off (SECURITY_DISABLED)\n"


def test_nobody_may_change_acls_who_is_not_allowed_to(spawn: Spawn) -> None:
    agent = spawn.agent("--authorization", "enforce", "--super-users", "User:admin")
    for words in (["list"], ["delete", "--all", "--yes"]):
        code, out, error = acl(agent, *words)
        assert (code, out) == (1, "")
        assert "CLUSTER_AUTHORIZATION_FAILED" in error

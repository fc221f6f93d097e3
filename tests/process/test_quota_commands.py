"""`warp quota` against a real agent, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.process.conftest import Running, Spawn, run_warp


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Spawn(tmp_path_factory.mktemp("quotas") / "data").agent()
    yield running
    assert running.stop() == 0
    running.close()


def quota(agent: Running, *words: str) -> tuple[int, str, str]:
    return run_warp("quota", *words, "--bootstrap", agent.bootstrap)


def test_quotas_are_set_listed_and_removed(agent: Running) -> None:
    assert quota(agent, "list") == (0, "no quotas\n", "")
    words = ("--user", "alice", "producer_byte_rate=1MiB", "request_percentage=12.5")
    assert quota(agent, "set", *words) == (
        0,
        "set producer_byte_rate=1MiB for user alice\nset request_percentage=12.5 for user alice\n",
        "",
    )
    assert quota(agent, "set", "--default-user", "--client-id", "app", "consumer_byte_rate=1000")[0] == 0
    assert quota(agent, "set", "--default-ip", "connection_creation_rate=20")[0] == 0
    code, shown, _ = quota(agent, "list")
    assert code == 0
    assert shown.splitlines() == [
        "ENTITY                       QUOTA                     VALUE",
        "default user, client-id app  consumer_byte_rate        1000B",
        "default ip                   connection_creation_rate  20",
        "user alice                   producer_byte_rate        1MiB",
        "user alice                   request_percentage        12.5",
    ]
    code, shown, _ = quota(agent, "list", "--user", "alice", "--json")
    assert json.loads(shown) == [
        {"entity": {"user": "alice"}, "quotas": {"producer_byte_rate": 1048576.0, "request_percentage": 12.5}}
    ]
    assert quota(agent, "remove", "--user", "alice", "request_percentage") == (
        0,
        "removed request_percentage of user alice\n",
        "",
    )
    for entity in (("--user", "alice"), ("--default-user", "--client-id", "app"), ("--default-ip",)):
        assert quota(agent, "remove", *entity)[0] == 0
    assert quota(agent, "list") == (0, "no quotas\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "no action was given"),
        (("lst",), 2, "did you mean list?"),
        (("set", "producer_byte_rate=1"), 2, "whose quotas?"),
        (("set", "--user", "a", "producer_byte_rat=1"), 2, "did you mean producer_byte_rate?"),
        (("set", "--user", "a", "producer_byte_rate"), 2, "is not KEY=VALUE"),
        (("set", "--user", "a", "producer_byte_rate=fast"), 2, "is not a size"),
        (("set", "--user", "a", "request_percentage=half"), 2, "is not a number"),
        (("set", "--user", "a", "request_percentage=1", "request_percentage=2"), 2, "set twice"),
        (("set", "--user", "a", "--default-user", "request_percentage=1"), 2, "not allowed with"),
        (("set", "--user", "a", "request_percentage=-1"), 1, "must be greater than 0, not -1 (INVALID_REQUEST)"),
        (("set", "--user", "a", "request_percentage=nan"), 1, "is not a number (INVALID_REQUEST)"),
        (("set", "--user", "a", "--ip", "10.0.0.1", "request_percentage=1"), 1, "does not combine"),
        (("set", "--ip", "10.0.0.1", "request_percentage=1"), 1, "is no quota of ip 10.0.0.1"),
        (("remove", "--user", "nobody"), 1, "user nobody has no quota"),
        (("remove", "--user", "nobody", "producer_byte_rate"), 1, "user nobody has no quota producer_byte_rate"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(
    agent: Running, words: tuple[str, ...], code: int, message: str
) -> None:
    given = quota(agent, *words) if words else run_warp("quota")
    assert given[0] == code
    assert message in given[2]
    assert len(given[2].splitlines()) == 1
    assert quota(agent, "list")[1] == "no quotas\n"

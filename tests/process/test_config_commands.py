"""`warp topic config` and `warp cluster config` against a real agent, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.conftest import Running, Spawn, run_warp


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    spawn = Spawn(tmp_path_factory.mktemp("configs") / "data")
    running = spawn.agent()
    yield running
    assert running.stop() == 0
    running.close()


def warp(agent: Running, *words: str) -> tuple[int, str, str]:
    return run_warp(*words, "--bootstrap", agent.bootstrap)


def shown(agent: Running, *words: str) -> dict[str, Any]:
    code, output, error = warp(agent, *words, "--json")
    assert (code, error) == (0, "")
    return {config["name"]: config for config in json.loads(output)}


def test_configs_of_a_topic_are_set_shown_and_deleted(agent: Running) -> None:
    warp(agent, "topic", "create", "orders")
    nothing = "no configs are set for topic orders; --all shows those that hold\n"
    assert warp(agent, "topic", "config", "orders") == (0, nothing, "")
    changed = warp(
        agent, "topic", "config", "orders", "--set", "retention.ms=5", "--append", "cleanup.policy=compact"
    )
    assert changed[0] == 0
    assert changed[1].splitlines() == [
        "altered topic orders: retention.ms=5, cleanup.policy+=compact",
        "cleanup.policy=delete,compact",
        "retention.ms=5",
    ]
    changed = warp(
        agent, "topic", "config", "orders", "--delete", "retention.ms", "--subtract", "cleanup.policy=delete"
    )
    assert changed[1].splitlines()[1:] == ["cleanup.policy=compact"]
    everything = shown(agent, "topic", "config", "orders", "--all")
    assert everything["retention.ms"] == {
        "name": "retention.ms",
        "value": "604800000",
        "source": "default",
        "is_read_only": False,
    }
    assert everything["cleanup.policy"]["source"] == "topic"


def test_configs_of_the_cluster_are_set_shown_and_deleted(agent: Running) -> None:
    nothing = "no configs are set for the cluster; --all shows those that hold\n"
    assert warp(agent, "cluster", "config") == (0, nothing, "")
    changed = warp(agent, "cluster", "config", "--set", "num.partitions=3", "--set", "log.retention.ms=7")
    assert changed[0] == 0
    assert changed[1].splitlines() == [
        "altered the cluster: num.partitions=3, log.retention.ms=7",
        "log.retention.ms=7",
        "num.partitions=3",
    ]
    warp(agent, "topic", "create", "follows")
    assert "follows" in warp(agent, "topic", "list")[1]
    described = json.loads(warp(agent, "topic", "describe", "follows", "--json")[1])
    assert (len(described["partitions"]), described["configs"]) == (3, {})
    assert shown(agent, "topic", "config", "follows", "--all")["retention.ms"]["source"] == "cluster"
    everything = shown(agent, "cluster", "config", "--all")
    assert everything["num.partitions"]["value"] == "3"
    assert everything["listeners"]["is_read_only"]
    assert everything["ssl.key.password"]["value"] is None
    assert "(secret)" in warp(agent, "cluster", "config", "--all")[1]
    words = ("--delete", "num.partitions", "--delete", "log.retention.ms")
    assert warp(agent, "cluster", "config", *words)[0] == 0
    assert shown(agent, "cluster", "config") == {}


def test_validation_changes_nothing(agent: Running) -> None:
    warp(agent, "topic", "create", "checked")
    for words in (
        ("topic", "config", "checked", "--set", "segment.ms=5"),
        ("cluster", "config", "--set", "log.roll.ms=5"),
    ):
        code, output, _ = warp(agent, *words, "--validate-only")
        assert code == 0
        assert output.startswith("valid, and nothing was changed: ")
        assert shown(agent, *words[:-2]) == {}


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("topic", "config", "orders", "--set", "retention.ms=soon"), 1, "must be a whole number"),
        (("topic", "config", "orders", "--set", "retntion.ms=1"), 1, "did you mean retention.ms"),
        (("topic", "config", "nowhere"), 1, "there is no topic nowhere"),
        (("topic", "config", "orders", "--set", "retention.ms"), 2, "is not NAME=VALUE"),
        (("topic", "config", "orders", "--set", "a=1", "--delete", "a"), 2, "in 2 ways at once"),
        (("topic", "config", "orders", "--validate-only"), 2, "needs changes"),
        (("topic", "config"), 2, "TOPIC"),
        (("cluster", "config", "--set", "listeners=x"), 1, "--listen"),
        (("cluster", "config", "--set", "log.retention.hours=1"), 1, "log.retention.ms"),
        (("cluster", "config", "--sett", "a=1"), 2, "did you mean --set"),
        (("cluster", "config", "-X", "security.protocol=NONE"), 2, "security.protocol NONE"),
        (("cluster", "config", "-X", "security.protocol=SASL_PLAINTEXT"), 2, "sasl.mechanism is not set"),
        (("cluster", "config", "-X", "security.protocol=SSL"), 1, "no TLS connection"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_wrong(
    agent: Running, words: tuple[str, ...], code: int, reason: str
) -> None:
    warp(agent, "topic", "create", "orders", "--if-not-exists")
    found, output, error = warp(agent, *words)
    assert (found, output) == (code, "")
    assert reason in error
    assert error.count("\n") == 1


def test_nobody_there_is_one_line() -> None:
    code, _, error = run_warp("cluster", "config", "--bootstrap", "127.0.0.1:1", "--timeout", "2")
    assert code == 1
    assert "no broker answered at 127.0.0.1:1" in error
    assert "is the agent running?" in error

"""`warp group` and `warp consume --group` against a real agent with real members, as a user types them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.process.conftest import Running, Spawn, environment, run_warp
from warp.protocol import encode_request_frame
from warp.protocol.messages.groups import JoinGroupRequest, JoinGroupRequestProtocol

POLLS_MAX = 600
POLL_S = 0.1


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    spawn = Spawn(tmp_path_factory.mktemp("groups") / "data")
    running = spawn.agent("--group-rebalance-delay", "500ms")
    yield running
    assert running.stop() == 0
    running.close()


def warp(agent: Running, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    return run_warp(*words, "--bootstrap", agent.bootstrap, stdin=stdin)


def topic(agent: Running, name: str, *counts: int) -> None:
    """A topic with so many records in each of its partitions."""
    assert warp(agent, "topic", "create", name, "--partitions", str(len(counts)))[0] == 0
    for partition, count in enumerate(counts):
        lines = b"".join(b"%d\n" % number for number in range(count))
        assert warp(agent, "produce", name, "--partition", str(partition), stdin=lines)[0] == 0


def consumer(agent: Running, group: str, client_id: str, **settings: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": agent.bootstrap,
            "group.id": group,
            "client.id": client_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **settings,
        }
    )


def wait_for_shares(consumers: Sequence[Consumer], size: int) -> None:
    """Poll until each has so many partitions."""
    for _ in range(POLLS_MAX):
        for each in consumers:
            each.poll(POLL_S / len(consumers))
        if all(len(each.assignment()) == size for each in consumers):
            return
    raise AssertionError([each.assignment() for each in consumers])


def described(agent: Running, group: str) -> dict[str, Any]:
    code, out, error = warp(agent, "group", "describe", group, "--json")
    assert (code, error) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def offsets(agent: Running, group: str) -> dict[int, int | None]:
    return {row["partition"]: row["committed_offset"] for row in described(agent, group)["offsets"]}


def test_a_live_group_of_two_consumers_is_shown_with_its_lag_and_protected(agent: Running) -> None:
    topic(agent, "orders", 10, 20, 30, 0)
    one = consumer(agent, "billing", "one")
    two = consumer(agent, "billing", "two", **{"group.instance.id": "instance-two"})
    with closing(one), closing(two):
        one.subscribe(["orders"])
        two.subscribe(["orders"])
        wait_for_shares([one, two], 2)
        for each in (one, two):
            share = [
                TopicPartition("orders", row.partition, 4) for row in each.assignment() if row.partition < 2
            ]
            if share:
                each.commit(offsets=share, asynchronous=False)

        found = described(agent, "billing")
        assert (found["state"], found["type"], found["assignor"]) == ("Stable", "Classic", "range")
        assert found["coordinator"].endswith(f" ({agent.bootstrap})")
        members = {member["client_id"]: member for member in found["members"]}
        assert members.keys() == {"one", "two"}
        assert members["two"]["instance_id"] == "instance-two"
        assert members["one"]["instance_id"] is None
        assert "127.0.0.1" in members["one"]["host"]
        for name, each in (("one", one), ("two", two)):
            given = sorted(row.partition for row in each.assignment())
            assert members[name]["assignment"] == [{"topic": "orders", "partition": p} for p in given]
        rows = [(row["committed_offset"], row["end_offset"], row["lag"]) for row in found["offsets"]]
        assert rows == [(4, 10, 6), (4, 20, 16), (None, 30, None), (None, 0, None)]
        assert (found["lag"], found["uncommitted_partition_count"]) == (22, 1)
        readers = {member["member_id"] for member in members.values()}
        assert {row["member_id"] for row in found["offsets"]} == readers

        _, text, _ = warp(agent, "group", "describe", "billing")
        assert text.startswith("group billing: Stable, 2 members, lag 22 without the 1 partition")
        assert re.search(r"^orders +1 +4 +20 +16 +\S+$", text, re.MULTILINE)
        _, listed, _ = warp(agent, "group", "list", "--state", "stable", "--type", "classic")
        assert re.search(r"^billing +Stable +Classic$", listed, re.MULTILINE)
        assert "billing" not in warp(agent, "group", "list", "--state", "empty")[1]

        reset = warp(agent, "group", "reset-offsets", "billing", "--all-topics", "--to-earliest", "--execute")
        assert reset[:2] == (1, "")
        assert reset[2].startswith("warp group: group billing has 2 live members (Stable); stop them first")
        deleted = warp(agent, "group", "delete", "billing")
        assert deleted[:2] == (1, "")
        assert "billing: the group has members; stop them first (NON_EMPTY_GROUP)" in deleted[2]
        assert offsets(agent, "billing") == {0: 4, 1: 4, 2: None, 3: None}


def test_offsets_are_reset_and_a_consumer_goes_on_from_there(agent: Running) -> None:
    topic(agent, "replay", 10, 10)
    assert warp(agent, "consume", "replay", "--group", "replayer", "--count", "20")[0] == 0
    assert offsets(agent, "replayer") == {0: 10, 1: 10}
    command = ("group", "reset-offsets", "replayer")
    code, out, _ = warp(agent, *command, "--topic", "replay:1", "--shift-by", "-3")
    assert (code, "dry run" in out) == (0, True)
    assert offsets(agent, "replayer") == {0: 10, 1: 10}
    code, out, _ = warp(agent, *command, "--topic", "replay:1", "--shift-by", "-3", "--execute")
    assert (code, out.splitlines()[1].split()) == (0, ["replay", "1", "10", "->", "7"])
    assert offsets(agent, "replayer") == {0: 10, 1: 7}
    code, again, error = warp(agent, "consume", "replay", "--group", "replayer", "--count", "3")
    assert (code, again, error) == (0, "7\n8\n9\n", "")
    assert offsets(agent, "replayer") == {0: 10, 1: 10}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["--to-earliest"], {0: 0, 1: 0}),
        (["--to-latest"], {0: 5, 1: 3}),
        (["--to-offset", "4"], {0: 4, 1: 3}),
        (["--by-duration", "1d"], {0: 0, 1: 0}),
        (["--to-time", "2100-01-01T00:00:00Z"], {0: 5, 1: 3}),
        (["--to-time", "2001-01-01T00:00:00+02:00"], {0: 0, 1: 0}),
    ],
)
def test_every_target_is_reached(agent: Running, target: list[str], expected: dict[int, int]) -> None:
    warp(agent, "topic", "create", "targets", "--partitions", "2", "--if-not-exists")
    if not json.loads(warp(agent, "topic", "describe", "targets", "--json")[1])["partitions"][0][
        "end_offset"
    ]:
        warp(agent, "produce", "targets", "--partition", "0", stdin=b"x\n" * 5)
        warp(agent, "produce", "targets", "--partition", "1", stdin=b"x\n" * 3)
    done = warp(
        agent, "group", "reset-offsets", "targeted", "--topic", "targets", *target, "--execute", "--json"
    )
    assert (done[0], done[2]) == (0, "")
    assert {row["partition"]: row["new"] for row in json.loads(done[1])["offsets"]} == expected
    assert offsets(agent, "targeted") == expected


def test_a_group_is_deleted_with_its_offsets(agent: Running) -> None:
    topic(agent, "short", 2)
    assert warp(agent, "consume", "short", "--group", "brief", "--count", "2")[0] == 0
    assert warp(agent, "group", "delete", "brief") == (0, "deleted group brief\n", "")
    gone = "warp group: there is no group brief\n"
    assert warp(agent, "group", "describe", "brief") == (1, "", gone)
    assert warp(agent, "group", "delete", "brief") == (1, "", gone.replace(": there", ": brief: there"))
    assert warp(agent, "consume", "short", "--group", "brief", "--count", "2")[1] == "0\n1\n"


def test_offsets_of_a_deleted_topic_are_gone(agent: Running) -> None:
    topic(agent, "fleeting", 2)
    topic(agent, "lasting", 2)
    command = ("group", "reset-offsets", "both")
    done = warp(agent, *command, "--topic", "fleeting", "--topic", "lasting", "--to-latest", "--execute")
    assert done[0] == 0
    assert warp(agent, "topic", "delete", "fleeting")[0] == 0
    assert [row["topic"] for row in described(agent, "both")["offsets"]] == ["lasting"]


def test_a_member_commits_and_leaves_at_ctrl_c(agent: Running) -> None:
    topic(agent, "follow", 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "consume", "follow", "--group", "g", "-b", agent.bootstrap],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    assert described(agent, "g")["state"] == "Stable"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (0, b"", b"")
    found = described(agent, "g")
    assert (found["state"], found["members"], found["lag"]) == ("Empty", [], 0)


def test_a_static_member_stays_between_two_runs_and_holds_its_group(agent: Running) -> None:
    topic(agent, "static", 2)
    options = ("-X", "group.instance.id=one", "-X", "session.timeout.ms=6000")
    command = ("consume", "static", "--group", "statics", "--count", "1", *options)
    assert warp(agent, *command) == (0, "0\n", "")
    before = described(agent, "statics")
    assert (before["state"], before["members"][0]["instance_id"]) == ("Stable", "one")
    assert "NON_EMPTY_GROUP" in warp(agent, "group", "delete", "statics")[2]
    assert warp(agent, *command) == (0, "1\n", "")
    after = described(agent, "statics")
    assert after["members"][0]["member_id"] != before["members"][0]["member_id"]
    while described(agent, "statics")["state"] != "Empty":
        continue
    assert warp(agent, "group", "delete", "statics")[0] == 0


def test_a_member_goes_on_when_its_agent_is_killed_and_started_again(spawn: Spawn) -> None:
    first = spawn.agent()
    topic(first, "t", 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "consume", "t", "--group", "g", "-b", first.bootstrap],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    before = described(first, "g")
    first.send(signal.SIGKILL)
    first.wait()
    second = spawn.agent("--listen", first.bootstrap)
    assert described(second, "g")["members"] == before["members"]
    assert warp(second, "produce", "t", stdin=b"after\n")[0] == 0
    assert process.stdout.readline() == b"after\n"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (0, b"", b"")
    assert offsets(second, "g") == {0: 4}
    assert second.stop() == 0


def join_as_worker(agent: Running, group: str) -> socket.socket:
    """A connection whose JoinGroup, of another protocol type than consumers', has been answered."""
    request = JoinGroupRequest(
        group_id=group,
        session_timeout_ms=60_000,
        member_id="",
        protocol_type="connect",
        protocols=[JoinGroupRequestProtocol(name="default", metadata=b"\x00\x01")],
    )
    host, _, port = agent.bootstrap.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(b"".join(encode_request_frame(1, "worker", request, 0)))
    assert connection.recv(1)
    return connection


def test_groups_that_are_not_of_consumers_are_left_out_and_named_as_such(agent: Running) -> None:
    with join_as_worker(agent, "workers"):
        assert "workers" not in warp(agent, "group", "list")[1]
        for words in (
            ["describe", "workers"],
            ["reset-offsets", "workers", "--topic", "none", "--to-latest", "--execute"],
        ):
            code, out, error = warp(agent, "group", *words)
            assert (code, out, error.count("\n")) == (1, "", 1)
            assert "workers is not a consumer group (connect)" in error
        code, _, error = warp(agent, "group", "delete", "workers")
        assert (code, "NON_EMPTY_GROUP" in error) == (1, True)


def test_no_broker_is_one_line() -> None:
    for words in (
        ["group", "list"],
        ["group", "describe", "g"],
        ["group", "reset-offsets", "g", "--topic", "t", "--to-latest"],
        ["group", "delete", "g"],
        ["consume", "t", "--group", "g"],
    ):
        code, out, error = run_warp(*words, "-b", "127.0.0.1:1", "--timeout", "1")
        assert (code, out, error.count("\n")) == (1, "", 1)
        assert "no broker answered at 127.0.0.1:1 within 1 s (Connection refused)" in error

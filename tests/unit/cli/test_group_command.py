"""`warp group`: what it asks of the client library's admin client, what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupType, KafkaError

from tests.unit.cli.group_fakes import FakeAdmin, FakeGroup, member
from warp.cli.client import Client
from warp.cli.group.facts import Log, Place
from warp.cli.main import main

A0, A1, A2, B0 = Place("a", 0), Place("a", 1), Place("a", 2), Place("b", 0)
LOGS = {A0: Log(0, 100), A1: Log(50, 80), A2: Log(0, 5), B0: Log(0, 0)}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def admin() -> FakeAdmin:
    live = FakeGroup(
        ConsumerGroupState.STABLE,
        {A0: 90, A1: 80, Place("gone", 0): 7},
        [member("m-2", A1, client_id="two", instance_id="inst"), member("m-1", A0, A2, B0, client_id="one")],
    )
    idle = FakeGroup(offsets={A0: 90, A1: 60, Place("gone", 0): 7})
    return FakeAdmin(LOGS, live=live, idle=idle, simple=FakeGroup(offsets={B0: 0}, is_simple=True))


@pytest.fixture
def run(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(Client, "admin", lambda _: admin)

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(["group", *words])
        out, error = capsys.readouterr()
        return code, out, error

    return run_words


def test_groups_are_listed_by_name(run: Run) -> None:
    code, out, error = run("list")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "GROUP   STATE   TYPE",
        "idle    Empty   Classic",
        "live    Stable  Classic",
        "simple  Empty   Classic, never had a member",
    ]


def test_filters_are_the_brokers_to_apply(run: Run, admin: FakeAdmin) -> None:
    assert run("list", "--state", "preparing-rebalance", "--state", "EMPTY", "--type", "classic")[0] == 0
    assert admin.filters == {
        "states": {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.EMPTY},
        "types": {ConsumerGroupType.CLASSIC},
    }
    run("list")
    assert admin.filters == {}


def test_an_unknown_state_is_told_with_those_that_there_are(run: Run) -> None:
    code, _, error = run("list", "--state", "busy")
    assert (
        code,
        "'busy' is none of PreparingRebalance, CompletingRebalance, Stable, Empty, Dead" in error,
    ) == (2, True)


def test_a_list_without_the_answer_of_a_broker_is_no_list(run: Run, admin: FakeAdmin) -> None:
    admin.fails["list_brokers"] = KafkaError.COORDINATOR_LOAD_IN_PROGRESS
    code, out, error = run("list", "--json")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "COORDINATOR_LOAD_IN_PROGRESS" in error


def test_a_live_group_is_described_with_its_members_and_its_lag(run: Run) -> None:
    code, out, error = run("describe", "live")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "group live: Stable, 2 members, lag 10 without the 1 partition of which nothing is committed",
        "  coordinator  3 (broker-3:9092)",
        "  assignor     range",
        "  type         Classic",
        "",
        "MEMBER  CLIENT ID  HOST       INSTANCE ID  READS",
        "m-1     one        /10.0.0.7  -            a:0,2 b:0",
        "m-2     two        /10.0.0.7  inst         a:1",
        "",
        "TOPIC  PARTITION  COMMITTED  END                LAG  MEMBER",
        "a      0          90         100                10   m-1",
        "a      1          80         80                 0    m-2",
        "a      2          -          5                  -    m-1",
        "b      0          -          0                  -    m-1",
        "gone   0          7          no such partition  -    -",
    ]


def test_members_and_offsets_are_described_alone(run: Run) -> None:
    members = run("describe", "live", "--members")[1]
    assert "CLIENT ID" in members
    assert "LAG" not in members
    assert "lag" not in members
    offsets = run("describe", "live", "--offsets")[1]
    assert "CLIENT ID" not in offsets
    assert "LAG" in offsets


def test_programs_are_told_the_same(run: Run) -> None:
    code, out, _ = run("describe", "live", "idle", "--json")
    live, idle = map(json.loads, out.splitlines())
    assert (code, live["group"], live["state"], live["lag"], live["member_count"]) == (
        0,
        "live",
        "Stable",
        10,
        2,
    )
    assert live["uncommitted_partition_count"] == 1
    assert live["members"][1] == {
        "member_id": "m-2",
        "client_id": "two",
        "host": "/10.0.0.7",
        "instance_id": "inst",
        "assignment": [{"topic": "a", "partition": 1}],
    }
    assert live["offsets"][2] == {
        "topic": "a",
        "partition": 2,
        "committed_offset": None,
        "end_offset": 5,
        "lag": None,
        "member_id": "m-1",
    }
    assert (idle["members"], idle["lag"]) == ([], 30)
    assert "offsets" not in json.loads(run("describe", "live", "--members", "--json")[1])


@pytest.mark.parametrize("has_found_dead", [True, False])
def test_a_group_that_is_not_there_is_told_with_the_nearest(
    run: Run, admin: FakeAdmin, has_found_dead: bool
) -> None:
    admin.has_found_dead = has_found_dead
    assert run("describe", "ilde") == (1, "", "warp group: there is no group ilde; did you mean idle?\n")


def test_a_committed_offset_beyond_the_end_is_no_negative_lag(run: Run, admin: FakeAdmin) -> None:
    admin.groups["idle"].offsets = {A0: 1000}
    assert json.loads(run("describe", "idle", "--json")[1])["lag"] == 0


def test_names_do_not_move_the_cursor(run: Run, admin: FakeAdmin) -> None:
    admin.groups = {"a\x1b[2Jb": FakeGroup(members=[member("m\r", client_id="ü\n")])}
    listed, shown = run("list")[1], run("describe", "a\x1b[2Jb")[1]
    for out in (listed, shown):
        assert r"a\x1b[2Jb" in out
        assert out.replace("\n", "").isprintable()
    assert r"ü\n" in shown


def test_without_execute_nothing_is_reset(run: Run, admin: FakeAdmin) -> None:
    before = dict(admin.groups["idle"].offsets)
    code, out, error = run("reset-offsets", "idle", "--all-topics", "--to-earliest")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "TOPIC  PARTITION  OLD      NEW",
        "a      0          90   ->  0",
        "a      1          60   ->  50",
        "gone:0 is left out: there is no such partition any more",
        "",
        "dry run: nothing was changed; add --execute to do it",
    ]
    assert admin.groups["idle"].offsets == before


def test_a_reset_is_executed_for_the_chosen_partitions_alone(run: Run, admin: FakeAdmin) -> None:
    code, out, _ = run(
        "reset-offsets", "idle", "--topic", "a:1", "--topic", "b", "--to-offset", "9", "--execute", "--json"
    )
    assert (code, json.loads(out)["executed"]) == (0, True)
    assert json.loads(out)["offsets"] == [
        {
            "topic": "a",
            "partition": 1,
            "old": 60,
            "new": 50,
            "note": "9 is outside the log: its start instead",
        },
        {
            "topic": "b",
            "partition": 0,
            "old": None,
            "new": 0,
            "note": "9 is outside the log: its end instead",
        },
    ]
    assert admin.groups["idle"].offsets == {A0: 90, A1: 50, B0: 0, Place("gone", 0): 7}


def test_a_reset_to_a_time_asks_for_its_offsets(run: Run, admin: FakeAdmin) -> None:
    admin.at_time = {A0: 33}
    out = run("reset-offsets", "idle", "--topic", "a:0,1", "--to-time", "2023-11-14T22:13:20Z")[1]
    assert admin.times_ms == [1_700_000_000_000] * 2
    assert "a      0          90   ->  33" in out
    assert "a      1          60   ->  80   no record of that time or later: the end" in out


def test_a_reset_by_a_duration_counts_back_from_now(
    run: Run, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.cli.group.command.time.time_ns", lambda: 1_700_000_000_000_000_000)
    assert run("reset-offsets", "idle", "--topic", "a:0", "--by-duration", "15m")[0] == 0
    assert run("reset-offsets", "idle", "--topic", "a:0", "--by-duration", "90000d")[0] == 0
    assert admin.times_ms == [1_700_000_000_000 - 900_000, 0]


def test_a_group_with_live_members_is_not_reset(run: Run, admin: FakeAdmin) -> None:
    before = dict(admin.groups["live"].offsets)
    assert run("reset-offsets", "live", "--all-topics", "--to-latest", "--execute") == (
        1,
        "",
        "warp group: group live has 2 live members (Stable); stop them first: they would commit over what is reset\n",
    )
    assert admin.groups["live"].offsets == before


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS])
def test_members_that_come_during_a_reset_are_told(run: Run, admin: FakeAdmin, code: int) -> None:
    admin.row_error = code
    exit_code, out, error = run("reset-offsets", "idle", "--topic", "a", "--to-latest", "--execute")
    assert (exit_code, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("warp group: a:0: the group has got members meanwhile; stop them first (")


def test_a_reset_makes_a_group_only_for_topics_that_are_named(run: Run, admin: FakeAdmin) -> None:
    assert (
        run("reset-offsets", "new", "--all-topics", "--to-latest")[2] == "warp group: there is no group new\n"
    )
    out = run("reset-offsets", "new", "--topic", "a:0", "--to-latest")[1]
    assert "dry run: nothing was changed; there is no group new yet, it would be made;" in out
    assert "new" not in admin.groups
    assert run("reset-offsets", "new", "--topic", "a:0", "--to-latest", "--execute")[0] == 0
    assert admin.groups["new"].offsets == {A0: 100}


def test_topics_and_partitions_that_are_not_there_are_not_reset(run: Run) -> None:
    for words, reason in (
        (["--topic", "aa"], "there is no topic aa; did you mean a?"),
        (["--topic", "a:0,3"], "topic a has no partition 3, only 0 to 2"),
    ):
        assert run("reset-offsets", "idle", *words, "--to-latest") == (1, "", f"warp group: {reason}\n")


def test_a_group_of_which_nothing_is_left_is_not_reset(run: Run, admin: FakeAdmin) -> None:
    admin.groups["idle"].offsets = {Place("gone", 0): 7}
    code, _, error = run("reset-offsets", "idle", "--all-topics", "--to-latest")
    assert (code, "has committed nothing that is still there; name topics with --topic" in error) == (1, True)


def test_a_shift_from_nothing_is_refused_and_nothing_is_reset(run: Run, admin: FakeAdmin) -> None:
    code, _, error = run("reset-offsets", "idle", "--topic", "a", "--shift-by", "-5", "--execute")
    assert (code, error) == (
        1,
        "warp group: nothing is committed for a:2, so there is nothing to shift from\n",
    )
    assert admin.groups["idle"].offsets[A0] == 90


@pytest.mark.parametrize(
    "words",
    [
        ["--to-latest"],
        ["--topic", "a"],
        ["--topic", "a", "--all-topics", "--to-latest"],
        ["--topic", "a", "--to-latest", "--to-earliest"],
        ["--topic", "a:x", "--to-latest"],
        ["--topic", "a", "--by-duration", "5"],
    ],
)
def test_words_that_do_not_fit_are_refused(run: Run, words: list[str]) -> None:
    code, out, error = run("reset-offsets", "idle", *words)
    assert (code, out, error.count("\n")) == (2, "", 1)


def test_groups_are_deleted_as_far_as_they_can_be(run: Run, admin: FakeAdmin) -> None:
    code, out, error = run("delete", "live", "idle", "nothing")
    assert (code, out) == (1, "deleted group idle\n")
    assert error == (
        "warp group: live: the group has members; stop them first (NON_EMPTY_GROUP); "
        "nothing: there is no group nothing\n"
    )
    assert set(admin.groups) == {"live", "simple"}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("list", ["list"]),
        ("describe", ["describe", "idle"]),
        ("offsets", ["describe", "idle"]),
        ("list_offsets", ["describe", "idle"]),
        ("alter", ["reset-offsets", "idle", "--topic", "a", "--to-latest", "--execute"]),
        ("delete", ["delete", "idle"]),
    ],
)
@pytest.mark.parametrize("code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._TIMED_OUT])
def test_what_the_broker_refuses_is_one_line(
    run: Run, admin: FakeAdmin, method: str, words: list[str], code: int
) -> None:
    admin.fails[method] = code
    exit_code, out, error = run(*words)
    assert (exit_code, out, error.count("\n")) == (1, "", 1)
    expected = (
        "GROUP_AUTHORIZATION_FAILED" if code > 0 else "no broker answered at 127.0.0.1:9092 within 10 s"
    )
    assert expected in error


def test_an_unknown_action_is_told_with_the_nearest(run: Run) -> None:
    assert run("lst") == (2, "", "warp group: unknown action lst; did you mean list?\n")
    assert run("list", "--help")[0] == 0
    code, out, error = run()
    assert (code, "reset-offsets" in out, error) == (2, True, "warp group: no action was given\n")

"""The audit log: what its lines hold, that a flood does not multiply them, and that they hold no secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from warp.logs import HumanFormatter, JsonFormatter, extra_fields
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.audit import (
    ITEMS_PER_LINE_MAX,
    MASKED,
    REFUSAL_LINES_OF_ONE_PER_S_MAX,
    REFUSAL_LINES_PER_S_MAX,
    REFUSALS_NAMED_MAX,
    TEXT_CHARACTERS_MAX,
    Asker,
    Audit,
    escaped,
)
from warp.security.principal import Principal

ALICE = Principal("User", "alice")
READ_ORDERS = (AclOperation.READ, AclResourceType.TOPIC, "orders")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self) -> list[dict[str, Any]]:
        return [dict(extra_fields(record)) for record in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger = logging.getLogger("warp.audit")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asker(principal: Principal = ALICE, host: str = "192.0.2.1", client_id: str | None = "app") -> Asker:
    return Asker(principal, f"{host}:5000", "SASL_SSL://broker.test:9092", client_id, "Fetch", 12)


def test_a_refusal_is_one_line_with_all_that_is_known(lines: Lines, clock: Clock) -> None:
    Audit(clock.monotonic).denied(asker(), [READ_ORDERS], 1)
    [record] = lines.records
    assert (record.name, record.getMessage(), record.levelno) == ("warp.audit", "denied", logging.WARNING)
    assert lines.fields() == [
        {
            "principal": "User:alice",
            "address": "192.0.2.1:5000",
            "listener": "SASL_SSL://broker.test:9092",
            "client_id": "app",
            "api": "Fetch",
            "api_version": 12,
            "operation": "READ",
            "resource": "TOPIC",
            "resource_name": "orders",
        }
    ]
    assert json.loads(JsonFormatter().format(record))["resource_name"] == "orders"


def test_what_would_be_denied_says_so(lines: Lines, clock: Clock) -> None:
    Audit(clock.monotonic, only_logs=True).denied(asker(), [READ_ORDERS], 1)
    assert [record.getMessage() for record in lines.records] == ["would deny"]


def test_of_many_refusals_the_first_are_named_and_all_are_counted(lines: Lines, clock: Clock) -> None:
    refusals = [(AclOperation.READ, AclResourceType.GROUP, f"g{number}") for number in range(50)]
    Audit(clock.monotonic).denied(asker(), refusals, 5_000)
    [fields] = lines.fields()
    assert (fields["resource_name"], fields["refusals"]) == ("g0", 5_000)
    assert fields["also"].split(", ") == [
        f'READ GROUP "g{number}"' for number in range(1, REFUSALS_NAMED_MAX)
    ]


def test_a_flood_is_counted_in_the_next_line(lines: Lines, clock: Clock) -> None:
    seen: list[str] = []
    audit = Audit(clock.monotonic, observe=seen.append)
    for _ in range(10_000):
        audit.denied(asker(), [READ_ORDERS], 3)
    assert len(lines.records) == REFUSAL_LINES_OF_ONE_PER_S_MAX
    assert seen == ["Fetch"] * 10_000
    clock.now_s += 1.0
    audit.denied(asker(), [READ_ORDERS], 1)
    audit.denied(asker(), [READ_ORDERS], 1)
    *_, next_line, after_that = lines.fields()
    assert next_line["requests_left_out"] == 10_000 - REFUSAL_LINES_OF_ONE_PER_S_MAX
    assert "requests_left_out" not in after_that


def test_a_flood_by_one_does_not_hide_another(lines: Lines, clock: Clock) -> None:
    audit = Audit(clock.monotonic)
    for _ in range(1_000):
        audit.denied(asker(), [READ_ORDERS], 1)
    audit.denied(asker(Principal("User", "bob")), [READ_ORDERS], 1)
    audit.denied(asker(host="192.0.2.2"), [READ_ORDERS], 1)
    shown = [(fields["principal"], fields["address"]) for fields in lines.fields()]
    assert shown[-2:] == [("User:bob", "192.0.2.1:5000"), ("User:alice", "192.0.2.2:5000")]


def test_a_flood_by_many_has_a_bound_too(lines: Lines, clock: Clock) -> None:
    audit = Audit(clock.monotonic)
    for second in range(3):
        clock.now_s = float(second)
        for number in range(1_000):
            audit.denied(asker(Principal("User", f"u{number}")), [READ_ORDERS], 1)
    assert len(lines.records) == 3 * REFUSAL_LINES_PER_S_MAX


def test_names_can_forge_no_lines_and_are_shortened(lines: Lines, clock: Clock) -> None:
    name = 'a"\n\x1b[2J\u202e\\ü' + "x" * 10_000
    evil = asker(Principal("User", name), client_id=name)
    Audit(clock.monotonic).denied(evil, [(AclOperation.READ, AclResourceType.GROUP, name)] * 10, 10)
    [record] = lines.records
    for line in (JsonFormatter().format(record), HumanFormatter().format(record)):
        assert len(line) < 30 * TEXT_CHARACTERS_MAX
        assert "\n" not in line
        assert "\x1b" not in line
        assert "\u202e" not in line
    assert lines.fields()[0]["client_id"].startswith(r"a\"\n\x1b[2J\u202e\\ü")


@pytest.mark.parametrize("text", ["", "orders", "größe-日本", "a b", "\ud800", "\x00\x7f", '"', "\\n"])
def test_escaped_text_is_printable_and_tells_different_names_apart(text: str) -> None:
    assert all(character.isprintable() for character in escaped(text))
    assert escaped(text) != escaped(text + "!")
    if text.isalnum():
        assert escaped(text) == text


def test_a_change_is_one_line_with_its_facts(lines: Lines, clock: Clock) -> None:
    Audit(clock.monotonic).changed(
        ALICE, "192.0.2.1:5000", "added partitions", topic="orders", partitions_before=1, partitions=3
    )
    [record] = lines.records
    assert (record.getMessage(), record.levelno) == ("added partitions", logging.INFO)
    assert lines.fields() == [
        {
            "principal": "User:alice",
            "address": "192.0.2.1:5000",
            "topic": "orders",
            "partitions_before": 1,
            "partitions": 3,
        }
    ]


def test_several_changes_are_all_named_in_few_lines(lines: Lines, clock: Clock) -> None:
    audit = Audit(clock.monotonic)
    names = [f"topic-{number}" for number in range(2 * ITEMS_PER_LINE_MAX + 1)]
    audit.changed_each(ALICE, "192.0.2.1:5000", "deleted topics", names, group="g")
    fields = lines.fields()
    assert [each["group"] for each in fields] == ["g"] * 3
    assert ", ".join(each["items"] for each in fields) == ", ".join(f'"{name}"' for name in names)
    audit.changed_each(ALICE, "192.0.2.1:5000", "deleted topics", [])
    assert len(lines.records) == 3


def test_a_list_that_is_too_long_for_a_line_is_counted(lines: Lines, clock: Clock) -> None:
    Audit(clock.monotonic).changed(ALICE, "192.0.2.1:5000", "did", things=["x"] * (ITEMS_PER_LINE_MAX + 7))
    assert lines.fields()[0]["things"].endswith('"x" and 7 more')


def test_facts_may_have_names_that_log_lines_use_themselves(lines: Lines, clock: Clock) -> None:
    facts: dict[str, Any] = {"name": "n", "message": "m", "level": "l", "time": 1, "msg": "x", "args": "a"}
    Audit(clock.monotonic).changed(ALICE, "192.0.2.1:5000", "did", **facts)
    [fields] = lines.fields()
    assert {fields[f"resource_{name}"] for name in facts} == {"n", "m", "l", 1, "x", "a"}
    assert json.loads(JsonFormatter().format(lines.records[0]))["message"] == "did"


@pytest.mark.parametrize(
    "name", ["password", "salted_password", "salt", "secret", "stored_key", "server_key", "token"]
)
def test_a_fact_that_is_a_secret_is_not_written(lines: Lines, clock: Clock, name: str) -> None:
    facts: dict[str, Any] = {name: "hunter2"}
    Audit(clock.monotonic).changed(ALICE, "192.0.2.1:5000", "set credentials", **facts)
    [record] = lines.records
    assert lines.fields()[0][name] == MASKED
    assert "hunter2" not in JsonFormatter().format(record) + HumanFormatter().format(record)

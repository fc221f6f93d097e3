"""Changes of configs: what is made of them, and which no set of configs could take."""

from __future__ import annotations

import pytest

from warp.cluster.config_change import ConfigChange, ConfigOperation, applied, check_changes, replacement
from warp.cluster.topic_config import effective, topic_definition
from warp.errors import ErrorCode, KafkaError

SET, DELETE, APPEND, SUBTRACT = ConfigOperation


def change(
    current: dict[str, str], *changes: tuple[str, int, str | None], broker: dict[str, str] | None = None
) -> dict[str, str]:
    found = [ConfigChange(*each) for each in changes]
    check_changes(found)
    return applied(found, current, topic_definition, lambda name: effective({}, broker or {}, name))


def test_each_change_touches_its_config_alone() -> None:
    current = {"retention.ms": "1", "segment.ms": "2"}
    assert change(current, ("retention.ms", SET, "5"), ("segment.ms", DELETE, None)) == {"retention.ms": "5"}
    assert change(current) == current == {"retention.ms": "1", "segment.ms": "2"}


def test_deleting_what_is_not_set_does_nothing() -> None:
    assert change({}, ("retention.ms", DELETE, None), ("no.such.config", DELETE, "x")) == {}


@pytest.mark.parametrize(
    ("current", "operation", "value", "expected"),
    [
        ({}, APPEND, "compact", "delete,compact"),
        ({}, APPEND, "delete", "delete"),
        ({"cleanup.policy": ""}, APPEND, "compact", "compact"),
        ({"cleanup.policy": "compact"}, APPEND, " delete , compact ", "compact,delete"),
        ({"cleanup.policy": "compact"}, APPEND, "", "compact"),
        ({"cleanup.policy": "compact, delete"}, SUBTRACT, "compact", "delete"),
        ({"cleanup.policy": "compact"}, SUBTRACT, "delete", "compact"),
        ({"cleanup.policy": "compact"}, SUBTRACT, "compact", ""),
        ({}, SUBTRACT, "delete", ""),
    ],
)
def test_items_are_added_to_and_taken_from_lists(
    current: dict[str, str], operation: int, value: str, expected: str
) -> None:
    assert change(current, ("cleanup.policy", operation, value)) == {"cleanup.policy": expected}


def test_items_are_added_to_the_value_that_holds() -> None:
    broker = {"log.cleanup.policy": "compact"}
    assert change({}, ("cleanup.policy", APPEND, "delete"), broker=broker) == {
        "cleanup.policy": "compact,delete"
    }


@pytest.mark.parametrize("operation", [APPEND, SUBTRACT])
def test_what_is_no_list_has_no_items(operation: ConfigOperation) -> None:
    with pytest.raises(
        KafkaError, match=f"Can't {operation.name} to retention.ms: its type is LONG"
    ) as refused:
        change({}, ("retention.ms", operation, "5"))
    assert refused.value.code == ErrorCode.INVALID_CONFIG
    with pytest.raises(KafkaError, match="Unknown topic config name: retention"):
        change({}, ("retention", operation, "5"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("a", SET, "1"), ("a", SET, "1")], "Config a is named 2 times"),
        ([("a", SET, "1"), ("b", SET, "1"), ("a", DELETE, None)], "Config a is named 2 times"),
        ([("a", SET, None)], "Null value not supported for config: a"),
        ([("a", APPEND, None)], "Null value not supported for config: a"),
        ([("a", SUBTRACT, None)], "Null value not supported for config: a"),
        ([("a", 4, "1")], "Unknown operation 4 for config a"),
        ([("a", -1, "1")], "Unknown operation -1 for config a"),
    ],
)
def test_changes_that_no_configs_could_take_are_refused(
    changes: list[tuple[str, int, str | None]], words: str
) -> None:
    with pytest.raises(KafkaError) as refused:
        change({}, *changes)
    assert (refused.value.code, refused.value.message) == (ErrorCode.INVALID_REQUEST, words)


def test_a_replacement_is_the_whole_set() -> None:
    assert replacement([]) == {}
    assert replacement([("a", "1"), ("b", "")]) == {"a": "1", "b": ""}
    for configs, words in (([("a", "1"), ("a", "2")], "named 2 times"), ([("a", None)], "Null value")):
        with pytest.raises(KafkaError, match=words) as refused:
            replacement(configs)
        assert refused.value.code == ErrorCode.INVALID_REQUEST


def test_messages_do_not_grow_with_what_they_quote() -> None:
    name = "x" * 30_000
    for changes in ([(name, SET, None)], [(name, SET, "1")] * 2, [(name, 9, "1")], [(name, APPEND, "1")]):
        with pytest.raises(KafkaError) as refused:
            change({}, *changes)
        assert len(refused.value.message) < 300

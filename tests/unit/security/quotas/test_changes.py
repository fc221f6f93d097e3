"""Altering and describing quotas, over the entries of the catalogue."""

from __future__ import annotations

import json

import pytest

from warp.errors import KafkaError
from warp.metadata.entries import KEY_CHARACTERS_MAX, EntryChange
from warp.security.quotas.changes import (
    Alteration,
    MatchType,
    changes_of,
    checked_alteration,
    checked_filter,
    described,
    refuse_twice,
    told_changes,
)
from warp.security.quotas.entity import (
    NAME_CHARACTERS_MAX,
    checked_entity,
    describe_entity,
    entity_text,
    parse_entity,
    parse_values,
    values_text,
)

ALICE = '{"user":"alice"}'


def alteration(*operations: tuple[str, float, bool], user: str | None = "alice") -> Alteration:
    return checked_alteration([("user", user)], operations)


def test_values_are_merged_into_what_is_there() -> None:
    entries = {ALICE: values_text({"producer_byte_rate": 5.0, "request_percentage": 7.0})}
    wanted = alteration(("producer_byte_rate", 0.0, True), ("consumer_byte_rate", 9.0, False))
    [change] = changes_of([wanted], entries)
    assert change.key == ALICE
    assert change.value is not None
    assert json.loads(change.value) == {"consumer_byte_rate": 9.0, "request_percentage": 7.0}


def test_an_entity_without_quotas_is_removed() -> None:
    entries = {ALICE: values_text({"producer_byte_rate": 5.0})}
    assert changes_of([alteration(("producer_byte_rate", 0.0, True))], entries) == [EntryChange(ALICE, None)]


@pytest.mark.parametrize(
    "operations",
    [[], [("consumer_byte_rate", 0.0, True)], [("producer_byte_rate", 5.0, False)]],
)
def test_what_changes_nothing_is_left_out(operations: list[tuple[str, float, bool]]) -> None:
    entries = {ALICE: values_text({"producer_byte_rate": 5.0})}
    assert changes_of([alteration(*operations)], entries) == []


def test_what_nobody_can_read_is_replaced() -> None:
    [change] = changes_of([alteration(("producer_byte_rate", 5.0, False))], {ALICE: "broken"})
    assert change == EntryChange(ALICE, values_text({"producer_byte_rate": 5.0}))


def test_the_audit_log_is_told_old_and_new() -> None:
    changes = [EntryChange(ALICE, '{"request_percentage":1.0}'), EntryChange('{"user":null}', None)]
    assert told_changes(changes, {'{"user":null}': '{"request_percentage":2.0}'}) == [
        '{"user":"alice"} none -> {"request_percentage":1.0}',
        '{"user":null} {"request_percentage":2.0} -> none',
    ]


def test_only_the_entities_that_stand_there_twice_are_refused() -> None:
    once, twice = alteration(user="bob"), alteration()
    refused = refuse_twice([twice, once, twice])
    assert [isinstance(each, KafkaError) for each in refused] == [True, False, True]


def test_a_whole_number_may_be_a_hair_off() -> None:
    [operation] = alteration(("producer_byte_rate", 10.0000001, False)).operations
    assert operation.value == 10.0


def test_texts_are_the_same_whatever_the_order_of_parts() -> None:
    one = checked_entity([("user", "alice"), ("client-id", None)])
    other = checked_entity([("client-id", None), ("user", "alice")])
    assert entity_text(one) == entity_text(other) == '{"client-id":null,"user":"alice"}'
    assert parse_entity(entity_text(one)) == one
    assert parse_values(values_text({"request_percentage": 12.5})) == {"request_percentage": 12.5}
    assert describe_entity(one) == "default client-id, user alice"


def test_the_longest_names_fit_into_a_key() -> None:
    name = "\u2028" * NAME_CHARACTERS_MAX
    parts = [("user", name), ("client-id", name)]
    with pytest.raises(KafkaError, match="too long"):
        entity_text(checked_entity(parts))
    assert len(entity_text(checked_entity([("user", "x" * NAME_CHARACTERS_MAX)]))) <= KEY_CHARACTERS_MAX


def test_entries_that_can_t_be_read_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    entries = {"broken": "{}", ALICE: values_text({"producer_byte_rate": 5.0})}
    assert described(entries, [], is_strict=False) == [((("user", "alice"),), {"producer_byte_rate": 5.0})]
    assert "is not shown" in caplog.text


def test_a_filter_by_an_address_finds_it_in_any_form() -> None:
    [component] = checked_filter([("ip", MatchType.EXACT, "0:0:0:0:0:0:0:1")])
    assert component.name == "::1"

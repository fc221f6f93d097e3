"""Which of the quotas holds: Kafka's eight levels, addresses, and what is shared."""

from __future__ import annotations

import json

import pytest

from warp.security.quotas.entity import QuotaKey
from warp.security.quotas.table import Limit, QuotaTable

PRODUCE = QuotaKey.PRODUCER_BYTE_RATE

# From the highest precedence to the lowest: the entity, and whose use counts together under it.
LEVELS: list[tuple[dict[str, str | None], tuple[str, str]]] = [
    ({"user": "alice", "client-id": "app"}, ("alice", "app")),
    ({"user": "alice", "client-id": None}, ("alice", "app")),
    ({"user": "alice"}, ("alice", "")),
    ({"user": None, "client-id": "app"}, ("alice", "app")),
    ({"user": None, "client-id": None}, ("alice", "app")),
    ({"user": None}, ("alice", "")),
    ({"client-id": "app"}, ("", "app")),
    ({"client-id": None}, ("", "app")),
]


def table_of(*quotas: tuple[dict[str, str | None], float]) -> QuotaTable:
    return QuotaTable({json.dumps(entity): json.dumps({PRODUCE: value}) for entity, value in quotas})


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_the_most_specific_quota_holds_alone(level: int) -> None:
    table = table_of(
        *((entity, float(index + 1)) for index, (entity, _) in enumerate(LEVELS) if index >= level)
    )
    assert table.of_client(PRODUCE, "alice", "app") == Limit(level + 1.0, *LEVELS[level][1])


def test_quotas_of_others_don_t_hold() -> None:
    table = table_of(
        ({"user": "bob"}, 1.0), ({"client-id": "other"}, 2.0), ({"user": "alice", "client-id": "x"}, 3.0)
    )
    assert table.of_client(PRODUCE, "alice", "app") is None


def test_each_kind_is_looked_up_by_itself() -> None:
    values = {"consumer_byte_rate": 5}
    table = QuotaTable({'{"user":"alice"}': json.dumps(values), '{"user":null}': '{"producer_byte_rate":7}'})
    assert table.of_client(QuotaKey.CONSUMER_BYTE_RATE, "alice", "app") == Limit(5.0, "alice", "")
    assert table.of_client(PRODUCE, "alice", "app") == Limit(7.0, "alice", "")
    assert table.limits(PRODUCE)
    assert not table.limits(QuotaKey.REQUEST_PERCENTAGE)


@pytest.mark.parametrize("name", ["*", "", "=x", "<default>"])
def test_no_name_passes_for_a_default(name: str) -> None:
    table = table_of(({"user": None, "client-id": None}, 1.0), ({"client-id": name or "x"}, 9.0))
    assert table.of_client(PRODUCE, name, name) == Limit(1.0, name, name)
    assert table_of(({"user": name or "x"}, 9.0)).of_client(PRODUCE, "alice", "") is None


def test_addresses_have_the_rate_of_connections_with_a_default() -> None:
    table = QuotaTable(
        {
            '{"ip":"10.0.0.1"}': '{"connection_creation_rate":3}',
            '{"ip":null}': '{"connection_creation_rate":5}',
        }
    )
    assert table.limits(QuotaKey.CONNECTION_CREATION_RATE)
    assert [table.of_address("10.0.0.1"), table.of_address("10.0.0.2")] == [3.0, 5.0]
    assert table_of(({"user": None}, 1.0)).of_address("10.0.0.1") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("no json", "{}"), ("[]", "{}"), ("{}", "{}"), ('{"user":1}', "{}"), ('{"user":"bob"}', "[]"),
     ('{"user":"bob"}', '{"producer_byte_rate":"fast"}'), ('{"user":"bob"}', '{"producer_byte_rate":-1}'),
     ('{"user":"bob"}', '{"producer_byte_rate":NaN}'), ('{"user":"bob"}', '{"producer_byte_rate":true}'),
     ("[" * 9_999, "{}"), ('{"user":"bob"}', "[" * 9_999)],
)  # fmt: skip
def test_entries_that_can_t_be_read_hold_for_nobody_and_spoil_no_others(
    key: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = QuotaTable({key: value, '{"user":"alice"}': '{"producer_byte_rate":4}'})
    assert table.of_client(PRODUCE, "alice", "app") == Limit(4.0, "alice", "")
    assert table.of_client(PRODUCE, "bob", "app") is None
    assert "can't be read" in caplog.text


def test_a_key_of_a_later_release_is_left_alone() -> None:
    table = QuotaTable({'{"user":"alice"}': '{"producer_byte_rate":4,"share_rate":1}'})
    assert table.of_client(PRODUCE, "alice", "app") == Limit(4.0, "alice", "")


def test_only_what_has_changed_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    entries = {'{"user":"alice"}': '{"producer_byte_rate":4}', '{"user":"bob"}': "{", '{"user":"eve"}': "{}"}
    before = QuotaTable(entries)
    after = QuotaTable(entries | {'{"user":"alice"}': '{"producer_byte_rate":5}'}, before)
    assert caplog.text.count("can't be read") == 1
    assert after.of_client(PRODUCE, "alice", "app") == Limit(5.0, "alice", "")
    assert before.of_client(PRODUCE, "alice", "app") == Limit(4.0, "alice", "")
    assert QuotaTable({}, after).of_client(PRODUCE, "alice", "app") is None

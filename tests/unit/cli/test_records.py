"""Records as lines: both directions, and what is refused with which words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from warp.cli.records import Record, json_of_record, record_of_json, record_of_line


def test_a_line_is_a_value_or_key_and_value() -> None:
    assert record_of_line(b"a:b:c", None) == Record(None, b"a:b:c", [])
    assert record_of_line(b"a:b:c", b":") == Record(b"a", b"b:c", [])
    with pytest.raises(ValueError, match="no key separator ':'"):
        record_of_line(b"abc", b":")


def test_json_fields_become_the_record() -> None:
    line = b'{"key": "k", "value": {"age": 7}, "headers": {"h": "v"}, "partition": 3, "timestamp": 5}'
    assert record_of_json(line) == Record(b"k", b'{"age": 7}', [("h", b"v")], 3, 5)


def test_absent_fields_are_null_and_left_to_the_client() -> None:
    assert record_of_json(b"{}") == Record(None, None, [], -1, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b'{"valeu": 1}', "unknown field 'valeu'"),
        (b'{"partition": "1"}', "partition is not a whole number"),
        (b'{"partition": true}', "partition is not a whole number"),
        (b'{"timestamp": 1.5}', "timestamp is not a whole number"),
        (b'{"value_base64": "?"}', "value_base64 is not base64"),
        (b'{"value_base64": 1}', "value_base64 is not base64"),
        (b'{"value": "a", "value_base64": "YQ=="}', "value and value_base64 are both there"),
        (b'{"value": "\\ud800"}', "value is not valid text"),
        (b'{"headers": 1}', "headers is neither"),
        (b'{"headers": [1]}', "a header is not an object with a name"),
        (b"[" * 100_000, "it is not JSON"),
    ],
)
def test_a_bad_json_line_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        record_of_json(line)


CONTENT = st.none() | st.binary(max_size=20)


@given(CONTENT, CONTENT, st.lists(st.tuples(st.text(max_size=5), CONTENT), max_size=3), st.integers(0, 2**62))
def test_what_consume_prints_produce_reads_back(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp_ms: int
) -> None:
    line = json_of_record("t", 1, 9, timestamp_ms, key, value, headers)
    assert "\n" not in line
    assert json.loads(line)["offset"] == 9
    assert record_of_json(line.encode()) == Record(key, value, headers, 1, timestamp_ms)

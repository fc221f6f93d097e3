"""Records as lines of text: what `warp produce` reads and `warp consume` writes.

The JSON form holds everything that a record does, and what `consume --json` prints `produce --json` reads back. Keys
and values that are not UTF-8 are written as base64 under a name of their own.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NamedTuple

_FIELDS = (
    "key",
    "key_base64",
    "value",
    "value_base64",
    "headers",
    "partition",
    "timestamp",
    "topic",
    "offset",
)


class Record(NamedTuple):
    """What a producer sends. Partition -1 lets the client choose; timestamp 0 is now, in milliseconds."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int = -1
    timestamp_ms: int = 0


def record_of_line(line: bytes, key_separator: bytes | None) -> Record:
    """A line as a value, or as key, separator and value. Raises ValueError when the separator is missing."""
    if key_separator is None:
        return Record(None, line, [])
    key, separator, value = line.partition(key_separator)
    if not separator:
        raise ValueError(f"there is no key separator {key_separator.decode(errors='replace')!r} in it")
    return Record(key, value, [])


def record_of_json(line: bytes) -> Record:
    """A record in its JSON form. Raises ValueError that says what is wrong."""
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    for name in fields:
        if name not in _FIELDS:
            raise ValueError(f"unknown field {name!r}; there are {', '.join(_FIELDS)}")
    partition, timestamp_ms = fields.get("partition", -1), fields.get("timestamp", 0)
    for name, number in (("partition", partition), ("timestamp", timestamp_ms)):
        if not isinstance(number, int) or isinstance(number, bool) or not -1 <= number < 2**63:
            raise ValueError(f"{name} is not a whole number")
    headers = _headers_of(fields.get("headers", []))
    return Record(_bytes_of(fields, "key"), _bytes_of(fields, "value"), headers, partition, timestamp_ms)


def json_of_record(
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
) -> str:
    """The JSON form of a record that was read, on one line."""
    fields: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp_ms,
    }
    fields.update(_field("key", key))
    fields.update(_field("value", value))
    if headers:
        fields["headers"] = [{"name": name, **_field("value", content)} for name, content in headers]
    return json.dumps(fields, ensure_ascii=False)


def _headers_of(headers: Any) -> list[tuple[str, bytes | None]]:
    """Headers as a list, in which a name may come twice, or for short as an object."""
    if isinstance(headers, dict):
        return [(name, _bytes_of(headers, name)) for name in headers]
    if not isinstance(headers, list):
        raise ValueError("headers is neither a list nor an object")
    for header in headers:
        if not isinstance(header, dict) or not isinstance(header.get("name"), str):
            raise ValueError("a header is not an object with a name")
    return [(header["name"], _bytes_of(header, "value")) for header in headers]


def _bytes_of(fields: dict[str, Any], name: str) -> bytes | None:
    """The bytes of a field, or of the field that holds its base64. What is not text is taken as JSON."""
    content, encoded = fields.get(name), fields.get(f"{name}_base64")
    if encoded is not None:
        if content is not None:
            raise ValueError(f"{name} and {name}_base64 are both there")
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise ValueError(f"{name}_base64 is not base64") from None
    if content is None:
        return None
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid text") from None


def _field(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None}
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}

"""How `warp consume` prints a record: its value, its key and value, or all of it as JSON."""

from __future__ import annotations

import argparse
from typing import BinaryIO, cast

from confluent_kafka import Message

from warp.cli.records import json_of_record


class Output:
    """Writes records in the form that was asked for."""

    def __init__(self, file: BinaryIO, found: argparse.Namespace) -> None:
        self._file = file
        self._is_json = found.json
        self._has_keys = found.keys or found.key_separator is not None
        self._separator = ("\t" if found.key_separator is None else found.key_separator).encode()
        self.count = 0

    def write(self, message: Message) -> None:
        """One record, one line."""
        self.count += 1
        key, value = message.key(), message.value()
        if self._is_json:
            line = _json(message).encode("utf-8", "surrogatepass")
        elif self._has_keys:
            line = (key or b"") + self._separator + (value or b"")
        else:
            line = value or b""
        self._file.write(line + b"\n")

    def flush(self) -> None:
        """Show what was written: after each batch, so that a pipe sees records when they come."""
        self._file.flush()


def _json(message: Message) -> str:
    headers: list[tuple[str, bytes | None]] = []
    for header in message.headers() or []:
        name, content = cast("tuple[str, bytes | str | None]", header)
        headers.append((name, content.encode() if isinstance(content, str) else content))
    return json_of_record(
        str(message.topic()),
        int(message.partition() or 0),
        int(message.offset() or 0),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers,
    )

"""Walks record batches as far as they can be read, and says of each whether its CRC is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from warp._records import BatchHeader, InvalidBatch, parse_header, verify_batch
from warp.objectstore.base import Buffer


class WalkedBatch(NamedTuple):
    """A batch at a place in some bytes. `header` is None where there is none; `problem` is "" when all is well."""

    position: int
    header: BatchHeader | None
    problem: str


def walk_batches(data: Buffer) -> Iterator[WalkedBatch]:
    """The batches of some bytes, from their start. Ends after the first that can't be told from the next."""
    view = memoryview(data)
    position = 0
    while position < len(view):
        try:
            header = verify_batch(view, position)
            problem = ""
        except InvalidBatch as invalid:
            problem = invalid.message
            try:
                header = parse_header(view, position)
            except InvalidBatch as unreadable:
                yield WalkedBatch(position, None, unreadable.message)
                return
        yield WalkedBatch(position, header, problem)
        position += header.size_bytes


class Walked(NamedTuple):
    """What batches come to. `next_offset` is where they end if they begin at the offset that was given."""

    batches: int
    records: int
    next_offset: int
    max_timestamp_ms: int


class BadBytes(Exception):
    """The bytes are not the batches that they should be; in words."""


def check_batches(data: Buffer, base_offset: int, *, is_stamped: bool) -> Walked:
    """Whole batches, each under its right CRC, that begin at an offset. Raises BadBytes.

    `is_stamped`: they carry their own offsets, as in merged segments.
    """
    batches = records = 0
    next_offset = base_offset
    max_timestamp_ms = -1
    for position, header, problem in walk_batches(data):
        if header is None or problem:
            raise BadBytes(f"the batch at its byte {position} (offset {next_offset}) is damaged: {problem}")
        if is_stamped and header.base_offset != next_offset:
            raise BadBytes(
                f"the batch at its byte {position} says offset {header.base_offset}, not {next_offset}"
            )
        batches += 1
        records += header.record_count
        next_offset += header.last_offset_delta + 1
        max_timestamp_ms = max(max_timestamp_ms, header.max_timestamp)
    return Walked(batches, records, next_offset, max_timestamp_ms)

"""Reads a segment as far as it can be read, without any database; also one that is damaged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp._crc32c import crc32c
from warp._records import BatchHeader, InvalidBatch, Record, iterate_records, parse_header, verify_batch
from warp.cli.inspect.source import Source
from warp.lifecycle.fsck_batches import walk_batches
from warp.log.segment import (
    MAGIC,
    NO_OFFSET,
    SegmentExtent,
    SegmentFormatError,
    SegmentIndex,
    check_magic,
    parse_index,
)
from warp.objectstore.base import Buffer

TAIL_BYTES = 64 * 1024
WINDOW_BYTES = 4 * 2**20
BATCH_BYTES_MAX = 256 * 2**20
DECOMPRESSED_BYTES_MAX = 256 * 2**20


class ShownBatch(NamedTuple):
    """A batch at a place of the object. `header` is None where there is none; `problem` is "" when all is well."""

    position: int
    base_offset: int
    """-1 where nobody has said it: at level 0 it comes with the commit."""
    header: BatchHeader | None
    problem: str
    records: Sequence[Record]


@dataclass(slots=True)
class ShownExtent:
    """An extent of the footer, and its batches where they were read."""

    extent: SegmentExtent
    batches: list[ShownBatch] = field(default_factory=list)
    problem: str = ""


@dataclass(slots=True)
class Examined:
    """What is known of a segment. Without an index, `salvaged` are the batches that could be read from its start."""

    name: str
    size_bytes: int
    index: SegmentIndex | None = None
    extents: list[ShownExtent] = field(default_factory=list)
    salvaged: list[ShownBatch] = field(default_factory=list)
    salvaged_batches: int = 0
    salvaged_records: int = 0
    salvaged_end: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much is read and kept: at most `limit` extents, batches of each, and records of each."""

    batches: bool = False
    records: bool = False
    limit: int = 100


async def examine(source: Source, wanted: Wanted) -> Examined:
    """All that a segment tells. Raises what its source does."""
    found = Examined(source.name, source.size_bytes)
    start = bytes(await source.read(0, min(len(MAGIC), source.size_bytes)))
    has_magic = True
    try:
        check_magic(start)
    except SegmentFormatError as error:
        found.problems.append(str(error))
        has_magic = False
    try:
        found.index = await _read_index(source)
    except SegmentFormatError as error:
        found.problems.append(str(error))
        if has_magic:
            await _salvage(source, found, wanted)
        return found
    found.extents = [ShownExtent(extent) for extent in found.index.extents]
    if wanted.batches or wanted.records:
        for shown in found.extents:
            await _read_extent(source, shown, wanted)
    return found


async def _read_index(source: Source) -> SegmentIndex:
    size_bytes = source.size_bytes
    tail_bytes = min(TAIL_BYTES, size_bytes)
    found = parse_index(await source.read(size_bytes - tail_bytes, tail_bytes), size_bytes)
    if isinstance(found, int):
        found = parse_index(await source.read(size_bytes - found, found), size_bytes)
    assert not isinstance(found, int), "the tail has as many bytes as were asked for"
    return found


async def _read_extent(source: Source, shown: ShownExtent, wanted: Wanted) -> None:
    """Read all batches of an extent, keep the first ones, compare with the footer."""
    extent = shown.extent
    data = await source.read(extent.position, extent.size_bytes)
    records = 0
    offset = extent.base_offset
    for position, header, problem in walk_batches(data):
        base_offset = offset
        if header is not None:
            records += header.record_count
            if offset != NO_OFFSET:
                if not problem and header.base_offset != offset:
                    problem = f"says that it begins at offset {header.base_offset}, not at {offset}"
                offset += header.last_offset_delta + 1
        if problem and not shown.problem:
            shown.problem = f"the batch at byte {extent.position + position}: {problem}"
        if len(shown.batches) < wanted.limit:
            batch = ShownBatch(extent.position + position, base_offset, header, problem, ())
            shown.batches.append(_with_records(batch, data, position, wanted))
    if crc32c(data) != extent.crc:
        shown.problem = shown.problem or "its CRC is not that of the footer"
    elif records != extent.record_count:
        shown.problem = shown.problem or f"it has {records} records, the footer says {extent.record_count}"
    elif offset != extent.end_offset:
        shown.problem = shown.problem or f"it ends at offset {offset}, the footer says {extent.end_offset}"


def _with_records(batch: ShownBatch, data: Buffer, position: int, wanted: Wanted) -> ShownBatch:
    """The batch with its first records, if they are wanted."""
    if not wanted.records or batch.problem or batch.header is None:
        return batch
    piece = memoryview(data)[position : position + batch.header.size_bytes]
    try:
        return batch._replace(
            records=list(_first(iterate_records(piece, DECOMPRESSED_BYTES_MAX), wanted.limit))
        )
    except InvalidBatch as invalid:
        return batch._replace(problem=f"its records can't be read: {invalid.message}")


def _first(records: Iterator[Record], limit: int) -> Iterator[Record]:
    for _, record in zip(range(limit), records, strict=False):
        yield record


async def _salvage(source: Source, found: Examined, wanted: Wanted) -> None:
    """Without a footer, batches still follow each other from the start on."""
    found.salvaged_end = len(MAGIC)
    async for position, data in _batches(source):
        try:
            header, problem = verify_batch(data), ""
        except InvalidBatch as invalid:
            header, problem = parse_header(data), invalid.message
        found.salvaged_batches += 1
        found.salvaged_records += header.record_count
        found.salvaged_end = position + header.size_bytes
        if len(found.salvaged) < wanted.limit:
            batch = ShownBatch(position, NO_OFFSET, header, problem, ())
            found.salvaged.append(_with_records(batch, data, 0, wanted))


async def _batches(source: Source) -> AsyncIterator[tuple[int, memoryview]]:
    """Whole batches from the start of a segment on, until one can't be told from the next."""
    position, window, at = len(MAGIC), memoryview(b""), 0
    while position < source.size_bytes:
        try:
            size_bytes = parse_header(window, at).size_bytes
        except InvalidBatch:
            size_bytes = 0
        if size_bytes == 0 or size_bytes > len(window) - at:
            if at == 0 and len(window) > 0 and (size_bytes == 0 or position + size_bytes > source.size_bytes):
                return
            length = min(max(WINDOW_BYTES, min(size_bytes, BATCH_BYTES_MAX)), source.size_bytes - position)
            if at == 0 and length <= len(window):
                return
            window, at = memoryview(await source.read(position, length)), 0
            continue
        yield position, window[at : at + size_bytes]
        position += size_bytes
        at += size_bytes

"""Decides which bytes of a bucket are which offsets of a log. Pure but for the bytes that have to be looked at.

Where several segments hold the same offsets, what the database knows goes first, then what jobs have written, the
newest before all, then what was flushed. What nothing holds is a hole: readers pass over it by an empty batch
(`empty_batches`), as they do over what compaction has removed. Records of segments whose receipts were lost come behind
everything that can have been given out before, so that no offset ever means two records.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp._crc32c import crc32c
from warp._records import parse_header
from warp.errors import ObjectStoreError
from warp.ids import LEADER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE
from warp.lifecycle.rebuild_read import KNOWN_LEVEL, Candidate
from warp.metadata.commit import (
    EXTENT_BYTES_MAX,
    SEQUENCE_MODULUS,
    WINDOW_BATCHES,
    WrittenBatch,
    add_to_sequence,
)
from warp.objectstore.base import Buffer, ObjectStore

_CRC_AT = 17
_CRC_COVERS_FROM = 21
_EMPTY_BATCH = struct.Struct(">qiibIhiqqqhii")
_MAX_DELTA = 2**31 - 1


class Batch(NamedTuple):
    """A record batch at its place in a segment and in its log."""

    position: int
    size_bytes: int
    base_offset: int
    end_offset: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    crc: int = 0

    @property
    def print(self) -> tuple[int, int]:
        """What it has wherever it is copied to: offsets are not under its CRC."""
        return (self.crc, self.size_bytes)


class Hole(NamedTuple):
    """Offsets of which no record is left."""

    base_offset: int
    end_offset: int


@dataclass
class Tiling:
    """The extents of a log, in order of their offsets, each with a hole wherever there is one."""

    extents: list[Candidate] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)

    @property
    def lost_offsets(self) -> int:
        """Offsets of which no record is left."""
        return sum(hole.end_offset - hole.base_offset for hole in self.holes)


class _Covered:
    """Disjoint ranges of offsets, in order; neighbours are joined."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cover a range; those parts of it that were not covered yet."""
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        free, at = [], start
        for low, high in zip(self._starts[first:last], self._ends[first:last], strict=True):
            if at < low:
                free.append((at, low))
            at = max(at, high)
        if at < end:
            free.append((at, end))
        low = min([start, *self._starts[first : first + 1]]) if first < last else start
        high = max([end, *self._ends[last - 1 : last]]) if first < last else end
        self._starts[first:last] = [low]
        self._ends[first:last] = [high]
        return free


async def tile(
    objects: ObjectStore, candidates: Iterable[Candidate], start: int | None, next_offset: int
) -> Tiling:
    """Choose among the candidates of a log, and find the holes.

    The log begins at `start`, or where its first bytes do (None); it ends at the larger of `next_offset` and the end of
    the last bytes. What is there already is taken as it is. Raises ObjectStoreError.
    """
    covered = _Covered()
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=_preference):
        if start is not None and candidate.end_offset <= start:
            continue
        free = covered.add(candidate.base_offset, candidate.end_offset)
        is_free = free == [(candidate.base_offset, candidate.end_offset)]
        if is_free and (candidate.size_bytes <= EXTENT_BYTES_MAX or is_known(candidate)):
            chosen.append(candidate)
        elif free:
            chosen += await _cut(objects, candidate, free)
    chosen.sort(key=lambda candidate: candidate.base_offset)
    return Tiling(chosen, list(_holes(chosen, start, next_offset)))


def is_known(candidate: Candidate) -> bool:
    """Does the database have it already?"""
    return candidate.level >= KNOWN_LEVEL


def _preference(candidate: Candidate) -> tuple[bool, bool, int, int, str, int]:
    """What goes first. The level says nothing of what jobs have written: what compaction leaves may be lower than what
    it was made of, and that is still in the bucket as long as its segment holds other logs."""
    return (
        not is_known(candidate),
        candidate.level == 0,
        -candidate.created_ms,
        -candidate.level,
        candidate.key,
        candidate.base_offset,
    )


def _holes(chosen: Sequence[Candidate], start: int | None, next_offset: int) -> Iterator[Hole]:
    at = start if start is not None else (chosen[0].base_offset if chosen else next_offset)
    for candidate in chosen:
        if candidate.base_offset > at:
            yield Hole(at, candidate.base_offset)
        at = candidate.end_offset
    if next_offset > at:
        yield Hole(at, next_offset)


async def _cut(
    objects: ObjectStore, candidate: Candidate, free: Sequence[tuple[int, int]]
) -> list[Candidate]:
    """The batches of a candidate that lie within free ranges, in extents that are no longer than extents may be."""
    batches = await read_batches(objects, candidate)
    return [
        piece
        for low, high in free
        for piece in extents_of(
            candidate, [batch for batch in batches if low <= batch.base_offset and batch.end_offset <= high]
        )
    ]


def extents_of(source: Candidate, batches: Sequence[Batch]) -> list[Candidate]:
    """Batches of a candidate, joined to extents where they lie side by side in segment and log."""
    extents: list[Candidate] = []
    for batch in batches:
        last = extents[-1] if extents else None
        timestamp_ms = source.max_timestamp_ms if batch.max_timestamp_ms < 0 else batch.max_timestamp_ms
        if (
            last is not None
            and last.position + last.size_bytes == batch.position
            and last.end_offset == batch.base_offset
            and last.size_bytes + batch.size_bytes <= EXTENT_BYTES_MAX
        ):
            extents[-1] = last._replace(
                end_offset=batch.end_offset,
                size_bytes=last.size_bytes + batch.size_bytes,
                max_timestamp_ms=max(last.max_timestamp_ms, timestamp_ms),
            )
            continue
        extents.append(
            source._replace(
                base_offset=batch.base_offset,
                end_offset=batch.end_offset,
                position=batch.position,
                size_bytes=batch.size_bytes,
                max_timestamp_ms=timestamp_ms,
            )
        )
    return extents


async def read_batches(objects: ObjectStore, candidate: Candidate) -> list[Batch]:
    """The batches of a candidate, by their headers; none from where they are damaged on. Raises ObjectStoreError."""
    try:
        data = await objects.get(candidate.key, candidate.position, candidate.size_bytes)
    except ObjectStoreError as error:
        raise ObjectStoreError(f"can't read {candidate.key}: {error}") from error
    return list(batches_in(data, candidate.position, candidate.base_offset))


def batches_in(data: Buffer, position: int, base_offset: int) -> Iterator[Batch]:
    """Batches that stand side by side, with offsets that go on from `base_offset` as a reader would stamp them."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        try:
            header = parse_header(view[at:])
        except ValueError:
            return
        end_offset = base_offset + header.last_offset_delta + 1
        if header.size_bytes > len(view) - at or end_offset <= base_offset:
            return
        yield Batch(
            position + at,
            header.size_bytes,
            base_offset,
            end_offset,
            header.max_timestamp,
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
            header.record_count,
            header.crc,
        )
        base_offset = end_offset
        at += header.size_bytes


def empty_batches(hole: Hole, timestamp_ms: int) -> Iterator[tuple[Hole, bytes]]:
    """Batches without records that cover a hole; more than one where it is longer than a batch can say."""
    base = hole.base_offset
    while base < hole.end_offset:
        end = min(hole.end_offset, base + _MAX_DELTA + 1)
        yield Hole(base, end), _empty_batch(base, end - base - 1, timestamp_ms)
        base = end


def _empty_batch(base_offset: int, last_offset_delta: int, timestamp_ms: int) -> bytes:
    size = _EMPTY_BATCH.size
    fields = (
        base_offset, size - 12, LEADER_EPOCH, 2, 0, 0, last_offset_delta, timestamp_ms, timestamp_ms, NO_PRODUCER_ID,
        -1, NO_SEQUENCE, 0,
    )  # fmt: skip
    batch = bytearray(_EMPTY_BATCH.pack(*fields))
    struct.pack_into(">I", batch, _CRC_AT, crc32c(batch[_CRC_COVERS_FROM:]))
    return bytes(batch)


class ProducerStates:
    """States of idempotent producers in one log, from the headers of its batches in the order of their offsets."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.windows: dict[int, list[WrittenBatch]] = {}

    def is_repeated(self, batch: Batch) -> bool:
        """Was the batch, or one after it, of the same producer and epoch there already?"""
        window = self.windows.get(batch.producer_id)
        if not window or batch.base_sequence < 0 or self.epochs[batch.producer_id] != batch.producer_epoch:
            return False
        last = add_to_sequence(batch.base_sequence, batch.end_offset - batch.base_offset - 1)
        behind = (window[-1].last_sequence - last) % SEQUENCE_MODULUS
        return behind < SEQUENCE_MODULUS // 2

    def note(self, batch: Batch) -> None:
        """The batch is in the log. One whose last sequence can't be told any more has none at all."""
        if batch.producer_id < 0 or batch.base_sequence < 0:
            return
        if batch.producer_epoch < self.epochs.get(batch.producer_id, -1):
            return
        last = add_to_sequence(batch.base_sequence, batch.end_offset - batch.base_offset - 1)
        written = WrittenBatch(batch.base_sequence, last, batch.base_offset, batch.max_timestamp_ms)
        if self.epochs.get(batch.producer_id) != batch.producer_epoch:
            self.epochs[batch.producer_id] = batch.producer_epoch
            self.windows[batch.producer_id] = []
        self.windows[batch.producer_id] = [*self.windows[batch.producer_id], written][-WINDOW_BATCHES:]

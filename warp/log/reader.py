"""From extents to the bytes of an answer: find the batch that holds an offset, copy whole batches, stamp them.

Large batches are not copied at all: their headers are, to be stamped, and the rest is sent from the cache's own memory.
Of others one copy is made, into the buffer that goes to the socket. Records are never looked at. Where an answer
ended inside an extent is remembered, so that a consumer that reads on does not walk the extent from its start again.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from warp._blocks import joined
from warp._records import InvalidBatch, stamp_batches, whole_batches
from warp.errors import ObjectStoreError
from warp.ids import LEADER_EPOCH, LogId
from warp.log.cache import ChunkCache, Hold, LoadNote
from warp.metadata.model import Extent
from warp.objectstore.base import Buffer

_BATCH_HEAD = struct.Struct(">8xi11xi")
"""batchLength and lastOffsetDelta of a record batch; see `warp._records` for the whole layout."""
_LENGTH = struct.Struct(">i")
_BASE_OFFSET = struct.Struct(">q")
_LENGTH_PREFIX_BYTES = 12
_MAGIC_AT = 16
_MAGIC = 2
_ATTRIBUTES_AT = 21
_CODEC_MASK = 0x07
_ZSTD = 4
_BATCH_HEADER_BYTES = 61


VIEW_BYTES_MIN = 64 * 1024
"""Batches of this size and more are sent from the cache's memory. Below, two writes cost more than a copy."""


class CorruptExtent(ObjectStoreError):
    """The bytes of an extent are not the batches that the index promises."""


class Place(NamedTuple):
    """Where a batch begins: byte position in its object, the offset of its first record, its size."""

    position: int
    base_offset: int
    batch_bytes: int


class Views(NamedTuple):
    """Stamped whole batches as views of the cache, and what comes after them.

    `parts` are to be sent one after the other, then `holds` are to be let go. `extents` begin with the one in which
    `place` is; it has no size when nothing more is known.
    """

    parts: list[Buffer]
    size_bytes: int
    holds: list[Hold]
    extents: Sequence[Extent]
    place: Place


class Records(NamedTuple):
    """Stamped whole batches, and the offset after the last of them."""

    buffer: Buffer
    next_offset: int


class _Piece(NamedTuple):
    """The part of an extent that goes into an answer."""

    extent: Extent
    position: int
    size_bytes: int
    base_offset: int


class ExtentReader:
    """Reads extents through the cache. `places_max` bounds how many places it remembers (about 300 bytes each)."""

    def __init__(self, cache: ChunkCache, *, places_max: int = 10_000) -> None:
        self._cache = cache
        self._places_max = places_max
        self._places: OrderedDict[tuple[LogId, int], tuple[str, int]] = OrderedDict()

    def near(self, extent: Extent, offset: int) -> tuple[int, bool]:
        """The nearest known position before the batch that holds `offset`, and whether it is the batch's own."""
        place = self._nearest(extent, offset)
        return place.position, place.base_offset == offset

    def locate_here(self, extent: Extent, offset: int) -> Place:
        """The batch of `extent` that holds `offset`; without a size, what is known of it by what is in memory.

        Raises CorruptExtent.
        """
        return self._walk(extent, self._nearest(extent, offset), offset)

    async def locate(
        self,
        extent: Extent,
        offset: int,
        note: LoadNote | None = None,
    ) -> Place:
        """The batch of `extent` that holds `offset`. Raises ObjectStoreError and its kinds.

        `note` is told of the loads that were waited for.
        """
        place = self.locate_here(extent, offset)
        while not place.batch_bytes:
            # Loads the chunk; what follows in it is then found in memory.
            header = await self._cache.read(extent.key, place.position, _BATCH_HEADER_BYTES, note)
            place = find_batch(b"".join(header), place.position, place.base_offset, offset)
            if not place.batch_bytes:
                place = self._walk(extent, place, offset)
        if place.position + place.batch_bytes > extent.position + extent.size_bytes:
            raise CorruptExtent(f"{extent.key}: the batch at byte {place.position} goes beyond its extent")
        return place

    def holds_whole(self, key: str) -> bool:
        """Whether an object is in memory as it was written, so that nothing of it has to be loaded."""
        return self._cache.holds_whole(key)

    def hold_views(self, extents: Sequence[Extent], place: Place, bytes_max: int, end_offset: int) -> Views:
        """The large batches from `place` on, without a copy, up to the first one that is small or not in memory.

        Only their headers are copied, to be stamped. Raises CorruptExtent; then nothing is held.
        """
        parts: list[Buffer] = []
        holds: list[Hold] = []
        size_bytes = at = 0
        try:
            while VIEW_BYTES_MIN <= place.batch_bytes <= bytes_max - size_bytes:
                extent, batch_bytes = extents[at], place.batch_bytes
                found = self._hold_batch(extent, place, end_offset)
                if found is None:
                    break
                header, rest, hold, place = found
                parts.append(header)
                parts += rest
                holds.append(hold)
                size_bytes += batch_bytes
                if place.position == extent.position + extent.size_bytes:
                    at += 1
                    if at == len(extents):
                        break
                    place = self._measure(
                        extents[at], Place(extents[at].position, extents[at].base_offset, 0)
                    )
        except CorruptExtent:
            for hold in holds:
                self._cache.let_go(hold)
            raise
        return Views(parts, size_bytes, holds, extents[at:], place)

    def read_here(
        self, extents: Sequence[Extent], place: Place, bytes_max: int, end_offset: int
    ) -> Records | None:
        """As `read`, if all of that is in memory; None otherwise."""
        pieces = _pieces(extents, place, bytes_max, end_offset)
        parts = self._views(pieces)
        return None if parts is None else self._stamped(pieces, parts, place, end_offset)

    async def read(
        self,
        extents: Sequence[Extent],
        place: Place,
        bytes_max: int,
        end_offset: int,
        note: LoadNote | None = None,
    ) -> Records:
        """As many whole batches from `place` (in the first extent) on as fit into `bytes_max`, all below `end_offset`.

        `note` is told of the loads that were waited for. Raises ObjectStoreError and its kinds.
        """
        pieces = _pieces(extents, place, bytes_max, end_offset)
        parts: list[Buffer] | None = self._views(pieces)
        if parts is None:
            parts = []
            for piece in pieces:
                parts.extend(await self._copies(piece, note))
        return self._stamped(pieces, parts, place, end_offset)

    def _stamped(
        self, pieces: Sequence[_Piece], parts: list[Buffer], place: Place, end_offset: int
    ) -> Records:
        """The whole batches among the bytes of these pieces, in a buffer of their own."""
        view = joined(parts)
        del parts
        start, next_offset = 0, place.base_offset
        for piece in pieces:
            whole, next_offset = _stamp(view[start : start + piece.size_bytes], piece, end_offset)
            start += whole
            if whole < piece.size_bytes:
                self._remember(piece.extent, piece.position + whole, next_offset)
                break
        return Records(view[:start], next_offset)

    def let_go(self, hold: Hold) -> None:
        """What was held has been sent."""
        self._cache.let_go(hold)

    def _hold_batch(
        self, extent: Extent, place: Place, end_offset: int
    ) -> tuple[bytearray, list[memoryview], Hold, Place] | None:
        """One batch: its header, stamped, the rest of it, and the place after it. None: it has to be copied."""
        next_position = place.position + place.batch_bytes
        if extent.inline is not None or next_position > extent.position + extent.size_bytes:
            return None
        held = self._cache.hold(extent.key, place.position, place.batch_bytes)
        if held is None:
            return None
        views, hold = held
        if len(views[0]) < _BATCH_HEADER_BYTES:
            self._cache.let_go(hold)
            return None
        try:
            header = bytearray(views[0][:_BATCH_HEADER_BYTES])
            next_offset = _stamp_header(header, extent, place)
            is_end = next_position == extent.position + extent.size_bytes
            if is_end != (next_offset == extent.end_offset):
                raise CorruptExtent(f"{extent.key}: offsets end at {next_offset}, not at {extent.end_offset}")
            if next_offset > end_offset:
                self._cache.let_go(hold)
                return None
            after = Place(next_position, next_offset, 0)
            if not is_end:
                after = self._measure(extent, after)
                self._remember(extent, next_position, next_offset)
        except CorruptExtent:
            self._cache.let_go(hold)
            raise
        return header, [views[0][_BATCH_HEADER_BYTES:], *views[1:]], hold, after

    def _measure(self, extent: Extent, place: Place) -> Place:
        """The same place with the size of its batch, if that is in memory."""
        window = self._window(extent, place.position, place.position + _BATCH_HEADER_BYTES)
        if window is None:
            return place
        return find_batch(window, place.position, place.base_offset, place.base_offset)

    def _nearest(self, extent: Extent, offset: int) -> Place:
        """The nearest place before `offset` that is known: that of the batch itself, or the extent's start."""
        if offset != extent.base_offset:
            key, position = self._places.get((extent.log_id, offset), ("", 0))
            if key == extent.key and position < extent.position + extent.size_bytes:
                return Place(position, offset, 0)
        return Place(extent.position, extent.base_offset, 0)

    def _walk(self, extent: Extent, place: Place, offset: int) -> Place:
        """Walk from a place towards the batch that holds `offset`: to it, or to where memory ends (without a size)."""
        end = extent.position + extent.size_bytes
        while not place.batch_bytes:
            if place.position + _BATCH_HEADER_BYTES > end:
                raise CorruptExtent(f"{extent.key}: no batch with offset {offset} before byte {end}")
            window = self._window(extent, place.position, end)
            if window is None:
                break
            place = find_batch(window, place.position, place.base_offset, offset)
        return place

    def _window(self, extent: Extent, position: int, end: int) -> Buffer | None:
        """Bytes of an extent from `position` on that are in memory in one piece; a batch header at least."""
        if extent.inline is not None:
            return _inline(extent, position, end - position)
        piece = self._cache.view_at(extent.key, position, end - position)
        if piece is not None and len(piece) < _BATCH_HEADER_BYTES:
            parts = self._cache.views(extent.key, position, _BATCH_HEADER_BYTES)
            return None if parts is None else b"".join(parts)
        return piece

    def _views(self, pieces: Sequence[_Piece]) -> list[Buffer] | None:
        """The bytes of all pieces, if all are in memory; to be copied before the next await."""
        parts: list[Buffer] = []
        for extent, position, size_bytes, _ in pieces:
            if extent.inline is not None:
                parts.append(_inline(extent, position, size_bytes))
                continue
            found = self._cache.views(extent.key, position, size_bytes)
            if found is None:
                return None
            parts += found
        return parts

    async def _copies(self, piece: _Piece, note: LoadNote | None) -> Sequence[Buffer]:
        """The bytes of a piece, in memory of their own: they may be kept while others are waited for."""
        if piece.extent.inline is not None:
            return [_inline(piece.extent, piece.position, piece.size_bytes)]
        return await self._cache.read(piece.extent.key, piece.position, piece.size_bytes, note)

    def _remember(self, extent: Extent, position: int, offset: int) -> None:
        place = (extent.log_id, offset)
        self._places[place] = (extent.key, position)
        self._places.move_to_end(place)
        if len(self._places) > self._places_max:
            self._places.popitem(last=False)


def _stamp_header(header: bytearray, extent: Extent, place: Place) -> int:
    """Give a batch its offset and epoch by its header; returns the offset after it."""
    if header[_MAGIC_AT] != _MAGIC:
        raise CorruptExtent(f"{extent.key}: no record batch at byte {place.position}")
    _, last_offset_delta = _BATCH_HEAD.unpack_from(header)
    _BASE_OFFSET.pack_into(header, 0, place.base_offset)
    _LENGTH.pack_into(header, _LENGTH_PREFIX_BYTES, LEADER_EPOCH)
    return place.base_offset + int(last_offset_delta) + 1


def _inline(extent: Extent, position: int, size_bytes: int) -> Buffer:
    assert extent.inline is not None
    start = position - extent.position
    return memoryview(extent.inline)[start : start + size_bytes]


def find_batch(data: Buffer, position: int, base_offset: int, offset: int) -> Place:
    """Walk batches from the start of `data` to the one that holds `offset`.

    `position` is where `data` begins in its object, `base_offset` the offset of its first record. A place without a
    size means that the walk ran out of data there.
    """
    at = 0
    limit = len(data) - _BATCH_HEADER_BYTES
    while at <= limit:
        length, last_offset_delta = _BATCH_HEAD.unpack_from(data, at)
        size = length + _LENGTH_PREFIX_BYTES
        if size < _BATCH_HEADER_BYTES or last_offset_delta < 0:
            raise CorruptExtent(f"no record batch at byte {position + at} of its object")
        next_offset = base_offset + last_offset_delta + 1
        if offset < next_offset:
            return Place(position + at, base_offset, size)
        at += size
        base_offset = next_offset
    return Place(position + at, base_offset, 0)


def holds_zstd(data: Buffer) -> bool:
    """Whether one of these whole batches is compressed with zstd, which fetches before v10 don't know (KIP-110)."""
    at = 0
    while at + _BATCH_HEADER_BYTES <= len(data):
        (length,) = _LENGTH.unpack_from(data, at + 8)
        if data[at + _ATTRIBUTES_AT + 1] & _CODEC_MASK == _ZSTD:
            return True
        at += length + _LENGTH_PREFIX_BYTES
    return False


def _pieces(extents: Sequence[Extent], place: Place, bytes_max: int, end_offset: int) -> list[_Piece]:
    """What to copy: extents in order while there is room, the last one perhaps in part."""
    pieces: list[_Piece] = []
    position, base_offset = place.position, place.base_offset
    for extent in extents:
        if pieces:
            position, base_offset = extent.position, extent.base_offset
        if base_offset >= end_offset or bytes_max <= 0:
            break
        size = min(extent.position + extent.size_bytes - position, bytes_max)
        pieces.append(_Piece(extent, position, size, base_offset))
        bytes_max -= size
    return pieces


def _stamp(view: memoryview, piece: _Piece, end_offset: int) -> tuple[int, int]:
    """Stamp the whole batches of a piece below `end_offset`: how many bytes they take, and the offset after them."""
    extent = piece.extent
    try:
        whole = whole_batches(view, len(view), False)
        next_offset = stamp_batches(view[:whole], piece.base_offset, LEADER_EPOCH)
    except InvalidBatch as error:
        raise CorruptExtent(f"{extent.key}: {error} near byte {piece.position}") from error
    is_end = piece.position + whole == extent.position + extent.size_bytes
    if next_offset > extent.end_offset or is_end != (next_offset == extent.end_offset):
        raise CorruptExtent(f"{extent.key}: offsets end at {next_offset}, the index says {extent.end_offset}")
    if next_offset > end_offset:
        cut = find_batch(view[:whole], 0, piece.base_offset, end_offset)
        return cut.position, cut.base_offset
    return whole, next_offset

"""Which chunks an answer is made of, decided before it waits for the first of them.

A fetch of many partitions may want much more than its answer can hold or the cache can keep: a thousand partitions that
were written interleaved lie in every segment, a few kilobytes of each. Filled one by one, each up to its own limit,
they would read the same segments again and again. So few chunks are chosen, and all partitions take what lies in them.

The oldest chunks that are needed come first. Partitions that have come to different places, because they were not
always asked for together, so meet again, and each chunk is read once for all. One chunk is for the first partition of
the request in any case: whoever rotates its partitions, as clients do, gets at all of them however far some lag behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from warp.ids import segment_key_time_ms
from warp.log.source import ChunkId
from warp.metadata.model import Extent


class Want(NamedTuple):
    """What one partition of a fetch would read, by its place in the request.

    It begins at `position` in the first of `extents`; unless `is_exact`, somewhere between there and the extent's end.
    """

    number: int
    extents: Sequence[Extent]
    position: int
    is_exact: bool
    bytes_max: int
    end_offset: int


class Reach(NamedTuple):
    """How far a partition is read: to a position in one of its extents."""

    extents: Sequence[Extent]
    at: int
    position: int

    def bytes_after(self, position: int) -> int:
        """How many bytes that is from a position in the first extent on; none, where it lies beyond."""
        size_bytes = sum(extent.size_bytes for extent in self.extents[: self.at])
        begun_bytes = position - self.extents[0].position
        return max(0, size_bytes - begun_bytes + self.position - self.extents[self.at].position)


class Plan(NamedTuple):
    """How far each partition is read, by its place in the request, and the chunks that this takes."""

    reaches: dict[int, Reach]
    chunks: list[ChunkId]


class _Cursor:
    """How far a partition has come."""

    __slots__ = ("at", "bytes_left", "position", "want")

    def __init__(self, want: Want) -> None:
        self.want = want
        self.at = 0
        self.position = want.position
        self.bytes_left = want.bytes_max


def plan_answer(
    wants: Iterable[Want],
    *,
    bytes_max: int,
    chunks_max: int,
    chunk_bytes: int,
    is_whole: Callable[[str], bool],
) -> Plan:
    """Spread an answer of `bytes_max` over partitions and at most `chunks_max` chunks of `chunk_bytes`.

    `is_whole` says of a key that the object is in memory as a whole: reading it takes no chunk.
    """
    return _Planning(bytes_max, chunks_max, chunk_bytes, is_whole).run(wants)


class _Planning:
    """One plan in the making: partitions stand in line at the chunk that they need next."""

    def __init__(
        self, bytes_max: int, chunks_max: int, chunk_bytes: int, is_whole: Callable[[str], bool]
    ) -> None:
        self._bytes_left = bytes_max
        self._chunks_max = chunks_max
        self._chunk_bytes = chunk_bytes
        self._is_whole = is_whole
        self._wholes: dict[str, bool] = {}
        self._chunks: dict[ChunkId, None] = {}
        self._reaches: dict[int, Reach] = {}
        self._lines: dict[ChunkId | None, list[_Cursor]] = {}

    def run(self, wants: Iterable[Want]) -> Plan:
        cursors = [_Cursor(want) for want in wants]
        if not cursors:
            return Plan({}, [])
        # A chunk and some bytes are kept for the first partition, in case that it gets nothing otherwise.
        first = cursors[0]
        first_bytes = min(self._size_of_step(first), self._bytes_left)
        self._bytes_left -= first_bytes
        self._chunks_max -= 1
        for cursor in cursors:
            self._stand_in_line(cursor)
        self._serve(None)
        self._sweep()
        self._bytes_left += first_bytes
        self._chunks_max += 1
        if first.want.number not in self._reaches:
            self._serve(self._next_chunk(first))
        self._sweep()
        return Plan(self._reaches, list(self._chunks))

    def _sweep(self) -> None:
        """Serve those who stand at the oldest chunks, so that partitions far behind come up with the others.

        A line is served whole or not at all: who has come equally far stays beside each other.
        """
        while self._lines and len(self._chunks) < self._chunks_max:
            oldest = min(self._lines, key=_age)
            if sum(map(self._size_of_step, self._lines[oldest])) > self._bytes_left:
                break
            self._serve(oldest)

    def _stand_in_line(self, cursor: _Cursor) -> None:
        self._lines.setdefault(self._next_chunk(cursor), []).append(cursor)

    def _next_chunk(self, cursor: _Cursor) -> ChunkId | None:
        """The chunk that a partition needs next; None when it is in memory in any case."""
        extent = cursor.want.extents[cursor.at]
        if extent.inline is not None or self._whole(extent.key):
            return None
        return extent.key, cursor.position // self._chunk_bytes

    def _serve(self, chunk_id: ChunkId | None) -> None:
        """Let those who stand at a chunk take their part, and go on as far as nothing else is needed."""
        for cursor in self._lines.pop(chunk_id, ()):
            while self._bytes_left > 0 and self._advance(cursor):
                following = self._next_chunk(cursor)
                if following is not None and following not in self._chunks:
                    self._stand_in_line(cursor)
                    break

    def _size_of_step(self, cursor: _Cursor) -> int:
        extent = cursor.want.extents[cursor.at]
        return min(extent.position + extent.size_bytes - cursor.position, cursor.bytes_left)

    def _advance(self, cursor: _Cursor) -> bool:
        """Go on by what the answer can take of one extent; whether there may be more to take."""
        want = cursor.want
        extent = want.extents[cursor.at]
        extent_end = end = extent.position + extent.size_bytes
        if cursor.at or want.is_exact:
            end = min(end, cursor.position + min(cursor.bytes_left, self._bytes_left))
        if extent.inline is None and not self._whole(extent.key):
            end = self._covered(extent.key, cursor.position, end)
        size_bytes = end - cursor.position
        if size_bytes <= 0:
            return False
        self._reaches[want.number] = Reach(want.extents, cursor.at, end)
        cursor.bytes_left -= size_bytes
        self._bytes_left -= min(size_bytes, want.bytes_max)
        cursor.at += 1
        if end < extent_end or cursor.at == len(want.extents) or cursor.bytes_left <= 0:
            return False
        following = want.extents[cursor.at]
        cursor.position = following.position
        return following.base_offset < want.end_offset

    def _whole(self, key: str) -> bool:
        found = self._wholes.get(key)
        if found is None:
            found = self._wholes[key] = self._is_whole(key)
        return found

    def _covered(self, key: str, position: int, end: int) -> int:
        """Choose the chunks of a range while more may be chosen; up to where the chosen ones hold it."""
        for index in range(position // self._chunk_bytes, (end - 1) // self._chunk_bytes + 1):
            chunk_id = (key, index)
            if chunk_id not in self._chunks:
                if len(self._chunks) >= self._chunks_max:
                    return index * self._chunk_bytes
                self._chunks[chunk_id] = None
        return end


def _age(chunk_id: ChunkId | None) -> tuple[int, str, int]:
    """Sorts chunks by when their objects were made: level 0 in the order of its offsets, as good as it is known."""
    if chunk_id is None:
        return 0, "", 0
    key, index = chunk_id
    return segment_key_time_ms(key) or 0, key, index

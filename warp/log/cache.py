"""Memory between readers and the object store, so that a chunk of an object is fetched once however many read it.

Objects are cut into aligned chunks, keyed by object key and chunk number; the last chunk of an object is shorter. A
freshly flushed segment is entered whole, so consumers that keep up cause no request to the store at all.

The bound holds for everything that the cache keeps alive: chunks at rest, chunks on their way in (their full size is
set aside before the request starts), and chunks that some reader is about to copy from, which are not evicted. A view
is either used before its caller awaits anything, or held: then its whole chunk stays, and counts, until it is let go.
No more than half of the cache is held, so that slow consumers can't keep others from reading.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from warp.errors import ObjectStoreError, ShortObject
from warp.log.race import HedgedRequests, HedgeNote
from warp.objectstore.base import Buffer, ObjectStore

CHUNK_BYTES = 8 * 2**20
"""Twice what a GET is worth: a segment a little longer than that would cost a request for the little."""
SMALL_CHUNK_BYTES = 4 * 2**20
_LARGE_CHUNKS_MIN = 8
"""In caches that hold fewer of the large chunks, chunks are small: as many may have to be on their way at a time."""

_PART_BYTES = 240
"""What one piece of an image costs beside its bytes: a view, its end, two references."""

_WHOLE = -1
"""The chunk number of a segment that was entered whole."""

ChunkId = tuple[str, int]

Hold = tuple[ChunkId, ...]
"""The chunks that a held view is of."""


class _Image:
    """The bytes of a segment that was entered whole, in the pieces that it was written from."""

    __slots__ = ("_ends", "_parts", "held_bytes", "size_bytes")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.size_bytes = self._ends[-1] if self._ends else 0
        # A view keeps all of the frame alive that it was cut from: each counts once, and whole.
        owners = {id(part.obj): part.obj for part in self._parts}
        owned_bytes = sum(memoryview(owner).nbytes for owner in owners.values())
        self.held_bytes = owned_bytes + len(self._parts) * _PART_BYTES

    def views(self, position: int, size: int) -> list[memoryview] | None:
        """The pieces of `[position, position + size)`; None when the image ends before."""
        end = position + size
        if end > self.size_bytes:
            return None
        index = bisect_right(self._ends, position)
        part = self._parts[index]
        start = position - self._ends[index] + len(part)
        if end <= self._ends[index]:
            return [part[start : start + size]]
        views = [part[start:]]
        while end > self._ends[index]:
            index += 1
            views.append(self._parts[index])
        views[-1] = views[-1][: len(views[-1]) - (self._ends[index] - end)]
        return views

    def part_from(self, position: int) -> memoryview:
        """The rest of the piece that holds the byte at `position`, which is within the image."""
        index = bisect_right(self._ends, position)
        return self._parts[index][position - self._ends[index] :]


class _Held:
    """A chunk of which views are held: how many, and how much it counted for when the first of them was taken."""

    __slots__ = ("size_bytes", "views")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.views = 0


class LoadNote(Protocol):
    """Who wants to know how many loads a reader waited for, how long, and what became of them."""

    load_s: float
    gets: int
    hedged_gets: int
    hedges_won: int


class _Load:
    """One request to the store, and how many coroutines wait for its bytes."""

    __slots__ = ("data", "note", "readers", "task")

    def __init__(self) -> None:
        self.data: Buffer = b""
        self.note = HedgeNote()
        self.readers = 0
        self.task: asyncio.Task[None] | None = None


class ChunkCache:
    """Ranges of objects, from memory where possible, otherwise from `store`.

    `bytes_max` bounds everything that is kept or on its way; it has to hold at least one chunk. `hedges` is None where
    a second request for the same bytes gains nothing.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        bytes_max: int,
        chunk_bytes: int | None = None,
        hedges: HedgedRequests | None = None,
    ) -> None:
        if chunk_bytes is None:
            chunk_bytes = CHUNK_BYTES if bytes_max >= _LARGE_CHUNKS_MIN * CHUNK_BYTES else SMALL_CHUNK_BYTES
        if not 0 < chunk_bytes <= bytes_max:
            raise ValueError(f"a cache of {bytes_max} bytes can't hold a chunk of {chunk_bytes} bytes")
        self.bytes_max = bytes_max
        self.chunk_bytes = chunk_bytes
        self.hedges = hedges
        # Room for a load remains in any case: those who hold may themselves be waiting for one.
        self._held_bytes_max = min(bytes_max // 2, bytes_max - self.chunk_bytes)
        self.used_bytes = 0
        """Bytes at rest and on their way in."""
        self.hit_bytes = 0
        self.loaded_bytes = 0
        self.loads = 0
        self.failed_loads = 0
        self.evictions = 0
        self.refused_segments = 0
        """Fresh segments that did not fit beside what was in use."""
        self._store = store
        self._entries: OrderedDict[ChunkId, memoryview | _Image] = OrderedDict()
        self._loads: dict[ChunkId, _Load] = {}
        self.held_bytes = 0
        """Bytes of chunks of which views are held."""
        self._pins: dict[ChunkId, int] = {}
        self._held: dict[ChunkId, _Held] = {}
        self._waiting_for_space: deque[tuple[int, asyncio.Future[None]]] = deque()

    def views(self, key: str, position: int, size: int) -> list[memoryview] | None:
        """The range as views, if all of it is in memory; None otherwise.

        The views are to be copied from before the next `await`: after it their chunks may count for nothing.
        """
        whole = (key, _WHOLE)
        image = self._entries.get(whole)
        if image is not None:
            found = image.views(position, size)  # type: ignore[union-attr]  # under that number there are images
            if found is not None:
                self._entries.move_to_end(whole)
                self.hit_bytes += size
                return found
        views = []
        for index, start, end in self._pieces(position, size):
            chunk = self._entries.get((key, index))
            if not isinstance(chunk, memoryview) or len(chunk) < end:
                return None
            self._entries.move_to_end((key, index))
            views.append(chunk[start:end])
        self.hit_bytes += size
        return views

    def view_at(self, key: str, position: int, size_max: int) -> memoryview | None:
        """What is in memory in one piece from `position` on, `size_max` bytes at most; None when nothing is.

        To be used before the next `await`, as `views`.
        """
        image = self._entries.get((key, _WHOLE))
        if isinstance(image, _Image) and position < image.size_bytes:
            return image.part_from(position)[:size_max]
        index, start = divmod(position, self.chunk_bytes)
        chunk = self._entries.get((key, index))
        if isinstance(chunk, memoryview) and start < len(chunk):
            return chunk[start : start + size_max]
        return None

    def hold(self, key: str, position: int, size: int) -> tuple[list[memoryview], Hold] | None:
        """The range as views that stay good until `let_go`; None when it is not in memory, or enough is held already.

        Every hold has to be let go, once.
        """
        whole = (key, _WHOLE)
        image = self._entries.get(whole)
        if isinstance(image, _Image):
            found = image.views(position, size)
            if found is not None:
                self.hit_bytes += size
                hold: Hold = (whole,)
                return (found, hold) if self._hold(hold) else None
        found = self.views(key, position, size)
        if found is not None:
            hold = tuple((key, index) for index, _, _ in self._pieces(position, size))
            if self._hold(hold):
                return found, hold
        return None

    def let_go(self, hold: Hold) -> None:
        """Give a hold back."""
        for chunk_id in hold:
            held = self._held[chunk_id]
            held.views -= 1
            if not held.views:
                del self._held[chunk_id]
                self.held_bytes -= held.size_bytes
                self._unpin(chunk_id)

    async def read(self, key: str, position: int, size: int, note: LoadNote | None = None) -> list[Buffer]:
        """The range in pieces of the caller's own (copies), loading what is not in memory, which `note` is told.

        A caller that is cancelled leaves the loads to the others. Raises ObjectNotFound, ShortObject (the object ends
        inside the range) and ObjectStoreError as the store does; nothing is remembered of a failure.
        """
        parts: list[Buffer] = []
        for index, start, end in self._pieces(position, size):
            found = self.views(key, index * self.chunk_bytes + start, end - start)
            if found is not None:
                parts.extend(bytes(view) for view in found)
            else:
                parts.append(await self._read_loaded((key, index), start, end, note))
        return parts

    def prefetch(self, key: str, position: int, size: int) -> int:
        """Start loading what is missing of a range, as far as there is room. Returns how many loads it started."""
        if self.views(key, position, size) is not None:
            return 0
        started = 0
        for index, _, _ in self._pieces(position, size):
            chunk_id = (key, index)
            if chunk_id in self._entries or chunk_id in self._loads:
                continue
            if (len(self._loads) + 2) * self.chunk_bytes > self.bytes_max:
                break
            self._start_load(chunk_id)
            started += 1
        return started

    def put_segment(self, key: str, image: Buffer | Sequence[Buffer]) -> None:
        """Enter an object that was just written; `image` is all of it, in one piece or in order.

        The cache keeps references to the pieces, and counts the whole of what these are views of.
        """
        parts = [image] if isinstance(image, bytes | bytearray | memoryview) else image
        entry = _Image(parts)
        if (key, _WHOLE) in self._entries:
            return
        if not entry.size_bytes or self._waiting_for_space or not self._make_room(entry.held_bytes):
            self.refused_segments += 1
            return
        self.used_bytes += entry.held_bytes
        self._entries[key, _WHOLE] = entry

    def forget(self, key: str) -> None:
        """Drop what is held of an object, but for chunks that are being copied from right now."""
        for chunk_id in [held for held in self._entries if held[0] == key]:
            if chunk_id not in self._pins:
                self._drop(chunk_id)
        self._grant_space()

    async def close(self) -> None:
        """Stop the loads in flight and let everything go."""
        tasks = [load.task for load in self._loads.values() if load.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            await asyncio.wait([task])
        if self.hedges is not None:
            await self.hedges.close()
        self._entries.clear()
        self.used_bytes = 0

    def _pieces(self, position: int, size: int) -> Iterator[tuple[int, int, int]]:
        """The chunks that a range touches: number, start and end within the chunk."""
        end = position + size
        while position < end:
            index, start = divmod(position, self.chunk_bytes)
            stop = min(self.chunk_bytes, start + end - position)
            yield index, start, stop
            position += stop - start

    async def _read_loaded(self, chunk_id: ChunkId, start: int, end: int, note: LoadNote | None) -> bytes:
        load = self._loads.get(chunk_id) or self._start_load(chunk_id)
        assert load.task is not None
        load.readers += 1
        self._pin(chunk_id)
        began_at = asyncio.get_running_loop().time()
        try:
            # The task belongs to the cache: cancelling this reader must not cancel it for the others.
            await asyncio.shield(load.task)
        except asyncio.CancelledError:
            if load.task.cancelled():
                raise ObjectStoreError(f"{chunk_id[0]}: the cache was closed") from None
            raise
        else:
            if len(load.data) >= end:
                return bytes(memoryview(load.data)[start:end])
            # Not worth keeping: should the object be mended, the next look must see it.
            self._drop(chunk_id)
            raise ShortObject(f"{chunk_id[0]}: chunk {chunk_id[1]} has {len(load.data)} bytes, not {end}")
        finally:
            self._unpin(chunk_id)
            if note is not None:
                note.load_s += asyncio.get_running_loop().time() - began_at
                note.gets += 1
                note.hedged_gets += load.note.hedged_after_s is not None
                note.hedges_won += load.note.is_won

    def _start_load(self, chunk_id: ChunkId) -> _Load:
        load = _Load()
        self._loads[chunk_id] = load
        load.task = asyncio.get_running_loop().create_task(self._load(chunk_id, load))
        load.task.add_done_callback(_retrieve)
        return load

    async def _load(self, chunk_id: ChunkId, load: _Load) -> None:
        """Set the memory aside, fetch the chunk, enter it."""
        reserved = 0
        try:
            await self._reserve(self.chunk_bytes)
            reserved = self.chunk_bytes
            self.loads += 1
            load.data = await self._get_hedged(chunk_id, load.note)
            self.loaded_bytes += len(load.data)
            # What was there was too short for whoever asked for this load.
            self._drop(chunk_id)
            self._entries[chunk_id] = memoryview(load.data)
            reserved -= len(load.data)
        except ObjectStoreError:
            self.failed_loads += 1
            raise
        finally:
            del self._loads[chunk_id]
            self.used_bytes -= reserved
            self._grant_space()

    async def _get_hedged(self, chunk_id: ChunkId, note: HedgeNote) -> Buffer:
        """The chunk's bytes, asked for a second time when they are slow to come, if there is room for them twice."""
        if self.hedges is None:
            return await self._get(chunk_id)
        size_bytes = self.chunk_bytes

        def take_room() -> bool:
            if self._waiting_for_space or not self._make_room(size_bytes):
                return False
            self.used_bytes += size_bytes
            return True

        def give_back() -> None:
            self.used_bytes -= size_bytes
            self._grant_space()

        return await self.hedges.send(
            size_bytes, lambda: self._get(chunk_id), note, may_hedge=take_room, when_both_ended=give_back
        )

    async def _get(self, chunk_id: ChunkId) -> Buffer:
        """The chunk's bytes: fewer than a chunk when the object ends inside it."""
        key, index = chunk_id
        start = index * self.chunk_bytes
        try:
            return await self._store.get(key, start, self.chunk_bytes)
        except ShortObject as error:
            if error.data is not None:
                return error.data
        # A store that does not hand over what it found is asked for the size, then for exactly that.
        size = (await self._store.head(key)).size_bytes
        if size <= start:
            raise ShortObject(f"{key}: wanted bytes from {start} on, it has {size}")
        return await self._store.get(key, start, min(self.chunk_bytes, size - start))

    async def _reserve(self, size: int) -> None:
        """Set memory aside, in order of asking; waits while all of it is in use."""
        if not self._waiting_for_space and self._make_room(size):
            self.used_bytes += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (size, turn)
        self._waiting_for_space.append(waiter)
        try:
            await turn
        except asyncio.CancelledError:
            if waiter in self._waiting_for_space:
                self._waiting_for_space.remove(waiter)
            elif turn.done() and not turn.cancelled():
                self.used_bytes -= size
            self._grant_space()
            raise

    def _grant_space(self) -> None:
        """Hand what has become free to those who wait for it, in order."""
        while self._waiting_for_space:
            size, turn = self._waiting_for_space[0]
            if not turn.cancelled():
                if not self._make_room(size):
                    return
                self.used_bytes += size
                turn.set_result(None)
            self._waiting_for_space.popleft()

    def _make_room(self, size: int) -> bool:
        """Evict the least recently used chunks that nobody copies from until `size` bytes fit; False if they don't."""
        if size > self.bytes_max:
            return False
        while self.used_bytes + size > self.bytes_max:
            victim = next((chunk_id for chunk_id in self._entries if chunk_id not in self._pins), None)
            if victim is None:
                return False
            self._drop(victim)
            self.evictions += 1
        return True

    def _drop(self, chunk_id: ChunkId) -> None:
        entry = self._entries.pop(chunk_id, None)
        if entry is not None:
            self.used_bytes -= _size_of(entry)

    def _hold(self, hold: Hold) -> bool:
        """Keep these chunks, unless that were more than may be held."""
        if len(hold) == 1 and (held := self._held.get(hold[0])) is not None:
            held.views += 1
            return True
        fresh = [chunk_id for chunk_id in hold if chunk_id not in self._held]
        if fresh:
            sizes_bytes = [_size_of(self._entries[chunk_id]) for chunk_id in fresh]
            if self.held_bytes + sum(sizes_bytes) > self._held_bytes_max:
                return False
            for chunk_id, size_bytes in zip(fresh, sizes_bytes, strict=True):
                self._held[chunk_id] = _Held(size_bytes)
                self.held_bytes += size_bytes
                self._entries.move_to_end(chunk_id)
                self._pin(chunk_id)
        for chunk_id in hold:
            self._held[chunk_id].views += 1
        return True

    def _pin(self, chunk_id: ChunkId) -> None:
        self._pins[chunk_id] = self._pins.get(chunk_id, 0) + 1

    def _unpin(self, chunk_id: ChunkId) -> None:
        left = self._pins[chunk_id] - 1
        if left:
            self._pins[chunk_id] = left
        else:
            del self._pins[chunk_id]
            self._grant_space()


def _size_of(entry: memoryview | _Image) -> int:
    return entry.held_bytes if isinstance(entry, _Image) else len(entry)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Mark a failure as seen: when all its readers have gone nobody else looks at it, and it was counted."""
    if not task.cancelled():
        task.exception()

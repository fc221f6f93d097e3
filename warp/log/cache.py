"""Memory between readers and the object store, so that a chunk of an object is fetched once however many read it.

Objects are cut into aligned chunks, keyed by object key and chunk number; the last chunk of an object is shorter. A
freshly flushed segment is entered whole, so consumers that keep up cause no request to the store at all.

The bound holds for everything that the cache keeps alive: chunks at rest, chunks on their way in (their full size is
set aside before the request starts), and chunks that some reader is about to copy from, which are not evicted. A view
is either used before its caller awaits anything, or held: then its whole chunk stays, and counts, until it is let go.
No more than half of the cache is held, so that slow consumers can't keep others from reading.

In a zone of several agents a chunk is asked of the one that looks after it (`warp.log.zone`), then of the store. What
came from a peer is kept like any other chunk: a chunk is read in many pieces, by consumers that follow each other, and
each would cost the whole way again. So a hot chunk lies in several caches of the zone, and a cold one is the first to
be evicted from each. For a peer the store is read, never another peer, so that two agents that each take the other
for the owner don't wait for each other; and nothing waits for memory on behalf of a peer, which may hold what it waits
for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from warp.errors import ObjectStoreError, ShortObject
from warp.log.image import SegmentImage
from warp.log.race import HedgedRequests
from warp.log.source import ChunkId, ChunkSource, Load
from warp.log.zone import ChunkPeers, PeerLimits
from warp.objectstore.base import Buffer, ObjectStore

CHUNK_BYTES = 8 * 2**20
"""Twice what a GET is worth: a segment a little longer than that would cost a request for the little."""
SMALL_CHUNK_BYTES = 4 * 2**20
_LARGE_CHUNKS_MIN = 8
"""In caches that hold fewer of the large chunks, chunks are small: as many may have to be on their way at a time."""

_WHOLE = -1
"""The chunk number of a segment that was entered whole."""

Hold = tuple[ChunkId, ...]
"""The chunks that a held view is of."""


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


class ChunkCache:
    """Ranges of objects, from memory where possible, otherwise from `store`.

    `bytes_max` bounds everything that is kept or on its way; it has to hold at least one chunk. `hedges` is None where
    a second request for the same bytes gains nothing; `peers` where no other agent can be asked.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        bytes_max: int,
        chunk_bytes: int | None = None,
        hedges: HedgedRequests | None = None,
        peers: ChunkPeers | None = None,
        peer_limits: PeerLimits | None = None,
    ) -> None:
        if chunk_bytes is None:
            chunk_bytes = CHUNK_BYTES if bytes_max >= _LARGE_CHUNKS_MIN * CHUNK_BYTES else SMALL_CHUNK_BYTES
        if not 0 < chunk_bytes <= bytes_max:
            raise ValueError(f"a cache of {bytes_max} bytes can't hold a chunk of {chunk_bytes} bytes")
        self.bytes_max = bytes_max
        self.chunk_bytes = chunk_bytes
        self.hedges = hedges
        self.source = ChunkSource(store, chunk_bytes, hedges=hedges, peers=peers, peer_limits=peer_limits)
        # Room for a load remains in any case: those who hold may themselves be waiting for one.
        self._held_bytes_max = min(bytes_max // 2, bytes_max - self.chunk_bytes)
        self.claims_bytes_max = bytes_max - self._held_bytes_max - self.chunk_bytes
        """How much of it readers may claim (`warp.log.claims`): what is neither held nor needed for a load."""
        self.used_bytes = 0
        """Bytes at rest and on their way in."""
        self.hit_bytes = 0
        self.loads = 0
        self.failed_loads = 0
        self.evictions = 0
        self.refused_segments = 0
        """Fresh segments that did not fit beside what was in use."""
        self._entries: OrderedDict[ChunkId, memoryview | SegmentImage] = OrderedDict()
        self._loads: dict[ChunkId, Load] = {}
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
        if isinstance(image, SegmentImage) and position < image.size_bytes:
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
        if isinstance(image, SegmentImage):
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

    async def serve(self, key: str, position: int, size: int) -> tuple[list[memoryview], Hold] | None:
        """The range for a peer, as much of it as there is, as views that stay good until `let_go`.

        None when there is no room for it. Raises ObjectNotFound, ShortObject (the object ends before the range does
        begin) and ObjectStoreError, by the store's word, or by what is in memory.
        """
        image = self._entries.get((key, _WHOLE))
        if isinstance(image, SegmentImage) and position < image.size_bytes:
            hold: Hold = ((key, _WHOLE),)
            found = image.views(position, min(size, image.size_bytes - position))
            return (found, hold) if found is not None and self._hold(hold) else None
        views: list[memoryview] = []
        hold = ()
        try:
            for index, start, end in self._pieces(position, size):
                view = await self._serve_piece((key, index), start, end, is_first=not views)
                if view is None:
                    self.let_go(hold)
                    return None
                if view:
                    views.append(view)
                    hold += ((key, index),)
                if len(view) < end - start:
                    break
        except BaseException:
            self.let_go(hold)
            raise
        return views, hold

    def keep(self, chunk_id: ChunkId) -> None:
        """Start loading a chunk that is missing, and don't evict it until `stop_keeping`: for `warp.log.claims`."""
        self._pin(chunk_id)
        if chunk_id not in self._entries and chunk_id not in self._loads:
            self._start_load(chunk_id)

    def stop_keeping(self, chunk_id: ChunkId) -> None:
        """Take one `keep` back."""
        self._unpin(chunk_id)

    def holds_whole(self, key: str) -> bool:
        """Whether an object is in memory as it was written."""
        return (key, _WHOLE) in self._entries

    def put_segment(self, key: str, image: Buffer | Sequence[Buffer]) -> None:
        """Enter an object that was just written; `image` is all of it, in one piece or in order.

        The cache keeps references to the pieces, and counts the whole of what these are views of.
        """
        parts = [image] if isinstance(image, bytes | bytearray | memoryview) else image
        entry = SegmentImage(parts)
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
        found_bytes = 0
        # That an object is too short is believed of the store alone.
        for is_store_only in (False, True):
            load = self._join_load(chunk_id, is_store_only=is_store_only)
            self._pin(chunk_id)
            try:
                await self._loaded(chunk_id, load, note)
                found_bytes = len(load.data)
                if found_bytes >= end:
                    return bytes(memoryview(load.data)[start:end])
                # Not worth keeping: should the object be mended, the next look must see it.
                self._drop(chunk_id)
            finally:
                self._unpin(chunk_id)
            if not load.is_from_peer:
                break
        raise ShortObject(f"{chunk_id[0]}: chunk {chunk_id[1]} has {found_bytes} bytes, not {end}")

    async def _loaded(self, chunk_id: ChunkId, load: Load, note: LoadNote | None = None) -> None:
        """Wait for a load. Raises what it raised."""
        assert load.task is not None
        began_at = asyncio.get_running_loop().time()
        try:
            # The task belongs to the cache: cancelling this reader must not cancel it for the others.
            await asyncio.shield(load.task)
        except asyncio.CancelledError:
            if load.task.cancelled():
                raise ObjectStoreError(f"{chunk_id[0]}: the cache was closed") from None
            raise
        finally:
            if note is not None:
                note.load_s += asyncio.get_running_loop().time() - began_at
                note.gets += 1
                note.hedged_gets += load.note.hedged_after_s is not None
                note.hedges_won += load.note.is_won

    async def _serve_piece(
        self, chunk_id: ChunkId, start: int, end: int, *, is_first: bool
    ) -> memoryview | None:
        """What the object has of a piece of one chunk, held; None without room."""
        chunk = self._entries.get(chunk_id)
        self._pin(chunk_id)
        try:
            if chunk is None:
                if chunk_id not in self._loads and (
                    self._waiting_for_space or not self._make_room(self.chunk_bytes)
                ):
                    return None
                await self._loaded(chunk_id, self._join_load(chunk_id, is_store_only=True))
                chunk = self._entries.get(chunk_id)
            if not isinstance(chunk, memoryview):
                return None
            if len(chunk) <= start:
                if not len(chunk):
                    self._drop(chunk_id)
                raise ShortObject(
                    f"{chunk_id[0]}: chunk {chunk_id[1]} has {len(chunk)} bytes, {start} are too many"
                )
            return chunk[start:end] if self._hold((chunk_id,)) else None
        except ShortObject:
            if is_first:
                raise
            return memoryview(b"")
        finally:
            self._unpin(chunk_id)

    def _join_load(self, chunk_id: ChunkId, *, is_store_only: bool) -> Load:
        """The load that is under way, or a new one."""
        load = self._loads.get(chunk_id)
        if load is None:
            return self._start_load(chunk_id, is_store_only=is_store_only)
        if is_store_only:
            load.read_store()
        return load

    def _start_load(self, chunk_id: ChunkId, *, is_store_only: bool = False) -> Load:
        load = Load(is_store_only=is_store_only)
        self._loads[chunk_id] = load
        load.task = asyncio.get_running_loop().create_task(self._load(chunk_id, load))
        load.task.add_done_callback(_retrieve)
        return load

    async def _load(self, chunk_id: ChunkId, load: Load) -> None:
        """Set the memory aside, fetch the chunk, enter it."""
        reserved = 0
        try:
            await self._reserve(self.chunk_bytes)
            reserved = self.chunk_bytes
            self.loads += 1
            load.data = await self.source.fetch(chunk_id, load, self._take_room, self._give_back)
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

    def _take_room(self) -> bool:
        """Set memory aside for a second copy of a chunk on its way, if that can be had at once."""
        if self._waiting_for_space or not self._make_room(self.chunk_bytes):
            return False
        self.used_bytes += self.chunk_bytes
        return True

    def _give_back(self) -> None:
        self.used_bytes -= self.chunk_bytes
        self._grant_space()

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


def _size_of(entry: memoryview | SegmentImage) -> int:
    return entry.held_bytes if isinstance(entry, SegmentImage) else len(entry)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Mark a failure as seen: when all its readers have gone nobody else looks at it, and it was counted."""
    if not task.cancelled():
        task.exception()

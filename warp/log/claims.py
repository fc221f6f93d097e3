"""Chunks that answers in the making will copy from: on their way together, and kept until they have been copied.

Without a claim a chunk may be evicted by the loads of others before its reader comes to it, and by the reader's own
next ones: who waits for several would begin again and again. So chunks are claimed before they are loaded, and all
claims together leave room in the cache for what is held for slow clients and for one load more. Where there is no room
a fetch waits in line; when many wait each is given one chunk at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp.log.cache import ChunkCache
from warp.log.memory import MemoryBudget
from warp.log.source import ChunkId


class Claim:
    """Room for so many chunks, and those that it is used for."""

    __slots__ = ("chunk_ids", "chunks_max")

    def __init__(self, chunks_max: int) -> None:
        self.chunks_max = chunks_max
        self.chunk_ids: list[ChunkId] = []


class Claims:
    """Shares out the part of a cache that may be claimed."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache
        self._chunks_max = cache.claims_bytes_max // cache.chunk_bytes
        self._budget = MemoryBudget(max(1, self._chunks_max))

    @property
    def claimed_chunks(self) -> int:
        """Room that is claimed at present, in chunks."""
        return self._budget.used_bytes

    async def room(self, chunks_max: int, wait_s_max: float) -> Claim | None:
        """Room for at least one chunk, for more if nobody else waits; None: there was none for so long.

        In a cache too small for claims the room is for one chunk that is not kept. To be given back by `release`.
        """
        if not self._chunks_max:
            return Claim(0)
        try:
            async with asyncio.timeout(wait_s_max):
                await self._budget.reserve(1)
        except TimeoutError:
            return None
        more = min(chunks_max, self._chunks_max - self._budget.used_bytes + 1) - 1
        if more > 0 and self._budget.try_reserve(more):
            return Claim(1 + more)
        return Claim(1)

    def use(self, claim: Claim, chunk_ids: Sequence[ChunkId]) -> None:
        """Start the loads of these chunks, as many as there is room for, and keep them until the release."""
        claim.chunk_ids = list(chunk_ids[: claim.chunks_max])
        for chunk_id in claim.chunk_ids:
            self._cache.keep(chunk_id)

    def release(self, claim: Claim) -> None:
        """Give the room back; the chunks are like others from now on."""
        chunk_ids, claim.chunk_ids = claim.chunk_ids, []
        for chunk_id in chunk_ids:
            self._cache.stop_keeping(chunk_id)
        chunks, claim.chunks_max = claim.chunks_max, 0
        if chunks:
            self._budget.release(chunks)

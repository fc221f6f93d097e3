"""Where the bytes of a chunk come from: the peer that looks after it, otherwise the store, asked twice when slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from warp.errors import ShortObject
from warp.log.race import HedgedRequests, HedgeNote
from warp.log.zone import ChunkPeers, PeerLimits, StoreTimes
from warp.objectstore.base import Buffer, ObjectStore

log = logging.getLogger(__name__)

ChunkId = tuple[str, int]
"""The key of an object, and the number of a chunk of it."""


class Load:
    """One chunk on its way in."""

    __slots__ = ("asking", "data", "is_from_peer", "is_store_only", "note", "task")

    def __init__(self, *, is_store_only: bool) -> None:
        self.data: Buffer = b""
        self.note = HedgeNote()
        self.task: asyncio.Task[None] | None = None
        self.asking: asyncio.Task[Buffer | None] | None = None
        """The request to a peer."""
        self.is_from_peer = False
        self.is_store_only = is_store_only

    def read_store(self) -> None:
        """Give up asking a peer, if that is what is done, and read the store."""
        self.is_store_only = True
        if self.asking is not None:
            self.asking.cancel()


class ChunkSource:
    """Gets chunks of `chunk_bytes` of the objects in `store`; see ChunkCache for the rest."""

    def __init__(
        self,
        store: ObjectStore,
        chunk_bytes: int,
        *,
        hedges: HedgedRequests | None,
        peers: ChunkPeers | None,
        peer_limits: PeerLimits | None,
    ) -> None:
        self.peers = peers
        self.store_loads = 0
        """Chunks asked of the store: at once, or after a peer. Second requests for the same are not counted."""
        self.store_bytes = 0
        self.peer_loads = 0
        """Chunks that a peer gave."""
        self.peer_bytes = 0
        self._store = store
        self._chunk_bytes = chunk_bytes
        self._hedges = hedges
        self._times = StoreTimes(peer_limits or PeerLimits())

    async def fetch(
        self,
        chunk_id: ChunkId,
        load: Load,
        may_hedge: Callable[[], bool],
        when_both_ended: Callable[[], None],
    ) -> Buffer:
        """The chunk's bytes: fewer than a chunk when the object ends inside it.

        `may_hedge` and `when_both_ended` are as for HedgedRequests. Raises ObjectStoreError, as the store does.
        """
        data = await self._ask_peer(chunk_id, load)
        if data is not None:
            load.is_from_peer = True
            self.peer_loads += 1
            self.peer_bytes += len(data)
            return data
        self.store_loads += 1
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        if self._hedges is None:
            data = await self._get(chunk_id)
        else:
            data = await self._hedges.send(
                self._chunk_bytes,
                lambda: self._get(chunk_id),
                load.note,
                may_hedge=may_hedge,
                when_both_ended=when_both_ended,
            )
        self._times.add(loop.time(), loop.time() - began_at)
        self.store_bytes += len(data)
        return data

    async def _ask_peer(self, chunk_id: ChunkId, load: Load) -> Buffer | None:
        """What the owner of the chunk has of it; None when the store is to be read."""
        if self.peers is None or load.is_store_only:
            return None
        key, index = chunk_id
        request = self.peers.ask(
            key, index * self._chunk_bytes, self._chunk_bytes, self._times.peer_timeout_s
        )
        if request is None:
            return None
        load.asking = asking = asyncio.get_running_loop().create_task(request)
        try:
            await asyncio.wait([asking])
        finally:
            load.asking = None
            asking.cancel()
        # Whoever wanted the store to be read while the peer was asked does not take the peer's word.
        if asking.cancelled() or load.is_store_only:
            return None
        error = asking.exception()
        if error is not None:
            log.error("asking a peer for a chunk failed unexpectedly", exc_info=error)
            return None
        return asking.result()

    async def _get(self, chunk_id: ChunkId) -> Buffer:
        """The chunk's bytes, of the store."""
        key, index = chunk_id
        start = index * self._chunk_bytes
        try:
            return await self._store.get(key, start, self._chunk_bytes)
        except ShortObject as error:
            if error.data is not None:
                return error.data
        # A store that does not hand over what it found is asked for the size, then for exactly that.
        size = (await self._store.head(key)).size_bytes
        if size <= start:
            raise ShortObject(f"{key}: wanted bytes from {start} on, it has {size}")
        return await self._store.get(key, start, min(self._chunk_bytes, size - start))

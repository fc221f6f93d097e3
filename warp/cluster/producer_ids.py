"""Producer ids, handed out from blocks, so that the metadata store is asked once in a thousand producers."""

from __future__ import annotations

import asyncio

from warp.ids import ProducerId
from warp.metadata.store import MetadataStore

BLOCK_IDS = 1000
"""How many ids an agent takes at once; those that it has not handed out when it stops are lost, as in Kafka."""


class ProducerIds:
    """Gives out producer ids that were never given out before, by any agent."""

    def __init__(self, store: MetadataStore, block_ids: int = BLOCK_IDS) -> None:
        self._store = store
        self._block_ids = block_ids
        self._lock = asyncio.Lock()
        self._next = 0
        self._end = 0

    async def next(self) -> ProducerId:
        """A new producer id. Raises MetadataError when a new block is needed and can't be had."""
        async with self._lock:
            if self._next == self._end:
                self._next = await self._store.allocate_producer_ids(self._block_ids)
                self._end = self._next + self._block_ids
            producer_id = ProducerId(self._next)
            self._next += 1
            return producer_id

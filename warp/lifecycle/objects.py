"""The object store as one job sees it: what the job reads, writes and deletes is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from warp.objectstore.base import Abilities, Buffer, ObjectInfo, ObjectStore


@dataclass(slots=True)
class Moved:
    """What one job has done to the object store from here."""

    read_bytes: int = 0
    written_bytes: int = 0
    deleted_objects: int = 0


class JobObjects:
    """An object store that counts what one job does to another one."""

    def __init__(self, store: ObjectStore) -> None:
        self.requests_are_free = store.requests_are_free
        self.traffic = store.traffic
        self.moved = Moved()
        self._store = store

    async def open(self) -> Abilities:
        """See ObjectStore."""
        return await self._store.open()

    async def check(self) -> None:
        """See ObjectStore."""
        await self._store.check()

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore."""
        await self._store.put(key, parts)
        self.moved.written_bytes += sum(map(len, parts))

    async def create(self, key: str, data: Buffer) -> bool:
        """See ObjectStore."""
        is_new = await self._store.create(key, data)
        self.moved.written_bytes += len(data)
        return is_new

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """See ObjectStore."""
        data = await self._store.get(key, start, length)
        self.moved.read_bytes += len(data)
        return data

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return await self._store.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        """See ObjectStore."""
        await self._store.delete(keys)
        self.moved.deleted_objects += len(keys)

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore."""
        return self._store.list(prefix)

    async def close(self) -> None:
        """Nothing: the store is the agent's."""

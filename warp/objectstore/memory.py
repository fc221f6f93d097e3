"""Objects in this process's memory: for tests, benchmarks, and trying things out. Gone when the process ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from warp.clock import Clock
from warp.errors import ObjectNotFound, ShortObject, StoreFull
from warp.objectstore.base import Abilities, Buffer, ObjectInfo, check_key
from warp.objectstore.traffic import Traffic, counted


class MemoryStore:
    """An object store in a dict, holding at most `bytes_max` bytes of objects.

    Tests make it faulty by overriding its methods.
    """

    requests_are_free = True

    def __init__(self, clock: Clock, *, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self.traffic = Traffic()
        self._clock = clock
        self._objects: dict[str, tuple[bytes, int]] = {}

    async def open(self) -> Abilities:
        """Memory needs no proof."""
        return Abilities(conditional_create=True, checks_content=True)

    async def check(self) -> None:
        """Memory is there."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store the parts, in order, as one object; a single `bytes` is kept as it is, without a copy."""
        check_key(key)
        with counted(self.traffic, "put"):
            self._store(key, parts[0] if len(parts) == 1 else b"".join(parts))

    async def create(self, key: str, data: Buffer) -> bool:
        """Store an object only if the key is free."""
        check_key(key)
        if key in self._objects:
            self.traffic.count("put", "conflict")
            return False
        with counted(self.traffic, "put"):
            self._store(key, data)
        return True

    async def get(self, key: str, start: int, length: int) -> bytes:
        """Read a range, as every object store does."""
        with counted(self.traffic, "get"):
            data, _ = self._find(key)
            found = data[start : start + length]
            self.traffic.received_bytes += len(found)
            if len(found) < length:
                raise ShortObject(f"{key}: wanted {length} bytes from {start}, it has {len(data)}", found)
        return found

    async def head(self, key: str) -> ObjectInfo:
        """Size and time of one object."""
        with counted(self.traffic, "head"):
            data, modified_ms = self._find(key)
        return ObjectInfo(key, len(data), modified_ms)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there count as removed."""
        for key in keys:
            check_key(key)
            self.traffic.count("delete", "ok")
            data, _ = self._objects.pop(key, (b"", 0))
            self.used_bytes -= len(data)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects in order of their keys, as they were when the listing began."""
        self.traffic.count("list", "ok")
        for key, (data, modified_ms) in sorted(self._objects.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(data), modified_ms)

    async def close(self) -> None:
        """Keep everything: an agent of the same process may open it again."""

    def _find(self, key: str) -> tuple[bytes, int]:
        check_key(key)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFound(key) from None

    def _store(self, key: str, data: Buffer) -> None:
        replaced, _ = self._objects.get(key, (b"", 0))
        used_bytes = self.used_bytes - len(replaced) + len(data)
        if used_bytes > self.bytes_max:
            raise StoreFull(
                f"the memory store holds {self.used_bytes} of {self.bytes_max} bytes: {len(data)} more don't fit"
            )
        self.used_bytes = used_bytes
        self.traffic.sent_bytes += len(data)
        self._objects[key] = (bytes(data), self._clock.time_ms())

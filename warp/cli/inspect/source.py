"""The bytes that are inspected: a file of this machine, or an object of a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from warp.errors import StartError
from warp.objectstore.base import Buffer, ObjectStore


class Source(Protocol):
    """Something of a size that can be read in ranges."""

    name: str
    size_bytes: int

    async def read(self, start: int, length: int) -> Buffer:
        """That range, which has to be there. Raises ObjectStoreError or StartError."""


class FileSource:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        try:
            self.size_bytes = path.stat().st_size
        except OSError as error:
            raise StartError(f"{path}: {error.strerror}") from error

    async def read(self, start: int, length: int) -> Buffer:
        """See Source."""
        return await asyncio.to_thread(self._read, start, length)

    def _read(self, start: int, length: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                data = file.read(length)
        except OSError as error:
            raise StartError(f"{self.name}: {error.strerror}") from error
        if len(data) < length:
            raise StartError(f"{self.name}: it was cut short while it was read")
        return data


class ObjectSource:
    """An object."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self.name = key
        self.size_bytes = size_bytes
        self._store = store

    async def read(self, start: int, length: int) -> Buffer:
        """See Source."""
        return await self._store.get(self.name, start, length)


def is_file(name: str) -> bool:
    """Is there a file of that name?"""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False

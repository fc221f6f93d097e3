"""Reads an input as a script: decisions first, then bytes. Whatever the bytes, there is a script in them."""

from __future__ import annotations


class Script:
    """A cursor over an input that gives zeros, and then nothing, when it is at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        return self.number(1)

    def number(self, size_bytes: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(size_bytes).ljust(size_bytes, b"\0"), "big")

    def signed(self, size_bytes: int) -> int:
        """A number of so many bytes that may be negative."""
        return int.from_bytes(self.take(size_bytes).ljust(size_bytes, b"\0"), "big", signed=True)

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data) - self._at)

"""Parts of answers are written once and in order, also when a transport has the connection go on while it writes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from warp.server.outgoing import Outgoing


class Eager:
    """A transport that has its connection write on in the middle of each write."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self._outgoing.flush()

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize("sizes", [(3,), (3, 5), (20_000, 3), (3, 20_000, 4), (1, 2, 3, 30_000, 1, 2)])
def test_every_part_is_written_once(sizes: tuple[int, ...]) -> None:
    counted: list[int] = []
    released: list[int] = []
    outgoing = Outgoing(counted.append)
    transport = Eager(outgoing)
    outgoing.open(cast(asyncio.Transport, transport))
    parts = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    outgoing.put(parts, lambda: released.append(1))
    outgoing.flush()
    assert transport.written == b"".join(parts)
    assert sum(counted) == len(transport.written)
    outgoing.release_sent()
    assert released == [1]

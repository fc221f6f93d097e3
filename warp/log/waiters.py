"""Fetches that wait for data, woken by the commits that bring it, or by hints of other agents' commits.

Waiting costs a step per partition once, when a fetch begins to wait and when it stops; a commit costs a step per waiter
of the logs that it touched, whatever else these wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from warp.ids import LogId


class Waiter:
    """One waiting fetch: how many bytes it still lacks, and how many each of its logs may yet add."""

    __slots__ = ("missing_bytes", "room", "woken")

    def __init__(self, room: Mapping[LogId, int], missing_bytes: int) -> None:
        self.room = dict(room)
        self.missing_bytes = missing_bytes
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrived(self, log_id: LogId, size_bytes: int) -> None:
        """A log grew; wake up when that makes enough. A log counts with no more than its partition's limit."""
        counted = min(size_bytes, self.room[log_id])
        self.room[log_id] -= counted
        self.missing_bytes -= counted
        if self.missing_bytes <= 0:
            self.wake()

    def wake(self) -> None:
        """End the wait, whatever has arrived."""
        if not self.woken.done():
            self.woken.set_result(None)


class Waiters:
    """All waiting fetches of an agent, by log."""

    def __init__(self) -> None:
        # Dictionaries in place of sets: waiters are woken in the order in which they began to wait.
        self._by_log: dict[LogId, dict[int, Waiter]] = {}
        self._all: dict[int, Waiter] = {}
        self._next_number = 0
        self._closed = False

    @property
    def count(self) -> int:
        return len(self._all)

    @property
    def is_closed(self) -> bool:
        return self._closed

    async def wait(self, room: Mapping[LogId, int], missing_bytes: int, timeout_s: float) -> None:
        """Wait until the logs have grown by `missing_bytes`, or until the time is up.

        `room` gives the bytes with which each log may count. Returns at once after `close`.
        """
        if self._closed or timeout_s <= 0:
            return
        waiter = Waiter(room, missing_bytes)
        number = self._next_number
        self._next_number += 1
        self._all[number] = waiter
        for log_id in room:
            self._by_log.setdefault(log_id, {})[number] = waiter
        timer = asyncio.get_running_loop().call_later(timeout_s, waiter.wake)
        try:
            await waiter.woken
        finally:
            timer.cancel()
            self._remove(number, room)

    def arrived(self, sizes_bytes: Iterable[tuple[LogId, int]]) -> None:
        """Logs grew by so many bytes."""
        for log_id, size_bytes in sizes_bytes:
            waiters = self._by_log.get(log_id)
            if waiters is not None:
                for waiter in waiters.values():
                    waiter.arrived(log_id, size_bytes)

    def wake(self, log_ids: Sequence[LogId]) -> None:
        """Something else than growth happened to these logs: let their readers look."""
        for log_id in log_ids:
            for waiter in self._by_log.get(log_id, {}).values():
                waiter.wake()

    def wake_all(self) -> None:
        """Something may have happened to any log."""
        for waiter in self._all.values():
            waiter.wake()

    def close(self) -> None:
        """Wake everybody; nobody waits from now on."""
        self._closed = True
        self.wake_all()

    def _remove(self, number: int, log_ids: Iterable[LogId]) -> None:
        del self._all[number]
        for log_id in log_ids:
            waiters = self._by_log[log_id]
            del waiters[number]
            if not waiters:
                del self._by_log[log_id]

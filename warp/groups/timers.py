"""Deadlines that are moved often and reached seldom: sessions are renewed by every heartbeat, and mostly live on.

Moving a deadline back costs one store in a dict. The heap beside it may hold a time that is too early; what comes up is
looked at again, and put back at its real time. So a key comes up about once per session, not once per heartbeat.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K")

_STALE_MIN = 64


class Deadlines(Generic[K]):
    """At most one deadline per key, in whatever unit the caller's clock has. Keys that are due together come up in the
    order in which they were put into the heap."""

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        self._queued: dict[K, int] = {}
        """When the heap brings a key up: no later than its deadline."""
        self._heap: list[tuple[int, int, K]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def get(self, key: K) -> int | None:
        """The deadline of a key, or None."""
        return self._due.get(key)

    def set(self, key: K, due: int) -> None:
        """Give the key a deadline, or another one."""
        self._due[key] = due
        queued = self._queued.get(key)
        if queued is None or due < queued:
            self._push(key, due)
            self._bound_stale()

    def cancel(self, key: K) -> None:
        """The key has no deadline any more; that it had none is no error."""
        self._due.pop(key, None)
        self._bound_stale()

    def clear(self) -> None:
        """No key has a deadline any more."""
        self._due.clear()
        self._queued.clear()
        self._heap.clear()

    def next_due(self) -> int | None:
        """When to look again: never later than the first deadline, maybe earlier. None: nothing to wait for."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: int) -> K | None:
        """A key whose deadline has come, which it has no more; None when there is no (other) one."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._queued.get(key) != due:
                continue
            del self._queued[key]
            real = self._due.get(key)
            if real is None:
                continue
            if real <= now:
                del self._due[key]
                return key
            self._push(key, real)
        return None

    def _push(self, key: K, due: int) -> None:
        self._queued[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))

    def _drop_stale(self) -> None:
        """Cancelled keys at the front go, so that nobody is woken for them."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._queued.get(key) == due:
                if key in self._due:
                    return
                del self._queued[key]
            heapq.heappop(self._heap)

    def _bound_stale(self) -> None:
        """However often keys come and go, the heap holds no more than a few times as many entries as there are keys."""
        if len(self._heap) <= 2 * len(self._due) + _STALE_MIN:
            return
        self._heap.clear()
        self._queued.clear()
        for key, due in self._due.items():
            self._push(key, due)

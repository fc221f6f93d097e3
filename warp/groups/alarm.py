"""One timer of the event loop for all groups, which tells silent members from a process that stood still.

Groups are woken when something of theirs is due. Should the timer itself come late, this process has been stopped or
the loop was held up: the members' heartbeats are still in the sockets. Then nobody is given up, all sessions start
anew, and what is due waits until those heartbeats have been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warp.groups.timers import Deadlines

GRACE_MS = 1_000
"""After a stall: for reading what came meanwhile."""


class Alarm:
    """Wakes groups by their ids. `wake(group_id)` is called for each that is due, `stalled()` after a stall.

    Where it turns out that it may not fire it is paused.

    `ticks_ms` is the time that deadlines are in. It has to go on while this process is stopped.
    """

    def __init__(
        self,
        ticks_ms: Callable[[], int],
        wake: Callable[[str], None],
        stalled: Callable[[int], None],
        *,
        stall_ms: int,
        wakes_max: int,
        may_fire: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ticks_ms = ticks_ms
        self._wake = wake
        self._stalled = stalled
        self._stall_ms = stall_ms
        self._wakes_max = wakes_max
        self._may_fire = may_fire
        self._deadlines: Deadlines[str] = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        """When the timer is to come; valid while there is one."""
        self._not_before_ms = 0
        self._is_firing = False
        self._is_paused = False

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, group_id: str, due_ms: int | None) -> None:
        """Wake the group then, and not when it was said before. None: not at all."""
        if due_ms is None:
            self._deadlines.cancel(group_id)
            return
        self._deadlines.set(group_id, due_ms)
        if not self._is_firing and (self._timer is None or due_ms < self._timer_ms):
            self._start(due_ms)

    def pause(self) -> None:
        """Wake nobody until it is resumed."""
        self._is_paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Wake those who are due, once what has come meanwhile has been read."""
        self._is_paused = False
        self._not_before_ms = self._ticks_ms() + GRACE_MS
        next_ms = self._deadlines.next_due()
        if next_ms is not None:
            self._start(next_ms)

    def close(self) -> None:
        """Wake nobody any more."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, due_ms: int) -> None:
        if self._is_paused:
            return
        due_ms = max(due_ms, self._not_before_ms)
        if self._timer is not None:
            if due_ms >= self._timer_ms:
                return
            self._timer.cancel()
        self._timer_ms = due_ms
        delay_s = max(0, due_ms - self._ticks_ms()) / 1000
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._may_fire():
            self._is_paused = True
            return
        now_ms = self._ticks_ms()
        late_ms = now_ms - self._timer_ms
        if late_ms > self._stall_ms:
            self._not_before_ms = now_ms + GRACE_MS
            self._stalled(late_ms)
        else:
            self._wake_due(now_ms)
        next_ms = self._deadlines.next_due()
        if next_ms is not None:
            # What is left of this turn is not late: the loop is only let go in between.
            self._start(max(next_ms, now_ms))

    def _wake_due(self, now_ms: int) -> None:
        self._is_firing = True
        try:
            for _ in range(self._wakes_max):
                group_id = self._deadlines.pop_due(now_ms)
                if group_id is None:
                    break
                self._wake(group_id)
        finally:
            self._is_firing = False

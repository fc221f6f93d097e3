"""A connection that is not read from for a while, because a quota of its client is used up.

What has been started is answered meanwhile. Since nothing is read, nothing tells that the peer has left: whoever looks
after connections asks the socket, and gives up a mute that holds back memory which others wait for: what the client
owes is remembered by the quotas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

HOLD_THROTTLE: Final = 16
"""The reason not to read, beside the connection's others."""


class Mute:
    """Of one connection, which pauses and resumes its reading by `stop` and `read_again`, and then goes on."""

    __slots__ = ("_go_on", "_is_closed", "_read_again", "_stop", "_timer")

    def __init__(
        self, stop: Callable[[int], None], read_again: Callable[[int], None], go_on: Callable[[], None]
    ) -> None:
        self._stop = stop
        self._read_again = read_again
        self._go_on = go_on
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def is_on(self) -> bool:
        """Whether nothing is read for this reason."""
        return self._timer is not None

    def extend(self, milliseconds: int) -> None:
        """Read and start nothing for so long from now on, or for as long as was said before if that is longer."""
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + milliseconds / 1000
        if self._timer is not None:
            if self._timer.when() >= ends_at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(ends_at, self.lift)
        self._stop(HOLD_THROTTLE)

    def lift(self) -> None:
        """Read again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._read_again(HOLD_THROTTLE)
            self._go_on()

    def close(self) -> None:
        """Lift it for good: the connection ends, and what was read from it is served."""
        self._is_closed = True
        self.lift()

"""Takes connections from a listening socket: few enough at a time for others to have their turn, at a bounded rate.

Connections above the rate, and those for which there is no file descriptor, wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from warp.server.limits import LogLimit

if TYPE_CHECKING:
    from warp.clock import Clock

log = logging.getLogger("warp.server")

ACCEPTS_PER_TURN = 64
"""Connections taken before others have their turn."""
EXHAUSTED_PAUSE_S = 1.0
"""For how long nothing is taken when the system has no room for one more."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NOT_THIS_ONE = (
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.EPERM,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
)


class ArrivalRate:
    """How many connections per second may come in, over all listeners. One second's worth may come at once."""

    def __init__(self, per_second: int, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._free = float(per_second)
        self._at_s = clock.monotonic()

    def take(self) -> float:
        """Let one in, and return 0; or how many seconds it has to wait until it may ask again."""
        now_s = self._clock.monotonic()
        self._free = min(self._per_second, self._free + (now_s - self._at_s) * self._per_second)
        self._at_s = now_s
        if self._free >= 1:
            self._free -= 1
            return 0.0
        return (1 - self._free) / self._per_second

    def give_back(self) -> None:
        """Nobody came."""
        self._free += 1


class Acceptor:
    """On one listening socket, which is its own from now on. `protocol` makes what a connection is given to."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        clock: Clock,
        rate: ArrivalRate | None = None,
    ) -> None:
        self._socket = listening
        self._protocol = protocol
        self._rate = rate
        self._log = LogLimit(clock, interval_ms=10_000)
        self._pause: asyncio.TimerHandle | None = None
        self._opening: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening.fileno(), self._ready)

    def close(self) -> None:
        """Take no more."""
        if self._socket.fileno() < 0:
            return
        if self._pause is None:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._pause.cancel()
            self._pause = None
        self._socket.close()

    def _ready(self) -> None:
        """Somebody waits to be taken."""
        for _ in range(ACCEPTS_PER_TURN):
            wait_s = self._rate.take() if self._rate is not None else 0.0
            if wait_s:
                self._wait(wait_s)
                return
            try:
                accepted, _address = self._socket.accept()
            except OSError as error:
                if self._rate is not None:
                    self._rate.give_back()
                if error.errno in _NOT_THIS_ONE:
                    continue
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                elif not isinstance(error, (BlockingIOError, InterruptedError)):
                    raise
                return
            opening = self._loop.create_task(self._open(accepted))
            self._opening[opening] = None
            opening.add_done_callback(self._opened)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:  # it has gone already
            accepted.close()
            log.debug("a connection was lost as it came: %s", error)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        del self._opening[opening]
        if not opening.cancelled() and opening.exception() is not None:
            log.error("bug in taking a connection", exc_info=opening.exception())

    def _exhausted(self, error: OSError) -> None:
        if self._log.passes():
            log.error(
                "can't take connections, the next try is in %.0f s: %s%s",
                EXHAUSTED_PAUSE_S, error.strerror, self._log.note(),
            )  # fmt: skip
        self._wait(EXHAUSTED_PAUSE_S)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._ready)

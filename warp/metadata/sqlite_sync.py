"""Makes SQLite's commits durable: syncs its write-ahead log, on the event loop or in a thread, whichever costs less.

A sync in a thread leaves the loop free, but the thread needs the interpreter lock before and after, for which it waits
long beside a busy loop. So while the disk is fast the sync runs on the loop; once syncs take longer than that wait,
they run in a thread, and one in many still runs on the loop, to see whether the disk has become fast again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SLOW_SYNC_S = 0.008
"""From here on a sync runs in a thread: about what the thread's two waits for the lock cost beside a flooded loop."""

SYNCS_BETWEEN_LOOKS = 50
"""How many syncs run in the thread before one is timed on the loop again."""

WEIGHT_OF_LAST = 0.25
"""How much of the typical time of a sync is that of the last one: one slow sync alone moves nothing."""


class LogSync:
    """Runs `sync`, which returns once all that was written is on the disk, in the better place.

    `timer` tells seconds, as time.perf_counter does.
    """

    def __init__(self, sync: Callable[[], None], timer: Callable[[], float] = time.perf_counter) -> None:
        self._sync = sync
        self._timer = timer
        self._typical_s = 0.0
        self._threaded = 0
        self._executor: ThreadPoolExecutor | None = None

    @property
    def typical_s(self) -> float:
        """How long syncs have taken on the loop lately, in seconds."""
        return self._typical_s

    async def __call__(self) -> None:
        """Sync. Raises OSError when that failed. Ends only when the sync has, even if the caller is cancelled."""
        if self._typical_s < SLOW_SYNC_S or self._threaded >= SYNCS_BETWEEN_LOOKS:
            self._threaded = 0
            self.on_the_loop()
            return
        self._threaded += 1
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="sqlite-sync")
        await _to_the_end(asyncio.get_running_loop().run_in_executor(self._executor, self._sync))

    def on_the_loop(self) -> None:
        """Sync at once, and remember how long it took. Raises OSError."""
        begun_s = self._timer()
        self._sync()
        self._typical_s += WEIGHT_OF_LAST * (self._timer() - begun_s - self._typical_s)

    def close(self) -> None:
        """End the thread. No sync may be under way."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


async def _to_the_end(future: asyncio.Future[None]) -> None:
    """Wait for the future, through a cancellation too; then be cancelled, unless the future failed."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    future.result()
    if cancelled is not None:
        raise cancelled

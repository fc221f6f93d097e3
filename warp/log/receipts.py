"""What this agent has committed since its last PUT, to be written with the next: so that the bucket alone tells all."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from warp.clock import Clock
from warp.errors import ObjectStoreError
from warp.ids import SEGMENT_PREFIX, IdSource
from warp.log.segment import RECEIPTS_PREFIX, Receipt, build_segment
from warp.log.tasks import Tasks
from warp.log.upload import Uploader

_log = logging.getLogger(__name__)

RUNS_MAX = 100_000
"""Some 4 MiB of footer. Beyond it, while nothing can be stored, the oldest receipts are given up."""


class PendingReceipts:
    """Receipts in order of their commits, at most `runs_max` runs (each receipt counts as one more)."""

    def __init__(self, runs_max: int = RUNS_MAX) -> None:
        self._runs_max = runs_max
        self._receipts: deque[Receipt] = deque()
        self._runs = 0
        self.dropped = 0
        """Receipts that were given up for want of room."""

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def add(self, receipt: Receipt) -> None:
        """Remember the receipt of a commit."""
        self._receipts.append(receipt)
        self._runs += 1 + len(receipt.runs)
        self._shrink()

    def take(self) -> list[Receipt]:
        """All of them, to be written now."""
        receipts = list(self._receipts)
        self._receipts.clear()
        self._runs = 0
        return receipts

    def put_back(self, receipts: Iterable[Receipt]) -> None:
        """Remember again what could not be written; it is older than what came since."""
        for receipt in reversed(list(receipts)):
            self._receipts.appendleft(receipt)
            self._runs += 1 + len(receipt.runs)
        self._shrink()

    def _shrink(self) -> None:
        while self._runs > self._runs_max:
            self._runs -= 1 + len(self._receipts.popleft().runs)
            self.dropped += 1


class ReceiptsWriter:
    """Writes receipts alone, once no PUT has taken them along for `idle_s` and `is_quiet` says that none is about to.

    `spend` is called for each PUT.
    """

    def __init__(
        self,
        uploader: Uploader,
        clock: Clock,
        ids: IdSource,
        tasks: Tasks,
        *,
        idle_s: float,
        is_quiet: Callable[[], bool],
        spend: Callable[[], None],
    ) -> None:
        self.pending = PendingReceipts()
        self.last_put_at = clock.monotonic()
        """When something was last stored that could take receipts along."""
        self._uploader = uploader
        self._clock = clock
        self._ids = ids
        self._tasks = tasks
        self._idle_s = idle_s
        self._is_quiet = is_quiet
        self._spend = spend
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def watch(self) -> None:
        """See to it that pending receipts are written in the end."""
        if self.pending and self._timer is None and not self._is_stopped:
            left_s = self._left_s()
            # Who is not quiet then, or can't store them, is asked again later.
            wait_s = left_s if left_s > 0 else self._idle_s
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._due)

    def stop(self) -> None:
        """Write nothing more by itself."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    async def write(self) -> None:
        """Write what is pending now; what can't be written stays pending."""
        receipts = self.pending.take()
        key = RECEIPTS_PREFIX + self._ids.segment_key().removeprefix(SEGMENT_PREFIX)
        image = build_segment([], created_ms=self._clock.time_ms(), receipts=receipts)
        self._spend()
        try:
            await self._uploader.put_receipts(key, image)
        except ObjectStoreError as error:
            self.pending.put_back(receipts)
            _log.warning("receipts of %d segments not stored: %s", len(receipts), error)
        except BaseException:
            self.pending.put_back(receipts)
            raise
        else:
            self.last_put_at = self._clock.monotonic()

    def _due(self) -> None:
        self._timer = None
        if self.pending and self._left_s() <= 0 and self._is_quiet():
            self._tasks.start(self.write())
        self.watch()

    def _left_s(self) -> float:
        """How long until no PUT has come by for long enough."""
        return self.last_put_at + self._idle_s - self._clock.monotonic()

"""What waits to be merged, and how producers are held back when it becomes too much.

Merging has more capacity than agents can write, as long as it runs. Where it does not (nobody has the role, the object
store fails, its rate is bounded too low), small segments would pile up, and with them index rows, until reads and the
metadata store suffer. So the backlog is measured, by one agent for its cluster and apart from the merging itself, which
may be what is stuck. It is told as a **debt**: what waits, divided by what may wait. Above 1 all agents hold producers
back, the more the larger it grows, as quotas do: a request is served and answered at once, and then its connection is
not read from for a while. So no client ever sees an error of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from warp.clock import Clock
from warp.lifecycle.levels import MergeLimits
from warp.lifecycle.merge_debt import DebtStore, measured_debt
from warp.metadata.group_model import Lease
from warp.metadata.life_model import DeadSegment, Quarantined, SegmentTotals

_log = logging.getLogger("warp.jobs")

COUNTED_MAX: Final = 1_000
"""Dead segments and quarantined extents are counted up to this."""
REST_RATIO: Final = 50
"""A measurement is not repeated for this many times as long as the last one took: with many segments it costs."""


class BacklogStore(DebtStore, Protocol):
    """The part of the metadata store that knows. `MetadataStore` says what each does."""

    async def segment_totals(self) -> list[SegmentTotals]: ...

    async def dead_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]: ...

    async def quarantined(self, limit: int) -> list[Quarantined]: ...


class Backlog:
    """The job that measures. `limits` say how much of which level may wait."""

    def __init__(self, store: BacklogStore, clock: Clock, limits: MergeLimits) -> None:
        self.debt = 0.0
        """What waits to be merged, divided by what may wait, on the level that is worst off; as of the last pass."""
        self.levels: Sequence[SegmentTotals] = ()
        """Live segments."""
        self.dead_segments = 0
        """Whose objects are still there; up to COUNTED_MAX are counted."""
        self.quarantined_extents = 0
        """Up to COUNTED_MAX."""
        self.is_known = False
        """Has there been a pass?"""
        self._store = store
        self._clock = clock
        self._limits = limits
        self._rests_until_s = -math.inf

    async def run(self, _lease: Lease) -> None:
        """One pass, which only reads. Raises MetadataError."""
        began_s = self._clock.monotonic()
        if began_s < self._rests_until_s:
            return
        levels = await self._store.segment_totals()
        self.dead_segments = len(await self._store.dead_segments(COUNTED_MAX))
        self.quarantined_extents = len(await self._store.quarantined(COUNTED_MAX))
        self.levels, self.is_known = levels, True
        self.debt = (await measured_debt(self._store, levels, self._limits)).ratio
        now_s = self._clock.monotonic()
        self._rests_until_s = now_s + REST_RATIO * (now_s - began_s)

    def forget(self) -> None:
        """It is another agent's business now, and what was measured here grows old."""
        self.debt, self.is_known = 0.0, False
        self.levels, self.dead_segments, self.quarantined_extents = (), 0, 0


@dataclass(frozen=True, slots=True)
class HoldBackLimits:
    """How long a producer is held back after a request, for each 1 that the debt is above 1."""

    request_ms: float = 20.0
    """For any request."""
    mebibyte_ms: float = 1_000.0
    """And for each MiB in it."""
    delay_ms_max: int = 5_000
    """The longest, after any request: clients have some five under way and give up one that waits for 30 s."""
    ends_at_debt: float = 0.9
    """That it has ended is told only below this, so that a debt that stays near 1 does not fill the log."""


class HoldBack:
    """Says how long producers are held back. `seen` is told the cluster's largest debt from time to time."""

    def __init__(self, limits: HoldBackLimits | None = None) -> None:
        self.debt = 0.0
        self.is_on = False
        """While it is not, nobody need ask."""
        self.times = 0
        self.seconds = 0.0
        """How often clients were held back, and for how long in all."""
        self._limits = limits or HoldBackLimits()
        self._is_told = False

    def seen(self, debt: float) -> None:
        """This is the debt now: whoever sends records after this is held back by it."""
        self.debt = debt
        self.is_on = debt > 1.0
        if self.is_on and not self._is_told:
            self._is_told = True
            _log.warning(
                "producers are held back: %.1f times as much waits to be merged as may wait (--merge-backlog-max). "
                "`warp cluster status` shows which agents run jobs, and /metrics what keeps the job merge",
                debt,
            )
        elif self._is_told and debt < self._limits.ends_at_debt:
            self._is_told = False
            _log.info("producers are not held back any more: merging has caught up")

    def delay_ms(self, size_bytes: int) -> int:
        """For how many milliseconds a client is held back that has sent so many bytes of records; counted."""
        above = self.debt - 1.0
        if above <= 0.0:
            return 0
        limits = self._limits
        wanted_ms = above * (limits.request_ms + limits.mebibyte_ms * size_bytes / 2**20)
        delay_ms = math.ceil(min(wanted_ms, limits.delay_ms_max))
        self.times += 1
        self.seconds += delay_ms / 1000
        return delay_ms


NOBODY: Final = HoldBack()
"""Holds nobody back, and is never told of any debt."""

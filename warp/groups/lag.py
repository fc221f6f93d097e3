"""How far groups are behind the ends of the logs that they read, for whoever asks now and then.

Names of groups and topics are the clients' own, so what is shown is bounded: groups with members come first, then the
others, and where the bound is reached the rest is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from warp.clock import Clock
from warp.errors import MetadataError
from warp.groups.slots import GroupStore
from warp.metadata.group_model import OffsetLag

_log = logging.getLogger("warp.groups")

AGE_MAX_S = 5.0
"""A reading serves everybody who asks within this time."""
READ_MAX_S = 2.0
"""Who asks does not wait for the store any longer."""


class GroupLags:
    """The lags of all groups, at most `rows_max` of them; 0 turns this off.

    `some_groups(n)` tells n of the groups, and whether these are all.
    """

    def __init__(
        self,
        store: GroupStore,
        clock: Clock,
        some_groups: Callable[[int], tuple[list[str], bool]],
        rows_max: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._some_groups = some_groups
        self._rows_max = rows_max
        self._read_s: float | None = None
        self._is_reading = False
        self._was_cut = False
        self.rows: Sequence[OffsetLag] = ()
        """The lags when they were read last; none when the store could not be read."""

    async def refresh(self) -> None:
        """Read the lags, if the last reading is too old. Never raises; what is shown may be old or missing then."""
        now_s = self._clock.monotonic()
        is_fresh = self._read_s is not None and now_s - self._read_s < AGE_MAX_S
        if self._rows_max <= 0 or self._is_reading or is_fresh:
            return
        self._is_reading = True
        try:
            async with asyncio.timeout(READ_MAX_S):
                self.rows = await self._read()
        except (MetadataError, TimeoutError) as error:
            _log.warning("the lags of groups could not be read: %s: %s", type(error).__name__, error)
            self.rows = ()
        finally:
            self._is_reading = False
            self._read_s = self._clock.monotonic()

    async def _read(self) -> Sequence[OffsetLag]:
        group_ids, are_all = self._some_groups(self._rows_max)
        if not group_ids:
            return ()
        rows = await self._store.offset_lags(group_ids, self._rows_max + 1)
        is_cut = len(rows) > self._rows_max or not are_all
        if is_cut and not self._was_cut:
            _log.warning("there are more lags of groups than %d: the rest is not shown", self._rows_max)
        self._was_cut = is_cut
        return rows[: self._rows_max]

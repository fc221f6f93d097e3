"""Gets this agent's slots: takes their leases and reads their groups, slot by slot, until none is missing.

Reading comes after taking, so whatever a former holder wrote is read, and whatever it still tries to write fails.

A lease that somebody took after this agent is left to them, and looked at again from time to time: two agents that took
a slot from each other in turns would serve nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from warp.errors import MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.groups.slots import CoordinatorLimits, GroupStore, Tenure
from warp.ids import BrokerId
from warp.metadata.group_model import SLOTS, StoredGroup, coordinator_lease

_log = logging.getLogger(__name__)

Began = Callable[[Tenure], None]
Loaded = Callable[[Tenure, Sequence[StoredGroup]], None]


class SlotKeeper:
    """Keeps the slots of one agent. `began` hears of each tenure, `loaded` of what its slot held."""

    def __init__(
        self, store: GroupStore, holder: BrokerId, limits: CoordinatorLimits, began: Began, loaded: Loaded
    ) -> None:
        self._store = store
        self._holder = holder
        self._limits = limits
        self._began = began
        self._loaded = loaded
        self._missing: dict[int, None] = {}
        """Slots whose leases are to be taken."""
        self._taken_away: dict[int, bool] = {}
        """Slots that somebody else has taken; and has that been said?"""
        self._unloaded: dict[int, Tenure] = {}
        self._epochs: dict[int, int] = {}
        """The last epoch under which this agent held each slot, or may have."""
        self._seen: dict[int, int] = {}
        """The epoch of each slot when it was last looked at."""
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._is_away = False
        self._is_closed = False

    @property
    def is_away(self) -> bool:
        """The store has not answered the last time: it may take a while until the slots are there."""
        return self._is_away

    @property
    def is_loading(self) -> bool:
        """Slots are being taken or read."""
        return bool(self._missing or self._unloaded)

    def is_wanted(self, slot: int) -> bool:
        """Is the slot about to be this agent's?"""
        return slot in self._missing

    async def open(self) -> None:
        """Take all slots, whoever holds them, and begin to read them. Raises MetadataError."""
        self._missing = dict.fromkeys(range(SLOTS))
        await self._take(list(self._missing))
        self._wake()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._limits.open_wait_s)

    def lost(self, tenure: Tenure, *, to_another: bool) -> None:
        """A tenure is over. The slot is taken anew, unless somebody else has taken it.

        With `to_another` it looks as if somebody has: until that is known, the slot is not about to be this agent's.
        """
        self._unloaded.pop(tenure.slot, None)
        if self._is_closed:
            return
        if to_another:
            self._taken_away[tenure.slot] = False
        else:
            self._missing[tenure.slot] = None
        self._wake()

    async def close(self) -> None:
        """Take and read nothing more."""
        self._is_closed = True
        self._missing.clear()
        self._taken_away.clear()
        self._unloaded.clear()
        if self._again is not None:
            self._again.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _wake(self) -> None:
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        delay_s = self._limits.retry_min_s
        try:
            while self._missing or self._taken_away or self._unloaded:
                try:
                    await self._work()
                except Exception as error:  # noqa: BLE001 - told by _tell; tried again, for nobody else would
                    self._tell(error)
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, self._limits.retry_max_s)
                    continue
                delay_s = self._limits.retry_min_s
                if not (self._missing or self._unloaded):
                    break
                await asyncio.sleep(0)
        finally:
            self._task = None
            self._look_again()

    async def _work(self) -> None:
        """Take what is missing and read what was taken. One slot that can't be read does not keep others from it."""
        await self._take(await self._takeable())
        failure: MetadataError | None = None
        for tenure in list(self._unloaded.values()):
            try:
                groups = await self._store.load_groups([tenure.slot])
            except (MetadataUnavailable, OutcomeUnknown):
                raise
            except MetadataError as error:
                _log.error("the groups of coordinator slot %d can't be read: %s", tenure.slot, error)
                failure = error
                continue
            if self._unloaded.get(tenure.slot) is tenure:
                self._loaded(tenure, groups)
                del self._unloaded[tenure.slot]
            await asyncio.sleep(0)
        if failure is not None:
            raise failure
        self._is_away = False

    async def _takeable(self) -> list[int]:
        """Slots that nobody has taken after this agent had them."""
        wanted = [*self._missing, *self._taken_away]
        if not wanted:
            return []
        states = await self._store.read_leases(map(coordinator_lease, wanted))
        found = []
        for slot in wanted:
            state = states.get(coordinator_lease(slot))
            self._seen[slot] = 0 if state is None else state.epoch
            if state is None or state.holder is None or state.epoch <= self._epochs.get(slot, 0):
                found.append(slot)
            elif not self._taken_away.get(slot):
                _log.error(
                    "coordinator slot %d was taken by another agent (%d, epoch %d)",
                    slot,
                    state.holder,
                    state.epoch,
                )
                self._missing.pop(slot, None)
                self._taken_away[slot] = True
        return found

    async def _take(self, slots: Sequence[int]) -> None:
        if not slots:
            return
        by_name = {coordinator_lease(slot): slot for slot in slots}
        try:
            leases = await self._store.take_leases(list(by_name), self._holder)
        except OutcomeUnknown:
            # The next epoch may be this agent's own.
            for slot in slots:
                self._epochs[slot] = self._seen.get(slot, 0) + 1
            raise
        for lease in leases:
            slot = by_name[lease.name]
            self._missing.pop(slot, None)
            self._taken_away.pop(slot, None)
            self._epochs[slot] = lease.epoch
            tenure = self._unloaded[slot] = Tenure(slot, lease)
            self._began(tenure)

    def _look_again(self) -> None:
        """Somebody else's slots may be free one day."""
        if self._again is not None:
            self._again.cancel()
        if self._taken_away and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(self._limits.retake_s, self._wake)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, MetadataError):
            level = logging.DEBUG if self._is_away else logging.WARNING
            _log.log(level, "coordinator slots can't be served yet: %s: %s", type(error).__name__, error)
        else:
            _log.error("taking coordinator slots failed", exc_info=error)
        self._is_away = True

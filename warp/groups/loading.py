"""Gets this agent's slots: takes their leases and reads their groups, slot by slot, until none is missing.

Reading comes after taking, so whatever a former holder wrote is read, and whatever it still tries to write fails.

Which slots these are is the policy's to say. An agent that is alone takes them all when it starts, and a lease that
somebody took after it is left to them, and looked at again from time to time: two agents that took a slot from each
other in turns would serve nobody. In a cluster, the leases are known from what all agents read with every beat: a slot
is taken as it was seen there, or not at all, and slots that rather belong to another agent are handed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from warp.errors import MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.groups.slots import CoordinatorLimits, GroupStore, SlotPolicy, Tenure
from warp.ids import BrokerId
from warp.metadata.group_model import SLOTS, Lease, LeaseState, StoredGroup, coordinator_lease

_log = logging.getLogger(__name__)


class SlotEvents(NamedTuple):
    """Who hears of what becomes of slots."""

    began: Callable[[Tenure], None]
    loaded: Callable[[Tenure, Sequence[StoredGroup]], None]
    """With what the slot held."""
    lost: Callable[[Tenure], None]
    """Somebody else has the slot, or is to have it: to be given up with NOT_COORDINATOR, now."""


class SlotKeeper:
    """Keeps the slots of one agent."""

    def __init__(
        self,
        store: GroupStore,
        holder: BrokerId,
        limits: CoordinatorLimits,
        policy: SlotPolicy,
        events: SlotEvents,
    ) -> None:
        self._store = store
        self._holder = holder
        self._limits = limits
        self._policy = policy
        self._events = events
        self._missing: dict[int, None] = {}
        """Slots whose leases are to be taken."""
        self._elsewhere: dict[int, bool] = {}
        """Slots that are not to be taken as things stand; and has it been said that somebody has taken them?"""
        self._unloaded: dict[int, Tenure] = {}
        self._held: dict[int, Tenure] = {}
        self._given_up: dict[int, Lease] = {}
        """Leases to be released."""
        self._past: dict[int, int] = {}
        """The last epoch of each slot that is certainly not this agent's any more."""
        self._next_hand_over_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._is_due = False
        self._is_refused = False
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
        """Is the slot about to be this agent's? In a cluster nobody can tell before it is."""
        return slot in self._missing and not self._policy.is_shared

    async def open(self) -> None:
        """Take the slots, and begin to read them: all, whoever holds them, if this agent is alone.

        Raises MetadataError.
        """
        if self._policy.is_shared:
            self._elsewhere = dict.fromkeys(range(SLOTS), False)
            await self._take(self._takeable(self._policy.known()))
            self._policy.subscribe(self._wake)
        else:
            self._missing = dict.fromkeys(range(SLOTS))
            self._begin(await self._store.take_leases(map(coordinator_lease, self._missing), self._holder))
        self._wake()
        if self._task is not None and self._unloaded:
            await asyncio.wait([self._task], timeout=self._limits.open_wait_s)

    def lost(self, tenure: Tenure, *, to_another: bool) -> None:
        """A tenure is over. The slot is taken anew, unless somebody else has taken it.

        With `to_another` it looks as if somebody has: until that is known, the slot is not about to be this agent's.
        """
        self._unloaded.pop(tenure.slot, None)
        self._held.pop(tenure.slot, None)
        if self._is_closed:
            return
        if to_another:
            self._past[tenure.slot] = tenure.lease.epoch
            self._elsewhere[tenure.slot] = False
        else:
            self._missing[tenure.slot] = None
        self._wake()

    async def check(self) -> None:
        """Give up the slots that somebody else has by now, and let nobody take the others on what was before.

        Raises MetadataError.
        """
        held = [tenure for tenure in self._held.values() if tenure.slot not in self._given_up]
        kept = set(await self._store.renew_leases([tenure.lease for tenure in held]))
        for tenure in held:
            if tenure.lease not in kept:
                self._events.lost(tenure)

    def stop(self) -> list[Lease]:
        """Take and read nothing more. The leases that nobody has been told of yet that they are free."""
        self._is_closed = True
        self._missing.clear()
        self._elsewhere.clear()
        self._unloaded.clear()
        if self._again is not None:
            self._again.cancel()
        return list(self._given_up.values())

    async def close(self) -> None:
        """Take and read nothing more, and wait for nothing."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _wake(self) -> None:
        self._is_due = True
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        delay_s = self._limits.retry_min_s
        try:
            while self._is_due or self._missing or self._unloaded or self._given_up:
                self._is_due = False
                try:
                    await self._work()
                except Exception as error:  # noqa: BLE001 - told by _tell; tried again, for nobody else would
                    self._tell(error)
                    self._is_due = True
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, self._limits.retry_max_s)
                    continue
                delay_s = self._limits.retry_min_s
                await asyncio.sleep(0)
        finally:
            self._task = None
            self._look_again()

    async def _work(self) -> None:
        """Take what is missing, read what was taken, and hand over what another agent is to have."""
        if self._policy.is_shared:
            self._see_losses(self._policy.known())
            await self._take(self._takeable(self._policy.known()))
        else:
            wanted = [*self._missing, *self._elsewhere]
            if wanted:
                await self._take(
                    self._takeable(await self._store.read_leases(map(coordinator_lease, wanted)))
                )
        await self._load()
        self._choose_for_others()
        await self._release()
        self._is_away = False

    # Taking and reading.

    def _see_losses(self, known: Mapping[str, LeaseState]) -> None:
        """Give up at once what is known to be another's. What was seen before this agent took it says nothing."""
        for tenure in list(self._held.values()):
            state = known.get(tenure.lease.name)
            if state is None or state.epoch < tenure.lease.epoch:
                continue
            if state.epoch > tenure.lease.epoch or state.holder != self._holder:
                _log.info("coordinator slot %d is another agent's by now (%s)", tenure.slot, state.holder)
                self._events.lost(tenure)

    def _takeable(self, known: Mapping[str, LeaseState]) -> dict[int, LeaseState | None]:
        """The slots that this agent may take, with what is known of their leases."""
        found: dict[int, LeaseState | None] = {}
        for slot in sorted({*self._missing, *self._elsewhere}):
            state = known.get(coordinator_lease(slot))
            is_ours = slot not in self._given_up and not self._is_old(slot, state)
            if is_ours and self._policy.may_take(slot, state):
                found[slot] = state
                continue
            self._missing.pop(slot, None)
            if not self._elsewhere.get(slot) and not self._policy.is_shared and state is not None:
                _log.error(
                    "coordinator slot %d was taken by another agent (%s, epoch %d)",
                    slot, state.holder, state.epoch,
                )  # fmt: skip
            self._elsewhere[slot] = True
        return found

    def _is_old(self, slot: int, state: LeaseState | None) -> bool:
        """Was this seen before this agent's own time with the slot came to its end?"""
        past_epoch = self._past.get(slot, 0)
        epoch = 0 if state is None else state.epoch
        is_own = state is not None and state.holder == self._holder
        return epoch < past_epoch or (epoch == past_epoch and is_own)

    async def _take(self, wanted: Mapping[int, LeaseState | None]) -> None:
        """Take leases as they were seen. Those that were refused are looked at again when more is known.

        Most of them are another's by then. But somebody who is gone may be in the midst of a write, which ends soon.
        """
        self._is_refused = False
        if not wanted:
            return
        session = self._policy.session()
        seen = {coordinator_lease(slot): state for slot, state in wanted.items()}
        leases = await self._store.take_leases_as_seen(seen, self._holder)
        if session is None or self._policy.session() != session:
            # Others may have taken them in between. They are found to be held by this agent, or not, and taken anew.
            return
        if self._is_closed:
            await self._store.release_leases(leases)
            return
        self._begin(leases)
        for slot in wanted:
            if slot not in self._held:
                self._missing.pop(slot, None)
                self._elsewhere[slot] = False
                self._is_refused = True

    def _begin(self, leases: Sequence[Lease]) -> None:
        slots = {coordinator_lease(slot): slot for slot in range(SLOTS)}
        for lease in leases:
            slot = slots[lease.name]
            self._missing.pop(slot, None)
            self._elsewhere.pop(slot, None)
            self._past.pop(slot, None)
            tenure = self._held[slot] = self._unloaded[slot] = Tenure(slot, lease)
            self._events.began(tenure)

    async def _load(self) -> None:
        """Read what was taken. One slot that can't be read does not keep others from it."""
        failure: MetadataError | None = None
        for tenure in list(self._unloaded.values()):
            if tenure.is_over:
                continue
            try:
                groups = await self._store.load_groups([tenure.slot])
            except (MetadataUnavailable, OutcomeUnknown):
                raise
            except MetadataError as error:
                _log.error("the groups of coordinator slot %d can't be read: %s", tenure.slot, error)
                failure = error
                continue
            if self._unloaded.get(tenure.slot) is tenure:
                self._events.loaded(tenure, groups)
                del self._unloaded[tenure.slot]
            await asyncio.sleep(0)
        if failure is not None:
            raise failure

    # Handing over.

    def _choose_for_others(self) -> None:
        """Give up slots that rather belong to other agents: those that nobody is in at once, others one by one."""
        now_s = asyncio.get_running_loop().time()
        moved = []
        for tenure in self._for_others():
            is_time = now_s >= self._next_hand_over_s
            if tenure.is_resting or (tenure.is_calm and is_time):
                if not tenure.is_resting:
                    self._next_hand_over_s = now_s + self._limits.hand_over_s
                moved.append(tenure.slot)
                self._given_up[tenure.slot] = tenure.lease
                self._events.lost(tenure)

        if moved:
            _log.info("%d coordinator slots are handed over to other agents: %s", len(moved), moved)

    def _for_others(self) -> list[Tenure]:
        if not self._policy.is_shared or self._policy.session() is None:
            return []
        return [tenure for slot, tenure in sorted(self._held.items()) if self._policy.is_anothers(slot)]

    async def _release(self) -> None:
        """Until this is done nobody may have them; who has lost them meanwhile has nothing to release."""
        if self._given_up:
            given_up = dict(self._given_up)
            await self._store.release_leases(list(given_up.values()))
            for slot in given_up:
                del self._given_up[slot]

    def _look_again(self) -> None:
        """Somebody else's slots may be free one day, and this agent's may have come to rest."""
        if self._again is not None:
            self._again.cancel()
        if self._is_closed:
            return
        delay_s = self._limits.hand_over_s if self._for_others() else self._limits.retake_s
        if self._is_refused:
            delay_s = self._limits.refused_s
        if self._elsewhere or self._policy.is_shared:
            self._again = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, MetadataError):
            level = logging.DEBUG if self._is_away else logging.WARNING
            _log.log(level, "coordinator slots can't be served yet: %s: %s", type(error).__name__, error)
        else:
            _log.error("taking coordinator slots failed", exc_info=error)
        self._is_away = True

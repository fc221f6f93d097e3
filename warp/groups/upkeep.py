"""What has to be done for groups from time to time: offsets that have had their time go, and empty groups without any.

Each pass works in bounded steps with the loop let go between them. What fails is left for the next pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from warp.clock import Clock
from warp.errors import ErrorCode, MetadataError, MetadataReadOnly, MetadataUnavailable
from warp.groups.offset_expiry import ExpiryLimits, OffsetExpirer, OffsetHolder
from warp.groups.runner import GroupRunner
from warp.groups.slots import GroupStore, Tenure
from warp.groups.transitions import State
from warp.metadata.group_model import Lease, LeaseLost

_log = logging.getLogger("warp.groups")


@dataclass(frozen=True, slots=True)
class UpkeepSettings:
    """When offsets and groups go."""

    retention_ms: int = 7 * 86_400_000
    """offsets.retention.minutes"""
    interval_s: float = 600.0
    """offsets.retention.check.interval.ms: between the end of a pass and the next."""
    steps: ExpiryLimits = field(default_factory=ExpiryLimits)
    is_clock_trusted: Callable[[], bool] = lambda: True
    """Can this machine's clock tell what has had its time? Where it can't, offsets stay."""


class GroupUpkeep:
    """The passes over the groups of one agent."""

    def __init__(
        self,
        store: GroupStore,
        clock: Clock,
        runner: GroupRunner,
        settings: UpkeepSettings,
        *,
        has_orphans: bool = True,
    ) -> None:
        """`has_orphans`: a pass looks for offsets of topics and groups that are gone, too; else that is a job."""
        self._has_orphans = has_orphans
        self._store = store
        self._runner = runner
        self._settings = settings
        self._expirer = OffsetExpirer(store, clock, settings.steps)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first pass comes after one interval."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop, also in the middle of a pass."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def run_once(self) -> None:
        """One pass. Raises MetadataError: some is done by then."""
        if not self._runner.guard.is_serving:
            return
        for tenure in self._runner.held():
            if tenure.unsure and tenure.is_loaded:
                await self._make_sure(tenure)
        expired = await self._expire() if self._settings.is_clock_trusted() else 0
        orphans = await self._expirer.remove_orphans() if self._has_orphans else 0
        groups = await self._reap()
        if expired or orphans or groups:
            _log.info(
                "removed %d committed offsets that have had their time, %d of topics and groups that are gone, and %d "
                "empty groups",
                expired, orphans, groups,
            )  # fmt: skip

    async def _expire(self) -> int:
        """Remove offsets that have had their time; how many."""
        try:
            return len(await self._expirer.expire(self._holders(), self._settings.retention_ms))
        except LeaseLost as lost:
            self._lost(lost)
            raise

    async def sweep_orphans_once(self, lease: Lease) -> None:
        """Remove the offsets of topics and groups that are gone, of all slots, as long as a lease is held.

        Raises LeaseLost or another MetadataError: some is done by then.
        """
        removed = await self._expirer.remove_orphans(lease)
        if removed:
            _log.info("removed %d committed offsets of topics and groups that are gone", removed)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.interval_s)
            try:
                await self.run_once()
            except MetadataError as error:
                _log.warning("the upkeep of groups was cut short: %s: %s", type(error).__name__, error)
            except Exception:  # noqa: BLE001 - a bug: logged, and tried again
                _log.exception("the upkeep of groups failed")

    async def _make_sure(self, tenure: Tenure) -> None:
        """Find the groups that commits have made without anybody having been told."""
        unsure = set(tenure.unsure)
        found = await self._store.load_groups([tenure.slot])
        if not tenure.is_over:
            for stored in found:
                if stored.group_id in unsure and not tenure.knows(stored.group_id):
                    tenure.keep(stored)
            tenure.unsure -= unsure

    def _holders(self) -> Iterator[OffsetHolder]:
        """All groups that are stored, each as it is when it is asked for."""
        for tenure in self._runner.held():
            for group_id in list(tenure.stored):
                holder = None if tenure.is_over else _holder(tenure, group_id)
                if holder is not None:
                    yield holder

    async def _reap(self) -> int:
        """Remove groups that are empty and have no offsets; how many there were."""
        removed = 0
        candidates = self._resting()
        while some := list(islice(candidates, self._settings.steps.groups_max)):
            wanted: dict[Tenure, list[str]] = {}
            for tenure, group_id in some:
                if _is_resting(tenure, group_id):
                    wanted.setdefault(tenure, []).append(group_id)
            removed += await self._reap_some(wanted)
            await asyncio.sleep(0)
        return removed

    def _resting(self) -> Iterator[tuple[Tenure, str]]:
        for tenure in self._runner.held():
            for group_id in list(tenure.stored):
                if _is_resting(tenure, group_id):
                    yield tenure, group_id

    async def _reap_some(self, wanted: Mapping[Tenure, Sequence[str]]) -> int:
        """Meanwhile the groups are not served, for nobody can tell whether they are there."""
        if not wanted:
            return 0
        for tenure, group_ids in wanted.items():
            tenure.reaping.update(group_ids)
        by_lease: dict[Lease, Sequence[str]] = {tenure.lease: ids for tenure, ids in wanted.items()}
        try:
            removed = await self._store.delete_groups_without_offsets(by_lease)
        except LeaseLost as lost:
            self._lost(lost)
            raise
        except (MetadataUnavailable, MetadataReadOnly):
            raise
        except MetadataError:
            # They may be gone or not: what is stored has to be read again.
            for tenure in wanted:
                self._runner.end(tenure, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            raise
        finally:
            for tenure, group_ids in wanted.items():
                tenure.reaping.difference_update(group_ids)
        for tenure, group_ids in wanted.items():
            for group_id in removed.intersection(group_ids):
                tenure.forget(group_id)
        return len(removed)

    def _lost(self, lost: LeaseLost) -> None:
        for tenure in self._runner.held():
            if tenure.lease in lost.leases:
                self._runner.end(tenure, ErrorCode.NOT_COORDINATOR)


def _is_resting(tenure: Tenure, group_id: str) -> bool:
    """Nobody is in the group or asks anything of it."""
    stored = tenure.stored.get(group_id)
    is_empty = stored is not None and not stored.members and group_id not in tenure.live
    return is_empty and not tenure.is_over and group_id not in tenure.committing


def _holder(tenure: Tenure, group_id: str) -> OffsetHolder | None:
    """A group as the expiry of offsets sees it; None while a change of it is being stored."""
    stored = tenure.stored.get(group_id)
    group = tenure.live.get(group_id)
    if stored is None or (group is not None and not group.is_settled):
        return None
    if group is None:
        return OffsetHolder(
            tenure.lease, group_id, stored.protocol_type, not stored.members, False, stored.changed_ms, frozenset()
        )  # fmt: skip
    overview = group.overview()
    return OffsetHolder(
        tenure.lease,
        group_id,
        overview.protocol_type,
        overview.state == State.EMPTY.value,
        overview.state == State.STABLE.value,
        stored.changed_ms,
        group.subscribed_topics(),
    )

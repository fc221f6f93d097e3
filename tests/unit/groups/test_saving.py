"""What becomes of changes of groups whose outcome was unknown once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from warp.errors import MetadataUnavailable, OutcomeUnknown
from warp.groups.model import Remove
from warp.groups.saving import GroupSaver, Outcome, PendingChange
from warp.groups.slots import CoordinatorLimits, Tenure
from warp.ids import BrokerId
from warp.metadata.group_model import GroupTooLarge, Lease, LeaseLost

LEASES = {name: Lease(name, BrokerId(1), 1) for name in ("a", "b")}
LIMITS = CoordinatorLimits(retry_min_s=0.001)


class Store:
    """Ends each transaction as it is told; None: it is done."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = list(ends)
        self.asked: list[list[str]] = []

    async def delete_groups(self, removals: Mapping[Lease, Sequence[str]]) -> None:
        self.asked.append([lease.name for lease in removals])
        end = self._ends.pop(0)
        if end is not None:
            raise end


def outcomes(store: Any) -> dict[str, Outcome]:
    """What becomes of two groups' changes that go together, under two leases."""

    async def main() -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}

        def ended(pending: PendingChange, outcome: Outcome) -> None:
            found[pending.tenure.lease.name] = outcome

        saver = GroupSaver(store, LIMITS, ended)
        for slot, (name, lease) in enumerate(LEASES.items()):
            saver.add(Tenure(slot, lease), None, Remove(name))  # type: ignore[arg-type]
        assert await saver.drain(10)
        return found

    return asyncio.run(main())


@pytest.mark.parametrize(
    "end", [MetadataUnavailable("away"), GroupTooLarge("too large")], ids=["away", "refused"]
)
def test_what_may_have_been_done_stays_unknown_when_another_one_has_lost_its_lease(end: Exception) -> None:
    store = Store(OutcomeUnknown("lost"), LeaseLost([LEASES["a"]]), end)
    assert outcomes(store) == {"a": Outcome.LEASE_LOST, "b": Outcome.UNKNOWN}
    assert store.asked == [["a", "b"], ["a", "b"], ["b"]]


def test_what_may_have_been_done_stays_unknown_when_each_is_tried_alone() -> None:
    store = Store(OutcomeUnknown("lost"), GroupTooLarge("too large"), None, MetadataUnavailable("away"))
    assert outcomes(store) == {"a": Outcome.DONE, "b": Outcome.UNKNOWN}


def test_without_doubt_a_store_that_is_away_has_changed_nothing() -> None:
    store = Store(LeaseLost([LEASES["a"]]), MetadataUnavailable("away"))
    assert outcomes(store) == {"a": Outcome.LEASE_LOST, "b": Outcome.AWAY}

"""What clients can make a coordinator keep has its bounds, also while nothing can be stored."""

from __future__ import annotations

import asyncio
import itertools

from tests.unit.groups.coordinator_support import Rig, commit, run
from warp.errors import ErrorCode, MetadataUnavailable
from warp.groups.commits import UNSURE_MAX
from warp.metadata.group_model import slot_of


def test_commits_under_ever_new_names_are_not_all_remembered_while_the_store_is_away() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.faults["commit_offsets"] = [MetadataUnavailable("away")] * 10_000
        names = (f"g-{number}" for number in itertools.count())
        of_one_slot = itertools.islice((name for name in names if slot_of(name) == 7), 2 * UNSURE_MAX)
        errors = await asyncio.gather(*(commit(coordinator, rig, name, 1) for name in of_one_slot))
        assert set(errors) == {ErrorCode.COORDINATOR_NOT_AVAILABLE}
        (tenure,) = (one for one in coordinator._runner.held() if one.slot == 7)
        assert len(tenure.unsure) == UNSURE_MAX

    run(test)

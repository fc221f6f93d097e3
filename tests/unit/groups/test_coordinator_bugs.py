"""A bug in the machine of a group is told, and costs nobody the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.unit.groups.coordinator_support import (
    NONE,
    Rig,
    heartbeat,
    join,
    leave,
    run,
    stable,
)
from warp.errors import ErrorCode
from warp.groups.model import Describe, Leave, Leaver
from warp.groups.state import ClassicGroup
from warp.metadata.group_model import StoredGroup

AWAY = ErrorCode.COORDINATOR_NOT_AVAILABLE


def fail(*_: Any) -> None:
    raise RuntimeError("a bug")


def test_a_bug_behind_a_change_that_is_stored_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("save_groups")
        joining = join(coordinator, id_required=False)
        await asyncio.sleep(1)
        monkeypatch.setattr("warp.groups.state.leave", fail)
        leaving = coordinator.request("g", Leave((Leaver("nobody"),)))
        describing = coordinator.request("g", Describe())
        rig.store.release("save_groups")
        answers = await asyncio.wait_for(asyncio.gather(joining, leaving, describing), 1)
        assert [answer.error for answer in answers] == [AWAY] * 3
        assert "bug in group g" in caplog.text
        # It goes on from what is stored: a generation whose assignment is not there yet.
        (group,) = coordinator.list_groups()
        assert (group.state, group.members) == ("PreparingRebalance", 1)

    with caplog.at_level(logging.ERROR, logger="warp"):
        run(test)


def test_a_bug_in_the_middle_of_a_step_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        rejoining = join(coordinator, "g", members.ids[0])
        assert not rejoining.done()
        monkeypatch.setattr("warp.groups.rebalance.GroupCore.after_removal", fail)
        leaving = coordinator.request("g", Leave((Leaver(members.ids[0]),)))
        answers = await asyncio.wait_for(asyncio.gather(rejoining, leaving), 1)
        assert [answer.error for answer in answers] == [AWAY, ErrorCode.UNKNOWN_SERVER_ERROR]
        assert heartbeat(coordinator, "g", members.ids[1], members.generation) is NONE

    run(test)


def test_a_slot_whose_groups_can_not_be_taken_over_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = ClassicGroup.restore
    failures = 3

    def restored(stored: StoredGroup, *others: Any) -> ClassicGroup:
        nonlocal failures
        if failures:
            failures -= 1
            fail()
        return restore(stored, *others)

    async def test(rig: Rig) -> None:
        members = await stable(await rig.coordinator(), count=2)
        monkeypatch.setattr(ClassicGroup, "restore", restored)
        coordinator = await rig.coordinator(holder=2)
        await asyncio.sleep(2)
        assert heartbeat(coordinator, "g", members.ids[1], members.generation) is NONE
        assert await leave(coordinator, "g", *members.ids) == [NONE, NONE]

    run(test)

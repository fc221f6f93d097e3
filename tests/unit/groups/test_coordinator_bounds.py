"""What clients can make a coordinator keep has its bounds, also while nothing can be stored."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from tests.unit.groups.coordinator_support import (
    NONE,
    Rig,
    commit,
    heartbeat,
    join,
    joined,
    leave,
    run,
    stable,
    sync,
)
from warp.errors import ErrorCode, MetadataUnavailable
from warp.groups.commits import PARTITIONS_AT_ONCE, UNSURE_MAX
from warp.groups.slots import CoordinatorLimits
from warp.groups.state import ClassicGroup
from warp.metadata.group_model import OffsetQuery, slot_of


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


SMALL = CoordinatorLimits(members_bytes_max=100_000)
FULL = ErrorCode.GROUP_MAX_SIZE_REACHED
LARGE = (("range", bytes(40_000)),)


def test_members_of_all_groups_hold_no_more_memory_than_they_may() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=SMALL)
        first = await stable(coordinator, "a", protocols=LARGE)
        second = await stable(coordinator, "b", protocols=LARGE)
        assert (await join(coordinator, "c", protocols=LARGE)).error is FULL
        assert [group.group_id for group in coordinator.list_groups()] == ["a", "b"]
        # Who is in goes on, and may join again with as much as it has.
        assert heartbeat(coordinator, "a", first.ids[0], first.generation) is NONE
        assert (await join(coordinator, "a", first.ids[0], protocols=LARGE)).error is NONE
        larger = (("range", bytes(80_000)),)
        assert (await join(coordinator, "b", second.ids[0], protocols=larger)).error is FULL
        # Small ones have room, and large ones when others have left.
        await stable(coordinator, "c")
        assert await leave(coordinator, "b", *second.ids) == [NONE]
        await stable(coordinator, "d", protocols=LARGE)

    run(test)


def test_assignments_count_as_what_members_hold() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=SMALL)
        await stable(coordinator, "a", protocols=LARGE)
        members = await joined(coordinator, "b")
        leader = members.ids[0]
        answer = await sync(coordinator, "b", leader, members.generation, [(leader, bytes(60_000))])
        assert answer.error is ErrorCode.MESSAGE_TOO_LARGE
        answer = await sync(coordinator, "b", leader, members.generation, [(leader, bytes(20_000))])
        assert answer.error is NONE

    run(test)


def test_requests_that_wait_for_a_change_count_as_what_members_hold() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=SMALL)
        members = await stable(coordinator, "a", count=2)
        rig.store.hold("save_groups")
        leaving = asyncio.ensure_future(leave(coordinator, "a", *members.ids))
        await asyncio.sleep(1)
        joining = [join(coordinator, "a", id_required=False, protocols=LARGE) for _ in range(10)]
        assert [one.result().error for one in joining if one.done()] == [FULL] * 8
        rig.store.release("save_groups")
        assert await leaving == [NONE, NONE]
        answers = await asyncio.gather(*joining)
        assert [answer.error for answer in answers] == [NONE] * 2 + [FULL] * 8

    run(test)


def test_what_members_hold_is_known_after_a_restart_and_forgotten_with_their_slots() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.coordinator(limits=SMALL)
        await stable(first, "a", protocols=LARGE)
        await stable(first, "b", protocols=LARGE)
        held = first._runner._weight.total_bytes
        second = await rig.coordinator(limits=SMALL)
        assert second._runner._weight.total_bytes == held > 80_000
        first.stop_waiting()
        assert first._runner._weight.total_bytes == 0
        # Nobody comes: all are given up.
        await asyncio.sleep(3600)
        assert second._runner._weight.total_bytes == 0

    run(test)


class NotGoneThrough(dict[str, ClassicGroup]):
    """Groups of which only single ones may be looked at, until `may` is set."""

    may = False

    def __iter__(self) -> Iterator[str]:
        assert self.may
        return super().__iter__()


def test_groups_are_counted_without_looking_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever asks for one more than there may be would take the agent's time, by the number of groups."""

    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(limits=CoordinatorLimits(groups_max=10))
        for number in range(4):
            assert await commit(coordinator, rig, f"simple-{number}", 1) is NONE
            await stable(coordinator, f"stored-{number}")
        await joined(coordinator, "new")
        pending = await join(coordinator, "pending")
        for tenure in coordinator._runner.held():
            tenure.live = NotGoneThrough(tenure.live)
        assert (await join(coordinator, "refused")).error is FULL
        monkeypatch.setattr(NotGoneThrough, "may", True)
        for tenure in coordinator._runner.held():
            assert len(tenure) == len({*tenure.stored, *tenure.live})
        assert sum(map(len, coordinator._runner.held())) == 10
        assert await leave(coordinator, "pending", pending.member_id) == [NONE]
        assert (await join(coordinator, "refused")).error is ErrorCode.MEMBER_ID_REQUIRED
        assert await coordinator.delete_groups(["simple-0", "simple-1"]) == {
            "simple-0": NONE,
            "simple-1": NONE,
        }
        assert (await join(coordinator, "let in")).error is ErrorCode.MEMBER_ID_REQUIRED
        # Members are given up, and groups without offsets removed.
        await asyncio.sleep(3600)
        await coordinator.upkeep.run_once()
        assert sum(map(len, coordinator._runner.held())) == 2
        for tenure in coordinator._runner.held():
            assert len(tenure) == len({*tenure.stored, *tenure.live})

    run(test)


def test_many_partitions_are_looked_up_a_few_at_a_time() -> None:
    """Else one request could keep the event loop from everybody else for a second."""

    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert await commit(coordinator, rig, "g", 7) is NONE
        assert await commit(coordinator, rig, "h", 8) is NONE
        many = [("t", number) for number in reversed(range(2 * PARTITIONS_AT_ONCE + 1))]
        queries = [OffsetQuery("g", many), OffsetQuery("h", None), OffsetQuery("h", many)]
        answers = await coordinator.fetch_offsets(queries)
        assert [[row.offset for row in rows] for rows in answers if isinstance(rows, list)] == [[7], [8], [8]]
        assert rig.store.count("fetch_offsets") == 3 + 1 + 3
        errors = await coordinator.delete_offsets("g", many)
        assert isinstance(errors, list)
        assert errors == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] * (len(many) - 8) + [NONE] * 8
        assert rig.store.count("delete_offsets") == 3
        assert await rig.offset("g") is None
        assert await rig.offset("h") == 8

    run(test)

"""Coordinator slots in a cluster: who takes them, who goes on with them, and who serves nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.cluster.slot_support import TIMEOUT_S, ClusterAgent, Town, group_of, run
from tests.unit.groups.coordinator_support import (
    NONE,
    SHORT_DELAY,
    Members,
    heartbeat,
    join,
    stable,
    sync,
)
from tests.unit.groups.group_support import SESSION_MS
from warp.cluster.membership import BEAT_S_MAX
from warp.errors import ErrorCode
from warp.groups.model import CheckCommit, JoinAnswer
from warp.groups.slots import CoordinatorLimits
from warp.ids import BrokerId
from warp.metadata.group_model import (
    SLOTS,
    Lease,
    LeaseLost,
    LeaseState,
    OffsetQuery,
    OrphanCursor,
    coordinator_lease,
    slot_of,
)

AWAY = ErrorCode.COORDINATOR_NOT_AVAILABLE
LOST = ErrorCode.NOT_COORDINATOR
SESSION_S = SESSION_MS / 1000


async def coordinator_of(town: Town, group_id: str) -> ClusterAgent:
    [agent] = town.serving(group_id)
    return agent


async def beat(agent: ClusterAgent, members: Members) -> list[ErrorCode]:
    """What the heartbeats of all members are answered; both ways are the same."""

    async def ask() -> list[ErrorCode]:
        answers = []
        for one in members.ids:
            quick = agent.beat(members.group_id, one, members.generation)
            answers.append(heartbeat(agent.coordinator, members.group_id, one, members.generation))
            assert quick in (None, answers[-1])
        return answers

    return await agent.do(ask())


async def commit_at(
    agent: ClusterAgent, group_id: str, offset: int, members: Members | None = None
) -> ErrorCode:
    check = (
        CheckCommit("", None, -1)
        if members is None
        else CheckCommit(members.ids[0], None, members.generation)
    )
    rows = [agent.town.row(group_id, offset)]
    [error] = await agent.do(agent.coordinator.commit_offsets(group_id, check, rows))
    return error


async def rejoin(agent: ClusterAgent, members: Members, place: int, **fields: Any) -> JoinAnswer:
    """A member joins its group again."""
    return await join(agent.coordinator, members.group_id, members.ids[place], **fields)


# Starting


def test_the_first_agent_takes_all_slots_and_a_second_one_gets_its_part() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(1)
        assert await town.holders() == dict.fromkeys(range(SLOTS), a.broker_id)
        b = await town.agent("b")
        # It serves at once, though everything is another's.
        assert not b.coordinator.is_loading
        await town.settle(5)
        shares = Counter((await town.holders()).values())
        assert set(shares) == {a.broker_id, b.broker_id}
        assert min(shares.values()) > SLOTS / 4
        for slot in range(SLOTS):
            assert len(town.serving(group_of(slot))) == 1

    run(test)


def test_agents_that_start_together_share_the_slots() -> None:
    async def test(town: Town) -> None:
        await asyncio.gather(*(town.agent(name) for name in "abc"))
        await town.settle(10)
        shares = Counter((await town.holders()).values())
        assert len(shares) == 3
        for slot in range(SLOTS):
            assert len(town.serving(group_of(slot))) == 1

    run(test)


def test_nothing_is_asked_of_the_store_beside_the_beats_when_there_is_nothing_to_do() -> None:
    async def test(town: Town) -> None:
        agents = [await town.agent(name) for name in "ab"]
        await town.settle()
        for agent in agents:
            agent.wire.calls.clear()
        await asyncio.sleep(60)
        for agent in agents:
            assert set(agent.wire.calls) == {"beat"}
            assert len(agent.wire.calls) <= 60 / BEAT_S_MAX + 1

    run(test)


# Losing an agent


def test_the_slots_of_an_agent_that_dies_are_served_by_others_soon_and_members_go_on() -> None:
    async def test(town: Town) -> None:
        agents = [await town.agent(name) for name in "abc"]
        await town.settle()
        victim = agents[1]
        mine = [slot for slot, holder in (await town.holders()).items() if holder == victim.broker_id]
        groups = [group_of(slot) for slot in mine]
        members = [await victim.do(stable(victim.coordinator, group_id, 2)) for group_id in groups]
        for group_id in groups:
            assert town.serving(group_id) == [victim]
        before = await town.leases()
        victim.kill()
        await asyncio.sleep(TIMEOUT_S + 0.75)
        assert all(town.serving(group_id) for group_id in groups)
        takers = set()
        for each in members:
            agent = await coordinator_of(town, each.group_id)
            takers.add(agent.name)
            assert await beat(agent, each) == [NONE, NONE]
            assert await commit_at(agent, each.group_id, 8, each) is NONE
            again = await agent.do(sync_of(agent, each))
            assert again == each.assignments[each.ids[1]]
        assert takers == {"a", "c"}
        # Nobody else has noticed anything.
        after = await town.leases()
        assert [slot for slot in range(SLOTS) if after[slot].epoch != before[slot].epoch] == mine

    async def sync_of(agent: ClusterAgent, members: Members) -> bytes:
        answer = await sync(agent.coordinator, members.group_id, members.ids[1], members.generation)
        return answer.assignment

    run(test)


def test_an_agent_that_stops_hands_its_slots_over_while_it_still_finishes() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name) for name in "ab"]
        await town.settle()
        group_id = next(g for g in map(group_of, range(SLOTS)) if town.serving(g) == [a])
        members = await a.do(stable(a.coordinator, group_id, 2))

        async def leave() -> None:
            await a.membership.leave()
            a.coordinator.stop_waiting()

        await a.do(leave())
        # It has other work to finish; meanwhile its groups are served.
        await asyncio.sleep(1.0)
        assert await beat(a, members) == [LOST, LOST]
        assert await beat(b, members) == [NONE, NONE]
        assert await town.holders() == dict.fromkeys(range(SLOTS), b.broker_id)
        assert await a.stop()

    run(test)


def test_a_commit_that_hangs_does_not_keep_the_slots_of_an_agent_that_stops_for_long() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name, CoordinatorLimits(release_wait_s=1.0)) for name in "ab"]
        await town.settle()
        group_id = next(g for g in map(group_of, range(SLOTS)) if town.serving(g) == [a])
        a.wire.late_s["commit_offsets"] = 4.0
        hanging = asyncio.ensure_future(commit_at(a, group_id, 7))
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(a.stop())
        await asyncio.sleep(1.8)
        assert await commit_at(b, group_id, 9) is NONE
        assert await hanging is LOST
        assert await stopping
        assert await town.offset(group_id) == 9

    run(test)


def test_an_agent_that_comes_back_has_its_slots_at_once() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "g", 2))
        assert await a.stop()
        again = await town.agent("a")
        assert again.broker_id == a.broker_id
        await asyncio.sleep(0.5)
        assert await beat(again, members) == [NONE, NONE]

    run(test)


# A session that lapses


@pytest.mark.parametrize("others", [0, 1])
def test_an_agent_that_was_frozen_serves_nobody_before_it_has_looked(others: int) -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "g", 2))
        assert await commit_at(a, "g", 7, members) is NONE
        epoch = (await town.leases())[slot_of("g")].epoch
        rest = [await town.agent(f"b{n}") for n in range(others)]
        a.freeze(10.0)
        # What clients have sent meanwhile is the first thing that it sees.
        asked = [
            asyncio.ensure_future(beat(a, members)),
            asyncio.ensure_future(commit_at(a, "g", 8, members)),
            asyncio.ensure_future(a.do(fetched(a))),
            asyncio.ensure_future(a.do(listed(a))),
        ]
        await asyncio.sleep(9.0)
        for other in rest:
            assert await beat(other, members) == [NONE, NONE]
            assert await commit_at(other, "g", 9, members) is NONE
        await asyncio.sleep(1.0)
        assert await asyncio.gather(*asked) == [[LOST, LOST], LOST, [9 if others else 7], 0]
        await asyncio.sleep(1.0)
        state = (await town.leases())[slot_of("g")]
        if others:
            assert await beat(a, members) == [LOST, LOST]
            assert await town.offset("g") == 9
        else:
            # Nobody has taken them: it goes on as if nothing had been, and nobody is given up.
            assert state.epoch == epoch
            assert await beat(a, members) == [NONE, NONE]
            await asyncio.sleep(SESSION_S - 3)
            assert await beat(a, members) == [NONE, NONE]

    async def listed(agent: ClusterAgent) -> int:
        return len(agent.coordinator.list_groups())

    async def fetched(agent: ClusterAgent) -> list[int]:
        """From the store, as it is now: to tell it, nobody has to be the coordinator."""
        [rows] = await agent.coordinator.fetch_offsets([OffsetQuery("g", None)])
        assert not isinstance(rows, ErrorCode), rows
        return [row.offset for row in rows]

    run(test)


def test_while_the_database_is_away_nobody_is_served_and_then_all_goes_on_with_what_it_had() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "calm", 2))
        half = await a.do(stable(a.coordinator, "moving", 2))
        # One of two has joined again, and waits for the other.
        parked = asyncio.ensure_future(a.do(rejoin(a, half, 0)))
        await asyncio.sleep(0.1)
        epochs = {slot: state.epoch for slot, state in (await town.leases()).items()}
        a.wire.is_cut = True
        await asyncio.sleep(TIMEOUT_S)
        assert parked.done()
        assert (await parked).error is LOST
        assert await beat(a, members) == [LOST, LOST]
        assert not a.coordinator.coordinates("calm")
        await asyncio.sleep(5 * SESSION_S)
        a.wire.is_cut = False
        await asyncio.sleep(2)
        assert {slot: state.epoch for slot, state in (await town.leases()).items()} == epochs
        # No timer has run out meanwhile, and the rebalance that had begun is as if it had not.
        assert await beat(a, members) == [NONE, NONE]
        assert await beat(a, half) == [NONE, NONE]
        await asyncio.sleep(SESSION_S - 1)
        assert await beat(a, members) == [NONE, NONE]
        await asyncio.sleep(2)
        # But who has not come back by then is given up.
        assert (await beat(a, half))[0] is ErrorCode.UNKNOWN_MEMBER_ID

    run(test)


def test_no_member_is_given_up_by_an_agent_whose_session_has_lapsed() -> None:
    async def test(town: Town) -> None:
        # It does not look by itself: it is the timer that has to.
        a = await town.agent("a", CoordinatorLimits(watch_s=1e6))
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "g", 2))
        a.wire.late_s["beat"] = 1e6
        await asyncio.sleep(SESSION_S + 1)
        a.wire.late_s.clear()
        await asyncio.sleep(2 * TIMEOUT_S)
        assert await beat(a, members) == [NONE, NONE]

    run(test)


def test_a_change_that_is_being_stored_when_the_session_lapses_is_found_when_it_is_back() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "g", 2))
        a.wire.late_s["save_groups"] = 4.0
        joining = [asyncio.ensure_future(a.do(rejoin(a, members, n))) for n in range(2)]
        await asyncio.sleep(0.1)
        a.freeze(2.0)
        await asyncio.sleep(2.1)
        # They are let go at once, though nobody knows yet what becomes of the change.
        assert [(await answer).error for answer in joining] == [LOST, LOST]
        await asyncio.sleep(1.0)
        assert a.coordinator.coordinates("g")
        assert await beat(a, members) == [AWAY, AWAY]
        assert await commit_at(a, "g", 1, members) is AWAY
        await asyncio.sleep(2.0)
        # It was stored: a generation has begun of which nobody was told.
        renewed = Members("g", members.ids, members.generation + 1)
        assert await beat(a, members) == [ErrorCode.ILLEGAL_GENERATION] * 2
        assert await beat(a, renewed) == [ErrorCode.REBALANCE_IN_PROGRESS] * 2

    run(test)


def test_who_wakes_while_another_one_is_about_to_take_its_slots_keeps_them() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        members = await a.do(stable(a.coordinator, "g", 2))
        b = await town.agent("b")
        # What it decides to take arrives late.
        b.wire.late_s["take_leases_as_seen"] = 2.5
        before = await town.leases()
        a.freeze(4.0)
        await asyncio.sleep(4.1)
        assert await beat(a, members) == [NONE, NONE]
        assert b.wire.calls.count("take_leases_as_seen") == 1
        await asyncio.sleep(1.6)
        assert await beat(a, members) == [NONE, NONE]
        after = await town.leases()
        assert all(after[slot].epoch == before[slot].epoch for slot in range(SLOTS))

    run(test)


def test_leases_that_were_taken_in_a_session_that_has_lapsed_are_not_used() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name) for name in "ab"]
        await town.settle()
        # What it takes is its own at once, but it hears of that only when it has long been taken for gone itself.
        group_id = next(g for g in map(group_of, range(SLOTS)) if town.serving(g) == [a])
        a.kill()
        await asyncio.sleep(TIMEOUT_S)
        b.wire.late_answers_s["take_leases_as_seen"] = 6.0
        await asyncio.sleep(0.6)
        assert (await town.holders())[slot_of(group_id)] == b.broker_id
        b.freeze(3.0)
        c = await town.agent("c")
        await asyncio.sleep(3.2)
        assert town.serving(group_id) == [] or town.serving(group_id) == [c]
        for _ in range(100):
            await asyncio.sleep(0.1)
            held = await town.leases()
            for agent in town.serving(group_id):
                assert held[slot_of(group_id)].holder == agent.broker_id
        b.wire.late_answers_s.clear()
        await town.settle()
        assert all(len(town.serving(group_of(slot))) == 1 for slot in range(SLOTS))

    run(test)


def test_a_commit_under_way_when_the_slot_is_taken_is_refused() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name) for name in "ab"]
        await town.settle()
        group_id = next(g for g in map(group_of, range(SLOTS)) if town.serving(g) == [a])
        a.wire.late_s["commit_offsets"] = 4.5
        late = asyncio.ensure_future(commit_at(a, group_id, 7))
        await asyncio.sleep(0.1)
        a.freeze(4.0)
        await asyncio.sleep(3.0)
        assert await commit_at(b, group_id, 9) is NONE
        assert await late is LOST
        assert await town.offset(group_id) == 9

    run(test)


# Sharing the load


def test_members_of_slots_that_move_notice_nothing_but_another_coordinator() -> None:
    async def test(town: Town) -> None:
        limits = CoordinatorLimits(hand_over_s=3.0)
        a = await town.agent("a", limits)
        await town.settle(2)
        groups = [group_of(slot) for slot in range(12)]
        members = [await a.do(stable(a.coordinator, group_id, 2)) for group_id in groups]
        moves: list[float] = []
        seen = dict.fromkeys(groups, a)
        unserved: dict[str, int] = dict.fromkeys(groups, 0)
        longest = 0
        b = await town.agent("b", limits)
        for _ in range(600):
            await asyncio.sleep(0.1)
            for each in members:
                for agent in town.serving(each.group_id):
                    assert set(await beat(agent, each)) <= {NONE}
                    if agent is not seen[each.group_id]:
                        seen[each.group_id] = agent
                        moves.append(town.loop.time())
                    unserved[each.group_id] = 0
                if not town.serving(each.group_id):
                    unserved[each.group_id] += 1
                    longest = max(longest, unserved[each.group_id])
        assert set(seen.values()) == {a, b}
        # One after the other, each within a second.
        assert all(later - earlier > 2 for earlier, later in pairwise(moves))
        assert longest <= 10
        for each in members:
            assert await commit_at(seen[each.group_id], each.group_id, 1, each) is NONE

    run(test)


def test_a_slot_whose_members_rebalance_stays_until_they_are_done() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        groups = [group_of(slot) for slot in range(SLOTS)]
        joining = []
        for group_id in groups:
            members = await a.do(stable(a.coordinator, group_id, 2, rebalance_timeout_ms=60_000))
            joining.append(asyncio.ensure_future(a.do(rejoin(a, members, 0, rebalance_timeout_ms=60_000))))
        await town.agent("b")
        await asyncio.sleep(5)
        assert set((await town.holders()).values()) == {a.broker_id}
        assert all(town.serving(group_id) == [a] for group_id in groups)
        assert not any(answer.done() for answer in joining)

    run(test)


def test_slots_that_the_one_they_fall_to_does_not_take_are_served_by_another_for_good() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        b = await town.agent("b")
        b.wire.late_s["take_leases_as_seen"] = 1e6
        await town.settle(20)
        assert set((await town.holders()).values()) == {a.broker_id}
        before = await town.leases()
        await town.settle(60)
        assert await town.leases() == before
        assert all(town.serving(group_of(slot)) == [a] for slot in range(SLOTS))

    run(test)


# Stores that fail


def test_of_two_that_race_for_a_slot_one_gets_it() -> None:
    async def test(town: Town) -> None:
        # Neither knows of the other when it decides.
        opening = []
        for name in "ab":
            agent = ClusterAgent(town, name, CoordinatorLimits(), SHORT_DELAY)
            agent.wire.late_s["take_leases_as_seen"] = 0.3
            opening.append(agent)
        await asyncio.gather(*(town.loop.start(agent.process, agent.open()) for agent in opening))
        town.agents += opening
        await asyncio.sleep(0.7)
        first = await town.leases()
        assert {state.epoch for state in first.values()} == {1}
        await town.settle()
        assert all(len(town.serving(group_of(slot))) == 1 for slot in range(SLOTS))

    run(test)


def test_slots_in_which_somebody_who_died_still_writes_are_taken_soon_after_that() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name) for name in "ab"]
        await town.settle()
        mine = [slot for slot, holder in (await town.holders()).items() if holder == a.broker_id]
        locked = {coordinator_lease(slot) for slot in mine}
        take = town.store.take_leases_as_seen

        async def take_unlocked(seen: Mapping[str, LeaseState | None], holder: BrokerId) -> list[Lease]:
            return await take({name: state for name, state in seen.items() if name not in locked}, holder)

        town.store.take_leases_as_seen = take_unlocked  # type: ignore[method-assign]
        a.kill()
        await asyncio.sleep(TIMEOUT_S + 1)
        assert not any(town.serving(group_of(slot)) for slot in mine)
        locked.clear()
        await asyncio.sleep(1)
        assert all(town.serving(group_of(slot)) == [b] for slot in mine)

    run(test)


def test_leases_that_were_taken_without_an_answer_are_used() -> None:
    async def test(town: Town) -> None:
        a, b = [await town.agent(name) for name in "ab"]
        await town.settle()
        b.wire.forgotten = ["take_leases_as_seen", "take_leases_as_seen"]
        a.kill()
        await asyncio.sleep(TIMEOUT_S + 2.5)
        assert b.wire.forgotten == []
        assert all(town.serving(group_of(slot)) == [b] for slot in range(SLOTS))
        assert await commit_at(b, "g", 1) is NONE

    run(test)


def test_a_release_without_an_answer_is_tried_until_it_is_known() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        a.wire.forgotten = ["release_leases"] * 3
        b = await town.agent("b")
        await town.settle(10)
        assert a.wire.forgotten == []
        assert set((await town.holders()).values()) == {a.broker_id, b.broker_id}

    run(test)


@pytest.mark.parametrize("cut_s", [0.5, 3.0, 60.0])
@pytest.mark.parametrize("after_s", [0.0, TIMEOUT_S, TIMEOUT_S + 0.3, TIMEOUT_S + 0.6])
def test_a_takeover_goes_on_when_the_store_is_back(cut_s: float, after_s: float) -> None:
    async def test(town: Town) -> None:
        a, b, c = [await town.agent(name) for name in "abc"]
        await town.settle()
        a.kill()
        await asyncio.sleep(after_s)
        for agent in (b, c):
            agent.wire.is_cut = True
        await asyncio.sleep(cut_s)
        for agent in (b, c):
            agent.wire.is_cut = False
        await asyncio.sleep(TIMEOUT_S + 8)
        assert all(len(town.serving(group_of(slot))) == 1 for slot in range(SLOTS))

    run(test)


# Upkeep


def test_orphaned_offsets_are_swept_under_the_lease_of_a_job_alone() -> None:
    async def test(town: Town) -> None:
        a = await town.agent("a")
        await town.settle(2)
        assert await commit_at(a, "g", 1) is NONE
        [topic] = (await town.store.catalogue(None)).topics  # type: ignore[union-attr]
        await town.store.delete_topics([topic.topic_id])
        a.wire.calls.clear()
        await a.do(a.coordinator.upkeep.run_once())
        assert "remove_orphan_offsets" not in a.wire.calls
        [old] = await town.store.take_leases(["job/orphans"], a.broker_id)
        [new] = await town.store.take_leases(["job/orphans"], a.broker_id)
        with pytest.raises(LeaseLost):
            await a.do(a.coordinator.upkeep.sweep_orphans_once(old))
        assert (await town.store.remove_orphan_offsets(OrphanCursor(), 0)).removed == 0
        await a.do(a.coordinator.upkeep.sweep_orphans_once(new))
        assert (await town.store.remove_orphan_offsets(OrphanCursor(), 10)).removed == 0

    run(test)

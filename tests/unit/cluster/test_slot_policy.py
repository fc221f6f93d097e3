"""Who is to hold which coordinator slot, as one agent of a cluster sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import run_sim
from warp import rendezvous
from warp.cluster.slot_policy import PATIENCE_TIMEOUTS, ClusterSlotPolicy
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, ClusterRows, ClusterView, LiveAgent
from warp.metadata.group_model import SLOTS, LeaseState, coordinator_lease

TIMEOUT_S = 2.0
PATIENCE_S = PATIENCE_TIMEOUTS * TIMEOUT_S
LEASES = [coordinator_lease(slot) for slot in range(SLOTS)]
OWN, OTHER, THIRD, GONE = BrokerId(1), BrokerId(2), BrokerId(3), BrokerId(9)


class FakeMember:
    """A membership that is what the test says."""

    def __init__(self) -> None:
        self.rows: ClusterRows | None = ClusterRows(1, 0, ())
        self.view = ClusterView(1, OWN, {OWN: live(OWN)})
        self.is_live = True
        self.lapses = 0
        self._callbacks: list[Callable[[ClusterView], None]] = []

    def subscribe(self, callback: Callable[[ClusterView], None]) -> None:
        self._callbacks.append(callback)

    def see(self, agents: Iterable[LiveAgent], leases: Iterable[LeaseState] = ()) -> None:
        """A round has seen these."""
        self.view = ClusterView(
            self.view.version + 1,
            OWN,
            {agent.broker_id: agent for agent in agents},
            {state.name: state for state in leases},
        )
        for callback in self._callbacks:
            callback(self.view)


def live(broker_id: int, incarnation: str = "i", *, is_leaving: bool = False) -> LiveAgent:
    return LiveAgent(BrokerId(broker_id), incarnation, AgentFacts(), is_leaving)


def lease(slot: int, holder: BrokerId | None, epoch: int = 1) -> LeaseState:
    return LeaseState(coordinator_lease(slot), holder, epoch, epoch)


def slot_for(broker_id: BrokerId, among: Iterable[int]) -> int:
    """A slot that falls to that agent."""
    candidates = list(among)
    return next(s for s in range(SLOTS) if rendezvous.first(coordinator_lease(s), candidates) == broker_id)


class Rig:
    def __init__(self, loop: SimLoop) -> None:
        self.member = FakeMember()
        self.policy = ClusterSlotPolicy(self.member, SimClock(loop), timeout_s=TIMEOUT_S)
        self.wakes: list[float] = []
        self.policy.subscribe(lambda: self.wakes.append(loop.time()))


def run(test: Callable[[Rig], object]) -> None:
    async def main(loop: SimLoop) -> None:
        rig = Rig(loop)
        result = test(rig)
        if asyncio.iscoroutine(result):
            await result
        rig.policy.close()

    run_sim(main)


# Taking


@pytest.mark.parametrize("holder", [None, GONE, "never"])
def test_a_free_slot_falls_to_one_of_those_that_live(holder: BrokerId | str | None) -> None:
    def test(rig: Rig) -> None:
        rig.member.see([live(OWN), live(OTHER), live(THIRD)])
        taken = []
        for slot in range(SLOTS):
            state = None if holder == "never" else lease(slot, holder)  # type: ignore[arg-type]
            if rig.policy.may_take(slot, state):
                taken.append(slot)
        every = [OWN, OTHER, THIRD]
        assert taken == [s for s in range(SLOTS) if rendezvous.first(coordinator_lease(s), every) == OWN]
        assert 0 < len(taken) < SLOTS

    run(test)


@pytest.mark.parametrize("is_leaving", [False, True])
def test_a_slot_is_never_taken_from_an_agent_that_lives(is_leaving: bool) -> None:
    async def test(rig: Rig) -> None:
        states = [lease(slot, OTHER) for slot in range(SLOTS)]
        rig.member.see([live(OWN), live(OTHER, is_leaving=is_leaving)], states)
        await asyncio.sleep(100 * PATIENCE_S)
        assert not any(rig.policy.may_take(slot, states[slot]) for slot in range(SLOTS))

    run(test)


def test_what_this_agent_holds_without_knowing_is_its_own() -> None:
    def test(rig: Rig) -> None:
        rig.member.see([live(OWN), live(OTHER)])
        assert all(rig.policy.may_take(slot, lease(slot, OWN)) for slot in range(SLOTS))

    run(test)


def test_nothing_is_taken_by_who_leaves_whose_session_lapsed_or_who_has_seen_nothing_yet() -> None:
    def test(rig: Rig) -> None:
        member, policy = rig.member, rig.policy
        assert policy.may_take(0, None)
        member.is_live = False
        assert not policy.may_take(0, None)
        assert policy.session() is None
        member.is_live, member.rows = True, None
        assert not policy.may_take(0, None)
        member.rows = ClusterRows(1, 0, ())
        member.see([live(OWN, is_leaving=True), live(OTHER)])
        assert not policy.may_take(0, None)

    run(test)


def test_agents_that_leave_get_no_slots() -> None:
    def test(rig: Rig) -> None:
        rig.member.see([live(OWN), live(OTHER, is_leaving=True)])
        assert all(rig.policy.may_take(slot, None) for slot in range(SLOTS))

    run(test)


def test_where_all_leave_because_the_databases_clock_is_wrong_slots_are_taken_all_the_same() -> None:
    def test(rig: Rig) -> None:
        rig.member.see([live(OWN, is_leaving=True), live(OTHER, is_leaving=True)])
        taken = [slot for slot in range(SLOTS) if rig.policy.may_take(slot, None)]
        assert taken == [s for s in range(SLOTS) if rendezvous.first(LEASES[s], [OWN, OTHER]) == OWN]
        rig.member.see([live(OWN, is_leaving=True), live(OTHER, is_leaving=True), live(THIRD)])
        assert not any(rig.policy.may_take(slot, None) for slot in range(SLOTS))

    run(test)


def test_a_slot_that_stays_free_is_taken_by_anybody_and_not_offered_to_who_left_it() -> None:
    async def test(rig: Rig) -> None:
        member, policy = rig.member, rig.policy
        slot = slot_for(OTHER, [OWN, OTHER])
        agents = [live(OWN), live(OTHER)]
        member.see(agents, [lease(slot, OTHER)])
        await asyncio.sleep(50)
        member.see(agents, [lease(slot, None)])
        rig.wakes.clear()
        await asyncio.sleep(PATIENCE_S - 0.1)
        assert not policy.may_take(slot, lease(slot, None))
        assert policy.is_anothers(slot)
        assert rig.wakes == []
        await asyncio.sleep(0.2)
        assert rig.wakes == [pytest.approx(50 + PATIENCE_S, abs=0.1)]
        assert policy.may_take(slot, lease(slot, None))
        assert not policy.is_anothers(slot)
        # When another process is there in its place it is another matter.
        member.see([live(OWN), live(OTHER, "new")], [lease(slot, OWN, 2)])
        await asyncio.sleep(TIMEOUT_S + 0.1)
        assert policy.is_anothers(slot)

    run(test)


def test_time_in_which_this_agent_saw_nothing_does_not_count() -> None:
    async def test(rig: Rig) -> None:
        member, policy = rig.member, rig.policy
        slot = slot_for(OTHER, [OWN, OTHER])
        agents = [live(OWN), live(OTHER)]
        member.see(agents, [lease(slot, None)])
        await asyncio.sleep(PATIENCE_S - 0.5)
        member.lapses += 1
        member.see(agents, [lease(slot, None)])
        await asyncio.sleep(1.0)
        assert not policy.may_take(slot, lease(slot, None))
        await asyncio.sleep(PATIENCE_S)
        assert policy.may_take(slot, lease(slot, None))

    run(test)


# Handing over


def test_slots_fall_to_an_agent_that_has_come_once_it_has_been_there_for_a_while() -> None:
    async def test(rig: Rig) -> None:
        member, policy = rig.member, rig.policy
        states = [lease(slot, OWN) for slot in range(SLOTS)]
        member.see([live(OWN)], states)
        assert not any(policy.is_anothers(slot) for slot in range(SLOTS))
        await asyncio.sleep(10)
        member.see([live(OWN), live(OTHER, is_leaving=True)], states)
        await asyncio.sleep(10)
        assert not any(policy.is_anothers(slot) for slot in range(SLOTS))
        member.see([live(OWN), live(OTHER)], states)
        rig.wakes.clear()
        assert not any(policy.is_anothers(slot) for slot in range(SLOTS))
        await asyncio.sleep(TIMEOUT_S + 0.1)
        assert len(rig.wakes) == 1
        moving = [slot for slot in range(SLOTS) if policy.is_anothers(slot)]
        both = [OWN, OTHER]
        assert moving == [s for s in range(SLOTS) if rendezvous.first(coordinator_lease(s), both) == OTHER]
        member.see([live(OWN)], states)
        assert not any(policy.is_anothers(slot) for slot in range(SLOTS))

    run(test)


def test_nobody_is_woken_for_nothing() -> None:
    async def test(rig: Rig) -> None:
        rig.member.see([live(OWN), live(OTHER)], [lease(slot, OWN) for slot in range(SLOTS)])
        await asyncio.sleep(1000)
        # For the news, and when the other has been there for long enough, as is this agent itself.
        assert len(rig.wakes) <= 3

    run(test)


def test_the_session_has_the_number_of_those_that_have_lapsed() -> None:
    def test(rig: Rig) -> None:
        assert rig.policy.session() == 0
        rig.member.lapses = 3
        assert rig.policy.session() == 3
        assert rig.policy.known() is rig.member.view.leases

    run(test)

"""How a process gets its agent's registration: from nobody, from one that has gone, never from one that lives."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.unit.cluster.membership_support import LIMITS, Member, Rig, in_virtual_time, lines
from warp.errors import MetadataUnavailable, OutcomeUnknown, StartError
from warp.metadata.cluster_model import AgentState

A = "a.example:9092"


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warp.cluster")


async def seconds_to_join(member: Member) -> float:
    began_s = member.rig.loop.time()
    await member.join()
    return member.rig.loop.time() - began_s


def test_after_a_goodbye_the_next_process_has_the_broker_id_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        await a.membership.close()
        again = rig.member(A)
        with lines(caplog, "goodbye") as found:
            assert await seconds_to_join(again) == 0
        assert (again.own, found) == (a.own, [])
        assert again.is_live()

    in_virtual_time(main)


def test_after_a_kill_the_next_process_waits_for_stillness_says_so_once_and_releases_the_leases(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        await rig.store.take_leases(["x", "y"], a.own)
        a.kill()
        again = rig.member(A)
        with lines(caplog, "not said goodbye") as found:
            waited_s = await seconds_to_join(again)
        assert LIMITS.timeout_s < waited_s <= LIMITS.timeout_s + 2 * LIMITS.beat_s
        assert len(found) == 1
        assert A in found[0]
        assert again.own == a.own
        assert await rig.store.leases_held(a.own) == []
        assert again.membership.view.leases.keys() <= {"x", "y"}

    in_virtual_time(main)


def test_others_see_the_process_that_follows_as_a_new_one() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, "b.example:9092")
        b.kill()
        again = await rig.member("b.example:9092").serve()
        await asyncio.sleep(2 * LIMITS.beat_s)
        assert again.own == b.own
        assert a.membership.view.agents[b.own].incarnation == "incarnation-3"
        await asyncio.sleep(10)
        assert a.others == [b.own]

    in_virtual_time(main)


def test_two_agents_that_advertise_one_address_are_told_apart_and_the_second_does_not_start() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        with pytest.raises(StartError, match=f"another agent that lives advertises {A}"):
            await rig.member(A).join()
        await asyncio.sleep(10)
        assert (a.stops, a.is_live()) == ([], True)

    in_virtual_time(main)


def test_of_two_that_join_at_once_one_starts() -> None:
    async def main(rig: Rig) -> None:
        for first_time in (True, False):
            one, two = rig.member(A), rig.member(A)
            results = await asyncio.gather(one.serve(), two.serve(), return_exceptions=True)
            started = [result for result in results if isinstance(result, Member)]
            [refused] = [result for result in results if not isinstance(result, Member)]
            assert len(started) == 1, first_time
            assert isinstance(refused, StartError)
            assert started[0].is_live()
            assert started[0].stops == []
            started[0].kill()

    in_virtual_time(main)


def test_a_process_that_drains_is_waited_for() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        await a.membership.leave()
        again = rig.member(A)
        joining = again.run(again.membership.join())
        await asyncio.sleep(10)
        assert not joining.done()
        await a.membership.close()
        await asyncio.sleep(LIMITS.beat_s)
        assert await joining == a.own
        assert a.stops == []

    in_virtual_time(main)


def test_a_process_that_drains_for_too_long_is_named_as_the_reason() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        await a.membership.leave()
        with pytest.raises(StartError, match="another process holds its registration"):
            await rig.member(A).join()
        assert a.is_live()

    in_virtual_time(main)


def test_time_in_which_the_store_is_away_is_no_stillness() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.fault = MetadataUnavailable("connection refused")
        again = rig.member(A)
        joining = again.run(again.membership.join())
        await asyncio.sleep(LIMITS.timeout_s - LIMITS.beat_s)
        again.store.fault = a.store.fault
        await asyncio.sleep(10)
        again.store.fault = None
        await asyncio.sleep(2 * LIMITS.beat_s)
        a.store.fault = None
        with pytest.raises(StartError, match="another agent that lives"):
            await joining
        assert a.stops == []

    in_virtual_time(main)


def test_a_store_that_stays_away_ends_the_start_with_its_reason() -> None:
    async def main(rig: Rig) -> None:
        away = rig.member(A)
        away.store.fault = MetadataUnavailable("connection refused")
        with pytest.raises(StartError, match=f"can't register {A} within 60 s: connection refused"):
            await away.join()
        hanging = rig.member(A)
        hanging.store.delay_s = 3600.0
        with pytest.raises(StartError, match="did not answer within 2 s"):
            await hanging.join()

    in_virtual_time(main)


def test_a_joining_whose_outcome_is_unknown_finds_itself_registered() -> None:
    async def main(rig: Rig) -> None:
        member = rig.member(A)
        member.store.answer_delay_s = 0.001
        finding = member.store.find_agent

        async def lose_the_next(name: str) -> object:
            found = await finding(name)
            if found is None:
                member.store.late_faults = [OutcomeUnknown("the connection was lost during COMMIT")]
            return found

        member.store.find_agent = lose_the_next  # type: ignore[assignment,method-assign]
        await member.join()
        assert member.own == (await rig.row(A)).broker_id
        assert not member.is_live(), "when the registration went through is not known"
        await asyncio.sleep(LIMITS.beat_s)
        assert member.is_live()
        assert (await rig.row(A)).state is AgentState.LEAVING

    in_virtual_time(main)

"""Members of a cluster: they find each other, miss each other, and know when they are missed themselves."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from tests.unit.cluster.membership_support import LAPSE_S, LIMITS, Member, Rig, in_virtual_time, lines
from warp.cluster.membership import BeatOutcome, MembershipLimits
from warp.errors import MetadataUnavailable, OutcomeUnknown
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentState, ClusterRows, ClusterView
from warp.metadata.group_model import Lease

AWAY = MetadataUnavailable("connection refused")
A, B = "a.example:9092", "b.example:9092"
TWO_BEATS_S = 2 * LIMITS.beat_s


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warp.cluster")


def test_an_agent_on_a_database_of_its_own_is_a_cluster_by_itself() -> None:
    async def main(rig: Rig) -> None:
        member = rig.member("embedded", is_shared=False)
        broker_id = await member.membership.join()
        assert member.membership.view.agents[broker_id].is_leaving
        member.membership.start()
        await asyncio.sleep(60)
        view = member.membership.view
        assert list(view.agents) == [view.own] == [broker_id]
        assert not view.agents[broker_id].is_leaving
        assert member.is_live()
        assert (member.store.beats_begun_s, member.stops) == ([], [])
        member.facts = replace(member.facts, zone="z2")
        assert (await member.membership.refresh()).agents[broker_id].facts.zone == "z2"
        await member.membership.leave()
        assert member.membership.view.agents[broker_id].is_leaving
        await member.membership.close()
        assert not member.is_live()
        again = rig.member("embedded", is_shared=False)
        assert await again.membership.join() == broker_id

    in_virtual_time(main)


def test_an_agent_is_sent_nobody_before_it_serves_nor_when_it_leaves() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        b = await rig.member(B).join()
        await asyncio.sleep(TWO_BEATS_S)
        assert a.others == [b.own]
        assert a.membership.view.agents[b.own].is_leaving
        assert b.is_live()
        b.membership.start()
        await asyncio.sleep(TWO_BEATS_S)
        assert not a.membership.view.agents[b.own].is_leaving
        await b.membership.leave()
        assert (await rig.row(B)).state is AgentState.LEAVING, "told at once"
        assert b.membership.view.agents[b.own].is_leaving
        await asyncio.sleep(TWO_BEATS_S)
        assert a.membership.view.agents[b.own].is_leaving
        await b.membership.close()
        await asyncio.sleep(TWO_BEATS_S)
        assert a.others == []
        assert (await rig.row(B)).state is AgentState.GONE
        assert not b.is_live()

    in_virtual_time(main)


def test_an_agent_that_dies_is_gone_after_its_session_and_not_before() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        b.kill()
        died_s = rig.loop.time()
        while a.others:
            await asyncio.sleep(0.01)
            assert rig.loop.time() - died_s < 2 * LIMITS.timeout_s
        last_beat_s = b.store.beats_begun_s[-1]
        assert rig.loop.time() - last_beat_s > LIMITS.timeout_s
        assert rig.loop.time() - died_s <= LIMITS.timeout_s + TWO_BEATS_S
        assert a.views[-1] is a.membership.view

    in_virtual_time(main)


def test_who_coordinates_what_is_known_with_who_lives() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        told = len(a.views)
        await rig.store.take_leases(["x"], b.own)
        await asyncio.sleep(TWO_BEATS_S)
        holder = a.membership.view.holder("x")
        assert holder is not None
        assert holder.broker_id == b.own
        assert a.membership.view.holder("y") is None
        assert len(a.views) == told + 1, "told once"
        version = a.membership.view.version
        b.facts = replace(b.facts, connections=100)
        await asyncio.sleep(TWO_BEATS_S)
        assert a.membership.view.agents[b.own].facts.connections == 100
        assert (len(a.views), a.membership.view.version) == (told + 1, version), "load is no news"
        b.facts = replace(b.facts, zone="z2")
        await asyncio.sleep(TWO_BEATS_S)
        assert (len(a.views), a.membership.view.version) == (told + 2, version + 1)
        b.kill()
        await asyncio.sleep(LIMITS.timeout_s + TWO_BEATS_S)
        assert a.membership.view.leases["x"].holder == b.own
        assert a.membership.view.holder("x") is None

    in_virtual_time(main)


def test_while_the_store_is_away_nobody_is_thought_gone_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        for away_s in (1.0, 600.0):
            with lines(caplog, "has not answered", "answers again") as found:
                a.store.fault = b.store.fault = AWAY
                await asyncio.sleep(away_s)
                assert a.is_live() == (away_s < LAPSE_S)
                assert (a.others, b.others) == ([b.own], [a.own])
                a.store.fault = b.store.fault = None
                await asyncio.sleep(TWO_BEATS_S)
            assert len(found) == (0 if away_s < LAPSE_S else 4), found
            assert a.is_live()
            assert (a.others, b.others) == ([b.own], [a.own])
            await asyncio.sleep(10)
            assert (a.others, b.others) == ([b.own], [a.own])
        assert a.stops == b.stops == []
        assert a.outcomes.count(BeatOutcome.FAILED) > 1000

    in_virtual_time(main)


def test_an_observer_that_could_not_read_gives_everybody_their_time_anew() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        b.kill()
        await asyncio.sleep(LIMITS.timeout_s - LIMITS.beat_s)
        a.store.fault = AWAY
        await asyncio.sleep(LIMITS.beat_s)
        a.store.fault = None
        await asyncio.sleep(LIMITS.timeout_s)
        assert a.others == [b.own]
        await asyncio.sleep(LIMITS.timeout_s)
        assert a.others == []

    in_virtual_time(main)


def test_a_session_lapses_before_anybody_can_think_so_and_is_back_once_the_leases_were_read() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        await rig.store.take_leases(["x"], b.own)
        await asyncio.sleep(TWO_BEATS_S)
        b.store.fault = AWAY
        lapsed_s = None
        while b.own in a.others:
            if lapsed_s is None and not b.is_live():
                lapsed_s = rig.loop.time()
            await asyncio.sleep(0.01)
        assert lapsed_s is not None
        assert rig.loop.time() - lapsed_s >= LIMITS.margin_s - 0.02
        await rig.store.take_leases(["x"], a.own)
        told = len(b.views)
        b.store.fault = None
        await asyncio.sleep(LIMITS.beat_s)
        assert b.is_live()
        assert b.membership.view.leases["x"].holder == a.own
        assert len(b.views) == told + 1
        await asyncio.sleep(TWO_BEATS_S)
        assert a.others == [b.own]

    in_virtual_time(main)


def test_subscribers_hear_of_a_session_that_is_back_though_nothing_else_has_changed() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        told = len(a.views)
        a.store.fault = AWAY
        await asyncio.sleep(5)
        a.store.fault = None
        await asyncio.sleep(5)
        assert len(a.views) == told + 1

    in_virtual_time(main)


def test_a_session_counts_from_the_sending_of_a_beat_however_late_its_answer_comes() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.answer_delay_s = LIMITS.timeout_s - 0.1
        await asyncio.sleep(LIMITS.beat_s)
        assert a.store.running == 1
        await asyncio.sleep(LAPSE_S + 0.1 - LIMITS.beat_s)
        assert not a.is_live(), "it has lapsed while the beat was under way"
        answered = len(a.outcomes)
        a.store.answer_delay_s = 0.0
        await asyncio.sleep(2 * LIMITS.beat_s)
        assert a.outcomes[answered] is BeatOutcome.OK
        assert not a.was_live[answered], "the beat was sent too long ago"
        await asyncio.sleep(0.5)
        assert a.is_live()

    in_virtual_time(main)


def test_beats_never_pile_up_and_one_that_hangs_is_given_up() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        b.store.delay_s = 3600.0
        await asyncio.sleep(60)
        assert b.store.running_max == 1
        assert b.outcomes[-1] is BeatOutcome.UNKNOWN
        assert a.others == []
        b.store.delay_s = 0.0
        await asyncio.sleep(LIMITS.timeout_s + TWO_BEATS_S)
        assert b.is_live()
        assert a.others == [b.own]

    in_virtual_time(main)


def test_a_beat_whose_outcome_is_unknown_is_as_good_as_none_and_the_next_one_counts() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        counter = (await rig.row(A)).counter
        a.store.late_faults = [OutcomeUnknown("the connection was lost during COMMIT")] * 8
        await asyncio.sleep(8 * LIMITS.beat_s + 0.1)
        assert not a.is_live()
        assert a.outcomes[-8:] == [BeatOutcome.UNKNOWN] * 8
        assert (await rig.row(A)).counter == counter + 8
        await asyncio.sleep(LIMITS.beat_s)
        assert a.is_live()
        assert a.stops == []

    in_virtual_time(main)


def test_a_machine_that_slept_knows_at_once_that_its_session_has_lapsed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        with lines(caplog, "no sign of life") as found:
            a.clock.slept_s += 30
            assert not a.is_live()
            await asyncio.sleep(TWO_BEATS_S)
        assert a.is_live()
        assert a.others == [b.own], "that it slept says nothing of the others"
        assert len(found) == 1, found

    in_virtual_time(main)


def test_a_process_that_was_frozen_finds_its_leases_taken_before_it_is_live_again() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        await rig.store.take_leases(["x"], b.own)
        await asyncio.sleep(TWO_BEATS_S)
        rig.loop.freeze(b.process, 10.0)
        await asyncio.sleep(5)
        assert a.others == []
        await rig.store.take_leases(["x"], a.own)
        await asyncio.sleep(4.9)
        assert not b.is_live()
        await asyncio.sleep(TWO_BEATS_S)
        assert b.is_live()
        assert b.membership.view.leases["x"].holder == a.own
        assert (a.others, b.others) == ([b.own], [a.own])

    in_virtual_time(main)


def test_an_agent_whose_registration_was_taken_over_stops_with_a_reason() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        row = await rig.row(A)
        assert await rig.store.join_agent(A, "thief", AgentFacts(), row) == a.own
        await asyncio.sleep(60)
        assert len(a.stops) == 1
        assert f"taken over broker id {a.own}" in a.stops[0]
        assert A in a.stops[0]
        assert "--advertise" in a.stops[0]
        assert not a.is_live()
        assert a.outcomes[-1] is BeatOutcome.LOST
        beats = len(a.store.beats_begun_s)
        with pytest.raises(MetadataUnavailable, match="no part in the cluster"):
            await a.membership.refresh()
        await a.membership.close()
        assert len(a.store.beats_begun_s) == beats, "it does not say goodbye for another"
        assert (await rig.row(A)).incarnation == "thief"

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("update agents set counter = 2", "counter is 3 after"),
        ("delete from agents", "is not registered any more"),
        ("update agents set counter = 1, incarnation = 'before'", "registration is at 1 after"),
    ],
)
def test_a_database_that_went_back_in_time_stops_the_agent(sql: str, words: str) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        await asyncio.sleep(10)
        await rig.write(sql)
        await asyncio.sleep(TWO_BEATS_S)
        [reason] = a.stops
        assert words in reason
        assert "restored from a backup" in reason
        assert not a.is_live()

    in_virtual_time(main)


def test_an_answer_that_does_not_say_whose_the_registration_is_decides_nothing() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.altered = lambda rows: ClusterRows(None, rows.time_ms, rows.agents, rows.leases)
        await asyncio.sleep(TWO_BEATS_S)
        assert (a.stops, a.outcomes[-1]) == ([], BeatOutcome.FAILED)
        a.store.altered = lambda rows: rows
        await asyncio.sleep(TWO_BEATS_S)
        assert a.is_live()

    in_virtual_time(main)


def test_a_commit_that_the_database_has_forgotten_stops_the_agent() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        assert a.store.keys_asked == []
        a.last_commit = "segments/k1"
        await asyncio.sleep(5)
        assert set(a.store.keys_asked) == {"segments/k1"}
        a.store.is_committed_answer = False
        await asyncio.sleep(TWO_BEATS_S)
        [reason] = a.stops
        assert "segments/k1" in reason
        assert a.outcomes[-1] is BeatOutcome.LOST

    in_virtual_time(main)


def test_a_commit_is_looked_for_only_while_it_is_young() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.last_commit = "segments/k1"
        await asyncio.sleep(301)
        a.store.is_committed_answer = False
        await asyncio.sleep(10)
        assert a.stops == []
        a.last_commit = "segments/k2"
        await asyncio.sleep(TWO_BEATS_S)
        assert len(a.stops) == 1

    in_virtual_time(main)


def test_a_commit_may_be_as_old_as_the_time_in_which_nobody_looked() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.fault = MetadataUnavailable("as told")
        a.last_commit = "segments/k1"
        await asyncio.sleep(310)
        # Its topic was deleted meanwhile, and then what was dead.
        a.store.is_committed_answer = False
        a.store.fault = None
        await asyncio.sleep(10)
        assert a.is_live()
        assert a.stops == []

    in_virtual_time(main)


def test_a_clock_that_is_off_is_told_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        assert a.membership.clock_skew_ms == 0
        with lines(caplog, "this machine's clock") as found:
            a.clock.skew_ms = 1_500
            await asyncio.sleep(30)
            assert a.membership.clock_skew_ms is not None
            assert abs(a.membership.clock_skew_ms - 1_500) <= 2
            assert a.is_trusted()
            a.clock.skew_ms = 900
            await asyncio.sleep(30)
            a.clock.skew_ms = -400
            await asyncio.sleep(30)
        assert len(found) == 2, found
        assert "1.5 s ahead of the database's" in found[0]
        assert "agrees" in found[1]

    in_virtual_time(main)


def test_an_agent_whose_clock_is_far_off_leaves_discovery_while_that_lasts() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        b.clock.skew_ms = -61_000
        await asyncio.sleep(TWO_BEATS_S + 0.1)
        assert not b.is_trusted()
        assert b.membership.view.agents[b.own].is_leaving
        assert a.membership.view.agents[b.own].is_leaving
        assert b.is_live(), "leases go by boot time"
        assert not a.membership.view.agents[a.own].is_leaving
        b.clock.skew_ms = 0
        await asyncio.sleep(TWO_BEATS_S + 0.1)
        assert b.is_trusted()
        assert not a.membership.view.agents[b.own].is_leaving

    in_virtual_time(main)


def test_the_loop_survives_subscribers_facts_and_stores_with_bugs(caplog: pytest.LogCaptureFixture) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        heard: list[ClusterView] = []

        def broken(view: ClusterView) -> None:
            raise RuntimeError("a bug of a subscriber")

        a.membership.subscribe(broken)
        a.membership.subscribe(heard.append)
        with lines(caplog, "unexpected error") as found:
            b = await rig.member(B).serve()
            await asyncio.sleep(5)
        assert heard
        assert len(found) == 1, found
        with lines(caplog, "unexpected error") as found:
            facts, a.facts = a.facts, None  # type: ignore[assignment]
            a.store.fault = ZeroDivisionError("a bug of the store")
            await asyncio.sleep(5)
            a.store.fault, a.facts = None, facts
            await asyncio.sleep(TWO_BEATS_S)
        assert BeatOutcome.BUG in a.outcomes
        assert (a.outcomes[-1], a.is_live()) == (BeatOutcome.OK, True)
        assert b.others == [a.own]

    in_virtual_time(main)


def test_a_request_that_is_cancelled_from_within_ends_nothing() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.late_faults = [asyncio.CancelledError()]
        await asyncio.sleep(TWO_BEATS_S)
        assert BeatOutcome.UNKNOWN in a.outcomes
        assert (a.outcomes[-1], a.is_live()) == (BeatOutcome.OK, True)

    in_virtual_time(main)


def test_a_loop_that_a_bug_has_ended_ends_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)

        async def broken(began_s: float) -> None:
            raise ZeroDivisionError("a bug of the loop")

        monkeypatch.setattr(a.membership, "_pause", broken)
        await asyncio.sleep(TWO_BEATS_S)
        assert len(a.stops) == 1
        assert "a bug of the loop" in a.stops[0]
        assert not a.is_live()
        with pytest.raises(MetadataUnavailable):
            await a.membership.refresh()
        await a.membership.close()

    in_virtual_time(main)


def test_a_look_begins_after_it_was_asked_for_and_many_share_one() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        a.store.answer_delay_s = 0.05
        first = a.run(a.membership.refresh())
        await asyncio.sleep(0.04)
        beats = len(a.store.beats_begun_s)
        await rig.store.take_leases(["x"], BrokerId(9))
        later = [a.run(a.membership.refresh()) for _ in range(100)]
        await asyncio.sleep(0.04)
        assert first.done()
        assert "x" not in first.result().leases
        assert not any(asking.done() for asking in later)
        for asking in later:
            assert (await asking).leases["x"].holder == 9
        assert len(a.store.beats_begun_s) == beats + 1
        a.store.fault = AWAY
        with pytest.raises(MetadataUnavailable, match="refused"):
            await a.membership.refresh()

    in_virtual_time(main)


def test_who_asks_for_looks_all_the_time_can_not_flood_the_store() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        beats = len(a.store.beats_begun_s)
        until_s = rig.loop.time() + 1
        while rig.loop.time() < until_s:
            await a.membership.refresh()
        assert len(a.store.beats_begun_s) - beats <= 1 / LIMITS.pause_s + 1

    in_virtual_time(main)


def test_closing_answers_who_waits_and_never_fails() -> None:
    async def main(rig: Rig) -> None:
        a, b = await rig.serving(A, B)
        a.store.answer_delay_s = 0.5
        first = a.run(a.membership.refresh())
        await asyncio.sleep(0.1)
        second = a.run(a.membership.refresh())
        await asyncio.sleep(0.1)
        await a.membership.close()
        await first
        with pytest.raises(MetadataUnavailable):
            await second
        with pytest.raises(MetadataUnavailable):
            await a.membership.refresh()
        await a.membership.close()
        await asyncio.sleep(TWO_BEATS_S)
        assert b.others == []
        b.store.fault = AWAY
        await b.membership.leave()
        await b.membership.close()
        assert (await rig.row(B)).state is AgentState.SERVING
        await rig.member("never joined").membership.close()

    in_virtual_time(main)


def test_agents_that_are_gone_for_a_day_are_forgotten_with_their_leases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("warp.cluster.membership.FORGET_S", 60.0)

    async def main(rig: Rig) -> None:
        a, b, c = await rig.serving(A, B, "c.example:9092")
        await rig.store.take_leases(["x"], b.own)
        b.kill()
        await c.membership.close()
        await rig.store.register_agent("given a broker id alone")
        hour_ms = 3_600_000
        await rig.write(f"update agents set beat_ms = beat_ms - {22 * hour_ms} where name <> '{A}'")
        await asyncio.sleep(60 + TWO_BEATS_S)
        assert (await rig.row(B)).broker_id == b.own
        await rig.write(f"update agents set beat_ms = beat_ms - {2 * hour_ms} where name <> '{A}'")
        await asyncio.sleep(60)
        for name in (B, "c.example:9092"):
            assert await rig.store.find_agent(name) is None
        assert await rig.store.find_agent("given a broker id alone") is not None
        assert a.membership.view.leases["x"].holder is None
        assert await rig.store.leases_held(b.own) == []
        again = await rig.member(B).serve()
        assert again.own > c.own
        assert isinstance(again, Member)

    in_virtual_time(main)


def test_limits_keep_their_proportions() -> None:
    assert MembershipLimits.of_timeout(2.0) == MembershipLimits()
    short = MembershipLimits.of_timeout(0.8)
    assert (short.beat_s, short.timeout_s, short.margin_s) == (0.2, 0.8, 0.2)
    long = MembershipLimits.of_timeout(30.0)
    assert (long.beat_s, long.timeout_s, long.margin_s) == (0.25, 30.0, 7.5)


def test_leases_of_an_agent_come_with_the_view_it_starts_with() -> None:
    async def main(rig: Rig) -> None:
        [a] = await rig.serving(A)
        assert await rig.store.take_leases(["x"], a.own) == [Lease("x", a.own, 1)]
        b = await rig.member(B).join()
        view = await b.membership.refresh()
        assert view.leases["x"].holder == a.own
        assert view.holder("x") is not None

    in_virtual_time(main)

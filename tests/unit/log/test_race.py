"""Two requests of which the faster one counts, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import run_sim
from warp.errors import ObjectStoreError, StoreFull
from warp.log.hedge import HedgeLimits
from warp.log.race import HedgedRequests, HedgeNote

LIMITS = HedgeLimits(delay_unknown_s=1.0)


class Script:
    """Each call takes as long as told, then returns its number (from 1) or raises."""

    def __init__(self, *calls: float | tuple[float, Exception]) -> None:
        self.calls: Sequence[float | tuple[float, Exception]] = calls
        self.started = 0
        self.cancelled: list[int] = []

    async def __call__(self) -> int:
        number = self.started = self.started + 1
        call = self.calls[number - 1]
        took_s, error = call if isinstance(call, tuple) else (call, None)
        try:
            await asyncio.sleep(took_s)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if error is not None:
            raise error
        return number


class Together:
    """Calls that end at one moment: that of a number fails, the others return theirs."""

    def __init__(self, moment: asyncio.Event, failing: int, error: Exception) -> None:
        self._moment = moment
        self._failing = failing
        self._error = error
        self._started = 0

    async def __call__(self) -> int:
        number = self._started = self._started + 1
        await self._moment.wait()
        if number == self._failing:
            raise self._error
        return number


def play(
    scenario: Callable[[HedgedRequests, SimLoop], Coroutine[Any, Any, None]], limits: HedgeLimits = LIMITS
) -> None:
    async def main(loop: SimLoop) -> None:
        hedges = HedgedRequests(SimClock(loop), limits)
        await scenario(hedges, loop)
        await hedges.close()
        assert not hedges._lingering

    run_sim(main)


def test_a_fast_request_is_sent_once() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script, note = Script(0.9), HedgeNote()
        assert await hedges.send(10, script, note) == 1
        assert (hedges.started, note.hedged_after_s) == (0, None)

    play(scenario)


def test_the_second_wins_over_a_slow_first_which_is_cancelled() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script, note = Script(9.0, 0.5), HedgeNote()
        assert await hedges.send(10, script, note) == 2
        assert loop.time() == pytest.approx(1.5)
        await hedges.close()
        assert script.cancelled == [1]
        assert (hedges.started, hedges.won, hedges.denied) == (1, 1, 0)
        assert (note.hedged_after_s, note.is_won) == (1.0, True)

    play(scenario)


def test_the_first_may_still_win_and_the_second_is_cancelled() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script, note = Script(1.2, 0.5), HedgeNote()
        assert await hedges.send(10, script, note) == 1
        assert loop.time() == pytest.approx(1.2)
        await hedges.close()
        assert script.cancelled == [2]
        assert (hedges.started, hedges.won) == (1, 0)
        assert not note.is_won

    play(scenario)


@pytest.mark.parametrize("calls", [((1.2, ObjectStoreError("reset")), 0.5), (2.0, (0.1, StoreFull("full")))])
def test_one_that_fails_does_not_fail_the_other(calls: tuple[Any, Any]) -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        winner = await hedges.send(10, Script(*calls), HedgeNote())
        assert not isinstance(calls[winner - 1], tuple)

    play(scenario)


def test_when_both_fail_the_failure_of_the_first_is_raised() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script = Script((2.0, StoreFull("first")), (0.1, ObjectStoreError("second")))
        with pytest.raises(StoreFull, match="first"):
            await hedges.send(10, script, HedgeNote())
        assert loop.time() == pytest.approx(2.0)

    play(scenario)


def test_a_first_that_fails_before_it_is_slow_is_not_hedged() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script = Script((0.1, ObjectStoreError("reset")))
        with pytest.raises(ObjectStoreError, match="reset"):
            await hedges.send(10, script, HedgeNote())
        assert (script.started, hedges.policy.estimates()) == (1, [])

    play(scenario)


def test_a_bug_is_raised_before_a_failure_and_logged_when_the_other_wins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script = Script((2.0, ObjectStoreError("reset")), (0.1, ZeroDivisionError("a bug")))
        with pytest.raises(ZeroDivisionError):
            await hedges.send(10, script, HedgeNote())
        assert not caplog.records
        assert await hedges.send(10, Script((1.1, ZeroDivisionError("a bug")), 0.5), HedgeNote()) == 2

    play(scenario)
    assert "failed unexpectedly" in caplog.text


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_at_the_moment_of_a_success_or_of_giving_up_is_not_left_lying_about(
    caplog: pytest.LogCaptureFixture, failing: int, is_cancelled: bool
) -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        for error in (ObjectStoreError("reset"), ZeroDivisionError("a bug")):
            both = asyncio.Event()
            sending = asyncio.ensure_future(hedges.send(10, Together(both, failing, error), HedgeNote()))
            await asyncio.sleep(2.0)
            both.set()
            if is_cancelled:
                await asyncio.sleep(0)
                sending.cancel()
            await asyncio.wait([sending])
            assert is_cancelled or sending.result() == 3 - failing

    play(scenario)  # which fails when there is an exception that nobody has looked at
    assert len([record for record in caplog.records if "failed unexpectedly" in record.message]) == 1


def test_a_request_that_the_store_gives_up_has_failed() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        with pytest.raises(ObjectStoreError, match="gave"):
            await hedges.send(10, Script((0.1, asyncio.CancelledError())), HedgeNote())  # type: ignore[arg-type]

    play(scenario)


def test_whoever_is_cancelled_leaves_no_request_behind() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        script = Script(9.0, 9.0)
        sending = asyncio.ensure_future(hedges.send(10, script, HedgeNote()))
        await asyncio.sleep(2.0)
        sending.cancel()
        await asyncio.wait([sending])
        await hedges.close()
        assert sending.cancelled()
        assert script.cancelled == [1, 2]

    play(scenario)


def test_without_a_budget_the_first_is_waited_for_and_the_budget_asked_again() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        for _ in range(2):
            await hedges.send(10, Script(9.0, 0.1), HedgeNote())
        note = HedgeNote()
        assert await hedges.send(10, Script(9.0, 0.1), note) == 1
        assert (hedges.started, hedges.denied, note.is_denied) == (2, 1, True)
        # Asked after 1, 3 and 7 seconds.
        begin, note, is_allowed = loop.time(), HedgeNote(), iter([False, True])
        hedges.policy = type(hedges.policy)(LIMITS)
        await hedges.send(10, Script(9.0, 0.1), note, may_hedge=lambda: next(is_allowed))
        assert loop.time() - begin == pytest.approx(3.1)
        assert (note.is_denied, note.is_won) == (True, True)
        assert note.hedged_after_s == pytest.approx(3.0)

    play(scenario, HedgeLimits(burst_requests=2.0))


def test_no_second_request_is_sent_while_too_many_losers_linger() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        release = asyncio.Event()
        calls = 0

        async def stubborn() -> int:
            nonlocal calls
            calls += 1
            number = calls
            if number % 2:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    await release.wait()
                    raise
            return number

        assert await hedges.send(10, stubborn, HedgeNote()) == 2
        note = HedgeNote()
        assert await hedges.send(10, Script(5.0), note) == 1
        assert note.is_denied
        release.set()

    play(scenario, HedgeLimits(lingering_max=1))


def test_what_a_hedge_takes_is_given_back_when_both_have_ended() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        given_back: list[float] = []

        def give_back() -> None:
            given_back.append(loop.time())

        await hedges.send(10, Script(0.5), HedgeNote(), when_both_ended=give_back)
        assert given_back == []
        await hedges.send(10, Script(9.0, 0.5), HedgeNote(), when_both_ended=give_back)
        await hedges.close()
        await asyncio.sleep(0)
        assert given_back == [pytest.approx(2.0)]

    play(scenario)


def test_latencies_are_learnt_from_winners_and_from_losers_as_far_as_they_are_known() -> None:
    async def scenario(hedges: HedgedRequests, loop: SimLoop) -> None:
        for _ in range(16):
            await hedges.send(10, Script(0.1), HedgeNote())
        assert hedges.policy.delay_s(10) == pytest.approx(0.15)
        await hedges.send(10, Script(9.0, 0.1), HedgeNote())
        (estimate,) = hedges.policy.estimates()
        assert estimate.samples == 18
        assert estimate.p95_s == pytest.approx(0.25)

    play(scenario)

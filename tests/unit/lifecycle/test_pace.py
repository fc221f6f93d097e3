"""Jobs move no more bytes than they may, in the order in which they ask, and none of them waits for ever."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import run_sim
from warp.lifecycle.pace import (
    ACTIVE_S,
    BURST_S,
    CONSIDERATE_BYTES_PER_S,
    FULL_SPEED_DEBT,
    REST_S_MAX,
    RESTS,
    Considerate,
    Pace,
)

RATE = 1_000


def test_without_a_bound_nobody_waits() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop))
        for _ in range(100):
            await pace.spend(2**40)
        assert loop.time() == 0.0
        assert (pace.moved_bytes, pace.waited_s) == (100 * 2**40, 0.0)

    run_sim(main)


def test_many_moves_take_the_time_that_the_rate_gives_them() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop), RATE)
        for _ in range(101):
            await pace.spend(100)
        assert loop.time() == pytest.approx(10.0)
        assert pace.waited_s == pytest.approx(10.0)

    run_sim(main)


def test_a_move_larger_than_the_rate_is_made_and_the_next_one_waits_for_it() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop), RATE)
        await pace.spend(5 * RATE)
        assert loop.time() == 0.0
        await pace.spend(1)
        assert loop.time() == pytest.approx(5.0)

    run_sim(main)


def test_a_quiet_time_saves_up_for_a_short_burst_alone() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop), RATE)
        await asyncio.sleep(1_000.0)
        for _ in range(3):
            await pace.spend(RATE)
        assert loop.time() - 1_000.0 == pytest.approx(2.0 - BURST_S)

    run_sim(main)


def test_jobs_are_let_through_in_the_order_in_which_they_ask() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop), RATE)
        done: list[str] = []

        async def move(name: str, size_bytes: int) -> None:
            await pace.spend(size_bytes)
            done.append(name)

        jobs = [("first", 10), ("large", 5_000), *((f"small {n}", 1) for n in range(20))]
        tasks = [asyncio.ensure_future(move(*job)) for job in jobs]
        await asyncio.gather(*tasks)
        assert done == [name for name, _ in jobs]

    run_sim(main)


def test_bytes_of_somebody_who_is_cancelled_are_waited_for_all_the_same() -> None:
    async def main(loop: SimLoop) -> None:
        pace = Pace(SimClock(loop), RATE)
        await pace.spend(RATE)
        waiting = asyncio.ensure_future(pace.spend(RATE))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await pace.spend(RATE)
        assert loop.time() == pytest.approx(2.0)

    run_sim(main)


def test_senseless_numbers_are_refused() -> None:
    async def main(loop: SimLoop) -> None:
        with pytest.raises(ValueError, match="lets nothing through"):
            Pace(SimClock(loop), 0)
        with pytest.raises(ValueError, match="can't be moved"):
            await Pace(SimClock(loop)).spend(-1)

    run_sim(main)


class Producers:
    """What producers have written, and what waits to be merged."""

    def __init__(self, loop: SimLoop) -> None:
        self.written_bytes = 0
        self.debt = 0.0
        self.considerate = Considerate(SimClock(loop), lambda: self.written_bytes, lambda: self.debt)

    def rate(self) -> float:
        return self.considerate.bytes_per_s()


def test_jobs_spare_producers_from_a_write_on_until_there_was_none_for_a_while() -> None:
    async def main(loop: SimLoop) -> None:
        producers = Producers(loop)
        assert producers.rate() == math.inf
        producers.written_bytes += 1
        assert producers.rate() == CONSIDERATE_BYTES_PER_S
        await asyncio.sleep(ACTIVE_S / 2)
        assert producers.rate() == CONSIDERATE_BYTES_PER_S
        producers.written_bytes += 1
        assert producers.rate() == CONSIDERATE_BYTES_PER_S
        await asyncio.sleep(ACTIVE_S)
        assert producers.rate() == math.inf

    run_sim(main)


def test_the_more_waits_to_be_merged_the_faster_jobs_go() -> None:
    async def main(loop: SimLoop) -> None:
        producers = Producers(loop)
        producers.written_bytes += 1
        rates = []
        for tenths in range(11):
            producers.debt = FULL_SPEED_DEBT * tenths / 10
            rates.append(producers.rate())
        assert rates[:6:5] == [CONSIDERATE_BYTES_PER_S, 2 * CONSIDERATE_BYTES_PER_S]
        assert rates == sorted(rates)
        assert rates[-1] == math.inf
        producers.debt = 7.0
        assert producers.rate() == math.inf

    run_sim(main)


def test_what_jobs_keep_to_of_themselves_raises_no_bound() -> None:
    async def main(loop: SimLoop) -> None:
        producers = Producers(loop)
        wide, narrow = 8 * CONSIDERATE_BYTES_PER_S, CONSIDERATE_BYTES_PER_S // 2
        loose, tight = (Pace(SimClock(loop), bound, producers.considerate) for bound in (wide, narrow))
        assert (loose.bytes_per_s, tight.bytes_per_s) == (wide, narrow)
        producers.written_bytes += 1
        assert (loose.bytes_per_s, tight.bytes_per_s) == (CONSIDERATE_BYTES_PER_S, narrow)
        await loose.spend(CONSIDERATE_BYTES_PER_S)
        await loose.spend(0)
        assert loop.time() == pytest.approx(1.0)
        producers.written_bytes += 1
        producers.debt = FULL_SPEED_DEBT
        assert (loose.bytes_per_s, tight.bytes_per_s) == (wide, narrow)

    run_sim(main)


@pytest.mark.parametrize(
    ("is_active", "debt", "rested_s"),
    [
        (False, 0.0, 0.0),
        (True, 0.0, RESTS * 0.002),
        (True, FULL_SPEED_DEBT / 2, RESTS * 0.001),
        (True, FULL_SPEED_DEBT, 0.0),
        (True, 9.0, 0.0),
    ],
)
def test_a_step_of_work_is_followed_by_a_rest_beside_producers(
    is_active: bool, debt: float, rested_s: float
) -> None:
    async def main(loop: SimLoop) -> None:
        producers = Producers(loop)
        pace = Pace(SimClock(loop), None, producers.considerate)
        producers.written_bytes += is_active
        producers.debt = debt
        began_s = pace.now_s()
        await asyncio.sleep(0.002)
        await pace.turn(began_s)
        assert loop.time() == pytest.approx(0.002 + rested_s)

    run_sim(main)


def test_a_rest_has_an_end_however_long_the_step_was() -> None:
    async def main(loop: SimLoop) -> None:
        producers = Producers(loop)
        pace = Pace(SimClock(loop), None, producers.considerate)
        producers.written_bytes += 1
        await asyncio.sleep(0.9)
        await pace.turn(0.0)
        assert loop.time() == pytest.approx(0.9 + REST_S_MAX)
        await Pace(SimClock(loop), RATE).turn(0.0)
        assert loop.time() == pytest.approx(0.9 + REST_S_MAX)

    run_sim(main)

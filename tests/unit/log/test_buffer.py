"""Requests in line: they enter, leave, time out and fail as one."""

from __future__ import annotations

import asyncio

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import append, errors, make_unit, run_sim
from warp.errors import ErrorCode
from warp.ids import LogId
from warp.log.buffer import NEVER, OpenBuffer, fail_followers, time_out
from warp.log.model import AppendOutcome


def test_a_buffer_knows_its_bytes_its_first_arrival_and_its_first_deadline() -> None:
    async def main(loop: SimLoop) -> None:
        clock = SimClock(loop)
        buffer = OpenBuffer()
        assert (buffer.size_bytes, buffer.earliest_deadline) == (0, NEVER)
        slow, fast = make_unit(clock, [append(1)], 30.0), make_unit(clock, [append(2), append(3)], 10.0)
        buffer.add(slow, 5.0)
        buffer.add(fast, 6.0)
        assert buffer.size_bytes == slow.size_bytes + fast.size_bytes == 3 * slow.size_bytes
        assert (buffer.since, buffer.earliest_deadline) == (5.0, 10.0)
        assert buffer.take() == [slow, fast]
        assert (buffer.units, buffer.size_bytes, buffer.earliest_deadline) == ([], 0, NEVER)
        buffer.add(slow, 9.0)
        assert buffer.since == 9.0

    run_sim(main)


def test_what_was_answered_leaves_the_buffer_without_being_stored() -> None:
    async def main(loop: SimLoop) -> None:
        clock = SimClock(loop)
        buffer = OpenBuffer()
        units = [make_unit(clock, [append(1)], timeout_s) for timeout_s in (1.0, 3.0, 2.0)]
        for unit in units:
            buffer.add(unit, 0.0)
        assert time_out(buffer.units, 2.0) == 2
        buffer.drop_settled()
        assert buffer.units == units[1:2]
        assert (buffer.size_bytes, buffer.earliest_deadline) == (units[1].size_bytes, 3.0)
        assert time_out(buffer.units, 2.5) == 0

    run_sim(main)


def test_a_part_that_was_refused_keeps_its_own_error_whatever_happens_to_the_rest() -> None:
    async def main(loop: SimLoop) -> None:
        unit = make_unit(SimClock(loop), [append(1), append(2)], 1.0)
        refused = AppendOutcome(ErrorCode.CORRUPT_MESSAGE, message="bad CRC")
        unit.outcomes.append(refused)
        assert time_out([unit], 1.0) == 1
        outcomes = await unit.result
        assert errors(outcomes[:2]) == [ErrorCode.REQUEST_TIMED_OUT] * 2
        assert outcomes[2] is refused
        unit.fail(ErrorCode.KAFKA_STORAGE_ERROR, "later news")
        assert await unit.result == outcomes

    run_sim(main)


def test_followers_of_a_failed_producer_fail_and_take_theirs_along_in_order() -> None:
    async def main(loop: SimLoop) -> None:
        clock = SimClock(loop)
        before = make_unit(clock, [append(2, producer=8, sequence=4)])
        first = make_unit(clock, [append(1, producer=7, sequence=1), append(2, producer=8, sequence=5)])
        second = make_unit(clock, [append(2, producer=8, sequence=6)])
        others = [
            make_unit(clock, [append(1, producer=8, sequence=0)]),
            make_unit(clock, [append(2, producer=7, sequence=0)]),
            make_unit(clock, [append(1)]),
        ]
        producers = {(LogId(1), 7)}
        assert fail_followers(producers, [before, first, second, *others], ErrorCode.KAFKA_STORAGE_ERROR) == 2
        assert [unit.is_settled for unit in (before, first, second, *others)] == [False, True, True] + [
            False
        ] * 3
        assert errors(await first.result) == [ErrorCode.KAFKA_STORAGE_ERROR] * 2

    run_sim(main)


def test_an_abandoned_request_gets_no_answer_at_all() -> None:
    async def main(loop: SimLoop) -> None:
        unit = make_unit(SimClock(loop), [append(1)])
        unit.abandon()
        unit.abandon()
        assert unit.is_settled
        assert (await asyncio.gather(unit.result, return_exceptions=True))[
            0
        ].__class__ is asyncio.CancelledError

    run_sim(main)

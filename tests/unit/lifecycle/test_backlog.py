"""What waits to be merged is measured, told, and held against producers: smoothly, within bounds, and told once."""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import pairwise

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import run_sim
from warp.errors import MetadataUnavailable
from warp.ids import BrokerId, LogId
from warp.lifecycle.backlog import COUNTED_MAX, REST_RATIO, Backlog, HoldBack, HoldBackLimits
from warp.lifecycle.levels import MergeLimits
from warp.metadata.cluster_model import AgentFacts, ClusterView, LiveAgent
from warp.metadata.group_model import Lease
from warp.metadata.life_model import DeadSegment, Quarantined, SegmentRow, SegmentTotals

MIB = 2**20
LEASE = Lease("job/backlog", BrokerId(1), 1)
LIMITS = MergeLimits(backlog_bytes_max=1024 * MIB)


class Store:
    """A metadata store in which so much waits."""

    def __init__(self, *levels: SegmentTotals) -> None:
        self.levels = list(levels)
        self.asked = 0
        self.takes_s = 0.0
        self.fault: Exception | None = None
        self.can_be_merged = True

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]:
        found = [total for total in self.levels if total.level == level and self.can_be_merged]
        return [
            SegmentRow(number, f"segments/00/{number}", total.size_bytes // total.segments, level, 1)
            for total in found
            for number in range(after_id + 1, min(total.segments, after_id + limit) + 1)
        ]

    async def segment_totals(self) -> list[SegmentTotals]:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault
        return self.levels

    async def dead_segments(self, limit: int, after: DeadSegment | None = None) -> list[DeadSegment]:
        assert (limit, after) == (COUNTED_MAX, None)
        return [DeadSegment(1, "a", 7, 1), DeadSegment(2, "b", 7, 1)]

    async def quarantined(self, limit: int) -> list[Quarantined]:
        assert limit == COUNTED_MAX
        return [Quarantined(LogId(1), 5, 9, "gone", 3)]


def measured(store: Store) -> Backlog:
    async def main(loop: SimLoop) -> Backlog:
        backlog = Backlog(store, SimClock(loop), LIMITS)
        await backlog.run(LEASE)
        return backlog

    return run_sim(main)


@pytest.mark.parametrize(
    ("levels", "debt"),
    [
        ([], 0.0),
        ([SegmentTotals(0, 10, 512 * MIB)], 0.5),
        ([SegmentTotals(0, 10, 4096 * MIB)], 4.0),
        ([SegmentTotals(0, 1024, MIB)], 2.0),
        ([SegmentTotals(3, 10**6, 2**60)], 0.0),
    ],
)
def test_the_debt_is_what_waits_beside_what_may_wait(levels: list[SegmentTotals], debt: float) -> None:
    assert measured(Store(*levels)).debt == pytest.approx(debt)


def test_what_can_never_be_merged_is_no_debt() -> None:
    store = Store(SegmentTotals(0, 5000, 4096 * MIB))
    store.can_be_merged = False
    assert measured(store).debt == 0.0


def test_what_was_counted_is_forgotten_when_counting_is_another_agents_job() -> None:
    backlog = measured(Store(SegmentTotals(0, 10, 4096 * MIB)))
    assert (backlog.dead_segments, backlog.quarantined_extents, backlog.is_known) == (2, 1, True)
    backlog.forget()
    assert (backlog.debt, backlog.dead_segments, backlog.quarantined_extents) == (0.0, 0, 0)
    assert (list(backlog.levels), backlog.is_known) == ([], False)


def test_a_slow_count_is_not_repeated_soon() -> None:
    async def main(loop: SimLoop) -> None:
        store = Store(SegmentTotals(0, 1, MIB))
        backlog = Backlog(store, SimClock(loop), LIMITS)
        store.takes_s = 0.5
        await backlog.run(LEASE)
        store.takes_s = 0.0
        await asyncio.sleep(0.5 * REST_RATIO - 0.1)
        await backlog.run(LEASE)
        assert store.asked == 1
        await asyncio.sleep(0.2)
        await backlog.run(LEASE)
        await backlog.run(LEASE)
        assert store.asked == 3

    run_sim(main)


def test_a_count_that_fails_leaves_the_last_one() -> None:
    async def main(loop: SimLoop) -> None:
        store = Store(SegmentTotals(0, 1, 2048 * MIB))
        backlog = Backlog(store, SimClock(loop), LIMITS)
        await backlog.run(LEASE)
        store.fault = MetadataUnavailable("away")
        with pytest.raises(MetadataUnavailable):
            await backlog.run(LEASE)
        assert backlog.debt == pytest.approx(2.0)

    run_sim(main)


def test_nobody_is_held_back_without_too_large_a_debt() -> None:
    hold_back = HoldBack()
    for debt in (0.0, 0.5, 1.0):
        hold_back.seen(debt)
        assert not hold_back.is_on
        assert hold_back.delay_ms(100 * MIB) == 0
    assert (hold_back.times, hold_back.seconds) == (0, 0.0)


def test_producers_are_held_back_the_longer_the_more_they_send_and_the_more_waits() -> None:
    hold_back = HoldBack()
    delays = []
    for thousandths in range(1_001, 9_000):
        hold_back.seen(thousandths / 1000)
        assert hold_back.is_on
        delays.append(hold_back.delay_ms(MIB))
    assert delays == sorted(delays)
    assert delays[0] == 2
    assert all(later - sooner <= 2 for sooner, later in pairwise(delays))
    assert delays[-1] == HoldBackLimits().delay_ms_max
    hold_back.seen(2.0)
    assert hold_back.delay_ms(100) < hold_back.delay_ms(MIB) < hold_back.delay_ms(3 * MIB)
    assert hold_back.times == len(delays) + 3
    assert hold_back.seconds > sum(delays) / 1000


def test_the_log_tells_once_that_it_begins_and_once_that_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warp.jobs")
    hold_back = HoldBack()
    for debt in (0.5, 1.2, 3.0, 0.95, 1.1, 0.95, 0.5, 0.2):
        hold_back.seen(debt)
    assert [line.levelname for line in caplog.records] == ["WARNING", "INFO"]
    assert "1.2 times as much" in caplog.messages[0]
    hold_back.seen(1.5)
    assert len(caplog.records) == 3


def test_the_largest_debt_that_any_agent_tells_of_counts_and_older_agents_tell_of_none() -> None:
    facts = AgentFacts(merge_debt_permille=1_700)
    older = {name: value for name, value in json.loads(facts.to_json()).items() if "debt" not in name}
    agents = [AgentFacts(), AgentFacts.from_json(facts.to_json()), AgentFacts.from_json(json.dumps(older))]
    view = ClusterView(
        1, BrokerId(0), {BrokerId(n): LiveAgent(BrokerId(n), "i", told) for n, told in enumerate(agents)}
    )
    assert view.merge_debt == pytest.approx(1.7)
    with pytest.raises(ValueError, match="merge_debt_permille"):
        AgentFacts.from_json('{"merge_debt_permille": "2"}')

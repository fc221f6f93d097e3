"""The write path among stand-ins that are slow and fail as told, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.sim.loop import SimLoop
from tests.support.log import Bench, append, errors, run_sim, unavailable
from warp.errors import ErrorCode, MetadataError, MetadataUnavailable, OutcomeUnknown, StoreFull
from warp.log.committer import CommitLimits
from warp.log.flush import FlushLimits
from warp.log.model import AppendOutcome
from warp.log.pacing import PacingLimits
from warp.log.segment import RECEIPTS_PREFIX, SegmentIndex, parse_index
from warp.log.upload import UploadLimits
from warp.metadata.model import BatchEntry, SegmentCommit

NONE = ErrorCode.NONE
TIMED_OUT = ErrorCode.REQUEST_TIMED_OUT
STORAGE = ErrorCode.KAFKA_STORAGE_ERROR

PATIENT = FlushLimits(
    upload=UploadLimits(put_timeout_s=5_000), commit=CommitLimits(segment_age_max_s=900), uploads_max=8
)


def index_of(image: bytes) -> SegmentIndex:
    found = parse_index(image, len(image))
    assert isinstance(found, SegmentIndex)
    return found


async def results(units: Sequence[object]) -> list[list[AppendOutcome]]:
    return [await unit.result for unit in units]  # type: ignore[attr-defined]  # Units


# How things go when nothing fails


def test_a_request_is_answered_after_its_bytes_are_stored_and_its_offsets_committed() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.put_delay_s, bench.metadata.delay_s = 1.0, 0.5
        unit = await bench.add(append(1, records=3), append(2))
        assert await unit.result == [AppendOutcome(NONE, 0, -1, 0), AppendOutcome(NONE, 0, -1, 0)]
        assert loop.time() == pytest.approx(1.5)
        assert bench.metadata.ends == {1: 3, 2: 1}
        again = await bench.add(append(1, records=2))
        assert (await again.result)[0].base_offset == 3

    run_sim(main)


def test_requests_of_one_turn_share_a_segment_log_by_log_each_in_order_of_arrival() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        units = [
            await bench.add(append(log, value=b"%d" % i, records=i + 1))
            for i, log in enumerate([2, 1, 2, 1, 3])
        ]
        answers = await results(units)
        assert [answer[0].base_offset for answer in answers] == [0, 0, 1, 2, 0]
        (image,) = bench.store.images()
        index = index_of(image)
        assert [(e.partition, e.record_count) for e in index.extents] == [(1, 6), (2, 4), (3, 5)]

    run_sim(main)


def test_readers_are_told_before_anybody_is_answered() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        unit = await bench.add(append(1))
        bench.recorder.when_committed = lambda: answered.append(unit.is_settled)
        answered: list[bool] = []
        await unit.result
        assert answered == [False]
        assert bench.recorder.events == ["wait", "seal", "put", "order", "committed", "commit"]
        assert list(bench.recorder.images) == bench.store.keys
        assert [b"".join(image) for image in bench.recorder.images.values()] == bench.store.images()

    run_sim(main)


def test_segments_commit_in_seal_order_though_their_puts_end_in_another() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.delays_s = {1: 3.0, 2: 0.1, 3: 1.0}
        units = [await bench.segment(append(1, records=i + 1)) for i in range(3)]
        answers = await results(units)
        assert [answer[0].base_offset for answer in answers] == [0, 1, 3]
        assert bench.metadata.attempts == [bench.store.keys]

    run_sim(main)


def test_segments_that_are_ready_while_a_commit_runs_go_into_the_next_together() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.delays_s = {1: 1.0}
        units = [await bench.segment(append(1)) for _ in range(4)]
        bench.store.delays_s = {4: 5.0}
        await asyncio.gather(*(unit.result for unit in units))
        keys = bench.store.keys
        assert bench.metadata.attempts == [keys[:1], keys[1:3], keys[3:]] or bench.metadata.attempts == [keys]

    run_sim(main)


def test_a_request_larger_than_a_segment_is_a_segment_of_its_own() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=FlushLimits(pacing=PacingLimits(flush_bytes=10_000)))
        small = await bench.add(append(1))
        large = await bench.add(*(append(log, value=bytes(5_000)) for log in range(6)))
        after = await bench.add(append(2))
        await results([small, large, after])
        sizes = [[e.partition for e in index_of(image).extents] for image in bench.store.images()]
        assert sizes == [[1], [0, 1, 2, 3, 4, 5], [2]]

    run_sim(main)


def test_a_duplicate_is_answered_with_its_first_offset_and_is_in_no_receipt() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.verdict = lambda segment, batch: (
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER if batch else NONE
        )
        unit = await bench.add(append(1), append(2))
        assert errors(await unit.result) == [NONE, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]
        await bench.flusher.drain(10)
        (receipt,) = index_of(bench.store.images()[1]).receipts
        assert receipt.key == bench.store.keys[0]
        assert [(run.base_offset, run.offset_count) for run in receipt.runs] == [(0, 1)]
        assert bench.flusher.committed_batches == 1

    run_sim(main)


# Failing PUTs


def test_a_failed_put_is_repeated_under_a_new_key() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.faults = {1: unavailable(), 2: unavailable()}
        unit = await bench.add(append(1))
        assert errors(await unit.result) == [NONE]
        assert len(set(bench.store.keys)) == 3
        assert bench.metadata.attempts == [bench.store.keys[2:]]
        assert bench.flusher.failed_puts == 2

    run_sim(main)


def test_a_put_that_hangs_is_given_up_and_repeated() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=FlushLimits(upload=UploadLimits(put_timeout_s=2.0)))
        bench.store.delays_s = {1: 1e9}
        unit = await bench.add(append(1))
        assert errors(await unit.result) == [NONE]
        assert loop.time() == pytest.approx(2.0 + 0.1 + 0.02)

    run_sim(main)


def test_a_put_that_fails_for_good_fails_its_requests_and_those_that_would_overtake_them() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=PATIENT)
        bench.store.faults = {2: StoreFull("no room")}
        bench.store.delays_s = {1: 9.0, 2: 1.0, 3: 5.0, 4: 0.1}
        first = await bench.segment(append(1, producer=7, sequence=0))
        lost = await bench.segment(append(1, producer=7, sequence=1), append(2, producer=8, sequence=0))
        follows = await bench.segment(append(2, producer=8, sequence=1), append(3, producer=9, sequence=0))
        follows_that = await bench.add(append(3, producer=9, sequence=1))
        others = [
            await bench.add(append(1, producer=8, sequence=0)),
            await bench.add(append(2, producer=7, sequence=0)),
            await bench.add(append(1)),
        ]
        assert errors(await lost.result) == [STORAGE, STORAGE]
        assert loop.time() == pytest.approx(1.0)
        assert errors(await follows.result) == [STORAGE, STORAGE]
        assert errors(await follows_that.result) == [STORAGE]
        assert loop.time() == pytest.approx(1.0)
        assert [errors(answer) for answer in await results([first, *others])] == [[NONE]] * 4
        assert bench.metadata.ends == {1: 3, 2: 1}
        assert "failed put" in bench.recorder.events

    run_sim(main)


def test_a_full_store_is_not_asked_again_for_the_same_segment(caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.fail_all = StoreFull("no room")
        for _ in range(3):
            unit = await bench.add(append(1))
            assert errors(await unit.result) == [STORAGE]
            assert "no room" in ((await unit.result)[0].message or "")
        assert len(bench.store.keys) == 3
        bench.store.fail_all = None
        assert errors(await (await bench.add(append(1))).result) == [NONE]

    run_sim(main)
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "full" in line]) == 1
    assert len([line for line in told if "takes writes again" in line]) == 1


def test_an_unexpected_error_of_the_store_is_answered_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.faults = {1: ZeroDivisionError("a bug")}
        unit = await bench.add(append(1))
        assert errors(await unit.result) == [ErrorCode.UNKNOWN_SERVER_ERROR]
        assert errors(await (await bench.add(append(1))).result) == [NONE]

    run_sim(main)
    assert "storing a segment failed unexpectedly" in caplog.text


def test_a_bug_after_a_commit_closes_its_connections_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bugs = iter([ZeroDivisionError("a bug")])

        def fail_once() -> None:
            for bug in bugs:
                raise bug

        bench.recorder.when_committed = fail_once
        unit = await bench.add(append(1))
        with pytest.raises(asyncio.CancelledError):
            await unit.result
        assert errors(await (await bench.add(append(1))).result) == [NONE]
        assert await bench.flusher.drain(1.0)

    run_sim(main)
    assert "a commit was not followed up" in caplog.text


def test_a_lasting_failure_of_commits_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.faults = {n: MetadataUnavailable("busy") for n in range(1, 20)}
        assert errors(await (await bench.add(append(1))).result) == [NONE]

    run_sim(main)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert "busy" in told[0]
    assert "again" in told[1]


# Failing commits


def test_a_commit_that_changed_nothing_is_repeated_until_it_succeeds() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.faults = {n: MetadataUnavailable("busy") for n in range(1, 8)}
        unit = await bench.add(append(1))
        assert errors(await unit.result) == [NONE]
        assert bench.metadata.attempts == [bench.store.keys] * 8
        assert bench.metadata.ends == {1: 1}

    run_sim(main)


@pytest.mark.parametrize("applied", [True, False])
def test_an_unknown_outcome_is_resolved_under_the_same_key(applied: bool) -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        fault = {1: OutcomeUnknown("lost"), 2: OutcomeUnknown("lost again")}
        if applied:
            bench.metadata.lost_answers.update(fault)
        else:
            bench.metadata.faults.update(fault)
        unit = await bench.add(append(1, records=4))
        assert await unit.result == [AppendOutcome(NONE, 0, -1, 0)]
        assert bench.metadata.attempts == [bench.store.keys] * 3
        assert bench.metadata.ends == {1: 4}

    run_sim(main)


def test_a_group_whose_commit_fails_is_tried_one_by_one_and_one_bad_segment_fails_alone() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.delays_s = {1: 1.0}
        units = [await bench.segment(append(log, producer=log, sequence=0)) for log in range(4)]
        bad = 2

        def poison(segment: SegmentCommit) -> Exception | None:
            is_bad = any(batch.log_id == bad for batch in segment.batches)
            return MetadataError("constraint failed") if is_bad else None

        bench.metadata.poison = poison
        answers = await results(units)
        assert [errors(answer) for answer in answers] == [[NONE], [NONE], [STORAGE], [NONE]]
        keys = bench.store.keys
        alone = [[keys[0]], [keys[1]], [keys[2]], [keys[2]], [keys[2]], [keys[3]]]
        assert bench.metadata.attempts == [keys, *alone]
        assert bench.flusher.failed_segments == 1

    run_sim(main)


def test_a_group_of_unknown_outcome_is_resolved_one_by_one_as_it_was() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.delays_s = {1: 1.0}
        bench.metadata.lost_answers = {1: OutcomeUnknown("lost")}
        bench.metadata.delays_s = {2: 10.0}
        asked: dict[str, list[list[BatchEntry]]] = {}

        def note(segment: SegmentCommit) -> None:
            asked.setdefault(segment.key, []).append(list(segment.batches))

        bench.metadata.poison = note
        units = [await bench.segment(append(1, records=i + 1), timeout_s=5.0) for i in range(3)]
        assert [errors(answer) for answer in await results(units)] == [[TIMED_OUT]] * 3
        later = await bench.add(append(1))
        assert (await later.result)[0].base_offset == 6
        assert bench.metadata.ends == {1: 7}
        for attempts in list(asked.values())[:3]:
            assert len(attempts) == 2
            assert attempts[0] == attempts[1] != []

    run_sim(main)


def test_a_failure_is_not_told_to_followers_whose_own_commit_may_have_happened() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.delays_s = {1: 1.0}
        bench.metadata.lost_answers = {1: OutcomeUnknown("lost")}
        bench.metadata.poison = lambda segment: (
            MetadataError("damaged")
            if len(bench.metadata.attempts) > 1 and segment.key == bench.store.keys[0]
            else None
        )
        units = [await bench.segment(append(1, producer=5, sequence=number)) for number in range(2)]
        assert (await units[1].result)[0] == AppendOutcome(NONE, 1, -1, 0)
        assert units[0].result.cancelled()
        assert bench.metadata.ends == {1: 2}

    run_sim(main)


def test_a_segment_that_the_store_refuses_fails_and_takes_its_followers_along() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.poison = lambda segment: ZeroDivisionError("a bug")
        unit = await bench.add(append(1, producer=5, sequence=0))
        await asyncio.sleep(0.015)
        follower = await bench.add(append(1, producer=5, sequence=1))
        assert errors(await unit.result) == [ErrorCode.UNKNOWN_SERVER_ERROR]
        assert errors(await follower.result) == [ErrorCode.UNKNOWN_SERVER_ERROR]
        assert len(bench.store.keys) == 1

    run_sim(main)


# Time


def test_a_request_that_times_out_before_its_seal_is_never_stored() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=PATIENT)
        bench.store.delays_s = {1: 20.0}
        first = await bench.add(append(1))
        await asyncio.sleep(0.1)
        late = await bench.add(append(1), append(2), timeout_s=3.0)
        kept = await bench.add(append(1))
        assert errors(await late.result) == [TIMED_OUT, TIMED_OUT]
        assert loop.time() == pytest.approx(3.1)
        assert [errors(answer) for answer in await results([first, kept])] == [[NONE], [NONE]]
        assert [[e.partition for e in index_of(i).extents] for i in bench.store.images()] == [[1], [1]]
        assert bench.metadata.ends == {1: 2}
        assert bench.flusher.timed_out_requests == 1

    run_sim(main)


def test_a_request_that_times_out_while_its_segment_is_stored_takes_no_part_in_the_commit() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=PATIENT)
        bench.store.delays_s = {1: 20.0}
        late = await bench.add(append(1, records=5), append(2), timeout_s=3.0)
        kept = await bench.add(append(1))
        assert errors(await late.result) == [TIMED_OUT, TIMED_OUT]
        assert loop.time() == pytest.approx(3.0)
        assert (await kept.result)[0].base_offset == 0
        assert bench.metadata.ends == {1: 1}

    run_sim(main)


def test_a_request_that_times_out_during_its_commit_may_be_committed() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.delays_s = {1: 20.0}
        unit = await bench.add(append(1), timeout_s=3.0)
        assert errors(await unit.result) == [TIMED_OUT]
        assert loop.time() == pytest.approx(3.0)
        assert await bench.flusher.drain(60)
        assert bench.metadata.ends == {1: 1}

    run_sim(main)


def test_a_segment_that_nobody_waits_for_any_more_is_not_committed() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.fail_all = MetadataUnavailable("down")
        unit = await bench.add(append(1), timeout_s=10.0)
        assert errors(await unit.result) == [TIMED_OUT]
        assert loop.time() == pytest.approx(10.0)
        assert await bench.flusher.drain(10)
        bench.metadata.fail_all = None
        assert bench.metadata.ends == {}

    run_sim(main)


def test_while_the_outcome_is_unknown_the_only_answer_is_a_time_out() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.fail_all = OutcomeUnknown("lost")
        unit = await bench.add(append(1, producer=3, sequence=0), timeout_s=10.0)
        assert errors(await unit.result) == [TIMED_OUT]
        # The next segment waits behind it, however long.
        later = await bench.segment(append(2), timeout_s=600.0)
        assert errors(await later.result) == [TIMED_OUT]
        assert len(bench.store.keys) == 2
        assert {tuple(attempt) for attempt in bench.metadata.attempts} == {(bench.store.keys[0],)}

    run_sim(main)


def test_a_segment_older_than_fifteen_minutes_is_not_committed() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.metadata.fail_all = OutcomeUnknown("lost")
        await bench.add(append(1, producer=3, sequence=0), timeout_s=10.0)
        await asyncio.sleep(890)
        behind = await bench.add(append(1, producer=3, sequence=1), timeout_s=600.0)
        assert errors(await behind.result) == [STORAGE]
        assert 900 < loop.time() < 902
        attempts = len(bench.metadata.attempts)
        bench.metadata.fail_all = None
        await asyncio.sleep(100)
        assert len(bench.metadata.attempts) == attempts
        assert errors(await (await bench.add(append(1))).result) == [NONE]

    run_sim(main)


# Bounds


def test_requests_wait_when_the_bounds_are_reached_and_keep_their_order() -> None:
    limits = FlushLimits(
        pacing=PacingLimits(flush_bytes=5_000), uploads_max=2, sealed_segments_max=2, sealed_bytes_max=10_000
    )

    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=limits)
        bench.store.put_delay_s = 1.0
        entered: list[int] = []

        async def produce(number: int) -> list[AppendOutcome]:
            unit = await bench.add(append(1, value=bytes(3_000)))
            entered.append(number)
            assert bench.flusher.sealed_bytes <= 2 * 5_500
            return await unit.result

        tasks = [asyncio.ensure_future(produce(number)) for number in range(20)]
        await asyncio.sleep(0.5)
        assert entered == [0, 1, 2]
        assert bench.flusher.waiting_bytes > 17 * 3_000
        answers = [await task for task in tasks]
        assert entered == list(range(20))
        assert [answer[0].base_offset for answer in answers] == list(range(20))
        assert bench.flusher.waiting_bytes == bench.flusher.sealed_bytes == 0

    run_sim(main)


def test_nothing_is_sealed_while_sealed_segments_hold_all_the_bytes_that_they_may() -> None:
    limits = FlushLimits(pacing=PacingLimits(flush_bytes=3_000), uploads_max=8, sealed_bytes_max=5_000)

    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=limits)
        bench.store.put_delay_s = 1.0
        adding = [asyncio.ensure_future(bench.add(append(1, value=bytes(3_000)))) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert len(bench.store.keys) == 2
        assert bench.flusher.sealed_bytes > 5_000
        answers = await results([await added for added in adding])
        assert [answer[0].base_offset for answer in answers] == list(range(5))

    run_sim(main)


def test_a_request_that_is_cancelled_while_it_waits_is_forgotten() -> None:
    limits = FlushLimits(pacing=PacingLimits(flush_bytes=5_000), uploads_max=1)

    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=limits)
        bench.store.put_delay_s = 1.0
        tasks = [asyncio.ensure_future(bench.add(append(1, value=bytes(4_000)))) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert [task.done() for task in tasks] == [True, True, False, False, False]
        tasks[2].cancel()
        tasks[4].cancel()
        await asyncio.sleep(100)
        assert [task.cancelled() for task in tasks] == [False, False, True, False, True]
        assert bench.metadata.ends == {1: 3}
        assert bench.flusher.waiting_bytes == 0

    run_sim(main)


def test_a_request_that_times_out_while_it_waits_for_room_is_answered() -> None:
    limits = FlushLimits(pacing=PacingLimits(flush_bytes=5_000), uploads_max=1)

    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=limits)
        bench.store.put_delay_s = 15.0
        units = [bench.add(append(1, value=bytes(4_000)), timeout_s=10.0) for _ in range(4)]
        answers = await asyncio.gather(*units)
        assert loop.time() == pytest.approx(10.0)
        assert [errors(answer) for answer in await results(answers)] == [[TIMED_OUT]] * 4
        await asyncio.sleep(100)
        assert bench.metadata.ends == {}

    run_sim(main)


# The end


def test_drain_finishes_what_is_there_and_writes_the_receipts() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, requests_are_free=False)
        units = [await bench.add(append(log)) for log in range(3)]
        assert await bench.flusher.drain(10)
        assert all(unit.result.done() for unit in units)
        assert [key.startswith(RECEIPTS_PREFIX) for key in bench.store.keys] == [False, True]
        refused = await bench.add(append(1))
        assert errors(await refused.result) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
        await bench.flusher.close()

    run_sim(main)


def test_drain_keeps_its_bound_and_close_answers_what_is_certain() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, limits=FlushLimits(uploads_max=2))
        bench.metadata.delay_s = 1e9
        committing = await bench.segment(append(1))
        await asyncio.sleep(0.1)
        bench.store.put_delay_s = 1e9
        storing = await bench.segment(append(2))
        hopeless = await bench.segment(append(3))
        waiting = await bench.add(append(4))
        assert not await bench.flusher.drain(5)
        assert loop.time() == pytest.approx(5.1)
        await bench.flusher.close()
        assert committing.result.cancelled()
        for unit in (storing, hopeless, waiting):
            assert errors(await unit.result) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]

    run_sim(main)


# Receipts


def test_a_segment_carries_the_receipts_of_the_commits_before_it() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        for i in range(3):
            await (await bench.add(append(1, records=i + 1), append(2))).result
        receipts = [index_of(image).receipts for image in bench.store.images()]
        assert [[receipt.key for receipt in of] for of in receipts] == [
            [],
            [bench.store.keys[0]],
            [bench.store.keys[1]],
        ]
        assert [(run.base_offset, run.offset_count) for run in receipts[2][0].runs] == [(1, 2), (1, 1)]

    run_sim(main)


def test_receipts_are_written_alone_after_an_idle_while_and_only_once() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        await (await bench.add(append(1))).result
        await asyncio.sleep(9)
        assert len(bench.store.keys) == 1
        await asyncio.sleep(1_000)
        assert len(bench.store.keys) == 2
        index = index_of(bench.store.images()[1])
        assert index.extents == []
        assert [receipt.key for receipt in index.receipts] == bench.store.keys[:1]

    run_sim(main)


def test_receipts_wait_for_ten_seconds_after_the_last_put_and_no_longer() -> None:
    """They were looked at every ten seconds, so those of a PUT between two looks waited for up to twenty."""

    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        await (await bench.add(append(1))).result
        await asyncio.sleep(6)
        await (await bench.add(append(1))).result
        await asyncio.sleep(9)
        assert len(bench.store.keys) == 2
        await asyncio.sleep(2)
        index = index_of(bench.store.images()[2])
        assert [receipt.key for receipt in index.receipts] == bench.store.keys[1:2]

    run_sim(main)


def test_receipts_that_could_not_be_written_are_written_later() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.faults = {2: unavailable(), 3: StoreFull("no room")}
        await (await bench.add(append(1))).result
        await asyncio.sleep(15)
        lost = await bench.add(append(1))
        assert errors(await lost.result) == [STORAGE]
        await (await bench.add(append(1))).result
        index = index_of(bench.store.images()[-1])
        assert [receipt.key for receipt in index.receipts] == bench.store.keys[:1]

    run_sim(main)


# Paying for requests


def test_a_quiet_agent_answers_in_one_put_plus_one_commit() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, requests_are_free=False)
        bench.store.put_delay_s, bench.metadata.delay_s = 0.06, 0.002
        for _ in range(20):
            begin = loop.time()
            await (await bench.add(append(1))).result
            assert loop.time() - begin == pytest.approx(0.062)
            await asyncio.sleep(0.5)

    run_sim(main)


def test_a_busy_agent_makes_no_more_requests_than_a_timer_would() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, requests_are_free=False)
        bench.store.put_delay_s, bench.metadata.delay_s = 0.06, 0.002

        async def client(log: int) -> None:
            while loop.time() < 60:
                await (await bench.add(append(log))).result

        await asyncio.gather(*(client(log) for log in range(10)))
        assert len(bench.store.keys) <= 60 / 0.25 + 4

    run_sim(main)

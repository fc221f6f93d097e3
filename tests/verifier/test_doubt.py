"""What may be there or not, because nobody knows what came of a request, is no violation either way."""

from __future__ import annotations

import itertools

import pytest

from tests.verifier import (
    Committed,
    CommittedOffsets,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    OffsetCommit,
    OffsetFetch,
    Partition,
    Placed,
    Produce,
    Produced,
    Recorder,
    Trimmed,
    TrimmedPart,
    judge,
)
from warp.errors import ErrorCode

PLACE = Partition("t", 0)


def write(recorder: Recorder) -> None:
    """One record, which is acknowledged."""
    op = recorder.begin("writer", Produce([recorder.batch(PLACE, [(None, b"value")])]))
    op.answered(Produced({PLACE: Placed(0, 0)}))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_topic_whose_first_creation_was_lost_may_be_back_after_it_was_deleted(is_there: bool) -> None:
    times_s = itertools.count()
    recorder = Recorder(lambda: float(next(times_s)))
    recorder.begin("maker", CreateTopic("t")).lost()
    recorder.begin("maker", CreateTopic("t")).failed(ErrorCode.TOPIC_ALREADY_EXISTS)
    write(recorder)
    recorder.begin("maker", DeleteTopic("t")).answered(Done())
    back = recorder.readback("agent")
    if is_there:
        back.log(PLACE, 0, 0)
    else:
        back.does_not_know(PLACE)
    assert not judge(recorder.history, [back]).violations


def test_a_topic_that_was_made_again_after_its_deletion_is_there() -> None:
    times_s = itertools.count()
    recorder = Recorder(lambda: float(next(times_s)))
    for operation in (CreateTopic("t"), DeleteTopic("t"), CreateTopic("t")):
        recorder.begin("maker", operation).answered(Done())
    write(recorder)
    back = recorder.readback("agent")
    back.does_not_know(PLACE)
    [violation] = judge(recorder.history, [back]).violations
    assert "does not know t-0" in violation.text


def new_recorder() -> Recorder:
    times_s = itertools.count()
    return Recorder(lambda: float(next(times_s)))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_deletion_of_records_that_was_lost_may_have_been_carried_out_or_not(start: int) -> None:
    recorder = new_recorder()
    for number in range(2):
        op = recorder.begin("writer", Produce([recorder.batch(PLACE, [(None, b"%d" % number)])]))
        op.answered(Produced({PLACE: Placed(0, number)}))
    recorder.begin("trimmer", DeleteRecords({PLACE: 1})).lost()
    back = recorder.readback("agent")
    log = back.log(PLACE, start, 2)
    for number in range(start, 2):
        log.add(number, None, b"%d" % number)
    found = [violation.check for violation in judge(recorder.history, [back]).violations]
    assert found == ([] if start < 2 else ["nothing goes without a reason"])


def test_a_deletion_of_all_records_takes_no_later_ones() -> None:
    recorder = new_recorder()
    write(recorder)
    recorder.begin("trimmer", DeleteRecords({PLACE: -1})).answered(Trimmed({PLACE: TrimmedPart(0, 1)}))
    op = recorder.begin("writer", Produce([recorder.batch(PLACE, [(None, b"later")])]))
    op.answered(Produced({PLACE: Placed(0, 1)}))
    back = recorder.readback("agent")
    back.log(PLACE, 2, 2)
    [violation] = judge(recorder.history, [back]).violations
    assert violation.check == "nothing goes without a reason"


@pytest.mark.parametrize("code", [ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.ILLEGAL_GENERATION, None])
def test_a_commit_of_which_nobody_knows_may_come_after_a_later_one(code: ErrorCode | None) -> None:
    recorder = new_recorder()
    doubtful = recorder.begin("member", OffsetCommit("group", {PLACE: 1}))
    if code is None:
        doubtful.lost()
    else:
        doubtful.answered(Committed({PLACE: code}))
    recorder.begin("member", OffsetCommit("group", {PLACE: 2})).answered(Committed({PLACE: 0}))
    recorder.begin("auditor", OffsetFetch("group", [PLACE])).answered(CommittedOffsets({PLACE: 1}))
    found = [violation.check for violation in judge(recorder.history, []).violations]
    assert found == (["committed offsets never go back"] if code is ErrorCode.ILLEGAL_GENERATION else [])

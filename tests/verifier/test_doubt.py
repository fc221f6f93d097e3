"""What may be there or not, because nobody knows what came of a request, is no violation either way."""

from __future__ import annotations

import itertools

import pytest

from tests.verifier import (
    CreateTopic,
    DeleteTopic,
    Done,
    Partition,
    Placed,
    Produce,
    Produced,
    Recorder,
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

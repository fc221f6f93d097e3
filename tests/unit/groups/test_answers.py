"""What requests to a group that does not exist are answered, and which names a group may have."""

from __future__ import annotations

import pytest

from tests.unit.groups.group_support import NO_DELAY, joining
from warp.errors import ErrorCode
from warp.groups.answers import answer_without_group, group_id_error
from warp.groups.model import (
    Answer,
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    DescribeAnswer,
    Heartbeat,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaver,
    Left,
    OffsetDeleteAnswer,
    Request,
    Sync,
    SyncAnswer,
)

UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (joining(), None),
        (joining(instance_id="i"), None),
        (joining("m"), JoinAnswer(UNKNOWN, "m")),
        (joining(session_timeout_ms=1), JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT, "")),
        (joining("m", session_timeout_ms=1), JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT, "m")),
        (joining(protocol_type=""), JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "")),
        (Sync("m", None, 1), SyncAnswer(UNKNOWN)),
        (Heartbeat("m", None, 1), CodeAnswer(UNKNOWN)),
        (
            Leave((Leaver("m"), Leaver("", "i"))),
            LeaveAnswer(ErrorCode.NONE, (Left("m", None, UNKNOWN), Left("", "i", UNKNOWN))),
        ),
        (CheckCommit("", None, -1), CodeAnswer(ErrorCode.NONE)),
        (CheckCommit("m", None, 1), CodeAnswer(ErrorCode.GROUP_ID_NOT_FOUND)),
        (CheckCommit("", None, 0), CodeAnswer(ErrorCode.GROUP_ID_NOT_FOUND)),
        (CheckOffsetDelete(), OffsetDeleteAnswer(ErrorCode.NONE)),
        (Describe(), DescribeAnswer(ErrorCode.GROUP_ID_NOT_FOUND)),
        (Delete(), CodeAnswer(ErrorCode.GROUP_ID_NOT_FOUND)),
    ],
)
def test_request_to_a_group_that_does_not_exist(request_: Request, answer: Answer | None) -> None:
    assert answer_without_group(request_, NO_DELAY) == answer


def test_described_group_that_does_not_exist_is_dead() -> None:
    assert DescribeAnswer(ErrorCode.GROUP_ID_NOT_FOUND).state == "Dead"


@pytest.mark.parametrize("group_id", ["", "x" * 1025, "é" * 513, "a\0b", "\ud800"])
def test_group_id_that_cannot_be_stored_is_invalid(group_id: str) -> None:
    assert group_id_error(group_id) is ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("group_id", ["x" * 1024, "é" * 512, " ", "a/b:c"])
def test_any_other_group_id_is_valid(group_id: str) -> None:
    assert group_id_error(group_id) is None


def test_offsets_may_stand_under_the_empty_group_id() -> None:
    assert group_id_error("", may_be_empty=True) is None

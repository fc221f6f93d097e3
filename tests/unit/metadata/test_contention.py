"""Operations that were in each other's way."""

from __future__ import annotations

import asyncio

import pytest

from warp.errors import MetadataContention, MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.metadata import contention


class Operation:
    """Raises the errors that it was given, one a call, and then answers its argument."""

    def __init__(self, *errors: MetadataError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, answer: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return answer


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "RETRY_DELAYS_S", (0, 0, 0))


def run(operation: Operation) -> str:
    async def call(answer: str) -> str:
        return await operation(answer)

    return asyncio.run(contention.retried(call)("done"))


def test_contention_is_tried_again() -> None:
    operation = Operation(MetadataContention("1"), MetadataContention("2"), MetadataContention("3"))
    assert run(operation) == "done"
    assert operation.calls == 4


def test_contention_that_stays_is_told() -> None:
    operation = Operation(*(MetadataContention(str(number)) for number in range(9)))
    with pytest.raises(MetadataContention, match="3"):
        run(operation)
    assert operation.calls == 4


@pytest.mark.parametrize("error", [MetadataUnavailable("away"), OutcomeUnknown("lost")])
def test_nothing_else_is_tried_again(error: MetadataError) -> None:
    operation = Operation(error)
    with pytest.raises(type(error)):
        run(operation)
    assert operation.calls == 1

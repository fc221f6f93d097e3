"""Questions to the index that are put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.unit.log.read_support import run
from warp.ids import LogId
from warp.log.refresh import EXTENTS_PER_READ_MAX, QUERIES_PER_READ_MAX, Refresher
from warp.metadata.model import ExtentQuery, LogRead


class Index:
    """Remembers what it is asked."""

    def __init__(self) -> None:
        self.reads: list[Sequence[ExtentQuery]] = []

    async def read_extents(self, queries: Sequence[ExtentQuery]) -> Sequence[LogRead]:
        self.reads.append(queries)
        await asyncio.sleep(0)
        return [LogRead(None, []) for _ in queries]


def test_a_read_gives_no_more_extents_however_many_ask_at_once() -> None:
    async def scenario() -> None:
        index = Index()
        refresher = Refresher(index)
        alone = await refresher.ask([ExtentQuery(LogId(0), 0, 2**20, 5_000)])
        assert len(alone) == 1
        many = (refresher.ask([ExtentQuery(LogId(number), 7, 2**20, 5_000)]) for number in range(1_500))
        assert len(await asyncio.gather(*many)) == 1_500
        assert [len(read) for read in index.reads] == [1, QUERIES_PER_READ_MAX, 500]
        assert [read[0].extents_max for read in index.reads] == [5_000, 20, 40]
        assert all(sum(query.extents_max for query in read) <= EXTENTS_PER_READ_MAX for read in index.reads)
        assert {query.offset for read in index.reads[1:] for query in read} == {7}

    run(scenario())

"""Committed offsets in the hands of the coordinator: commits, reads and deletions of one group in a fitting order.

* A commit enters the committer's queue in the same turn of the loop in which the group lets it, so one of an older
  generation never comes behind one of a newer.
* A read waits for the commits of its group that are under way: the member that takes a partition over then starts where
  the last one stood, and never commits an offset below one that its predecessor is still being told of.
* A group is removed when its commits have been answered: none of them makes it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from warp.errors import ErrorCode
from warp.groups.offsets import OffsetCommitter
from warp.groups.slots import GroupStore, Tenure
from warp.metadata.group_model import (
    OffsetCommit,
    OffsetDeletion,
    OffsetQuery,
    OffsetRow,
    StoredGroup,
)

PARTITIONS_AT_ONCE = 5_000
"""Partitions that one statement looks up: on SQLite the event loop stands still for it."""
UNSURE_MAX = 1_000
"""Ids of one slot that are remembered while the store is away. What is made beyond that is found by the next start."""
_UNSURE = (ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.UNKNOWN_SERVER_ERROR)


class GroupOffsets:
    """The offsets of the groups of one agent; who may do what has been decided by then.

    `settled(tenure, group_id)` hears when no commit of a group is under way any more.
    """

    def __init__(
        self, store: GroupStore, committer: OffsetCommitter, settled: Callable[[Tenure, str], None]
    ) -> None:
        self._store = store
        self._committer = committer
        self._settled = settled

    async def commit(self, tenure: Tenure, group_id: str, rows: Sequence[OffsetRow]) -> list[ErrorCode]:
        """Commit offsets that the group lets somebody commit; see OffsetCommitter. Queued before the first await."""
        under_way = asyncio.get_running_loop().create_future()
        tenure.committing.setdefault(group_id, {})[under_way] = None
        errors: Sequence[ErrorCode] = _UNSURE
        try:
            errors = answer = await self._committer.commit(OffsetCommit(tenure.lease, group_id, rows))
            return answer
        finally:
            self._note(tenure, group_id, rows, errors)
            turn = self._committer.turn
            if turn is not None and any(error in _UNSURE for error in errors):
                # Whoever sent it has given up, or was told to; but it may be in the transaction that runs.
                turn.add_done_callback(lambda _: self._end(tenure, group_id, under_way))
            else:
                self._end(tenure, group_id, under_way)

    async def read(self, wanted: Sequence[tuple[Tenure | None, OffsetQuery]]) -> list[list[OffsetRow]]:
        """What is committed, per query, this agent's commits that are under way included. Raises MetadataError."""
        await self._wait_for_commits(wanted)
        queries = [query for _, query in wanted]
        if sum(len(query.partitions or ()) for query in queries) <= PARTITIONS_AT_ONCE:
            return await self._store.fetch_offsets(queries)
        return [await self._read_in_parts(query) for query in queries]

    async def _read_in_parts(self, query: OffsetQuery) -> list[OffsetRow]:
        """What is committed of many partitions: not all as of one moment, which nobody asks for."""
        if query.partitions is None:
            return (await self._store.fetch_offsets([query]))[0]
        rows: list[OffsetRow] = []
        for start in range(0, len(query.partitions), PARTITIONS_AT_ONCE):
            some = query.partitions[start : start + PARTITIONS_AT_ONCE]
            rows += (await self._store.fetch_offsets([query._replace(partitions=some)]))[0]
            await asyncio.sleep(0)
        return rows

    async def delete(
        self, tenure: Tenure, group_id: str, partitions: Sequence[tuple[str, int]]
    ) -> list[ErrorCode]:
        """Delete committed offsets, those of commits that are under way included; an error per partition.

        Raises LeaseLost or another MetadataError; then some of many may be gone.
        """
        errors: list[ErrorCode] = []
        for start in range(0, len(partitions), PARTITIONS_AT_ONCE):
            some = OffsetDeletion(tenure.lease, group_id, partitions[start : start + PARTITIONS_AT_ONCE])
            errors += (await self._store.delete_offsets([some]))[0]
            await asyncio.sleep(0)
        return errors

    async def wait_for_commits(self, tenure: Tenure, group_id: str) -> None:
        """Wait until the commits of a group that are under way now have been answered."""
        under_way = tenure.commits_under_way(group_id)
        if under_way:
            await asyncio.wait(under_way)

    async def _wait_for_commits(self, wanted: Sequence[tuple[Tenure | None, OffsetQuery]]) -> None:
        for tenure, query in wanted:
            if tenure is not None:
                await self.wait_for_commits(tenure, query.group_id)

    def _note(
        self, tenure: Tenure, group_id: str, rows: Sequence[OffsetRow], errors: Sequence[ErrorCode]
    ) -> None:
        """Remember a group that a commit has made, or may have."""
        if group_id in tenure.stored or not rows:
            return
        if ErrorCode.NONE in errors:
            made_ms = max(row.committed_ms for row in rows)
            tenure.keep(StoredGroup(group_id, "", 0, None, None, (), made_ms))
            tenure.unsure.discard(group_id)
        elif any(error in _UNSURE for error in errors) and len(tenure.unsure) < UNSURE_MAX:
            tenure.unsure.add(group_id)

    def _end(self, tenure: Tenure, group_id: str, under_way: asyncio.Future[None]) -> None:
        under_way.set_result(None)
        left = tenure.committing[group_id]
        del left[under_way]
        if not left:
            del tenure.committing[group_id]
            self._settled(tenure, group_id)

"""A log kept in the plainest way, for tests of the read path: an index in a list, objects in a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from warp._records import build_batch, iterate_records
from warp.errors import ErrorCode, MetadataUnavailable, ObjectNotFound, ShortObject
from warp.ids import LogId
from warp.metadata.model import CommitResult, Extent, ExtentQuery, LogRead, LogState
from warp.objectstore.base import ObjectInfo

T = TypeVar("T")
LOG = LogId(7)
OTHER = LogId(8)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        return await asyncio.wait_for(scenario, 30)

    return asyncio.run(main())


class PlainStore:
    """Objects in a dictionary."""

    requests_are_free = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gets = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key: str, start: int, length: int) -> bytes:
        self.gets += 1
        await self.gate.wait()
        if key not in self.objects:
            raise ObjectNotFound(key)
        data = self.objects[key][start : start + length]
        if len(data) < length:
            raise ShortObject(key, data)
        return data

    async def head(self, key: str) -> ObjectInfo:
        raise AssertionError("the store hands over short objects")


class PlainLogs:
    """The index of all logs, the objects that it points to, and what a commit would tell the read path."""

    def __init__(self, store: PlainStore, key_of: Callable[[int], str] = "segments/{}".format) -> None:
        self.store = store
        self._key_of = key_of
        self.extents: dict[LogId, list[Extent]] = {LOG: [], OTHER: []}
        self.starts: dict[LogId, int] = {LOG: 0, OTHER: 0}
        self.stable: dict[LogId, int] = {}
        self.reads: list[list[ExtentQuery]] = []
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._keys = 0

    def state(self, log_id: LogId) -> LogState | None:
        if log_id not in self.extents:
            return None
        extents = self.extents[log_id]
        end = extents[-1].end_offset if extents else 0
        size = sum(extent.size_bytes for extent in extents)
        return LogState(log_id, self.starts[log_id], end, self.stable.get(log_id, end), size)

    def append(
        self, batches: Mapping[LogId, Sequence[Sequence[tuple[bytes, int]]]], **options: Any
    ) -> tuple[CommitResult, dict[str, bytes]]:
        """Commit one segment: per log batches of (value, timestamp). Gives what an agent's flush would tell."""
        self._keys += 1
        key = self._key_of(self._keys)
        image = bytearray(b"segment!")
        extents = []
        for log_id, rows in batches.items():
            position = len(image)
            for records in rows:
                image += build_batch([(None, value, (), time_ms) for value, time_ms in records], **options)
            before = self.state(log_id)
            assert before is not None
            count = sum(len(records) for records in rows)
            largest = max(time_ms for records in rows for _, time_ms in records)
            extents.append(
                Extent(
                    log_id,
                    before.next_offset,
                    before.next_offset + count,
                    key,
                    position,
                    len(image) - position,
                    largest,
                )
            )
            self.extents[log_id].append(extents[-1])
        image += b"footer"
        self.store.objects[key] = bytes(image)
        states = [state for log_id in batches if (state := self.state(log_id)) is not None]
        return CommitResult([], extents, states), {key: bytes(image)}

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.is_down:
            raise MetadataUnavailable("down")

    async def read_extents(self, queries: Sequence[ExtentQuery]) -> list[LogRead]:
        self.reads.append(list(queries))
        await self._arrive()
        return [LogRead(self.state(query.log_id), self._extents_from(query)) for query in queries]

    def _extents_from(self, query: ExtentQuery) -> list[Extent]:
        chosen: list[Extent] = []
        state = self.state(query.log_id)
        if state is None or not state.start_offset <= query.offset < state.next_offset:
            return chosen
        for extent in self.extents[query.log_id]:
            if extent.end_offset > query.offset:
                chosen.append(extent)
                is_full = sum(extent.size_bytes for extent in chosen) >= query.bytes_max
                if is_full or len(chosen) == query.extents_max:
                    break
        return chosen

    async def log_states(self, log_ids: Sequence[LogId]) -> dict[LogId, LogState]:
        await self._arrive()
        return {log_id: state for log_id in log_ids if (state := self.state(log_id)) is not None}

    async def extents_for_time(
        self, log_id: LogId, timestamp_ms: int, limit: int, from_offset: int = 0
    ) -> list[Extent]:
        await self._arrive()
        start_offset = max(self.starts[log_id], from_offset)
        live = [extent for extent in self.extents[log_id] if extent.end_offset > start_offset]
        return [extent for extent in live if extent.max_timestamp_ms >= timestamp_ms][:limit]

    async def extent_of_max_timestamp(self, log_id: LogId) -> Extent | None:
        await self._arrive()
        live = [extent for extent in self.extents[log_id] if extent.end_offset > self.starts[log_id]]
        return max(live, key=lambda extent: extent.max_timestamp_ms, default=None)

    async def delete_records(self, before_offsets: Mapping[LogId, int]) -> dict[LogId, int | ErrorCode]:
        await self._arrive()
        answers: dict[LogId, int | ErrorCode] = {}
        for log_id, offset in before_offsets.items():
            state = self.state(log_id)
            if state is None:
                answers[log_id] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif not -1 <= offset <= state.next_offset:
                answers[log_id] = ErrorCode.OFFSET_OUT_OF_RANGE
            else:
                start = state.next_offset if offset == -1 else offset
                answers[log_id] = self.starts[log_id] = max(state.start_offset, start)
        return answers


def values_of(records: Sequence[bytes | bytearray | memoryview]) -> list[tuple[int, bytes]]:
    """(offset, value) of every record in an answer."""
    found = []
    for buffer in records:
        for record in iterate_records(buffer, 2**30):
            assert record.value is not None
            found.append((record.offset, record.value))
    return found

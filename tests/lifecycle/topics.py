"""The topics of a test of jobs: who writes to them, who reads them meanwhile, and what must be in them in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.broker.client import Client, produce_request
from tests.broker.support import MIB, NOW_MS, Broker, batch
from warp._records import iterate_records, scan_batches
from warp.errors import ErrorCode
from warp.protocol.messages.topics import DeleteTopicsRequest

DAY_MS = 86_400_000
KEYS = 3
PER_ROUND = 2
KEPT, SHORT, TABLE, DOOMED = "kept", "short", "table", "doomed"
CONFIGS = {
    KEPT: {"retention_ms": "-1"},
    SHORT: {"retention_ms": str(DAY_MS)},
    TABLE: {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": "0.01", "delete_retention_ms": "0"},
    DOOMED: {"retention_ms": "-1"},
}
TRY_AGAIN = {
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.UNKNOWN_SERVER_ERROR,
}


@dataclass
class Topics:
    """`rounds` is how often records were written and acknowledged; those of `old_rounds` are older than a day."""

    broker: Broker
    rounds: int = 0
    old_rounds: int = 0
    names: list[str] = field(default_factory=lambda: [KEPT, SHORT, TABLE, DOOMED])

    @property
    def count(self) -> int:
        """Records of each topic."""
        return PER_ROUND * self.rounds

    async def create(self) -> None:
        for name in self.names:
            await self.broker.topic(name, 1, **CONFIGS[name])

    async def delete_doomed(self) -> None:
        client = await self.broker.connect()
        answer = await client.ask(DeleteTopicsRequest(topic_names=[DOOMED], timeout_ms=1000), 5)
        assert answer.responses[0].error_code == 0
        self.names.remove(DOOMED)

    async def write(self, rounds: int, *, are_old: bool = False) -> None:
        """Write as an idempotent producer does: again and again, until each batch is acknowledged."""
        client = await self.broker.connect()
        for _ in range(rounds):
            sequence = self.count
            timestamp_ms = NOW_MS if are_old else int(time.time() * 1000)
            waiting = dict.fromkeys(self.names)
            while waiting:
                parts: dict[str, dict[int, bytes | None]] = {
                    name: {0: _batch(sequence, timestamp_ms)} for name in waiting
                }
                try:
                    answers = (await client.ask(produce_request(parts, timeout_ms=5000), 9)).responses
                except (asyncio.IncompleteReadError, ConnectionError):
                    client = await self.broker.connect()
                    continue
                for answer in answers:
                    [part] = answer.partition_responses
                    if part.error_code == ErrorCode.NONE:
                        assert part.base_offset == sequence
                        del waiting[answer.name]
                    else:
                        assert part.error_code in TRY_AGAIN, part
                await asyncio.sleep(0.001 if waiting else 0)
            self.rounds += 1
            self.old_rounds += are_old

    async def read_until(self, done: asyncio.Event) -> None:
        """Read from every offset of every topic, over and over."""
        client = await self.broker.connect()
        while not done.is_set():
            for name in self.names:
                for offset in range(self.count):
                    await self._read_at(client, name, offset)
                    if done.is_set():
                        break

    async def _read_at(self, client: Client, name: str, offset: int) -> None:
        """What is there from an offset on is right, whatever the jobs are doing."""
        answer = await client.fetch(name, offset)
        if answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            assert name == SHORT, (name, offset)
            assert offset < PER_ROUND * self.old_rounds
        elif answer.error_code:
            assert answer.error_code in TRY_AGAIN, answer.error_code
        else:
            found = list(records_of(answer.records, offset))
            _assert_right(name, found)
            if name != TABLE and offset < answer.high_watermark:
                # Nothing may be skipped: an answer that holds anything begins where it was asked to.
                assert [at for at, _, _ in found] == list(range(offset, offset + len(found)))

    async def verify(self) -> None:
        """All topics hold what they have to, from every offset."""
        client = await self.broker.connect()
        for name in self.names:
            start = (await client.fetch(name, self.count)).log_start_offset
            # What is older may stay where it was merged with what is not: extents go whole.
            assert start <= (PER_ROUND * self.old_rounds if name == SHORT else 0)
            whole = [record async for record in _read_all(client, name, start, self.count)]
            _assert_right(name, whole)
            if name == TABLE:
                assert {key: offset for offset, key, _ in whole} == {key_of(n): n for n in range(self.count)}
            else:
                assert [offset for offset, _, _ in whole] == list(range(start, self.count))
            for offset in range(start, self.count):
                await self._read_at(client, name, offset)


def key_of(number: int) -> bytes:
    """Rounds go through the keys."""
    return b"key-%d" % (number // PER_ROUND % KEYS)


def value_of(number: int) -> bytes:
    return b"%d:" % number + b"x" * 50


def _batch(sequence: int, timestamp_ms: int) -> bytes:
    fields = {"producer_id": 7, "producer_epoch": 0, "base_sequence": sequence}
    values = [value_of(number) for number in range(sequence, sequence + PER_ROUND)]
    return batch(*values, timestamp_ms=timestamp_ms, key=key_of(sequence), **fields)


def _assert_right(name: str, found: list[tuple[int, bytes | None, bytes | None]]) -> None:
    wrong = [(offset, value) for offset, _, value in found if value != value_of(offset)]
    assert not wrong, (name, wrong)


async def _read_all(client: Client, name: str, start: int, end: int) -> Any:
    offset = start
    while offset < end:
        answer = await client.fetch(name, offset)
        assert answer.error_code == 0, (name, offset, answer.error_code)
        data = bytes(answer.records or b"")
        assert data, f"nothing at {offset} of {name}"
        for record in records_of(data, offset):
            yield record
        offset = max(span.base_offset + span.last_offset_delta + 1 for span in scan_batches(data))


def records_of(data: Any, offset: int) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of the records from an offset on."""
    whole = bytes(data or b"")
    for span in scan_batches(whole):
        for record in iterate_records(whole[span.position : span.position + span.size_bytes], MIB):
            if record.offset >= offset:
                yield record.offset, record.key, record.value

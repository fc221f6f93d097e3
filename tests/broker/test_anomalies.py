"""Fail the n-th call of a store, for n = 1, 2, … until a run passes in which none fails; clients retry as they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import MIB, Broker, RunWithBroker, batch
from warp._records import iterate_records, scan_batches
from warp.errors import ErrorCode, MetadataUnavailable, ObjectStoreError, OutcomeUnknown
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic

RUNS_MAX = 200
PARTITIONS = 3
REQUESTS = 4
PRODUCER_ID = 7

OBJECT_CALLS = ("put", "get", "head")
METADATA_CALLS = ("commit", "read_extents", "log_states", "catalogue_changes")


class Saboteur:
    """Counts the calls of a store's methods and lets one of them fail, before or after it has done its work."""

    def __init__(
        self, store: Any, names: tuple[str, ...], nth: int, error: Exception, *, is_late: bool
    ) -> None:
        self.calls = 0
        self.struck = False
        self._nth = nth
        self._error = error
        self._is_late = is_late
        for name in names:
            setattr(store, name, self._sabotaged(getattr(store, name)))

    def _sabotaged(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def sabotaged(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            strikes = self.calls == self._nth
            if strikes and not self._is_late:
                self.struck = True
                raise self._error
            result = await call(*arguments, **options)
            if strikes:
                self.struck = True
                raise self._error
            return result

        return sabotaged


KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[], Exception], bool]] = {
    "object store, before": ("_object_store", OBJECT_CALLS, lambda: ObjectStoreError("sabotage"), False),
    "object store, after": ("_object_store", OBJECT_CALLS, lambda: ObjectStoreError("sabotage"), True),
    "metadata, before": ("_metadata", METADATA_CALLS, lambda: MetadataUnavailable("sabotage"), False),
    "commit, after": ("_metadata", ("commit",), lambda: OutcomeUnknown("sabotage"), True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_call_fails_every_record_is_stored_once_in_order(
    with_memory_broker: RunWithBroker, kind: str
) -> None:
    attribute, names, error, is_late = KINDS[kind]
    for nth in range(1, RUNS_MAX):
        struck: list[bool] = []

        async def test(broker: Broker, nth: int = nth, struck: list[bool] = struck) -> None:
            name = await broker.topic(partitions=PARTITIONS)
            saboteur = Saboteur(getattr(broker.agent, attribute), names, nth, error(), is_late=is_late)
            await write_all(broker, name)
            await read_all(broker, name)
            struck.append(saboteur.struck)

        # Without room in the cache, reads go to the store as well.
        with_memory_broker(test, cache_bytes_max="16MiB")
        if not struck[0]:
            assert nth > REQUESTS, "the calls were not counted"
            return
    pytest.fail(f"still failing after {RUNS_MAX} runs")


def values(sequence: int) -> list[bytes]:
    return [b"%d" % number for number in range(sequence, sequence + 2)]


async def write_all(broker: Broker, topic: str) -> None:
    """An idempotent producer: it sends a request again, over a new connection if need be, until it is acknowledged."""
    client = await broker.connect()
    for number in range(REQUESTS):
        sequence = 2 * number
        pending = dict.fromkeys(range(PARTITIONS))
        while pending:
            data = batch(*values(sequence), producer_id=PRODUCER_ID, producer_epoch=0, base_sequence=sequence)
            request = produce_request({topic: dict.fromkeys(pending, data)}, timeout_ms=5000)
            try:
                [answer] = (await client.ask(request, 9)).responses
            except (asyncio.IncompleteReadError, ConnectionError):
                client = await broker.connect()
                continue
            for part in answer.partition_responses:
                if part.error_code == ErrorCode.NONE:
                    assert part.base_offset == sequence
                    del pending[part.index]
            await asyncio.sleep(0.001 if pending else 0)


async def read_all(broker: Broker, topic: str) -> None:
    """Every partition holds each record once, in order, and says so."""
    client = await broker.connect()
    expected = [value for number in range(REQUESTS) for value in values(2 * number)]
    for partition in range(PARTITIONS):
        while await end_offset(client, topic, partition) != len(expected):  # noqa: ASYNC110  asked anew
            await asyncio.sleep(0.001)
        found: list[bytes | None] = []
        while len(found) < len(expected):
            request = fetch_request({topic: {partition: len(found)}})
            [answer] = (await client.ask(request, 12)).responses
            [part] = answer.partitions
            assert part.error_code in (ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR), part
            found += records_of(part.records, len(found))
        assert found == expected


async def end_offset(client: Client, topic: str, partition: int) -> int:
    """The log's end, -1 while it can't be told."""
    asked = ListOffsetsPartition(partition_index=partition, timestamp=-1)
    request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=[asked])])
    [found] = (await client.ask(request, 7)).topics
    offset: int = found.partitions[0].offset
    return offset


def records_of(data: Any, offset: int) -> Iterator[bytes | None]:
    whole = bytes(data or b"")
    for span in scan_batches(whole):
        for record in iterate_records(whole[span.position : span.position + span.size_bytes], MIB):
            if record.offset >= offset:
                yield record.value

"""Catching up on more old data than the cache holds."""

from __future__ import annotations

from tests.broker.client import fetch_request, produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp._records import scan_batches

PARTITIONS = 20
REQUESTS = 30
VALUE = bytes(60_000)


def test_a_consumer_of_many_partitions_reads_each_segment_once(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        name = await broker.topic(partitions=PARTITIONS)
        client = await broker.connect()
        for _ in range(REQUESTS):
            request = produce_request({name: {index: batch(VALUE) for index in range(PARTITIONS)}})
            answer = await client.ask(request, 9)
            assert all(part.error_code == 0 for part in answer.responses[0].partition_responses)
        cache = broker.agent.log.cache
        assert cache.bytes_max < PARTITIONS * REQUESTS * len(VALUE)
        offsets = dict.fromkeys(range(PARTITIONS), 0)
        while any(offset < REQUESTS for offset in offsets.values()):
            before = dict(offsets)
            answer = await client.ask(fetch_request({name: offsets}), 12)
            for part in answer.responses[0].partitions:
                assert part.error_code == 0
                for span in scan_batches(bytes(part.records)):
                    assert span.base_offset == offsets[part.partition_index]
                    offsets[part.partition_index] += 1
            assert offsets != before
        assert cache.loads <= REQUESTS

    with_broker(test, cache_bytes_max="16MiB")

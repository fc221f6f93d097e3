"""How many requests an agent makes of S3, counted where they arrive."""

from __future__ import annotations

import asyncio
import time

from tests.broker.support import Broker, RunWithBroker, batch
from tests.s3.conftest import AnyServer
from tests.s3.test_errors import SEGMENTS, segment_puts, values
from tests.support.fault_proxy import FaultProxy
from warp.log.pacing import PacingLimits

INTERVAL_S = 0.25
REQUESTS_SAVED_UP = PacingLimits().burst_requests


def test_a_quiet_agent_puts_no_more_often_than_a_timer_would(
    with_s3_broker: RunWithBroker, proxy: FaultProxy
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        began_s = time.monotonic()
        sent = 0
        while time.monotonic() < began_s + 6 * INTERVAL_S:
            assert (await client.produce(topic, batch(b"%d" % sent))).error_code == 0
            sent += 1
            await asyncio.sleep(0.01)
        timer_puts = (time.monotonic() - began_s) / INTERVAL_S
        assert len(segment_puts(proxy.requests())) <= REQUESTS_SAVED_UP + timer_puts + 1
        assert await values(client, topic) == [b"%d" % number for number in range(sent)]

    with_s3_broker(test, flush_interval_ms=f"{INTERVAL_S * 1000:.0f}ms")


def test_many_clients_share_their_puts(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        clients = [await broker.connect() for _ in range(20)]
        began_s = time.monotonic()

        async def load(number: int) -> None:
            for _ in range(5):
                assert (await clients[number].produce(topic, batch(b"x"))).error_code == 0

        await asyncio.gather(*map(load, range(len(clients))))
        timer_puts = (time.monotonic() - began_s) / INTERVAL_S
        assert len(segment_puts(proxy.requests())) <= REQUESTS_SAVED_UP + timer_puts + 1
        assert len(await values(clients[0], topic)) == 100

    with_s3_broker(test, flush_interval_ms=f"{INTERVAL_S * 1000:.0f}ms")


def test_consumers_that_keep_up_cost_no_request(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        producer, consumers = await broker.connect(), [await broker.connect() for _ in range(3)]
        started = len(proxy.requests())
        for number in range(30):
            fetches = [
                asyncio.create_task(client.fetch(topic, number, max_wait_ms=10_000)) for client in consumers
            ]
            assert (await producer.produce(topic, batch(b"%d" % number))).error_code == 0
            for fetch in fetches:
                assert (await fetch).records
        methods = {request.method for request in proxy.requests(started)}
        assert methods == {"PUT"}

    with_s3_broker(test)


def test_an_agent_without_clients_asks_for_nothing(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def test(broker: Broker) -> None:
        await broker.topic()
        started = len(proxy.requests())
        await asyncio.sleep(1.0)
        assert proxy.requests(started) == []

    with_s3_broker(test)


def test_what_the_store_counts_is_what_arrived(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def fill(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic("counted")
        for number in range(10):
            assert (await client.produce(topic, batch(bytes([number]) * 50_000))).error_code == 0
        reconcile(broker)

    async def drain(broker: Broker) -> None:
        assert len(await values(await broker.connect(), "counted")) == 10
        reconcile(broker)

    def reconcile(broker: Broker) -> None:
        traffic = broker.agent._object_store.traffic
        arrived = proxy.requests(seen[-1])
        puts = [request for request in arrived if request.method == "PUT"]
        gets = [
            request for request in arrived if request.method == "GET" and "list-type" not in request.query
        ]
        listings = [request for request in arrived if "list-type" in request.query]
        deletes = [request for request in arrived if "delete" in request.query.split("&")]
        assert traffic.total("put") == len(puts)
        assert traffic.total("get") == len(gets)
        assert traffic.total("list") == len(listings)
        assert traffic.total("delete") == len(deletes)
        assert traffic.received_bytes == sum(get.bytes_out for get in gets)
        segments = [request for request in puts if SEGMENTS in request.path]
        assert sum(put.bytes_in for put in segments) <= traffic.sent_bytes
        seen.append(len(proxy.requests()))

    seen = [0]
    with_s3_broker(fill)
    seen.append(len(proxy.requests()))
    with_s3_broker(drain)


def test_a_produced_record_lies_in_the_bucket_under_the_prefix(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, server: AnyServer
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        assert (await client.produce(topic, batch(b"needle"))).error_code == 0
        (put,) = segment_puts(proxy.requests())
        assert put.path.split("/")[2:4] == ["warp", "segments"]
        stored = server.ask("GET", put.path)
        assert stored.status == 200
        assert b"needle" in stored.body
        assert len(stored.body) == put.bytes_in

    with_s3_broker(test)

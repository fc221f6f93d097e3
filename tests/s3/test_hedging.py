"""A request to S3 that takes too long is sent a second time, and seldom more than that."""

from __future__ import annotations

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker, batch
from tests.s3.test_errors import BIG, SEGMENTS, segment_puts, store_big, values
from tests.support.fault_plan import Hang, Moment
from tests.support.fault_proxy import FaultProxy
from warp.log.hedge import HedgeLimits

PATIENT = "read_timeout=60s"
"""Longer than any client of these tests waits: only a second request can help."""
WARM_UP = HedgeLimits().samples_min + 4


async def produce_some(client: Client, topic: str, first: int, count: int) -> list[bytes]:
    """Produces numbered records one after the other; their values."""
    sent = [b"%d" % number for number in range(first, first + count)]
    for value in sent:
        assert (await client.produce(topic, batch(value))).error_code == 0
    return sent


@pytest.mark.parametrize("moment", [Moment.BEFORE_BODY, Moment.BEFORE_SERVER, Moment.AFTER_SERVER])
def test_a_put_that_hangs_is_overtaken_by_another_under_a_new_key(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, moment: Moment
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        sent = await produce_some(client, topic, 0, WARM_UP)
        before = len(proxy.requests())
        proxy.fail(Hang(moment), "PUT", path_has=SEGMENTS, times=1)
        sent += await produce_some(client, topic, len(sent), 1)
        hung, *others = segment_puts(proxy.requests(before))
        assert (hung.fault, hung.status) == ("Hang", 0)
        assert hung.path not in {put.path for put in others}
        hedges = broker.agent.log.flusher.put_hedges
        assert hedges is not None
        assert hedges.won >= 1
        sent += await produce_some(client, topic, len(sent), 5)
        assert await values(client, topic) == sent

    with_s3_broker(test, store=PATIENT)


def test_a_get_that_hangs_is_overtaken_by_another(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def test(broker: Broker) -> None:
        proxy.fail(Hang(), "GET", path_has=SEGMENTS, times=1)
        assert await values(await broker.connect(), "big") == BIG
        hedges = broker.agent.log.cache.hedges
        assert hedges is not None
        assert hedges.won >= 1

    with_s3_broker(store_big)
    with_s3_broker(test, store=PATIENT)


def test_when_the_whole_store_is_slow_hardly_any_put_is_sent_twice(
    with_s3_broker: RunWithBroker, proxy: FaultProxy
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        sent = await produce_some(client, topic, 0, WARM_UP)
        proxy.delay("PUT", fixed_s=0.05, slow_share=0.3, slow_s=0.1)
        sent += await produce_some(client, topic, len(sent), 20)
        hedges = broker.agent.log.flusher.put_hedges
        assert hedges is not None
        limits = HedgeLimits()
        assert hedges.started <= limits.burst_requests + limits.extra_ratio * hedges.requests
        assert len(segment_puts(proxy.requests())) <= hedges.requests + hedges.started
        assert await values(client, topic) == sent

    with_s3_broker(test)

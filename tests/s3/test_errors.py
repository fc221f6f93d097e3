"""What S3 does wrong while an agent runs, and what a client of the agent sees of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.broker.client import Client, joined
from tests.broker.support import Broker, RunWithBroker, batch
from tests.support.fault_plan import (
    ACCESS_DENIED,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    NO_SUCH_BUCKET,
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Fault,
    Hang,
    Moment,
    Refuse,
)
from tests.support.fault_proxy import FaultProxy
from tests.support.http_log import LoggedRequest
from warp._records import iterate_records
from warp.errors import ErrorCode

SEGMENTS = "/segments/"
IMPATIENT = "read_timeout=0.3s"
DECOMPRESSED_BYTES_MAX = 2**24

LASTING = {
    "slow down": SLOW_DOWN,
    "internal error": INTERNAL_ERROR,
    "bad gateway": Refuse(502, ""),
    "access denied": ACCESS_DENIED,
    "expired token": EXPIRED_TOKEN,
    "no such bucket": NO_SUCH_BUCKET,
    "clock skew": Refuse(403, "RequestTimeTooSkewed"),
    "unknown": Refuse(418, "Teapot"),
    "cut request": CutRequest(100),
    "cut answer": CutAnswer(),
    "hang": Hang(),
    "hang before the body": Hang(Moment.BEFORE_BODY),
}
PASSING = {
    "slow down": (SLOW_DOWN, 2),
    "internal error": (INTERNAL_ERROR, 2),
    "bad gateway": (Refuse(502, ""), 2),
    "damaged body": (Refuse(400, "BadDigest"), 1),
    "cut request": (CutRequest(100), 1),
    "cut answer": (CutAnswer(), 1),
    "hang": (Hang(), 1),
    "hang when stored": (Hang(Moment.AFTER_SERVER), 1),
}


async def values(client: Client, topic: str, *, retries: int = 0) -> list[bytes]:
    """All values of partition 0, in order, with offsets that have no gaps. Repeats what failed, as clients do."""
    found: list[bytes] = []
    while True:
        answer = await client.fetch(topic, len(found), partition_max_bytes=1 << 24)
        if answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR and retries:
            retries -= 1
            continue
        assert answer.error_code == 0
        data = joined(answer.records)
        if not data:
            return found
        while data:
            size = 12 + int.from_bytes(data[8:12], "big")
            for record in iterate_records(data[:size], DECOMPRESSED_BYTES_MAX):
                assert record.offset == len(found)
                found.append(record.value or b"")
            data = data[size:]


def segment_puts(requests: list[LoggedRequest]) -> list[LoggedRequest]:
    return [request for request in requests if request.method == "PUT" and SEGMENTS in request.path]


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_while_s3_takes_nothing_producers_are_told_to_try_again(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, fault: Fault
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        assert (await client.produce(topic, batch(b"before"))).error_code == 0
        with proxy.failing(fault, "PUT") as rule:
            refused = await client.produce(topic, batch(b"during"))
            assert refused.error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert rule.happened > 0
            assert await values(client, topic) == [b"before"]
        after = await client.produce(topic, batch(b"after"))
        assert (after.error_code, after.base_offset) == (0, 1)
        assert await values(client, topic) == [b"before", b"after"]

    with_s3_broker(test, store=f"attempts=1&{IMPATIENT}")


@pytest.mark.parametrize(("fault", "times"), PASSING.values(), ids=PASSING)
def test_what_passes_is_not_seen_by_producers(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, fault: Fault, times: int
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        rule = proxy.fail(fault, "PUT", path_has=SEGMENTS, times=times)
        answer = await client.produce(topic, batch(b"once"))
        assert (answer.error_code, answer.base_offset) == (0, 0)
        assert rule.happened == times
        assert await values(client, topic) == [b"once"]

    with_s3_broker(test, store=IMPATIENT)


def test_without_the_answer_to_a_put_the_same_object_is_stored_again(
    with_s3_broker: RunWithBroker, proxy: FaultProxy
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        proxy.fail(CutAnswer(), "PUT", path_has=SEGMENTS, times=1)
        assert (await client.produce(topic, batch(b"once"))).error_code == 0
        puts = segment_puts(proxy.requests())
        assert [put.fault for put in puts if put.path == puts[0].path] == ["CutAnswer", ""]

    with_s3_broker(test)


def test_a_storm_of_slow_down_is_weathered(with_s3_broker: RunWithBroker, proxy: FaultProxy) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        storm = proxy.fail(SLOW_DOWN, share=0.5, times=4)
        clients = [await broker.connect() for _ in range(5)]
        number = 0
        while storm.times:
            answers = await asyncio.gather(
                *(client.produce(topic, batch(b"%d" % (number + i))) for i, client in enumerate(clients))
            )
            number += len(answers)
            assert {answer.error_code for answer in answers} == {0}
            assert number < 500
        assert sorted(await values(clients[0], topic), key=int) == [b"%d" % i for i in range(number)]

    with_s3_broker(test)


BIG = [bytes([number]) * 300_000 for number in range(6)]


async def store_big(broker: Broker) -> None:
    topic, client = await broker.topic("big"), await broker.connect()
    for value in BIG:
        assert (await client.produce(topic, batch(value))).error_code == 0


@pytest.mark.parametrize("times", [1, 3])
def test_a_get_that_is_cut_is_resumed_where_it_ended(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, times: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        before = len(proxy.requests())
        rule = proxy.fail(CutAnswer(70_000), "GET", path_has=SEGMENTS, times=times)
        assert await values(client, "big") == BIG
        assert rule.happened == times
        gets = [request for request in proxy.requests(before) if SEGMENTS in request.path]
        cut = [request for request in gets if request.fault]
        assert [request.bytes_out for request in cut] == [70_000] * times
        # Nothing is read twice.
        sizes = {put.path: put.bytes_in for put in segment_puts(proxy.requests())}
        for path in {request.path for request in cut}:
            assert sum(get.bytes_out for get in gets if get.path == path) <= sizes[path]

    with_s3_broker(store_big)
    with_s3_broker(test)


@pytest.mark.parametrize(
    "fault", [INTERNAL_ERROR, SLOW_DOWN, ACCESS_DENIED, Hang(), CutAnswer(None)], ids=str
)
def test_while_s3_gives_nothing_consumers_are_told_to_try_again(
    with_s3_broker: RunWithBroker, proxy: FaultProxy, fault: Fault
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        with proxy.failing(fault, "GET", path_has=SEGMENTS) as rule:
            answer = await client.fetch("big")
            assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert rule.happened > 0
        # What was being read ahead may still fail.
        assert await values(client, "big", retries=len(BIG)) == BIG

    with_s3_broker(store_big)
    with_s3_broker(test, store=f"attempts=1&{IMPATIENT}")


def test_connections_that_were_dropped_while_idle_are_not_noticed(
    with_s3_broker: RunWithBroker, proxy: FaultProxy
) -> None:
    async def test(broker: Broker) -> None:
        topic, client = await broker.topic(), await broker.connect()
        for number in range(5):
            assert (await client.produce(topic, batch(b"%d" % number))).error_code == 0
            proxy.drop_idle()
        assert await values(client, topic) == [b"0", b"1", b"2", b"3", b"4"]
        assert {put.status for put in segment_puts(proxy.requests())} <= {200}

    with_s3_broker(test, store="attempts=1")

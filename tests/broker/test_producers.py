"""InitProducerId: new numbers for idempotent producers, and a clear end for transactional ones."""

from __future__ import annotations

import logging

import pytest

from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.protocol.messages.producers import InitProducerIdRequest


def init(
    transactional_id: str | None = None, producer_id: int = -1, epoch: int = -1
) -> InitProducerIdRequest:
    return InitProducerIdRequest(
        transactional_id=transactional_id,
        transaction_timeout_ms=60_000,
        producer_id=producer_id,
        producer_epoch=epoch,
    )


def test_every_producer_gets_an_id_of_its_own(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        given = []
        for version in range(6):
            for _ in range(3):
                answer = await client.ask(init(), version)
                assert (answer.error_code, answer.producer_epoch) == (ErrorCode.NONE, 0)
                given.append(answer.producer_id)
        assert len(set(given)) == len(given)
        assert min(given) >= 0

    with_broker(test)


def test_a_producer_that_wants_a_higher_epoch_gets_a_new_id(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        first = await client.ask(init(), 4)
        second = await client.ask(init(producer_id=first.producer_id, epoch=first.producer_epoch), 4)
        assert (second.error_code, second.producer_epoch) == (ErrorCode.NONE, 0)
        assert second.producer_id != first.producer_id

    with_memory_broker(test)


@pytest.mark.parametrize(("producer_id", "epoch"), [(5, -1), (-1, 5)])
def test_an_id_without_an_epoch_is_refused(
    with_memory_broker: RunWithBroker, producer_id: int, epoch: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        answer = await client.ask(init(producer_id=producer_id, epoch=epoch), 3)
        assert (answer.error_code, answer.producer_id) == (ErrorCode.INVALID_REQUEST, -1)

    with_memory_broker(test)


@pytest.mark.parametrize("transactional_id", ["orders", ""])
def test_a_transactional_id_gets_one_fatal_error_and_a_log_line(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture, transactional_id: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        answer = await client.ask(init(transactional_id), 4)
        assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        assert answer.producer_id == -1
        assert "transactions are not served" in caplog.text

    with caplog.at_level(logging.WARNING, "warp.handlers"):
        with_memory_broker(test)

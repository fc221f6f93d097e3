"""How connections end: by the client, by an error, by a bug, by the agent."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.unit.server.support import Bench, at_once, decoded, fetch, frame, produce, run, serial, settle
from warp.errors import ErrorCode, KafkaError, MetadataUnavailable, ProtocolError
from warp.protocol.messages.metadata import MetadataResponse

LOGGER = "warp.server"


def test_a_vanished_client_gives_up_its_fetch_but_not_its_produces() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, fetch()), (2, produce()), (3, produce(acks=0)))
        await settle()
        fetching = bench.waiting["fetch"][0]
        peer.transport.lose()
        await settle()
        assert fetching.cancelled()
        assert not any(commit.cancelled() for commit in bench.waiting["commit"])
        assert len(bench.pool) == 1
        bench.end("commit")
        bench.end("commit")
        await settle()
        assert len(bench.pool) == 0
        assert bench.memory.used_bytes == 0

    run(test)


def test_produces_that_had_come_in_full_are_staged_after_their_client_has_left() -> None:
    async def test() -> None:
        bench = Bench()
        bench.stage_waits = True
        peer = bench.connect()
        peer.send((1, produce(acks=0)), (2, serial()), (3, produce(acks=0)))
        await settle()
        peer.transport.lose()
        bench.end("stage")
        await settle()
        assert bench.begun == ["stage", "commit", "stage"]
        bench.end("stage")
        await settle()
        bench.end("commit")
        bench.end("commit")
        await settle()
        assert len(bench.pool) == 0

    run(test)


def test_a_half_closed_client_gets_the_answers_that_it_is_owed() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, produce()), (2, serial()), (3, at_once()))
        await settle()
        assert peer.connection.eof_received() is True
        bench.end("serial")
        await settle()
        bench.end("commit")
        await settle()
        assert peer.answered() == [1, 2, 3]
        assert peer.ended() == "close"
        assert len(bench.pool) == 0

    run(test)


def test_a_client_that_closes_does_not_wait_for_data() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, at_once()), (2, fetch()))
        await settle()
        fetching = bench.waiting["fetch"][0]
        peer.connection.eof_received()
        await settle()
        assert fetching.cancelled()
        assert peer.ended() == "close"
        assert bench.pool.protocol_errors == 0
        assert len(bench.pool) == 0

    run(test)


def test_the_end_of_an_idle_client_closes_at_once() -> None:
    async def test() -> None:
        peer = Bench().connect()
        assert peer.connection.eof_received() is False

    run(test)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\0\x63\0\0" + bytes(20), id="unknown API"),
        pytest.param(b"\0\x03\0\x7f" + bytes(20), id="unknown version"),
        pytest.param(b"\0\x03\0\x01\0\0\0\x01\x7f\xff", id="client id too long"),
        pytest.param(b"\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\xff\xff", id="more topics than bytes"),
        pytest.param(frame(1, serial())[4:-1], id="cut short"),
    ],
)
def test_what_is_no_request_closes_with_one_log_line(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.feed(len(garbage).to_bytes(4, "big") + garbage + frame(2, at_once()))
        await settle()
        assert peer.ended() == "close"
        assert peer.answered() == []
        assert bench.begun == []
        assert (bench.memory.used_bytes, len(bench.pool), bench.pool.protocol_errors) == (0, 0, 1)
        assert len(caplog.records) == 1

    with caplog.at_level(logging.DEBUG, LOGGER):
        run(test)


def test_bytes_after_a_request_are_left_alone() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        body = frame(1, serial())[4:] + b"\0\0\0"
        peer.feed(len(body).to_bytes(4, "big") + body)
        await settle()
        bench.end("serial")
        await settle()
        assert peer.answered() == [1]

    run(test)


def test_a_bug_is_logged_counted_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()))
        await settle()
        bench.end("serial", ZeroDivisionError("the bug"))
        await settle()
        assert peer.answered() == [1, 2]
        answer = decoded(peer.bodies()[0], MetadataResponse, 1)
        assert answer.controller_id == ErrorCode.UNKNOWN_SERVER_ERROR
        assert bench.dispatcher.bugs == 1
        assert bench.observed[0] == ("Metadata", "BUG")
        assert "ZeroDivisionError: the bug" in caplog.text

    with caplog.at_level(logging.ERROR, LOGGER):
        run(test)


def test_a_bug_where_no_error_can_be_told_closes() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, at_once()), (2, fetch()), (3, at_once()))
        await settle()
        bench.end("fetch", ZeroDivisionError())
        await settle()
        assert peer.answered() == [1]
        assert peer.ended() == "close"
        assert bench.memory.used_bytes == 0

    run(test)


def test_an_answer_that_can_not_be_written_is_a_bug() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()))
        await settle()
        bench.end("serial", MetadataResponse(brokers=[], topics=[], controller_id=2**40))
        await settle()
        answer = decoded(peer.bodies()[0], MetadataResponse, 1)
        assert answer.controller_id == ErrorCode.UNKNOWN_SERVER_ERROR
        assert bench.dispatcher.bugs == 1

    run(test)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KafkaError(ErrorCode.INVALID_REQUEST, "no"), ErrorCode.INVALID_REQUEST),
        (MetadataUnavailable("gone"), ErrorCode.REQUEST_TIMED_OUT),
    ],
)
def test_a_request_that_can_not_be_served_has_its_code(error: Exception, code: ErrorCode) -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()))
        await settle()
        bench.end("serial", error)
        await settle()
        assert decoded(peer.bodies()[0], MetadataResponse, 1).controller_id == code
        assert bench.observed == [("Metadata", code.name)]
        assert bench.dispatcher.bugs == 0

    run(test)


def test_a_handler_that_finds_the_protocol_broken_closes() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()))
        await settle()
        bench.end("serial", ProtocolError("nonsense"))
        await settle()
        assert peer.ended() == "close"
        assert bench.pool.protocol_errors == 1

    run(test)


def test_a_produce_whose_outcome_nobody_knows_closes_the_connection() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, produce()))
        await settle()
        bench.waiting["commit"].pop().cancel()
        await settle()
        assert peer.answered() == []
        assert peer.ended() == "close"

    run(test)


def test_draining_answers_what_was_read_and_closes() -> None:
    async def test() -> None:
        bench = Bench()
        idle, busy = bench.connect(), bench.connect()
        busy.send((1, serial()), (2, produce()))
        await settle()
        draining = asyncio.ensure_future(bench.pool.drain(10))
        await settle()
        assert idle.ended() == "close"
        assert busy.ended() is None
        assert busy.is_paused()
        assert bench.connect().ended() == "abort"
        bench.end("serial")
        await settle()
        bench.end("commit")
        await settle()
        assert busy.answered() == [1, 2]
        assert await draining is True

    run(test)


def test_draining_cuts_what_does_not_end_in_time() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, produce()))
        await settle()
        assert await bench.pool.drain(0.01) is False
        assert peer.ended() == "abort"
        await settle()
        assert len(bench.pool) == 0
        assert bench.memory.used_bytes == 0

    run(test)

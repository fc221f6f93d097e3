"""In which order a connection starts requests and writes answers."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.server.support import Bench, at_once, fetch, frame, produce, run, serial, settle


def test_answers_leave_in_the_order_of_the_requests_whatever_ends_first() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, fetch()), (2, produce()), (3, at_once()), (4, fetch()))
        await settle()
        assert bench.begun == ["fetch", "commit", "at once", "fetch"] or bench.begun == [
            "commit",
            "at once",
            "fetch",
            "fetch",
        ]
        bench.waiting["fetch"].reverse()
        bench.end("fetch")
        bench.end("commit")
        await settle()
        assert peer.answered() == []
        bench.end("fetch")
        await settle()
        assert peer.answered() == [1, 2, 3, 4]

    run(test)


def test_a_serial_request_holds_back_those_behind_it() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, serial()), (2, at_once()), (3, produce()))
        await settle()
        assert bench.begun == ["serial"]
        bench.end("serial")
        await settle()
        assert bench.begun == ["serial", "at once", "commit"]
        assert peer.answered() == [1, 2]

    run(test)


def test_a_serial_request_does_not_wait_for_a_fetch_before_it() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, fetch()), (2, serial()))
        await settle()
        assert bench.begun == ["fetch", "serial"]
        bench.end("serial")
        await settle()
        assert peer.answered() == []
        bench.end("fetch")
        await settle()
        assert peer.answered() == [1, 2]

    run(test)


def test_produces_are_staged_one_after_the_other_and_committed_side_by_side() -> None:
    async def test() -> None:
        bench = Bench()
        bench.stage_waits = True
        peer = bench.connect()
        peer.send((1, produce()), (2, produce()), (3, produce()))
        await settle()
        assert bench.begun == ["stage"]
        for _ in range(3):
            bench.end("stage")
            await settle()
        assert bench.begun == ["stage", "commit"] * 3
        assert len(bench.waiting["commit"]) == 3

    run(test)


def test_only_so_many_fetches_run_at_once() -> None:
    async def test() -> None:
        bench = Bench(fetches_running_max=2)
        peer = bench.connect()
        peer.send(*((number, fetch()) for number in range(1, 4)), (4, at_once()))
        await settle()
        assert bench.begun == ["fetch", "fetch"]
        bench.end("fetch")
        await settle()
        assert bench.begun == ["fetch", "fetch", "fetch", "at once"] or bench.begun == [
            "fetch",
            "fetch",
            "at once",
            "fetch",
        ]

    run(test)


def test_a_produce_without_acks_is_not_answered_and_keeps_no_answer_back() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, produce(acks=0)), (2, at_once()))
        await settle()
        assert peer.answered() == [2]
        assert bench.memory.used_bytes > 0
        bench.end("commit")
        await settle()
        assert peer.answered() == [2]
        assert bench.memory.used_bytes == 0
        assert peer.ended() is None

    run(test)


def test_a_failed_produce_without_acks_closes_the_connection() -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.send((1, produce(acks=0)), (2, at_once()))
        bench.end("commit", "a batch was refused")
        await settle()
        assert peer.ended() == "close"
        assert bench.pool.protocol_errors == 1

    run(test)


@pytest.mark.parametrize("step", [1, 3, 7, 64])
def test_requests_may_come_in_pieces_of_any_size(step: int) -> None:
    async def test() -> None:
        bench = Bench()
        peer = bench.connect()
        peer.feed(b"".join(frame(number, at_once()) for number in range(10)), step)
        await settle()
        assert peer.answered() == list(range(10))

    run(test)


def test_every_order_of_three_kinds_is_answered_in_order() -> None:
    async def test() -> None:
        for kinds in itertools.product((fetch, produce, serial, at_once), repeat=3):
            bench = Bench()
            peer = bench.connect()
            peer.send(*((number, kind()) for number, kind in enumerate(kinds)))
            for _ in range(6):
                await settle()
                for what in ("commit", "serial", "fetch"):
                    if bench.waiting[what]:
                        bench.end(what)
            await settle()
            assert peer.answered() == [0, 1, 2], kinds
            assert bench.memory.used_bytes == 0, kinds

    run(test)

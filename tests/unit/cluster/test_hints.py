"""Hints on their way: what a notice holds, how they are put together, and what a failing notice costs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.support.log import run_sim
from warp.cluster.hints import HintBus, HintLimits, UnknownFormat, decode, encode, encode_log
from warp.errors import MetadataUnavailable
from warp.ids import BrokerId, LogId
from warp.log.hints import HintMarks, LogHint
from warp.metadata.model import CommitResult, LogState

HERE = BrokerId(31)


class Notices:
    """Takes notices while its gate is open."""

    def __init__(self, bytes_max: int = 7_999) -> None:
        self.bytes_max = bytes_max
        self.is_connected = True
        self.sent: list[str] = []
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.heard: Callable[[str], None] = lambda text: None
        self.interrupted: Callable[[], None] = lambda: None

    def listen(self, heard: Callable[[str], None], interrupted: Callable[[], None]) -> None:
        self.heard, self.interrupted = heard, interrupted

    async def publish(self, text: str) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(text)


class Receiver:
    """Remembers what was passed on: reader and catalogue in one."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def hinted(self, what: Sequence[LogHint] | int | None) -> None:
        self.calls.append(("hinted", what))

    def look_again(self) -> None:
        self.calls.append(("look",))

    def log_starts_at(self, log_id: LogId, start_offset: int) -> None:
        self.calls.append(("starts", log_id, start_offset))

    def logs_gone(self, log_ids: Sequence[LogId]) -> None:
        self.calls.append(("gone", list(log_ids)))


class Bench:
    def __init__(self, bytes_max: int = 7_999, **limits: Any) -> None:
        self.notices = Notices(bytes_max)
        self.receiver = Receiver()
        self.bus = HintBus(self.notices, HERE, self.receiver, self.receiver, HintLimits(**limits))
        self.bus.start()

    def commit(self, *ends: tuple[int, int]) -> None:
        states = [LogState(LogId(log), 0, end, end, 0) for log, end in ends]
        self.bus.committed(CommitResult([], [], states), {})

    @property
    def sent(self) -> list[str]:
        return [text.partition(";")[2] for text in self.notices.sent]


def run(scenario: Callable[[], Any]) -> None:
    async def main(loop: object) -> None:
        await scenario()

    run_sim(main)


OFFSETS = st.integers(0, 2**62)


@given(st.integers(1, 2**40), OFFSETS, OFFSETS, OFFSETS, st.integers(0, 2**31 - 1))
def test_a_hint_arrives_as_it_was_sent(log: int, start: int, length: int, back: int, sender: int) -> None:
    next_offset = start + length
    hint = LogHint(LogId(log), next_offset, start, max(next_offset - back, 0))
    [text] = encode(BrokerId(sender), iter([encode_log(hint)]), 7_999)
    assert text.isascii()
    assert decode(text) == (sender, [hint], None, False)


@pytest.mark.parametrize(
    ("text", "logs", "version", "look"),
    [
        ("a1f;2c.3e8", [LogHint(LogId(44), 1000, 0, 1000)], None, False),
        ("a1f;2c..5", [LogHint(LogId(44), 0, 5, 0)], None, False),
        (
            "a1f;2d.5.1.2,v11,2e.1",
            [LogHint(LogId(45), 5, 1, 3), LogHint(LogId(46), 1, 0, 1)],
            17,
            False,
        ),
        ("a1f;*,v0", [], 0, True),
        ("a1f;2c", [LogHint(LogId(44))], None, False),
    ],
)
def test_the_format_is_this(text: str, logs: list[LogHint], version: int | None, look: bool) -> None:
    assert decode(text) == (31, logs, version, look)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a1f", "b1f;*", "1f;*", "a1f;", "a1f;x", "a1f;2c.y", "a1f;.5", "a1f;1.2.3.4.5", "axyz;*"),
        *("a1f;1.-5", f"a1f;1.{2**63:x}", "a1f;1.2,", "é;*", "a-1;*"),
    ],
)
def test_what_can_not_be_read_is_ignored_and_counted(text: str) -> None:
    with pytest.raises(UnknownFormat):
        decode(text)

    async def scenario() -> None:
        bench = Bench()
        bench.notices.heard(text)
        assert bench.receiver.calls == []
        assert bench.bus.hints == {("received", "unknown"): 1}

    run(scenario)


@given(st.lists(st.integers(1, 2**30), max_size=60), st.integers(24, 200))
def test_notices_are_no_longer_than_they_may_be_and_nothing_is_left_out(
    logs: list[int], bytes_max: int
) -> None:
    items = [encode_log(LogHint(LogId(log), 7, 0, 7)) for log in logs]
    texts = list(encode(HERE, iter(items), bytes_max))
    assert all(len(text) <= bytes_max for text in texts)
    assert [hint.log_id for text in texts for hint in decode(text).logs] == logs
    assert len(texts) <= -(-sum(len(item) + 1 for item in items) // (bytes_max - 24 + 8)) + 1


def test_what_comes_while_a_notice_is_on_its_way_goes_together_the_newest_of_each_log() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.notices.gate.clear()
        bench.commit((1, 10))
        await asyncio.sleep(1)
        for end in range(20, 1020):
            bench.commit((1, end), (2, end))
        bench.bus.log_starts_at(LogId(2), 5)
        bench.bus.log_starts_at(LogId(3), 9)
        bench.bus.log_starts_at(LogId(3), 8)
        bench.bus.catalogue_changed(18)
        bench.bus.catalogue_changed(17)
        bench.notices.gate.set()
        await asyncio.sleep(1)
        assert bench.sent == ["1.a", "v12,1.3fb,2.3fb.5,3..9"]
        assert bench.bus.published == 2
        # The agent's own readers hear of its log starts at once; of its commits others tell them.
        assert bench.receiver.calls == [("starts", 2, 5), ("starts", 3, 9), ("starts", 3, 8)]

    run(scenario)


def test_the_first_hint_goes_out_at_once_and_those_behind_it_with_some_distance() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        bench = Bench(interval_s=0.005)
        begin = loop.time()
        bench.commit((1, 1))
        await asyncio.sleep(0.0001)
        assert bench.sent == ["1.1"]
        for end in range(2, 100):
            bench.commit((1, end))
            await asyncio.sleep(0.001)
        assert len(bench.sent) <= 2 + (loop.time() - begin) / 0.005
        await asyncio.sleep(0.005)
        assert bench.sent[-1] == "1.63"

    run(scenario)


def test_more_logs_than_fit_become_a_hint_to_look_at_everything() -> None:
    async def scenario() -> None:
        bench = Bench(logs_waiting_max=100)
        bench.notices.gate.clear()
        bench.commit((1, 10))
        await asyncio.sleep(1)
        bench.bus.catalogue_changed(3)
        for log in range(1, 200):
            bench.commit((log, 1))
            bench.bus.log_starts_at(LogId(log), 1)
        bench.notices.gate.set()
        await asyncio.sleep(1)
        assert bench.sent == ["1.a", "*,v3"]
        bench.commit((5, 2))
        await asyncio.sleep(1)
        assert bench.sent[2:] == ["5.2"]

    run(scenario)


def test_own_notices_are_skipped_and_others_passed_on() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.notices.heard("a1f;1.5,v3,*")
        assert bench.receiver.calls == []
        bench.notices.heard("a2;1.5,v3")
        hints = [LogHint(LogId(1), 5, 0, 5)]
        assert bench.receiver.calls == [("hinted", hints), ("hinted", 3)]
        bench.receiver.calls.clear()
        bench.notices.heard("a2;*")
        bench.notices.interrupted()
        assert bench.receiver.calls == [("look",), ("hinted", None)] * 2
        bench.bus.logs_gone([LogId(4)])
        assert bench.receiver.calls[4:] == [("gone", [4])]
        assert bench.bus.hints == {("received", kind): 1 for kind in ("log", "catalogue", "look")}
        await bench.bus.close()
        bench.notices.heard("a2;1.6")
        bench.notices.interrupted()
        bench.commit((1, 1))
        await asyncio.sleep(1)
        assert (bench.receiver.calls[5:], bench.sent) == ([], [])

    run(scenario)


@pytest.mark.parametrize("fault", [MetadataUnavailable("no connection"), ValueError("a bug")])
def test_a_failing_notice_is_told_once_and_made_good_by_a_look_at_everything(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        bench = Bench(retry_s=0.5)
        bench.notices.fault = fault
        for end in range(1, 50):
            bench.commit((1, end))
            await asyncio.sleep(0.1)
        assert bench.bus.failed == 10
        bench.notices.fault = None
        await asyncio.sleep(1)
        assert bench.sent == ["*"]
        bench.commit((1, 50))
        await asyncio.sleep(1)
        assert bench.sent == ["*", "1.32"]

    caplog.set_level(logging.INFO, "warp.cluster.hints")
    run(scenario)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "other agents can't be told of commits" in told[0]
    assert caplog.records[-1].getMessage() == "other agents can be told of commits again"


def test_a_notice_that_hangs_has_failed_and_the_next_one_goes_out() -> None:
    async def scenario() -> None:
        bench = Bench(publish_s_max=5.0)
        bench.notices.gate.clear()
        bench.commit((1, 1))
        await asyncio.sleep(5.2)
        assert bench.bus.failed == 1
        bench.notices.gate.set()
        await asyncio.sleep(1)
        assert bench.sent == ["*"]

    run(scenario)


def test_closing_ends_a_notice_that_hangs() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.notices.gate.clear()
        bench.commit((1, 1))
        await asyncio.sleep(1)
        await bench.bus.close()
        bench.notices.gate.set()
        await asyncio.sleep(10)
        assert bench.sent == []

    run(scenario)


def test_a_mark_is_never_forgotten_by_those_it_concerns() -> None:
    chance = random.Random(3)
    marks = HintMarks(logs_max=5)
    truth: dict[int, int] = {}
    for _ in range(2_000):
        if chance.random() < 0.02:
            marks.mark_all()
            truth = dict.fromkeys(range(20), marks.number)
        else:
            logs = chance.sample(range(20), chance.randint(1, 7))
            marks.mark(LogId(log) for log in logs)
            truth |= dict.fromkeys(logs, marks.number)
        for log, number in truth.items():
            assert marks.since(number - 1, LogId(log))
        assert not any(marks.since(marks.number, LogId(log)) for log in range(20))


def test_a_log_that_nothing_was_heard_of_since_is_not_marked() -> None:
    marks = HintMarks()
    marks.mark([LogId(1)])
    before = marks.number
    marks.mark([LogId(2)])
    assert [marks.since(before, LogId(log)) for log in (1, 2, 3)] == [False, True, False]

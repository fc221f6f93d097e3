"""`warp consume --group`: what is committed, when, and how the group is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from warp.cli.client import Client
from warp.cli.main import main


class FakeMessage:
    def __init__(
        self, offset: int, value: bytes = b"", *, partition: int = 0, error: int | None = None
    ) -> None:
        self._offset = offset
        self._value = value
        self._partition = partition
        self._error = None if error is None else KafkaError(error)

    def topic(self) -> str | None:
        return "t" if self._error is None else None

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> KafkaError | None:
        return self._error


class FakeTopics:
    def __init__(self) -> None:
        self.topics = {"t": type("FakeTopic", (), {"partitions": {0: None, 1: None}})()}


class FakeConsumer:
    """Hands out batches of messages, one for each call; then interrupts the command, as a user would."""

    def __init__(self, *batches: list[FakeMessage]) -> None:
        self.settings: dict[str, Any] = {}
        self.batches = list(batches)
        self.stored: dict[int, int] = {}
        self.events: list[str] = []
        self.moved: set[int] = set()
        self.commit_error: int | None = None
        self.may_close = threading.Event()
        self.may_close.set()

    def list_topics(self, timeout: float) -> FakeTopics:
        assert timeout > 0
        return FakeTopics()

    def subscribe(self, topics: list[str]) -> None:
        self.events.append(f"subscribe {','.join(topics)}")

    def consume(self, number: int, timeout: float) -> list[FakeMessage]:
        assert timeout > 0
        if not self.batches:
            signal.raise_signal(signal.SIGINT)
            return []
        batch = self.batches[0][:number]
        self.batches[0] = self.batches[0][number:]
        if not self.batches[0]:
            del self.batches[0]
        return batch

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        (place,) = offsets
        if place.partition in self.moved:
            raise KafkaException(KafkaError(KafkaError._STATE))
        assert place.topic == "t"
        self.stored[place.partition] = place.offset

    def commit(self, *, asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        self.may_close.wait(60)
        self.events.append("commit")
        if self.commit_error is not None:
            raise KafkaException(KafkaError(self.commit_error))
        return []

    def close(self) -> None:
        self.events.append("close")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def consumer() -> Iterator[FakeConsumer]:
    made = FakeConsumer()
    yield made
    made.may_close.set()
    for thread in threading.enumerate():
        if thread.name == "leave-group":
            thread.join(60)


@pytest.fixture
def run(
    consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    def make(_: Client, **settings: Any) -> FakeConsumer:
        consumer.settings = settings
        return consumer

    monkeypatch.setattr(Client, "consumer", make)

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(["consume", "t", "--group", "g", *words])
        out, error = capsysbinary.readouterr()
        return code, out.decode(), error.decode()

    return run_words


def test_what_was_printed_is_committed_and_the_group_is_left(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [[FakeMessage(4, b"x"), FakeMessage(5, b"y"), FakeMessage(0, b"z", partition=1)]]
    assert run() == (0, "x\ny\nz\n", "")
    assert consumer.stored == {0: 6, 1: 1}
    assert consumer.events == ["subscribe t", "commit", "close"]
    assert consumer.settings["group.id"] == "g"
    assert consumer.settings["enable.auto.offset.store"] is False


def test_no_more_than_the_count_is_printed_and_committed(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [[FakeMessage(offset, b"x") for offset in range(10)]]
    assert run("--count", "3") == (0, "x\nx\nx\n", "")
    assert consumer.stored == {0: 3}


def test_nothing_is_committed_when_nothing_came(run: Run, consumer: FakeConsumer) -> None:
    consumer.commit_error = KafkaError._NO_OFFSET
    assert run() == (0, "", "")
    assert consumer.stored == {}
    assert consumer.events[-1] == "close"


def test_a_partition_that_went_to_another_member_is_not_committed(run: Run, consumer: FakeConsumer) -> None:
    consumer.moved = {0}
    consumer.batches = [[FakeMessage(1, b"x"), FakeMessage(1, b"y", partition=1)]]
    assert run() == (0, "x\ny\n", "")
    assert consumer.stored == {1: 2}


def test_trouble_that_passes_is_passed_over(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [
        [FakeMessage(-1, error=KafkaError._MAX_POLL_EXCEEDED), FakeMessage(7, b"x")],
    ]
    assert run() == (0, "x\n", "")
    assert consumer.stored == {0: 8}


def test_trouble_that_stays_ends_it_and_the_group_is_left(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [
        [FakeMessage(7, b"x")],
        [FakeMessage(8, b"y"), FakeMessage(-1, error=KafkaError.GROUP_AUTHORIZATION_FAILED)],
    ]
    code, _, error = run()
    assert (code, error.count("\n")) == (1, 1)
    assert "GROUP_AUTHORIZATION_FAILED" in error
    assert consumer.stored == {0: 8}
    assert consumer.events[-1] == "close"


def test_what_went_wrong_first_is_told(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [[FakeMessage(-1, error=KafkaError.TOPIC_AUTHORIZATION_FAILED)]]
    consumer.commit_error = KafkaError.ILLEGAL_GENERATION
    code, _, error = run()
    assert (code, "TOPIC_AUTHORIZATION_FAILED" in error, error.count("\n")) == (1, True, 1)
    assert consumer.events[-1] == "close"


def test_a_last_commit_that_fails_is_told(run: Run, consumer: FakeConsumer) -> None:
    consumer.batches = [[FakeMessage(7, b"x")]]
    consumer.commit_error = KafkaError.ILLEGAL_GENERATION
    code, out, error = run()
    assert (code, out, consumer.events[-1]) == (1, "x\n", "close")
    expected = "the last offsets of group g are not committed, the last records may be printed again: "
    assert error.startswith(f"warp consume: {expected}")
    assert "ILLEGAL_GENERATION" in error


def test_a_broker_that_does_not_answer_does_not_keep_it(run: Run, consumer: FakeConsumer) -> None:
    consumer.may_close.clear()
    assert run("--timeout", "0.1") == (
        1,
        "",
        "warp consume: group g was not left within 0.1 s; the last records may be printed again\n",
    )


@pytest.mark.parametrize(
    ("words", "reset"),
    [([], "earliest"), (["--from", "beginning"], "earliest"), (["--from", "end"], "latest")],
)
def test_the_place_to_begin_is_for_what_was_never_committed(
    run: Run, consumer: FakeConsumer, words: list[str], reset: str
) -> None:
    assert run(*words)[0] == 0
    assert consumer.settings["auto.offset.reset"] == reset


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--from", "10"], "with --group, --from is beginning or end: the group keeps its own place"),
        (["--to", "end"], "--to does not go with --group, which shares partitions out by itself"),
        (["--partition", "0"], "--partition does not go with --group, which shares partitions out by itself"),
    ],
)
def test_what_a_member_does_not_choose_is_refused(
    run: Run, consumer: FakeConsumer, words: list[str], reason: str
) -> None:
    assert run(*words) == (2, "", f"warp consume: {reason}\n")
    assert consumer.events == []

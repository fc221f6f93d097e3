"""The adapters tell the verifier what an agent has answered: with the truth it is content, with a lie it is not."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.caller import Caller
from tests.faults.raw_admins import TopicMaker
from tests.faults.reading_back import read_back
from tests.faults.topics import Topic
from tests.verifier import (
    DeleteRecords,
    Fetch,
    Fetched,
    Limit,
    ListOffsets,
    OffsetCommit,
    OffsetFetch,
    Partition,
    Produce,
    Recorder,
    Verdict,
    judge,
)
from tests.verifier.adapters import confluent, raw
from tests.verifier.adapters.confluent import RecordedConsumer, RecordedProducer
from tests.verifier.adapters.seals import EMPTY, Header, headers_of, opened
from tests.verifier.recorder import Reader, Stream
from warp._records import build_batch
from warp.testing import LocalAgent

RECORDS = 20


@dataclass
class Where:
    """The agent of these tests."""

    port: int
    host: str = "127.0.0.1"
    name: str = "agent"


def where(agent: LocalAgent) -> Where:
    return Where(int(agent.bootstrap.rpartition(":")[2]))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    """One whose groups don't wait for company."""
    directory = tmp_path_factory.mktemp("agent") / "data"
    with LocalAgent(directory, "--log-level", "warning", "--group-rebalance-delay", "0ms") as made:
        yield made


def group_of(topic: Topic) -> str:
    return f"group of {topic.name}"


async def talk(recorder: Recorder, at: Where, topic: Topic) -> None:
    """A little of everything that raw clients do."""
    maker = TopicMaker(recorder, "maker", [at], random.Random(1))
    await maker.create(topic)
    maker.hang_up()
    caller = Caller(recorder, "client", [at], random.Random(1))
    records: list[raw.Content] = [(b"key", b"value %d" % number) for number in range(3)]
    batches = [recorder.batch(place, records) for place in topic.places]
    sent = {place: raw.encode_batch(records, 1_700_000_000_000) for place in topic.places}
    await caller.ask(
        Produce(batches), raw.produce(sent, 5000), raw.VERSIONS["produce"],
        lambda response: raw.produced(batches, response),
    )  # fmt: skip
    positions = dict.fromkeys(topic.places, 1)
    answer = await caller.ask(
        Fetch(positions), raw.fetch(positions), raw.VERSIONS["fetch"],
        lambda response: raw.fetched(recorder, positions, response),
    )  # fmt: skip
    assert isinstance(answer, Fetched)
    places = topic.places
    for limit in Limit:
        ask = raw.list_offsets(places, limit)
        await caller.ask(ListOffsets(places, limit), ask, raw.VERSIONS["list offsets"], raw.listed)
    offsets = dict.fromkeys(places, 2)
    group = group_of(topic)
    await caller.ask(
        OffsetCommit(group, offsets), raw.offset_commit(group, offsets), raw.VERSIONS["offset commit"],
        raw.committed,
    )  # fmt: skip
    await caller.ask(
        OffsetFetch(group, places), raw.offset_fetch(group, places), raw.VERSIONS["offset fetch"],
        raw.committed_offsets,
    )  # fmt: skip
    await caller.ask(
        DeleteRecords(offsets), raw.delete_records(offsets, 5000), raw.VERSIONS["delete records"], raw.trimmed
    )
    caller.hang_up()


def look(recorder: Recorder, at: Where, topic: Topic) -> Verdict:
    """Read it back, and judge."""
    back = asyncio.run(read_back(recorder, at, topic.places, {group_of(topic): topic.places}))
    return judge(recorder.history, [back])


def test_what_raw_clients_are_told_is_recorded_as_it_is(agent: LocalAgent) -> None:
    recorder, topic = Recorder(time.monotonic), Topic("told", 2)
    asyncio.run(talk(recorder, where(agent), topic))
    verdict = look(recorder, where(agent), topic)
    assert not verdict.violations, verdict.report()
    for check in (
        "acknowledgements name a place", "what was read stays", "requests are atomic", "read your writes",
        "committed offsets never go back", "deleted records stay away", "watermarks never go back",
    ):  # fmt: skip
        assert verdict.figures.checks[check], verdict.report()


def shifted(response: Any) -> Any:
    for topic in response.responses:
        for part in topic.partition_responses:
            part.base_offset += 1
    return response


def emptied(response: Any) -> Any:
    for topic in response.responses:
        for part in topic.partitions:
            part.high_watermark = 0
    return response


def forgotten(response: Any) -> Any:
    for group in response.groups:
        for topic in group.topics:
            for part in topic.partitions:
                part.committed_offset = 0
    return response


def grown(response: Any) -> Any:
    for topic in response.topics:
        for part in topic.partitions:
            part.offset += 7
    return response


def without_metadata(response: Any) -> Any:
    for group in response.groups:
        for topic in group.topics:
            for part in topic.partitions:
                part.metadata = ""
    return response


LIES: list[tuple[str, Callable[[Any], Any]]] = [
    ("produced", shifted), ("fetched", emptied), ("committed_offsets", forgotten), ("listed", grown),
    ("committed_offsets", without_metadata),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lie"), LIES, ids=[f"{name}-{lie.__name__}" for name, lie in LIES])
def test_a_lie_of_an_agent_to_a_raw_client_comes_to_light(
    agent: LocalAgent, monkeypatch: pytest.MonkeyPatch, name: str, lie: Callable[[Any], Any]
) -> None:
    honest = getattr(raw, name)
    recorder, topic = Recorder(time.monotonic), Topic(f"{lie.__name__}-{name}", 2)
    with monkeypatch.context() as patched:
        patched.setattr(raw, name, lambda *given: honest(*given[:-1], lie(given[-1])))
        asyncio.run(talk(recorder, where(agent), topic))
    verdict = look(recorder, where(agent), topic)
    assert verdict.violations, verdict.report()


KEY, VALUE, TIME_MS = b"key", b"value", 1_700_000_000_000
HEADERS = headers_of(KEY, VALUE, TIME_MS)


@pytest.mark.parametrize(
    ("time_ms", "headers"),
    [
        (TIME_MS + 1, HEADERS),
        (TIME_MS, []),
        (TIME_MS, HEADERS[:1]),
        (TIME_MS, HEADERS[1:]),
        (TIME_MS, HEADERS[::-1]),
        (TIME_MS, [*HEADERS, EMPTY]),
        (TIME_MS, [HEADERS[0], ("empty", b"")]),
        (TIME_MS, headers_of(KEY, b"other", TIME_MS)),
    ],
)
def test_a_record_with_another_timestamp_or_other_headers_has_another_value(
    time_ms: int, headers: list[Header]
) -> None:
    honest = build_batch([(KEY, VALUE, HEADERS, TIME_MS)])
    assert raw.records_in(honest, 0) == ([(0, KEY, VALUE)], 1)
    [(_, _, value)], _ = raw.records_in(build_batch([(KEY, VALUE, headers, time_ms)]), 0)
    assert value != VALUE


def write_and_read(recorder: Recorder, agent: LocalAgent, topic: Topic) -> Verdict:
    """With librdkafka's clients."""

    async def make() -> None:
        maker = TopicMaker(recorder, "maker", [where(agent)], random.Random(1))
        await maker.create(topic)
        maker.hang_up()

    asyncio.run(make())
    producer = RecordedProducer(
        recorder,
        {"bootstrap.servers": agent.bootstrap, "enable.idempotence": True, "linger.ms": 5},
        "producer",
    )
    for number in range(RECORDS):
        place = topic.places[number % topic.partitions]
        producer.send(place, None, b"%d" % number, int(time.time() * 1000))
    assert producer.flush(30) == 0
    group, seen, problems = group_of(topic), set[tuple[Partition, int]](), list[str]()
    settings = {"bootstrap.servers": agent.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                "enable.auto.commit": False, "enable.auto.offset.store": False}  # fmt: skip
    consumer = RecordedConsumer(recorder, settings, "consumer", [topic.name], seen)
    deadline_s = time.monotonic() + 60
    while len(seen) < RECORDS:
        assert time.monotonic() < deadline_s, f"only {len(seen)} came"
        consumer.take(0.1, problems.append)
    assert consumer.commit() is None
    consumer.close()
    assert problems == []
    return look(recorder, where(agent), topic)


def test_what_librdkafka_tells_is_recorded_as_it_is(agent: LocalAgent) -> None:
    verdict = write_and_read(Recorder(time.monotonic), agent, Topic("of-librdkafka", 2))
    assert not verdict.violations, verdict.report()
    for check in (
        "acknowledged records are there", "what was read stays", "groups skip nothing",
        "committed offsets were committed", "order of producers",
    ):  # fmt: skip
        assert verdict.figures.checks[check], verdict.report()


@pytest.mark.parametrize("kind", ["delivered", "saw", "content_of"])
def test_a_lie_to_librdkafka_comes_to_light(
    agent: LocalAgent, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    delivered, saw = Stream.delivered, Reader.saw

    def told(self: Stream, number: int, offset: int | None) -> None:
        delivered(self, number, (offset or 0) + 1)

    def seen(self: Reader, place: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        saw(self, place, offset, key, b"not " + (value or b""))

    if kind == "content_of":
        monkeypatch.setattr(
            confluent, "opened", lambda key, value, time, headers: opened(key, value, time, headers[1:])
        )
    elif kind == "delivered":
        monkeypatch.setattr(Stream, "delivered", told)
    else:
        monkeypatch.setattr(Reader, "saw", seen)
    verdict = write_and_read(Recorder(time.monotonic), agent, Topic(f"lie-{kind}", 2))
    assert verdict.violations, verdict.report()

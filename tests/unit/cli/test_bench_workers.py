"""Workers on fake time with a client library in memory: what counts, in which second, and when they end."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.unit.cli.bench_fakes import FakeConsumer, FakeMessage, FakeProducer, FakeTime, end_of_partition
from warp.cli.bench.consuming import Consuming
from warp.cli.bench.histogram import Histogram
from warp.cli.bench.intervals import Tally
from warp.cli.bench.payloads import STAMP, make_keys, make_payloads
from warp.cli.bench.producing import Producing
from warp.cli.bench.schedule import NS_PER_S
from warp.cli.bench.tasks import (
    ConsumerTask,
    Interval,
    ProducerTask,
    interval_of,
    offsets_of,
    task_of,
    task_to_json,
)

MS = 1_000_000
START_NS = 100 * NS_PER_S


def producer_task(**changes: Any) -> ProducerTask:
    fields: dict[str, Any] = {
        "topic": "t", "config": {}, "record_bytes": 100, "compressible": 0.5, "seed": 1, "keys": 0,
        "records_per_s": None, "phase": 0.0, "run_id": None, "warmup_s": 0.0, "duration_s": 2.0, "drain_s": 1.0,
    }  # fmt: skip
    return ProducerTask(**{**fields, **changes})


def consumer_task(**changes: Any) -> ConsumerTask:
    fields: dict[str, Any] = {
        "topic": "t", "config": {}, "begins": {0: 0}, "stops": None, "run_id": None,
        "warmup_s": 0.0, "duration_s": None, "drain_s": 1.0,
    }  # fmt: skip
    return ConsumerTask(**{**fields, **changes})


def produce(task: ProducerTask, producer: FakeProducer) -> tuple[dict[str, Any], list[Interval]]:
    intervals: list[Interval] = []
    time = producer.time
    work = Producing(
        task, producer, clock_ns=time.clock, sleep_s=time.sleep, cpu_s=lambda: 0.0, emit=intervals.append
    )
    return work.run(START_NS), intervals


def consume(task: ConsumerTask, consumer: FakeConsumer) -> tuple[dict[str, Any], list[Interval], Consuming]:
    intervals: list[Interval] = []
    work = Consuming(task, consumer, clock_ns=consumer.time.clock, cpu_s=lambda: 0.0, emit=intervals.append)
    return work.run(START_NS), intervals, work


def tally_of(warmup_s: float, duration_s: float, intervals: list[Interval]) -> Tally:
    begin_ns = START_NS + int(warmup_s * NS_PER_S)
    cpu = iter(range(1000))
    end_ns = begin_ns + int(duration_s * NS_PER_S)
    return Tally(begin_ns, end_ns, START_NS, lambda: float(next(cpu)), intervals.append)


@pytest.mark.parametrize(
    ("warmup_s", "duration_s", "expected"),
    [
        (0, 2, [(1, "measured", 1.0), (2, "measured", 1.0), (3, "drain", 0.5)]),
        (2, 1, [(-1, "warm-up", 1.0), (0, "warm-up", 1.0), (1, "measured", 1.0), (2, "drain", 0.5)]),
        (1.5, 1, [(-1, "warm-up", 0.5), (0, "warm-up", 1.0), (1, "measured", 1.0), (2, "drain", 0.5)]),
        (0, 1.5, [(1, "measured", 1.0), (2, "measured", 0.5), (3, "drain", 0.5)]),
    ],
)
def test_intervals_are_seconds_aligned_to_the_begin_of_the_measured_time(
    warmup_s: float, duration_s: float, expected: list[tuple[int, str, float]]
) -> None:
    intervals: list[Interval] = []
    tally = tally_of(warmup_s, duration_s, intervals)
    end_ns = tally.end_ns + NS_PER_S // 2
    for now_ns in range(START_NS, end_ns, MS):
        tally.advance(now_ns)
    tally.finish(end_ns)
    assert [(each.number, str(each.phase), round(each.seconds, 6)) for each in intervals] == expected
    assert [each.cpu_s for each in intervals] == [1.0] * len(expected)


def test_a_long_wait_makes_one_long_interval_and_the_next_ends_on_time() -> None:
    intervals: list[Interval] = []
    tally = tally_of(0, 10, intervals)
    tally.advance(START_NS + 3 * NS_PER_S + 300 * MS)
    tally.advance(START_NS + 4 * NS_PER_S)
    assert [(each.number, each.seconds) for each in intervals] == [(1, 3.3), (4, 0.7)]


def test_the_measured_time_may_end_early_even_in_the_warm_up() -> None:
    intervals: list[Interval] = []
    tally = tally_of(5, 5, intervals)
    tally.end_ns = START_NS + NS_PER_S // 2
    tally.advance(START_NS + NS_PER_S // 2)
    tally.advance(START_NS + NS_PER_S // 2 + 1)
    tally.finish(START_NS + NS_PER_S)
    assert [(each.phase, each.seconds) for each in intervals] == [("warm-up", 0.5), ("drain", 0.5)]


def test_latencies_of_records_that_were_due_in_the_warm_up_are_kept_apart() -> None:
    intervals: list[Interval] = []
    tally = tally_of(1, 1, intervals)
    tally.seen(5 * MS, tally.begin_ns - 1)
    tally.seen(7 * MS, tally.begin_ns)
    tally.finish(START_NS + NS_PER_S // 2)
    assert (intervals[0].early_latency.max_us, intervals[0].latency.max_us) == (5000, 7000)
    told = interval_of(json.loads(json.dumps(intervals[0].to_json())))
    assert told.to_json() == intervals[0].to_json()


def test_at_full_speed_every_record_is_counted_once() -> None:
    time = FakeTime(START_NS - NS_PER_S, takes_ns=MS)
    producer = FakeProducer(time, answer_ns=20 * MS, queue_records_max=500)
    ending, intervals = produce(producer_task(), producer)
    assert ending["sent_records"] == ending["acknowledged_records"] == len(producer.sent) > 500
    assert (ending["failed_records"], ending["unanswered_records"], ending["unsent_records"]) == (0, 0, 0)
    assert sum(each.records for each in intervals) == len(producer.sent)
    assert sum(each.bytes for each in intervals) == 100 * len(producer.sent)
    assert sum(each.latency.count for each in intervals) == len(producer.sent)
    assert min(bucket for each in intervals for bucket, _ in each.latency.pairs()) > 0
    assert [each.phase for each in intervals] == ["measured", "measured", "drain"]


def test_at_a_high_rate_latencies_count_from_the_schedule_through_a_stall() -> None:
    """All on fake time: 4000 records/s for two seconds, and a broker that answers nothing during one of them."""

    class Stalling(FakeProducer):
        def produce(self, *words: Any) -> None:
            into_ns = self.time.now_ns - START_NS
            self.answer_ns = MS + (2 * NS_PER_S - into_ns if into_ns >= NS_PER_S else 0)
            super().produce(*words)

    producer = Stalling(FakeTime(START_NS, takes_ns=100), answer_ns=MS)
    task = producer_task(records_per_s=4000.0, duration_s=1.5, warmup_s=0.5, drain_s=5.0)
    ending, intervals = produce(task, producer)
    assert ending["sent_records"] == ending["acknowledged_records"] == 8000
    assert ending["unsent_records"] == 0
    found = Histogram()
    for each in intervals:
        found.add(each.latency)
    assert found.count == 6000
    # Half of those that were due in the stalled second waited for half a second or longer.
    assert found.count_from(500_000) == pytest.approx(2000, rel=0.02)
    assert found.max_us == pytest.approx(1_001_000, rel=0.01)


def test_errors_are_counted_by_name_and_leave_no_latency() -> None:
    producer = FakeProducer(FakeTime(START_NS, takes_ns=MS), answer_ns=MS)
    producer.fate = lambda number: KafkaError(KafkaError._MSG_TIMED_OUT) if number % 4 == 0 else None
    ending, intervals = produce(producer_task(duration_s=0.5), producer)
    failed = sum(each.errors.get("_MSG_TIMED_OUT", 0) for each in intervals)
    assert failed == ending["failed_records"] == -(-len(producer.sent) // 4)
    assert sum(each.latency.count for each in intervals) == len(producer.sent) - failed


def test_records_without_an_answer_are_waited_for_so_long_and_then_told() -> None:
    time = FakeTime(START_NS, takes_ns=MS)
    producer = FakeProducer(time, answer_ns=None)
    ending, _ = produce(producer_task(duration_s=0.5, drain_s=3.0), producer)
    assert ending["unanswered_records"] == len(producer.sent) > 0
    assert START_NS + 3.5 * NS_PER_S <= time.now_ns <= START_NS + 3.8 * NS_PER_S


def test_what_waits_in_the_queue_when_the_time_is_over_was_not_sent() -> None:
    producer = FakeProducer(FakeTime(START_NS, takes_ns=MS), answer_ns=5000 * MS)
    producer.waiting = 10
    ending, intervals = produce(producer_task(duration_s=0.5, drain_s=60.0), producer)
    assert ending["sent_records"] == ending["acknowledged_records"] == len(producer.sent) - 10
    assert (ending["failed_records"], ending["unanswered_records"]) == (0, 0)
    assert sum(each.latency.count for each in intervals) == len(producer.sent) - 10


def test_records_of_a_run_carry_its_stamp_and_have_the_size_that_was_asked_for() -> None:
    producer = FakeProducer(FakeTime(START_NS, takes_ns=MS), answer_ns=MS)
    produce(producer_task(run_id=77, keys=2, duration_s=0.3), producer)
    stamps = [STAMP.unpack_from(value) for value, _ in producer.sent]
    assert {run_id for run_id, _ in stamps} == {77}
    assert all(START_NS <= due_ns < START_NS + 300 * MS for _, due_ns in stamps)
    assert {len(value) for value, _ in producer.sent} == {100}
    assert [key for _, key in producer.sent[:3]] == [b"key-00000000", b"key-00000001", b"key-00000000"]


def test_a_producer_that_was_stopped_before_its_start_sends_nothing() -> None:
    time = FakeTime(START_NS - NS_PER_S)
    producer = FakeProducer(time, answer_ns=MS)
    work = Producing(
        producer_task(),
        producer,
        clock_ns=time.clock,
        sleep_s=time.sleep,
        cpu_s=lambda: 0.0,
        emit=lambda _: None,
    )
    work.stop()
    assert work.run(START_NS)["sent_records"] == 0


def test_what_is_there_is_read_from_the_start_on_up_to_where_it_ended() -> None:
    messages = [(0, FakeMessage(b"x" * 10, key=b"k", partition=n % 2, offset=n // 2)) for n in range(10)]
    later = [(START_NS + 60 * NS_PER_S, FakeMessage(b"later", partition=0, offset=5))]
    consumer = FakeConsumer(FakeTime(START_NS - NS_PER_S, takes_ns=MS), [*messages, *later])
    task = consumer_task(begins={0: 0, 1: 0}, stops={0: 5, 1: 5})
    ending, intervals, _ = consume(task, consumer)
    assert consumer.assigned_at_ns >= START_NS
    assert (ending["received_records"], ending["is_complete"]) == (10, True)
    assert sum(each.bytes for each in intervals) == 110
    assert consumer.time.now_ns < START_NS + NS_PER_S


def test_the_end_of_a_partition_counts_as_read_when_no_record_stands_before_it() -> None:
    # As after a transaction: offsets that belong to no record.
    messages = [(0, FakeMessage(b"x", offset=0)), (0, end_of_partition(0, 3)), (0, end_of_partition(1, 2))]
    consumer = FakeConsumer(FakeTime(START_NS), messages)
    ending, _, _ = consume(consumer_task(begins={0: 0, 1: 2}, stops={0: 3, 1: 2}), consumer)
    assert (ending["received_records"], ending["is_complete"]) == (1, True)


def test_an_empty_topic_is_read_at_once() -> None:
    consumer = FakeConsumer(FakeTime(START_NS), [])
    ending, _, _ = consume(consumer_task(begins={0: 4}, stops={0: 4}), consumer)
    assert ending == {"received_records": 0, "first_record_ns": None, "is_complete": True}


def test_latency_end_to_end_counts_from_the_stamp_and_only_for_records_of_the_run() -> None:
    def record(offset: int, run_id: int, due_ns: int, at_ns: int) -> tuple[int, FakeMessage]:
        return at_ns, FakeMessage(STAMP.pack(run_id, due_ns) + b"...", offset=offset)

    messages = [
        record(0, 77, START_NS + 10 * MS, START_NS + 25 * MS),
        (START_NS + 26 * MS, FakeMessage(b"short", offset=1)),
        record(2, 78, START_NS, START_NS + 30 * MS),
        record(3, 77, START_NS + 900 * MS, START_NS + 1600 * MS),
    ]
    consumer = FakeConsumer(FakeTime(START_NS), messages)
    task = consumer_task(run_id=77, duration_s=1.0, drain_s=2.0)
    ending, intervals, _ = consume(task, consumer)
    assert ending["received_records"] == 2
    latencies = [bucket for each in intervals for bucket, _ in each.latency.pairs()]
    assert len(latencies) == 2
    assert [(each.phase, each.latency.max_us) for each in intervals if each.records] == [
        ("measured", 15_000),
        ("drain", 700_000),
    ]
    assert consumer.time.now_ns >= START_NS + 3 * NS_PER_S


def test_a_tail_lets_go_what_comes_before_the_start_and_ends_with_its_time() -> None:
    messages = [
        (START_NS - NS_PER_S // 2, FakeMessage(b"early", offset=0)),
        (START_NS + NS_PER_S // 2, FakeMessage(b"now", offset=1)),
        (START_NS + 2 * NS_PER_S, FakeMessage(b"late", offset=2)),
    ]
    consumer = FakeConsumer(FakeTime(START_NS - NS_PER_S), messages)
    ending, intervals, _ = consume(consumer_task(duration_s=1.0), consumer)
    assert consumer.assigned_at_ns == START_NS - NS_PER_S
    assert ending == {"received_records": 1, "first_record_ns": NS_PER_S // 2, "is_complete": None}
    assert sum(each.records for each in intervals if each.phase == "measured") == 1


def test_trouble_that_passes_is_counted_and_other_trouble_ends_the_worker() -> None:
    class Passing(KafkaError):
        def retriable(self) -> bool:
            return True

    passing = FakeMessage(error=Passing(KafkaError._TRANSPORT))
    consumer = FakeConsumer(FakeTime(START_NS), [(0, passing), (0, end_of_partition(0, 1))])
    _, intervals, _ = consume(consumer_task(stops={0: 1}), consumer)
    assert intervals[-1].errors == {"_TRANSPORT": 1}
    broken = FakeMessage(error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaException):
        consume(consumer_task(stops={0: 1}), FakeConsumer(FakeTime(START_NS), [(0, broken)]))


def test_payloads_are_the_same_for_the_same_seed_and_as_compressible_as_asked_for() -> None:
    assert make_payloads(500, 0.5, 7) == make_payloads(500, 0.5, 7)
    assert make_payloads(500, 0.5, 7) != make_payloads(500, 0.5, 8)
    for compressible in (0.0, 0.5, 0.9, 1.0):
        payloads = make_payloads(10_000, compressible, 1)
        assert {len(payload) for payload in payloads} == {10_000}
        share = len(zlib.compress(b"".join(payloads[:20]))) / 200_000
        assert share == pytest.approx(1 - compressible, abs=0.02)
    assert len(set(make_payloads(1000, 0.0, 1))) == len(make_payloads(1000, 0.0, 1)) > 10_000
    assert {len(payload) for payload in make_payloads(1, 0.5, 1)} == {1}
    assert make_payloads(0, 0.5, 1)[0] == b""
    assert len({len(key) for key in make_keys(1000)}) == 1


def test_tasks_survive_the_way_to_a_worker() -> None:
    for task in (
        producer_task(run_id=3, config={"a": 1}),
        consumer_task(begins={0: 5, 11: 2}, stops={0: 9, 11: 2}),
        consumer_task(),
    ):
        assert task_of(json.loads(json.dumps(task_to_json(task)))) == task
    assert offsets_of({"3": 4}) == {3: 4}

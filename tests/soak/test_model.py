"""The soak notices what it is there to notice: every kind of loss is a problem, and what retention claims is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
from confluent_kafka import TopicPartition

from tests.soak import clients
from tests.soak.bounds import Bounds
from tests.soak.model import KINDS, Kind, Stream
from tests.soak.places import Facts
from tests.soak.run import NEEDED
from tests.verifier import CHECKS, DeleteRecords, Recorder, Rules, Trimmed, TrimmedPart, judge

NOW_MS = 1_000_000
COUNT = 300
BY_NAME = {kind.name: kind for kind in KINDS}


class Found(NamedTuple):
    """A record as it was read."""

    offset: int
    key: bytes | None
    value: bytes | None


class Story:
    """One partition that was written to its end, each record 100 ms after the one before; the last one just now."""

    def __init__(self, kind: Kind) -> None:
        self.recorder = Recorder(lambda: 0.0)
        recorded = self.recorder.stream(kind.places[0], "writer")
        self.stream = Stream(kind, 0, 7, recorded, acknowledged=COUNT)
        for number in range(COUNT):
            recorded.sent(*self.stream.record(number), NOW_MS - 100 * (COUNT - 1 - number))
            recorded.delivered(number, number)

    def problems(self, start: int, found: Sequence[Found]) -> list[str]:
        """What is wrong with it when this is all that is there."""
        back = self.recorder.readback("agent", NOW_MS)
        log = back.log(self.stream.place, start, COUNT)
        for at in found:
            log.add(*at)
        rules = Rules(
            {self.stream.kind.name: replace(self.stream.kind.rules, clock_skew_ms=0, linger_ms=None)}
        )
        return [str(violation) for violation in judge(self.recorder.history, [back], rules).violations]

    def trim(self, offset: int, *, is_answered: bool) -> None:
        """Delete what lies before an offset."""
        place = self.stream.place
        op = self.recorder.begin("trimmer", DeleteRecords({place: offset}))
        if is_answered:
            op.answered(Trimmed({place: TrimmedPart(0, offset)}))
        else:
            op.lost()

    def whole(self, start: int = 0) -> list[Found]:
        return [Found(number, *self.stream.record(number)) for number in range(start, COUNT)]

    def last_numbers(self) -> dict[bytes | None, int]:
        return {self.stream.record(number).key: number for number in range(COUNT)}

    def compacted(self, start: int = 0) -> list[Found]:
        last = set(self.last_numbers().values())
        # A tombstone stays for a while.
        return [
            at
            for at in self.whole(start)
            if at.offset in last and (at.value is not None or at.offset >= COUNT - 25)
        ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_all_that_was_written_is_no_problem(kind: Kind) -> None:
    story = Story(kind)
    assert story.problems(0, story.whole()) == []


@pytest.mark.parametrize("name", ["kept", "brief", "trimmed"])
def test_a_hole_in_a_log_that_is_not_compacted_is_a_problem(name: str) -> None:
    story = Story(BY_NAME[name])
    problems = story.problems(0, [at for at in story.whole() if at.offset != 150])
    assert any("151 comes after 149" in problem for problem in problems)
    assert any("there is nothing at 150" in problem for problem in problems)


def test_a_record_at_anothers_place_is_a_problem() -> None:
    story = Story(BY_NAME["latest"])
    found = [
        at._replace(offset=at.offset + 1) if at.offset == 5 else at for at in story.whole() if at.offset != 6
    ]
    assert any("at 6 there is" in problem for problem in story.problems(0, found))


def test_retention_by_time_may_take_what_is_old_and_nothing_else() -> None:
    story = Story(BY_NAME["brief"])  # 4 s: the last 40 records
    start = COUNT - 41
    assert story.problems(start, story.whole(start)) == []
    [problem] = story.problems(COUNT - 39, story.whole(COUNT - 39))
    assert "taken early" in problem


def test_retention_by_size_leaves_that_size() -> None:
    story = Story(replace(BY_NAME["sized"], retention_bytes=10_000))
    assert story.problems(COUNT - 50, story.whole(COUNT - 50)) == []
    assert story.problems(COUNT - 10, story.whole(COUNT - 10)) != []


def test_nothing_is_taken_from_a_log_that_keeps_all_but_what_was_deleted() -> None:
    story = Story(BY_NAME["trimmed"])
    story.trim(20, is_answered=True)
    assert story.problems(20, story.whole(20)) == []
    assert story.problems(21, story.whole(21)) != []
    assert story.problems(19, story.whole(19)) != []
    story.trim(21, is_answered=False)
    assert story.problems(20, story.whole(20)) == []
    assert story.problems(21, story.whole(21)) == []
    assert story.problems(22, story.whole(22)) != []


def test_compaction_may_take_all_but_the_last_record_of_each_key() -> None:
    story = Story(BY_NAME["latest"])
    found = story.compacted()
    assert len(found) < COUNT
    assert story.problems(0, found) == []
    [problem] = story.problems(0, found[1:])
    assert "is gone; its last record stood at" in problem


def test_an_older_value_that_comes_back_is_a_problem() -> None:
    story = Story(BY_NAME["changing"])
    last = story.last_numbers()
    dead = [number for number in last.values() if story.stream.record(number).value is None]
    key = story.stream.record(dead[0]).key
    older = [number for number in range(dead[0]) if story.stream.record(number).key == key]
    found = [at for at in story.compacted() if at.offset != dead[0]]
    found = sorted([*found, Found(older[0], *story.stream.record(older[0]))])
    assert any("old values stay away" in problem for problem in story.problems(0, found))


def test_a_log_that_is_compacted_and_deleted_holds_the_last_records_from_its_start_on() -> None:
    story = Story(BY_NAME["both"])  # 6 s: the last 60 records
    found = story.compacted(COUNT - 61)
    assert story.problems(COUNT - 61, found) == []
    assert story.problems(COUNT - 61, found[:-1]) != []
    assert story.problems(COUNT - 50, story.compacted(COUNT - 50)) != []


def test_how_long_records_outlive_their_retention_is_known_where_an_acknowledgement_has_named_their_place() -> (
    None
):
    stream = Story(BY_NAME["brief"]).stream
    stream.stands(2, NOW_MS)
    assert stream.overdue_ms(2, NOW_MS + 4_000) == 0
    assert stream.overdue_ms(2, NOW_MS + 4_001) == 1
    assert [stream.overdue_ms(offset, NOW_MS + 9_000) for offset in (0, 1, 3)] == [0, 0, 0]
    stream = Story(BY_NAME["kept"]).stream
    stream.stands(0, NOW_MS)
    assert stream.overdue_ms(0, NOW_MS + 10**9) == 0


class Told(NamedTuple):
    """What an agent gives one consumer: a log that begins at `start`."""

    story: Story
    start: int

    def get_watermark_offsets(self, _: TopicPartition, timeout_s: float) -> tuple[int, int]:
        assert timeout_s > 0
        return self.start, COUNT

    def assign(self, places: Sequence[TopicPartition]) -> None:
        """The records that it reads then don't matter here."""

    def consume(self, count: int, timeout_s: float) -> list[object]:
        time.sleep(min(timeout_s, 0.01))
        return []

    def close(self) -> None:
        """It has no connections."""


@pytest.mark.parametrize(("age_ms", "is_overdue"), [(4_000, False), (4_000 + 60_000, True)])
def test_a_reader_notices_that_retention_stands_still_while_a_log_is_written_to(
    monkeypatch: pytest.MonkeyPatch, age_ms: int, is_overdue: bool
) -> None:
    story, start = Story(BY_NAME["brief"]), 7
    story.stream.stands(start, int(time.time() * 1000) - age_ms)
    monkeypatch.setattr(clients, "reader", lambda bootstrap: Told(story, start))
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.0)
    roamer = clients.Roamer(story.recorder, "nowhere", [story.stream], seed=1)
    while not roamer.score.problems:
        time.sleep(0.01)
    roamer.stop()
    overdue = [problem for problem in roamer.score.problems if "overdue" in problem]
    assert bool(overdue) is is_overdue, roamer.score.problems
    assert judge(story.recorder.history, []).figures.checks["read your writes"]


def test_what_every_soak_has_to_look_at_are_checks_of_the_verifier() -> None:
    assert set(NEEDED) <= set(CHECKS)


def test_each_bound_is_noticed() -> None:
    fine = Facts(10, 1000, 5, 0, 0, 50, 100, 16, 900, 0, 0, 10, 1000, 3)
    assert Bounds(fine).broken() == []
    worse = (
        {"level_0_segments": 10**4}, {"live_segments": 10**4}, {"live_segment_bytes": 10**9}, {"extents": 10**6},
        {"old_dead_segments": 1}, {"deleted_logs": 1}, {"quarantined": 1}, {"segment_objects": 11},
        {"segment_object_bytes": 10**9},
    )  # fmt: skip
    for change in worse:
        assert len(Bounds(fine._replace(**change)).broken()) == 1, change

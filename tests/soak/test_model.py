"""The soak notices what it is there to notice: every kind of loss is a problem, and what retention claims is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.bounds import Bounds
from tests.soak.model import KINDS, Found, Kind, Stream, problems_of
from tests.soak.places import Facts

NOW_MS = 1_000_000
COUNT = 300
BY_NAME = {kind.name: kind for kind in KINDS}


def stream_of(kind: Kind) -> Stream:
    """Its records are 100 ms apart; the last one is of just now."""
    stream = Stream(kind, 0, seed=7)
    for number in range(COUNT):
        stream.times_ms.append(NOW_MS - 100 * (COUNT - 1 - number))
    stream.acknowledged = COUNT
    return stream


def whole(stream: Stream, start: int = 0) -> list[Found]:
    return [Found(number, *stream.record(number)) for number in range(start, COUNT)]


def compacted(stream: Stream, start: int = 0) -> list[Found]:
    last = set(stream.last_numbers().values())
    return [at for at in whole(stream, start) if at.offset in last and at.value is not None]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_all_that_was_written_is_no_problem(kind: Kind) -> None:
    stream = stream_of(kind)
    assert problems_of(stream, 0, whole(stream), NOW_MS) == []


@pytest.mark.parametrize("name", ["kept", "brief", "trimmed"])
def test_a_hole_in_a_log_that_is_not_compacted_is_a_problem(name: str) -> None:
    stream = stream_of(BY_NAME[name])
    found = [at for at in whole(stream) if at.offset != 150]
    assert problems_of(stream, 0, found, NOW_MS) == [f"{name}-0: 1 records are missing from 150 on"]


def test_a_record_at_anothers_place_is_a_problem() -> None:
    stream = stream_of(BY_NAME["latest"])
    found = [at._replace(offset=at.offset + 1) if at.offset == 5 else at for at in whole(stream)]
    assert any("offset 6 holds" in problem for problem in problems_of(stream, 0, found, NOW_MS))


def test_retention_by_time_may_take_what_is_old_and_nothing_else() -> None:
    stream = stream_of(BY_NAME["brief"])  # 4 s: the last 40 records
    start = COUNT - 41
    assert problems_of(stream, start, whole(stream, start), NOW_MS) == []
    [problem] = problems_of(stream, COUNT - 39, whole(stream, COUNT - 39), NOW_MS)
    assert "taken early" in problem


def test_retention_by_size_leaves_that_size() -> None:
    stream = stream_of(replace(BY_NAME["sized"], retention_bytes=10_000))
    assert problems_of(stream, COUNT - 50, whole(stream, COUNT - 50), NOW_MS) == []
    assert problems_of(stream, COUNT - 10, whole(stream, COUNT - 10), NOW_MS) != []


def test_nothing_is_taken_from_a_log_that_keeps_all_but_what_was_deleted() -> None:
    stream = stream_of(BY_NAME["trimmed"])
    stream.trimmed_to = stream.trim_asked = 20
    assert problems_of(stream, 20, whole(stream, 20), NOW_MS) == []
    assert problems_of(stream, 21, whole(stream, 21), NOW_MS) != []
    assert problems_of(stream, 19, whole(stream, 19), NOW_MS) != []
    stream.trim_asked = 21  # and nobody knows whether that was done
    assert problems_of(stream, 20, whole(stream, 20), NOW_MS) == []
    assert problems_of(stream, 21, whole(stream, 21), NOW_MS) == []


def test_compaction_may_take_all_but_the_last_record_of_each_key() -> None:
    stream = stream_of(BY_NAME["latest"])
    found = compacted(stream)
    assert len(found) < COUNT
    assert problems_of(stream, 0, found, NOW_MS) == []
    [problem] = problems_of(stream, 0, found[1:], NOW_MS)
    assert "ends with None" in problem


def test_an_older_value_that_comes_back_is_a_problem() -> None:
    stream = stream_of(BY_NAME["changing"])
    last = stream.last_numbers()
    dead = [number for number in last.values() if stream.record(number).value is None]
    older = [n for n in range(COUNT) if stream.record(n).key == stream.record(dead[0]).key and n < dead[0]]
    found = sorted([*compacted(stream), Found(older[0], *stream.record(older[0]))])
    assert problems_of(stream, 0, found, NOW_MS) != []


def test_a_log_that_is_compacted_and_deleted_holds_the_last_records_from_its_start_on() -> None:
    stream = stream_of(BY_NAME["both"])  # 6 s: the last 60 records
    found = compacted(stream, COUNT - 61)
    assert problems_of(stream, COUNT - 61, found, NOW_MS) == []
    assert problems_of(stream, COUNT - 61, found[:-1], NOW_MS) != []
    assert problems_of(stream, COUNT - 50, compacted(stream, COUNT - 50), NOW_MS) != []


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

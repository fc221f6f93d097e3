"""Which bytes are chosen for which offsets, where they overlap and where they are missing."""

from __future__ import annotations

import asyncio

from hypothesis import given, strategies as st

from tests.support.log import batch_bytes
from warp._records import parse_header, verify_batch
from warp.clock import SystemClock
from warp.lifecycle.rebuild_plan import (
    Batch,
    Hole,
    ProducerStates,
    Tiling,
    _Covered,
    batches_in,
    empty_batches,
    tile,
)
from warp.lifecycle.rebuild_read import KNOWN_LEVEL, Candidate
from warp.metadata.commit import EXTENT_BYTES_MAX
from warp.objectstore.memory import MemoryStore


def candidate(
    base: int, end: int, key: str = "k", *, level: int = 0, created_ms: int = 0, size: int = 10
) -> Candidate:
    return Candidate(base, end, key, 8, size, 5, level, created_ms)


def tiled(
    *candidates: Candidate, start: int | None = None, end: int = 0, objects: MemoryStore | None = None
) -> Tiling:
    store = objects or MemoryStore(SystemClock(), bytes_max=2**26)
    return asyncio.run(tile(store, candidates, start, end))


def spans(tiling: Tiling) -> list[tuple[int, int, str]]:
    return [(found.base_offset, found.end_offset, found.key) for found in tiling.extents]


def test_newer_segments_win_but_none_that_was_flushed_over_one_that_a_job_wrote() -> None:
    whole = [
        candidate(0, 10, "old", level=1, created_ms=1),
        candidate(0, 10, "new", level=1, created_ms=2),
        candidate(0, 10, "low", level=0, created_ms=3),
    ]
    assert spans(tiled(*whole)) == [(0, 10, "new")]
    assert spans(tiled(*whole, candidate(0, 10, "own", level=KNOWN_LEVEL))) == [(0, 10, "own")]


def test_what_compaction_left_wins_over_what_it_was_made_of_on_whatever_level() -> None:
    # It is small, and begins at the bottom; what it took out is still in a segment that others need.
    before = [candidate(0, 6, "high", level=3, created_ms=1), candidate(6, 10, "mid", level=2, created_ms=2)]
    compacted = candidate(0, 10, "compacted", level=1, created_ms=3)
    flushed = candidate(0, 10, "flushed", level=0, created_ms=4)
    assert spans(tiled(*before, compacted, flushed)) == [(0, 10, "compacted")]


def test_what_nothing_holds_is_a_hole() -> None:
    found = tiled(candidate(5, 10), candidate(12, 15), start=3, end=20)
    assert found.holes == [Hole(3, 5), Hole(10, 12), Hole(15, 20)]
    assert found.lost_offsets == 9
    assert tiled(candidate(5, 10), candidate(12, 15)).holes == [Hole(10, 12)]
    assert tiled(start=0, end=7).holes == [Hole(0, 7)]


def test_what_ends_before_the_start_is_left_out() -> None:
    found = tiled(candidate(0, 5, "a"), candidate(5, 10, "b"), start=7, end=10)
    assert spans(found) == [(5, 10, "b")]
    assert found.holes == []


def test_what_overlaps_in_part_is_cut_between_batches() -> None:
    objects = MemoryStore(SystemClock(), bytes_max=2**20)
    batches = [batch_bytes(records=count) for count in (2, 3, 2, 1)]
    asyncio.run(objects.put("run", [b"WARPSEG\x01", *batches]))
    run = Candidate(10, 18, "run", 8, sum(map(len, batches)), 5, 0, 0)
    found = tiled(run, candidate(11, 13, "merged", level=1), objects=objects)
    # The first two batches share offsets with what is merged.
    assert spans(found) == [(11, 13, "merged"), (15, 18, "run")]
    assert found.holes == [Hole(13, 15)]
    assert found.extents[1].position == 8 + len(batches[0]) + len(batches[1])
    assert found.extents[1].size_bytes == len(batches[2]) + len(batches[3])


def test_long_runs_become_extents_of_bounded_size() -> None:
    objects = MemoryStore(SystemClock(), bytes_max=2**26)
    batches = [batch_bytes(records=2, value=bytes(700_000)) for _ in range(5)]
    asyncio.run(objects.put("run", [b"WARPSEG\x01", *batches]))
    size = sum(map(len, batches))
    assert size > EXTENT_BYTES_MAX
    found = tiled(Candidate(0, 10, "run", 8, size, 5, 0, 0), objects=objects)
    assert [(e.base_offset, e.end_offset) for e in found.extents] == [(0, 4), (4, 8), (8, 10)]
    assert all(extent.size_bytes <= EXTENT_BYTES_MAX for extent in found.extents)


def test_damaged_batches_end_what_can_be_told() -> None:
    good = batch_bytes(records=2)
    assert len(list(batches_in(good + b"\x00" * 80, 8, 0))) == 1
    assert len(list(batches_in(good + good[:-1], 8, 0))) == 1
    assert list(batches_in(b"rubbish", 8, 0)) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=25))
def test_ranges_are_covered_once(ranges: list[tuple[int, int]]) -> None:
    covered, model = _Covered(), set[int]()
    for start, length in ranges:
        wanted = set(range(start, start + length))
        free = {offset for low, high in covered.add(start, start + length) for offset in range(low, high)}
        assert free == wanted - model
        model |= wanted


def test_holes_are_covered_by_batches_without_records() -> None:
    hole = Hole(100, 100 + 2**32)
    parts = list(empty_batches(hole, 7))
    assert [part for part, _ in parts] == [Hole(100, 100 + 2**31), Hole(100 + 2**31, 100 + 2**32)]
    for part, data in parts:
        header = verify_batch(data)
        assert (header.record_count, header.producer_id, header.base_sequence) == (0, -1, -1)
        assert header.base_offset == part.base_offset
        assert header.last_offset_delta == part.end_offset - part.base_offset - 1
        assert parse_header(data).size_bytes == len(data)


def sequenced(first: int, count: int, *, epoch: int = 0, producer: int = 7) -> Batch:
    return Batch(8, 100, 50, 50 + count, 5, producer, epoch, first, count)


def test_a_producers_own_sequences_tell_what_is_repeated() -> None:
    states = ProducerStates()
    assert not states.is_repeated(sequenced(0, 10))
    for first in range(0, 100, 10):
        states.note(sequenced(first, 10))
    assert states.is_repeated(sequenced(90, 10))
    assert states.is_repeated(sequenced(0, 10)), "older than the window of five"
    assert not states.is_repeated(sequenced(100, 10))
    assert not states.is_repeated(sequenced(0, 10, epoch=1))
    assert not states.is_repeated(sequenced(90, 10, producer=8))
    assert not states.is_repeated(sequenced(-1, 10))


def test_states_follow_epochs_and_sequences_that_wrap() -> None:
    states = ProducerStates()
    states.note(sequenced(2**31 - 5, 10))
    assert states.is_repeated(sequenced(2**31 - 5, 10))
    assert not states.is_repeated(sequenced(5, 10))
    states.note(sequenced(0, 1, epoch=3))
    states.note(sequenced(7, 1, epoch=2))
    assert states.epochs[7] == 3
    assert [written.first_sequence for written in states.windows[7]] == [0]

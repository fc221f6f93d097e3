"""Blocks: their memory is used again, within a bound, and never while somebody still looks at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from warp._blocks import Block, free_bytes, joined, set_free_bytes_max

KIB = 1024


@pytest.fixture(autouse=True)
def _empty_pool() -> Iterator[None]:
    set_free_bytes_max(0)
    set_free_bytes_max(1024 * KIB)
    yield
    set_free_bytes_max(32 * 1024 * KIB)


@given(st.lists(st.binary(max_size=300)))
def test_joined_parts_are_the_bytes_one_after_the_other_and_writable(parts: list[bytes]) -> None:
    together = joined([memoryview(part) if len(part) % 2 else part for part in parts])
    assert together == b"".join(parts)
    assert not together.readonly


def test_parts_whose_items_are_not_bytes_are_refused() -> None:
    wide = memoryview(b"12345678").cast("I")
    with pytest.raises(ValueError, match="larger than bytes"):
        joined([wide])


def test_freed_memory_waits_for_the_next_block_of_its_size() -> None:
    block = Block(100 * KIB)
    assert free_bytes() == 0
    del block
    waiting = free_bytes()
    assert waiting >= 100 * KIB
    again = Block(100 * KIB - 1)
    assert free_bytes() == 0
    assert len(again) == 100 * KIB - 1


def test_memory_is_not_free_while_a_view_of_it_lives() -> None:
    view = memoryview(Block(100 * KIB))[10:20]
    other = memoryview(Block(100 * KIB))
    view[:] = b"0123456789"
    other[:] = bytes(len(other))
    assert bytes(view) == b"0123456789"
    assert free_bytes() == 0
    del view
    assert free_bytes() > 0


def test_what_waits_is_bounded_and_the_newest_stay() -> None:
    blocks = [Block(size * KIB) for size in (64, 128, 256, 512, 512, 512)]
    while blocks:
        blocks.pop(0)
        assert free_bytes() <= 1024 * KIB
    last = free_bytes()
    block = Block(512 * KIB)
    assert free_bytes() == last - len(block)


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 16 * 1024 * KIB + 1])
def test_small_and_huge_blocks_go_back_to_the_system(size: int) -> None:
    block = Block(size)
    assert len(memoryview(block)) == size
    del block
    assert free_bytes() == 0


@given(st.integers(64 * KIB, 16 * 1024 * KIB))
def test_a_block_wastes_an_eighth_at_most_and_fits_what_it_is_for(size: int) -> None:
    set_free_bytes_max(32 * 1024 * KIB)
    before = free_bytes()
    block = Block(size)
    del block
    kept = max(free_bytes() - before, 0)
    assert kept == 0 or size <= kept <= size * 9 // 8 + 8
    set_free_bytes_max(0)


def test_a_lower_bound_holds_at_once() -> None:
    blocks = [Block(64 * KIB) for _ in range(4)]
    blocks.clear()
    assert free_bytes() == 256 * KIB
    set_free_bytes_max(100 * KIB)
    assert free_bytes() == 64 * KIB
    with pytest.raises(ValueError, match="negative"):
        set_free_bytes_max(-1)


def test_a_block_has_no_negative_size() -> None:
    with pytest.raises(ValueError, match="negative"):
        Block(-1)

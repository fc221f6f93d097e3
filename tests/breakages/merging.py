"""Breakages of merging: what is read is checked, what has moved is not called lost, and memory has a bound."""

from __future__ import annotations

from tests.breakages.tree import Breakage

MERGE = "tests/unit/lifecycle/test_merge.py"
FAULTS = "tests/unit/lifecycle/test_merge_faults.py"
PLAN = "tests/unit/lifecycle/test_merge_plan.py"
READING = "tests/unit/lifecycle/test_reading.py"

MERGED = (
    Breakage(
        "call-an-extent-lost-that-has-moved",
        "P9",
        "warp/lifecycle/reading.py",
        "            if not is_last and not await self.is_as_read(row):\n",
        "            if not is_last and row.size_bytes == 0:\n",
        (
            f"{READING}::test_an_extent_that_the_index_has_elsewhere_has_moved",
            f"{FAULTS}::test_an_object_that_went_because_its_extents_moved_is_no_damage",
        ),
    ),
    Breakage(
        "merge-batches-whose-offsets-do-not-add-up",
        "P3",
        "warp/lifecycle/reading.py",
        "    if offset > row.end_offset or (start + position == row.size_bytes) != (offset == row.end_offset):\n",
        "    if offset > row.end_offset:\n",
        (f"{READING}::test_an_extent_whose_offsets_do_not_add_up_is_bad",),
    ),
    Breakage(
        "forget-when-batches-without-timestamps-were-committed",
        "P9",
        "warp/lifecycle/reading.py",
        "        untimed_ms = row.max_timestamp_ms if totals.untimed_batches else NO_TIMESTAMP\n",
        "        untimed_ms = NO_TIMESTAMP\n",
        (f"{READING}::test_batches_without_timestamps_are_as_old_as_the_index_says",),
    ),
    Breakage(
        "merge-as-much-at-once-as-memory-holds",
        "P8",
        "warp/lifecycle/merge_plan.py",
        "        is_small = self.size_bytes + row.size_bytes <= limits.output_bytes\n",
        "        is_small = self.size_bytes + row.size_bytes <= limits.memory_bytes\n",
        (
            f"{PLAN}::test_portions_hold_everything_in_order_and_stay_within_their_bounds",
            f"{MERGE}::test_memory_stays_bounded_whatever_lies_there",
        ),
    ),
)

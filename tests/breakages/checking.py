"""Breakages of what proves that nothing is lost or left over: of damage not seen, and of alarms that are none; P9."""

from __future__ import annotations

from tests.breakages.tree import Breakage

ROWS = "tests/unit/lifecycle/test_fsck.py"
OBJECTS = "tests/unit/lifecycle/test_fsck_objects.py"
REPAIRS = "tests/unit/lifecycle/test_fsck_repair.py"
INSPECT = "tests/unit/cli/test_inspect.py"

PROVED = (
    Breakage(
        "read-one-page-of-the-index-and-no-second-one",
        "P9",
        "warp/metadata/fsck_store.py",
        "        self._has_more = len(page) == self._rows_per_page\n",
        "        self._has_more = len(page) > self._rows_per_page\n",
        (f"{ROWS}::test_a_topic_of_many_logs_and_a_log_of_many_extents_are_walked_to_their_ends",),
    ),
    Breakage(
        "take-a-log-without-extents-for-an-empty-one",
        "P9",
        "warp/lifecycle/fsck_logs.py",
        "            if log.start_offset < log.next_offset:\n",
        "            if log.start_offset < log.next_offset and self._size_bytes:\n",
        (f"{ROWS}::test_a_log_without_any_extent_has_a_gap",),
    ),
    Breakage(
        "believe-the-first-look-at-an-object",
        "P9",
        "warp/lifecycle/fsck_segments.py",
        "            if not again.segments or again.segments[0].state != SegmentState.LIVE:\n",
        "            if not again.segments:\n",
        (f"{OBJECTS}::test_a_segment_that_dies_and_goes_while_it_is_looked_at_is_no_finding",),
    ),
    Breakage(
        "miss-the-objects-that-no-listing-has",
        "P9",
        "warp/lifecycle/fsck_objects.py",
        "                if segment.segment_id not in self._listed:\n",
        "                if segment.segment_id not in self._listed and segment.level > 0:\n",
        (f"{OBJECTS}::test_an_object_that_is_gone_is_found",),
    ),
    Breakage(
        "compare-no-offsets-of-merged-batches",
        "P9",
        "warp/lifecycle/fsck_batches.py",
        "        if is_stamped and header.base_offset != next_offset:\n",
        "        if is_stamped and header.base_offset > next_offset + 2:\n",
        (f"{OBJECTS}::test_wrong_offsets_in_the_batches_of_a_merged_segment_are_found",),
    ),
    Breakage(
        "release-what-still-cant-be-read",
        "P9",
        "warp/lifecycle/fsck_segments.py",
        "        if problem:\n            return _quarantined",
        "        if problem and not extent.quarantined:\n            return _quarantined",
        (f"{REPAIRS}::test_a_quarantined_extent_is_released_once_it_can_be_read",),
    ),
    Breakage(
        "raise-largest-timestamps-and-lower-none",
        "P9",
        "warp/metadata/fsck_repairs.py",
        "                if prefix_max_timestamp_ms != largest_ms:\n",
        "                if prefix_max_timestamp_ms < largest_ms:\n",
        (f"{REPAIRS}::test_what_can_be_worked_out_anew_is_as_it_was",),
    ),
    Breakage(
        "lose-the-batch-across-the-border-of-what-was-read",
        "P9",
        "warp/cli/inspect/examine.py",
        "            if at == 0 and length <= len(window):\n",
        "            if length <= len(window):\n",
        (f"{INSPECT}::test_batches_are_salvaged_across_the_borders_of_what_is_read_at_once",),
    ),
)

"""Breakages of merging: what is read is checked, what has moved is not called lost, and memory has a bound."""

from __future__ import annotations

from tests.breakages.tree import Breakage

MERGE = "tests/unit/lifecycle/test_merge.py"
FAULTS = "tests/unit/lifecycle/test_merge_faults.py"
PLAN = "tests/unit/lifecycle/test_merge_plan.py"
READING = "tests/unit/lifecycle/test_reading.py"
SPANS = "tests/unit/lifecycle/test_spans.py"

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
    Breakage(
        "merge-new-records-to-old-ones-for-ever",
        "P9",
        "warp/lifecycle/merge.py",
        "                    names[log_id] = LogName(topic.topic_id, topic.name, partition, span_ms)\n",
        "                    names[log_id] = LogName(topic.topic_id, topic.name, partition)\n",
        (f"{SPANS}::test_a_quiet_log_loses_its_old_records_however_often_it_is_merged",),
    ),
    Breakage(
        "join-small-segments-again-and-again-that-are-full-of-extents",
        "P8",
        "warp/lifecycle/merge.py",
        "        return live_bytes < self._limits.small_segment_bytes and extents < self._limits.swap_rows_max // 2\n",
        "        return live_bytes < self._limits.small_segment_bytes\n",
        (f"{SPANS}::test_small_segments_full_of_extents_are_not_joined_again_and_again",),
    ),
    Breakage(
        "let-times-that-go-back-cut-extents",
        "P8",
        "warp/lifecycle/spans.py",
        "    return next_ms // span_ms > before_ms // span_ms\n",
        "    return next_ms // span_ms != before_ms // span_ms\n",
        (f"{SPANS}::test_times_that_go_back_cut_nothing",),
    ),
    Breakage(
        "let-a-client-cut-extents-by-its-times-without-end",
        "P8",
        "warp/lifecycle/output.py",
        "            span_ms = extent.span_ms if self._span_cuts < SPAN_CUTS_MAX else None\n",
        "            span_ms = extent.span_ms\n",
        (f"{SPANS}::test_a_client_cannot_make_a_row_of_each_of_its_batches",),
    ),
)

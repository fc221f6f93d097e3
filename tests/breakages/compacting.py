"""Breakages of compaction by key: what supersedes what, when tombstones may go, how far a log is clean; P3 and P9."""

from __future__ import annotations

from tests.breakages.tree import Breakage

JOB = "tests/unit/lifecycle/test_compact.py"
ANOMALIES = "tests/unit/lifecycle/test_compact_anomalies.py"
HISTORIES = "tests/unit/lifecycle/test_compact_property.py"
SPANS = "tests/unit/lifecycle/test_spans.py"
LOG = "warp/lifecycle/compact_log.py"
PLAN = "warp/lifecycle/compact_plan.py"

COMPACTED = (
    Breakage(
        "let-tombstones-go-behind-what-cannot-be-read",
        "P9",
        LOG,
        "            self._has_gap |= row.segment_id is not None\n",
        "            self._has_gap |= row.segment_id is None\n",
        (f"{ANOMALIES}::test_an_extent_that_cannot_be_read_is_passed_over_and_stays", HISTORIES),
    ),
    Breakage(
        "call-clean-what-could-not-be-read",
        "P9",
        PLAN,
        "    return max(clean_offset, min(first, reached))\n",
        "    return max(clean_offset, first, reached)\n",
        (f"{ANOMALIES}::test_what_becomes_readable_again_is_compacted_and_does_not_come_back", HISTORIES),
    ),
    Breakage(
        "let-the-unreadable-supersede",
        "P9",
        LOG,
        "                    if self._begun == row.end_offset:\n                        return None\n",
        "",
        (f"{ANOMALIES}::test_records_that_cannot_be_read_hide_nothing",),
    ),
    Breakage(
        "drop-the-last-record-of-a-log",
        "P9",
        LOG,
        "            until_offset=min(until, self._span.last_offset),\n",
        "            until_offset=until,\n",
        (f"{JOB}::test_records_without_key_go_once_a_topic_is_compacted", HISTORIES),
    ),
    Breakage(
        "filter-what-the-map-had-no-room-for",
        "P9",
        LOG,
        "                    self._counters.full_maps += 1\n                    return noted\n",
        "                    self._counters.full_maps += 1\n",
        (f"{JOB}::test_a_full_map_ends_a_pass_and_the_next_one_goes_on_there", HISTORIES),
    ),
    Breakage(
        "add-what-was-joined-meanwhile-a-second-time",
        "P3",
        LOG,
        "            if rows[0].base_offset < position and self.progress.added != self.progress.done:\n",
        "            if rows[0].base_offset < position and self.progress.added == self.progress.done:\n",
        (f"{ANOMALIES}::test_a_merge_across_the_end_of_what_waits_is_noticed", HISTORIES),
    ),
    Breakage(
        "compact-what-is-too-young",
        "P9",
        PLAN,
        "    return next((row for row in rows if row.max_timestamp_ms > bound_ms), None)\n",
        "    return next((row for row in rows if row.max_timestamp_ms < bound_ms), None)\n",
        (f"{JOB}::test_records_younger_than_the_least_lag_stay",),
    ),
    Breakage(
        "compact-new-records-to-old-ones-for-ever",
        "P9",
        "warp/lifecycle/compact_output.py",
        "            span_ms_of(log.topic),\n",
        "",
        (f"{SPANS}::test_a_small_log_loses_its_old_records_though_it_is_compacted_all_the_time",),
    ),
    Breakage(
        "compact-again-and-again-what-was-cut-by-its-time",
        "P8",
        PLAN,
        "        if is_small(row) and is_small(following) and not is_apart:\n",
        "        if is_small(row) and is_small(following):\n",
        (
            f"{SPANS}::test_small_extents_of_different_spans_are_left_apart",
            f"{SPANS}::test_a_pass_leaves_alone_what_earlier_ones_have_cut",
        ),
    ),
)

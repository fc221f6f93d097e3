"""Breakages of what jobs do to the metadata: swaps, trimming, the death of segments; P3 and P9.

That locks are left out is noticed in tests/isolation, which plants that fault itself.
"""

from __future__ import annotations

from tests.breakages.tree import Breakage

LOGS = "tests/unit/metadata/test_life_logs.py"
MODEL = "tests/unit/metadata/test_life_model.py"
SEGMENTS = "tests/unit/metadata/test_life_segments.py"
SWAPS = "tests/unit/metadata/test_swaps.py"

SWAPPED = (
    Breakage(
        "swap-what-is-left-of-a-log",
        "P3",
        "warp/metadata/swaps.py",
        "        if extent is None or not extent.is_as_read(row):\n",
        "        if extent is not None and not extent.is_as_read(row):\n",
        (f"{SWAPS}::test_extents_that_were_trimmed_stay_away", MODEL),
    ),
    Breakage(
        "take-a-row-for-another-that-ends-where-it-does",
        "P3",
        "warp/metadata/swaps.py",
        "        return self.quarantined_segment is None and is_same(self, row)\n",
        "        return self.quarantined_segment is None\n",
        (f"{SWAPS}::test_a_row_that_differs_in_anything_is_another_row",),
    ),
    Breakage(
        "swap-what-is-quarantined",
        "P9",
        "warp/metadata/swaps.py",
        "        return self.quarantined_segment is None and is_same(self, row)\n",
        "        return is_same(self, row)\n",
        (f"{SWAPS}::test_quarantined_extents_are_never_swapped",),
    ),
    Breakage(
        "give-a-new-extent-its-own-time-as-the-largest",
        "P3",
        "warp/metadata/swaps.py",
        "                ends_in.prefix_max_timestamp_ms,\n            )\n",
        "                timestamp_ms,\n            )\n",
        (f"{SWAPS}::test_each_new_extent_takes_the_prefix_maximum_of_the_one_it_ends_in",),
    ),
    Breakage(
        "forget-that-a-swap-was-made",
        "P3",
        "warp/metadata/swaps.py",
        "            swapped = frozenset(await _logs_in(session, known)) & wanted\n",
        "            swapped = frozenset(await _logs_in(session, known)) - wanted\n",
        (f"{SWAPS}::test_a_repeated_swap_is_answered_by_what_has_come_of_it",),
    ),
    Breakage(
        "bring-extents-into-a-segment-that-has-died",
        "P9",
        "warp/metadata/sql/swaps.sql",
        "where s.key = w.key and s.state = 0\n",
        "where s.key = w.key\n",
        (f"{SWAPS}::test_a_later_part_adds_nothing_to_a_segment_that_has_died",),
    ),
    Breakage(
        "insert-the-segment-of-a-later-part-anew",
        "P9",
        "warp/metadata/swaps.py",
        "            if not ids:\n                return SwapResult(frozenset(), wanted)\n",
        "",
        (f"{SWAPS}::test_a_later_part_brings_no_segment_back_that_is_forgotten",),
    ),
    Breakage(
        "insert-segments-that-the-sweep-has-claimed",
        "P9",
        "warp/metadata/swaps.py",
        "        if levels != {segment.key: segment.level for segment in change.segments}:\n",
        "        if not levels:\n",
        (f"{SWAPS}::test_a_claimed_key_refuses_the_swap_as_a_whole",),
    ),
    Breakage(
        "count-the-bytes-that-came-and-not-those-that-went",
        "P9",
        "warp/metadata/swaps.py",
        "        grown[row.log_id] -= row.size_bytes\n",
        "        grown[row.log_id] -= 0\n",
        (f"{SWAPS}::test_a_log_goes_on_growing_after_a_swap",),
    ),
    Breakage(
        "trim-an-extent-in-which-the-log-starts",
        "P9",
        "warp/metadata/sql/life_logs.sql",
        "        where f.log_id = w.log_id and f.end_offset <= w.start_offset\n",
        "        where f.log_id = w.log_id and f.end_offset <= w.start_offset + 5\n",
        (f"{LOGS}::test_what_ends_before_the_start_is_trimmed_a_step_at_a_time", MODEL),
    ),
    Breakage(
        "tell-of-a-log-start-that-went-back",
        "P9",
        "warp/metadata/life_logs.py",
        "max(start_offset, min(starts[log_id], next_offset))",
        "min(starts[log_id], next_offset)",
        (f"{LOGS}::test_starts_move_on_and_never_back_nor_past_the_end",),
    ),
    Breakage(
        "bury-a-segment-that-holds-what-nobody-could-read",
        "P9",
        "warp/metadata/sql/life_segments.sql",
        "        and (select 1 from quarantined_extents q where q.segment_id = w.segment_id limit 1) is null\n",
        "",
        (f"{LOGS}::test_a_segment_with_a_quarantine_is_never_marked_dead",),
    ),
    Breakage(
        "forget-a-segment-whose-object-is-there",
        "P9",
        "warp/metadata/sql/life_segments.sql",
        "where segment_id in (select w.segment_id from rows($1 as w: segment_id bigint)) and state = 2",
        "where segment_id in (select w.segment_id from rows($1 as w: segment_id bigint)) and state > 0",
        (f"{SEGMENTS}::test_dead_segments_go_and_are_forgotten_in_this_order",),
    ),
)

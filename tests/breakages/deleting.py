"""Breakages of what is deleted, and when: nothing that is needed, nothing early, and everything else in the end; P9."""

from __future__ import annotations

from tests.breakages.tree import Breakage

AGES = "tests/unit/lifecycle/test_ages.py"
DEAD = "tests/unit/lifecycle/test_dead.py"
ORPHANS = "tests/unit/lifecycle/test_orphans.py"
PRODUCERS = "tests/unit/lifecycle/test_producer_expiry.py"
RETENTION = "tests/unit/lifecycle/test_retention.py"
TAIL = "tests/unit/log/test_tail.py"

IN_TIME = (
    Breakage(
        "cut-a-log-by-a-size-that-it-had",
        "P9",
        "warp/lifecycle/retention.py",
        "            size_bytes = min(now.size_bytes, walked_bytes) if is_all else now.size_bytes\n",
        "            size_bytes = head.size_bytes\n",
        (f"{RETENTION}::test_a_log_that_shrinks_while_it_is_looked_at_loses_nothing_that_may_stay",),
    ),
    Breakage(
        "let-a-deleted-record-of-the-future-keep-what-follows",
        "P9",
        "warp/lifecycle/retention.py",
        "        start, limit = found, ROWS_FIRST\n",
        "        start, limit = found, 0\n",
        (
            f"{RETENTION}::test_a_record_from_the_future_holds_back_what_follows_until_it_is_gone_itself_and_no_longer",
        ),
    ),
    Breakage(
        "delete-by-time-what-is-compacted-alone",
        "P9",
        "warp/lifecycle/retention.py",
        "            if not topic.deletes or (not has_time and topic.retention_bytes is None):\n",
        "            if not has_time and topic.retention_bytes is None:\n",
        (f"{RETENTION}::test_a_policy_without_delete_keeps_everything_but_what_delete_records_has_deleted",),
    ),
    Breakage(
        "believe-a-clock-that-has-just-jumped-ahead",
        "P9",
        "warp/lifecycle/ages.py",
        "            return min(wall_ms, steady_ms)\n",
        "            return wall_ms\n",
        (
            f"{AGES}::test_a_jump_ahead_that_is_taken_back_was_nothing",
            f"{RETENTION}::test_a_clock_that_is_not_trusted_and_one_that_jumps_delete_nothing_early",
        ),
    ),
    Breakage(
        "let-the-wall-clock-alone-end-the-grace",
        "P9",
        "warp/lifecycle/ages.py",
        "    return now_ms - noted_ms >= wall_s * 1000 and seen_s >= boot_s\n",
        "    return now_ms - noted_ms >= wall_s * 1000\n",
        (f"{DEAD}::test_a_death_noted_by_a_clock_behind_is_no_older_than_it_was_seen",),
    ),
    Breakage(
        "forget-when-the-dead-were-seen-first-as-a-pass-breaks-off",
        "P9",
        "warp/lifecycle/ages.py",
        "            self._known.setdefault(thing, first_s)\n",
        "            self._known.pop(thing, None)\n",
        (f"{AGES}::test_a_pass_that_came_to_no_end_forgets_nothing",),
    ),
    Breakage(
        "note-as-gone-what-could-not-be-deleted",
        "P9",
        "warp/lifecycle/dead.py",
        "                    waiting += [some[middle:], some[:middle]]\n                continue\n",
        "                    waiting += [some[middle:], some[:middle]]\n                    continue\n",
        (f"{DEAD}::test_objects_that_cant_be_deleted_hold_up_no_others_and_are_tried_again_later",),
    ),
    Breakage(
        "delete-by-the-word-of-any-database",
        "P9",
        "warp/lifecycle/dead.py",
        "            if not await self._permit.is_given():\n                return\n",
        "            await self._permit.is_given()\n",
        (f"{DEAD}::test_where_the_bucket_lives_by_other_metadata_nothing_is_deleted",),
    ),
    Breakage(
        "claim-by-the-word-of-any-database",
        "P9",
        "warp/lifecycle/orphans.py",
        "        if not unknown or not await self._permit.is_given():\n",
        "        if not unknown:\n",
        (f"{ORPHANS}::test_where_the_bucket_lives_by_other_metadata_nothing_is_claimed",),
    ),
    Breakage(
        "claim-what-one-listing-shows-as-old",
        "P9",
        "warp/lifecycle/orphans.py",
        "        until_ms = min(old_ms, self._there_ms())\n",
        "        until_ms = old_ms\n",
        (f"{ORPHANS}::test_a_young_object_is_left_alone_and_so_is_one_that_may_be_young",),
    ),
    Breakage(
        "delete-receipts-of-segments-that-live",
        "P9",
        "warp/lifecycle/orphans.py",
        "        if told is not None and not await self._is_any_known(told):\n",
        "        if told is not None:\n",
        (f"{ORPHANS}::test_receipts_go_once_none_of_their_segments_is_known_and_not_within_a_week",),
    ),
    Breakage(
        "expire-producers-by-times-from-before-a-jump",
        "P9",
        "warp/lifecycle/producer_expiry.py",
        "        if not self._is_clock_trusted() or self._time.has_jumped_within(self._expiry_ms / 1000):\n",
        "        if not self._is_clock_trusted():\n",
        (f"{PRODUCERS}::test_a_clock_that_jumps_and_is_set_right_again_forgets_nobody_early",),
    ),
    Breakage(
        "read-from-places-learned-long-ago",
        "P9",
        "warp/log/tail.py",
        "        oldest = self._now() - self._age_s_max\n",
        "        oldest = -math.inf\n",
        (f"{TAIL}::test_what_was_learned_too_long_ago_is_for_the_store_to_tell_again",),
    ),
)

"""Ways to break how jobs are run: whose turn it is, by which rules, how fast, and what becomes of a backlog."""

from __future__ import annotations

from tests.breakages.tree import Breakage

BACKLOG = "tests/unit/lifecycle/test_backlog.py"
JOBS = "tests/unit/cluster/test_jobs.py"
PACE = "tests/unit/lifecycle/test_pace.py"
POLICIES = "tests/unit/test_agent_policies.py"

JOBS_RUN = (
    Breakage(
        "delete-by-defaults-what-nobody-understands",
        "P9",
        "warp/agent_policies.py",
        "topic.logs, deletes=False)",
        "topic.logs)",
        (f"{POLICIES}::test_what_this_release_would_not_take_makes_a_topic_keep_everything",),
    ),
    Breakage(
        "take-no-limit-for-none-at-all",
        "P9",
        "warp/agent_policies.py",
        "return None if number < 0 else number",
        "return number",
        (f"{POLICIES}::test_numbers_are_those_of_the_topic_or_else_of_the_cluster",),
    ),
    Breakage(
        "live-by-the-rules-of-the-first-look",
        "P9",
        "warp/agent_policies.py",
        "if current.by_id is not self._topics or defaults is not self._defaults:",
        "if self._topics is None:",
        (f"{POLICIES}::test_the_rules_follow_the_catalogue_and_are_made_anew_where_they_changed_alone",),
    ),
    Breakage(
        "let-a-large-move-pass-for-nothing",
        "P8",
        "warp/lifecycle/pace.py",
        "self._free_at_s = begins_s + size_bytes / rate",
        "self._free_at_s = begins_s + min(1.0, size_bytes / rate)",
        (f"{PACE}::test_a_move_larger_than_the_rate_is_made_and_the_next_one_waits_for_it",),
    ),
    Breakage(
        "give-producers-no-rest-from-jobs",
        "P8",
        "warp/lifecycle/pace.py",
        "await asyncio.sleep(min(REST_S_MAX, share * RESTS * worked_s))",
        "await asyncio.sleep(0)",
        (f"{PACE}::test_a_step_of_work_is_followed_by_a_rest_beside_producers",),
    ),
    Breakage(
        "save-up-for-as-long-as-it-was-quiet",
        "P8",
        "warp/lifecycle/pace.py",
        "begins_s = max(self._free_at_s, now_s - BURST_S)",
        "begins_s = self._free_at_s",
        (f"{PACE}::test_a_quiet_time_saves_up_for_a_short_burst_alone",),
    ),
    Breakage(
        "hold-producers-back-without-bounds",
        "P7",
        "warp/lifecycle/backlog.py",
        "delay_ms = math.ceil(min(wanted_ms, limits.delay_ms_max))",
        "delay_ms = math.ceil(wanted_ms)",
        (f"{BACKLOG}::test_producers_are_held_back_the_longer_the_more_they_send_and_the_more_waits",),
    ),
    Breakage(
        "tell-of-each-turn-of-the-backlog",
        "P8",
        "warp/lifecycle/backlog.py",
        "elif self._is_told and debt < self._limits.ends_at_debt:",
        "elif self._is_told and not self.is_on:",
        (f"{BACKLOG}::test_the_log_tells_once_that_it_begins_and_once_that_it_ends",),
    ),
    Breakage(
        "count-segments-all-the-time",
        "P8",
        "warp/lifecycle/backlog.py",
        "if began_s < self._rests_until_s:",
        "if began_s < 0:",
        (f"{BACKLOG}::test_a_slow_count_is_not_repeated_soon",),
    ),
    Breakage(
        "end-a-job-for-an-object-store-that-is-away",
        "P6",
        "warp/cluster/jobs.py",
        "except (MetadataError, ObjectStoreError) as error:",
        "except MetadataError as error:",
        (f"{JOBS}::test_a_job_that_fails_is_counted_and_goes_on",),
    ),
    Breakage(
        "leave-the-lease-of-a-pass-that-was-cut-short",
        "P6",
        "warp/cluster/jobs.py",
        "            await self._store.release_leases(held)\n        except",
        "            await self._store.release_leases([])\n        except",
        (f"{JOBS}::test_close_in_the_middle_of_a_pass_releases_the_lease",),
    ),
)

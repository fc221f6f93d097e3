"""Breakages of what several agents on one database promise together; P6."""

from __future__ import annotations

from tests.breakages.tree import Breakage

CLUSTER_JOBS = "tests/unit/cluster/test_jobs.py"
CLUSTER_SLOTS = "tests/unit/cluster/test_cluster_slots.py"
LEASES = "tests/unit/metadata/test_leases.py"
POLICY = "tests/unit/cluster/test_slot_policy.py"

AWAY = (
    f"{CLUSTER_SLOTS}::test_while_the_database_is_away_nobody_is_served_and_then_all_goes_on_with_what_it_had"
)

SLOTS = (
    Breakage(
        "coordinate-after-the-session-has-lapsed",
        "P6",
        "warp/groups/session.py",
        "            if self._policy.session() == self._session:\n",
        "            if self._session is not None:\n",
        (f"{CLUSTER_SLOTS}::test_an_agent_that_was_frozen_serves_nobody_before_it_has_looked",),
    ),
    Breakage(
        "coordinate-again-without-a-look-at-the-leases",
        "P6",
        "warp/groups/session.py",
        "            await self._check()\n",
        "            await asyncio.sleep(0)\n",
        (f"{CLUSTER_SLOTS}::test_who_wakes_while_another_one_is_about_to_take_its_slots_keeps_them",),
    ),
    Breakage(
        "let-members-wait-at-an-agent-whose-session-has-lapsed",
        "P6",
        "warp/groups/runner.py",
        "                if not (group.is_calm or group.is_dead):\n",
        "                if not (group.is_settled or group.is_dead):\n",
        (AWAY,),
    ),
    Breakage(
        "give-members-up-while-the-session-has-lapsed",
        "P6",
        "warp/groups/alarm.py",
        "        if not self._may_fire():\n",
        "        if self._is_paused:\n",
        (f"{CLUSTER_SLOTS}::test_no_member_is_given_up_by_an_agent_whose_session_has_lapsed",),
    ),
    Breakage(
        "go-on-with-members-as-they-were-before-the-lapse",
        "P6",
        "warp/groups/runner.py",
        """\
                    group.restart_sessions(now)
                    self._alarm.set(group_id, group.wake_ms)
        self._alarm.resume()
""",
        """\
                    self._alarm.set(group_id, group.wake_ms)
        self._alarm.resume()
""",
        (AWAY,),
    ),
    Breakage(
        "take-a-slot-whatever-has-happened-since",
        "P6",
        "warp/metadata/sql/leases.sql",
        "where leases.epoch = excluded.epoch - 1 and leases.counter = excluded.counter - 1\n",
        "where leases.epoch = excluded.epoch - 1\n",
        (
            f"{LEASES}::test_a_lease_is_taken_as_it_was_seen_or_not_at_all",
            f"{CLUSTER_SLOTS}::test_who_wakes_while_another_one_is_about_to_take_its_slots_keeps_them",
        ),
    ),
    Breakage(
        "use-leases-that-were-taken-before-the-session-lapsed",
        "P6",
        "warp/groups/loading.py",
        "        if session is None or self._policy.session() != session:\n",
        "        if session is None:\n",
        (f"{CLUSTER_SLOTS}::test_leases_that_were_taken_in_a_session_that_has_lapsed_are_not_used",),
    ),
    Breakage(
        "take-slots-from-an-agent-that-lives",
        "P6",
        "warp/cluster/slot_policy.py",
        "    return state is None or state.holder is None or state.holder not in view.agents\n",
        "    return state is None or state.holder is None or state.holder != view.own\n",
        (POLICY, f"{CLUSTER_SLOTS}::test_agents_that_start_together_share_the_slots"),
    ),
    Breakage(
        "leave-a-slot-to-who-does-not-take-it",
        "P6",
        "warp/cluster/slot_policy.py",
        "        if since_s is None or self._clock.boottime() - since_s < self._patience_s:\n",
        "        if since_s is None or self._clock.boottime() - since_s >= 0:\n",
        (
            POLICY,
            f"{CLUSTER_SLOTS}::test_slots_that_the_one_they_fall_to_does_not_take_are_served_by_another_for_good",
        ),
    ),
    Breakage(
        "hand-slots-over-in-the-middle-of-a-rebalance",
        "P6",
        "warp/groups/loading.py",
        "            if tenure.is_resting or (tenure.is_calm and is_time):\n",
        "            if tenure.is_resting or (tenure.is_loaded and is_time):\n",
        (f"{CLUSTER_SLOTS}::test_a_slot_whose_members_rebalance_stays_until_they_are_done",),
    ),
)

JOBS = (
    Breakage(
        "take-a-job-whoever-was-faster",
        "P6",
        "warp/cluster/jobs.py",
        "        taken = await self._store.take_leases_as_seen({name: now}, view.own)\n",
        "        now = (await self._store.read_leases([name])).get(name)\n"
        "        taken = await self._store.take_leases_as_seen({name: now}, view.own)\n",
        (f"{CLUSTER_JOBS}::test_of_two_that_take_a_job_at_once_one_gets_it",),
    ),
    Breakage(
        "hold-a-job-that-another-has-taken",
        "P6",
        "warp/cluster/jobs.py",
        "        if seat.lease is not None and self._was_taken(seat.lease):\n",
        "        if seat.lease is not None and seat.lease.epoch < 0:\n",
        (
            f"{CLUSTER_JOBS}::test_one_whose_lease_was_taken_before_its_first_pass_sees_so_and_may_take_it_again",
        ),
    ),
    Breakage(
        "leave-a-job-alone-that-is-ones-own-unawares",
        "P6",
        "warp/cluster/jobs.py",
        "            return holder.broker_id == view.own\n",
        "            return False\n",
        (
            f"{CLUSTER_JOBS}::test_a_job_that_is_an_agents_without_its_knowing_is_run_by_it_whomever_it_falls_to",
        ),
    ),
)

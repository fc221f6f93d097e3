"""Breakages of what is promised to consumer groups: committed offsets, and the state of groups; P6 to P8."""

from __future__ import annotations

from tests.breakages.tree import Breakage

BOUNDS = "tests/unit/groups/test_coordinator_bounds.py"
BUGS = "tests/unit/groups/test_coordinator_bugs.py"
COMMITTER = "tests/unit/groups/test_offsets.py"
COORDINATOR = "tests/unit/groups/test_coordinator.py"
EXPIRY = "tests/unit/groups/test_offset_expiry.py"
FAULTS = "tests/unit/groups/test_coordinator_faults.py"
GROUPS = "tests/unit/metadata/test_groups.py"
HISTORIES = "tests/unit/groups/test_offsets_histories.py"
LEASES = "tests/unit/metadata/test_leases.py"
LIMITS = "tests/unit/server/test_limits.py"
MEMBERSHIP = "tests/broker/test_group_connections.py"
OFFSETS = "tests/unit/metadata/test_group_offsets.py"
STATIC = "tests/unit/groups/test_static.py"
STORING = "tests/unit/groups/test_storing.py"
UPKEEP = "tests/unit/groups/test_coordinator_upkeep.py"

COMMITTED = (
    Breakage(
        "write-under-a-lost-lease",
        "P6",
        "warp/metadata/leases.py",
        "    lost = wanted - await _current(session, wanted, statement)\n",
        """\
    held = {lease.name for lease in await _current(session, wanted, statement)}
    lost = {lease for lease in wanted if lease.name not in held}
""",
        (f"{LEASES}::test_no_write_of_a_former_holder_lands",),
    ),
    Breakage(
        "keep-the-first-offset-of-a-batch",
        "P6",
        "warp/metadata/group_offsets.py",
        "                last[key] = row\n",
        "                last.setdefault(key, row)\n",
        (f"{OFFSETS}::test_the_last_of_several_commits_of_a_key_in_one_batch_counts", HISTORIES),
    ),
    Breakage(
        "take-no-offset-that-goes-back",
        "P6",
        "warp/metadata/sql/group_offsets.sql",
        """\
    committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms
""",
        """\
    committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms
where excluded.committed_offset >= group_offsets.committed_offset
""",
        (f"{OFFSETS}::test_a_later_commit_replaces_all_of_an_earlier_one_also_going_back",),
    ),
    Breakage(
        "split-a-commit-as-its-parts-come-up",
        "P6",
        "warp/groups/offsets.py",
        "        self._waiting.extend(parts)\n",
        """\
        self._waiting.append(parts[0])
        asyncio.get_running_loop().call_soon(self._waiting.extend, parts[1:])
""",
        (f"{COMMITTER}::test_the_commits_of_a_group_land_in_their_order",),
    ),
    Breakage(
        "leave-an-unknown-outcome-behind",
        "P6",
        "warp/groups/offsets.py",
        "                if not attempts_left:\n                    raise\n",
        "                if not attempts_left or attempts_left:\n                    raise\n",
        (f"{COMMITTER}::test_an_unknown_outcome_is_resolved_before_anything_that_came_later",),
    ),
    Breakage(
        "lose-members-that-have-not-changed",
        "P6",
        "warp/metadata/groups.py",
        "            [row[:2] for row in members],\n",
        "            [row[:2] for row in members if row[2] == 0],\n",
        (f"{GROUPS}::test_members_that_have_not_changed_are_not_written_again",),
    ),
    Breakage(
        "acknowledge-a-commit-before-it-is-stored",
        "P6",
        "warp/groups/commits.py",
        """\
            errors = answer = await self._committer.commit(OffsetCommit(tenure.lease, group_id, rows))
""",
        """\
            asyncio.ensure_future(self._committer.commit(OffsetCommit(tenure.lease, group_id, rows)))
            await asyncio.sleep(0)
            errors = answer = [ErrorCode.NONE] * len(rows)
""",
        (f"{COORDINATOR}::test_a_reader_waits_for_commits_that_are_under_way", FAULTS),
    ),
    Breakage(
        "read-past-commits-that-are-under-way",
        "P6",
        "warp/groups/commits.py",
        "        await self._wait_for_commits(wanted)\n",
        "",
        (f"{COORDINATOR}::test_a_reader_waits_for_commits_that_are_under_way",),
    ),
    Breakage(
        "remove-a-group-below-its-commits",
        "P6",
        "warp/groups/runner.py",
        "            if isinstance(step.change, Remove) and group_id in tenure.committing:\n",
        "            if isinstance(step.change, Remove) and group_id in tenure.removals:\n",
        (f"{COORDINATOR}::test_a_group_is_removed_after_its_commits_under_way",),
    ),
    Breakage(
        "commit-by-a-generation-that-has-passed",
        "P6",
        "warp/groups/coordinator.py",
        "            is_fresh = asked.done()\n",
        "            is_fresh = True\n",
        (f"{COORDINATOR}::test_a_commit_that_waits_before_the_removal_of_its_group_does_not_bring_it_back",),
    ),
    Breakage(
        "take-members-into-a-group-that-is-being-removed",
        "P6",
        "warp/groups/runner.py",
        "        if tenure is not None and tenure.is_loaded and group_id not in tenure.reaping:\n",
        "        if tenure is not None and tenure.is_loaded:\n",
        (f"{UPKEEP}::test_a_group_that_is_being_removed_for_want_of_offsets_takes_nobody_in",),
    ),
    Breakage(
        "count-the-retention-from-the-commit",
        "P6",
        "warp/groups/offset_expiry.py",
        """\
        has_rested = group.protocol_type == SIMPLE_PROTOCOL_TYPE or group.changed_ms <= until_ms
""",
        """\
        has_rested = group.protocol_type == SIMPLE_PROTOCOL_TYPE or group.changed_ms <= now_ms
""",
        (f"{EXPIRY}::test_a_group_keeps_its_offsets_until_it_has_been_empty_for_so_long",),
    ),
)

MEMBERS = (
    Breakage(
        "reply-before-the-change-is-stored",
        "P6",
        "warp/groups/state.py",
        """\
        self._held = replies
        self._saving_since_ms = now.ticks_ms
        return Step((), change, notes)
""",
        """\
        self._held = []
        self._saving_since_ms = now.ticks_ms
        return Step(replies, change, notes)
""",
        (f"{STORING}::test_generation_is_stored_before_anybody_hears_of_it",),
    ),
    Breakage(
        "store-a-generation-with-its-assignment-only",
        "P6",
        "warp/groups/rebalance.py",
        "        self.store(now, State.PREPARING)\n",
        "        if leader is None:\n            self.store(now, State.PREPARING)\n",
        (f"{STORING}::test_generation_is_stored_before_anybody_hears_of_it",),
    ),
    Breakage(
        "store-the-leader-before-the-assignment",
        "P6",
        "warp/groups/stored.py",
        "    is_assigned = group.state is State.STABLE\n",
        "    is_assigned = group.state in (State.COMPLETING, State.STABLE)\n",
        (f"{STORING}::test_generation_is_stored_without_a_leader_and_with_what_has_not_changed_as_it_was",),
    ),
    Breakage(
        "forget-requests-that-wait-for-a-change",
        "P6",
        "warp/groups/state.py",
        "        for token, request in self._deferred:\n            self.reply(token, refusal(request, error))\n",
        "",
        (f"{STORING}::test_failed_save_sends_everybody_to_find_the_coordinator",),
    ),
    Breakage(
        "lose-replies-at-a-bug",
        "P6",
        "warp/groups/state.py",
        "            Reply(token, refused(answer, error)) for token, answer in (*self._held, *self._replies)\n",
        "            Reply(token, refused(answer, error)) for token, answer in self._held\n",
        (f"{BUGS}::test_a_bug_in_the_middle_of_a_step_leaves_nobody_waiting",),
    ),
    Breakage(
        "store-changes-of-groups-in-the-background",
        "P6",
        "warp/groups/saving.py",
        "            await self._store.save_groups(saves)\n",
        "            asyncio.ensure_future(self._store.save_groups(saves))\n",
        (f"{COORDINATOR}::test_nobody_hears_of_a_generation_before_it_is_stored",),
    ),
    Breakage(
        "take-an-unknown-outcome-of-a-group-for-a-failure",
        "P6",
        "warp/groups/saving.py",
        "                    outcome = Outcome.UNKNOWN\n",
        "                    outcome = Outcome.AWAY\n",
        (f"{FAULTS}::test_where_the_outcome_stays_unknown_the_slot_is_read_anew",),
    ),
    Breakage(
        "settle-by-a-failure-what-may-have-been-done",
        "P6",
        "warp/groups/saving.py",
        "                doubt.is_left = True\n",
        "                doubt.is_left = not attempts_left\n",
        (
            "tests/unit/groups/test_saving.py",
            f"{FAULTS}::test_a_store_that_is_away_after_an_unknown_outcome_has_not_settled_it",
        ),
    ),
    Breakage(
        "go-on-without-the-lease",
        "P6",
        "warp/groups/runner.py",
        """\
            case Outcome.LEASE_LOST:
                self.end(tenure, ErrorCode.NOT_COORDINATOR)
""",
        """\
            case Outcome.LEASE_LOST:
                self._fail(tenure, group, ErrorCode.NOT_COORDINATOR)
""",
        (f"{FAULTS}::test_who_finds_a_lease_lost_when_it_stores_a_group_serves_the_slot_no_more",),
    ),
    Breakage(
        "take-a-slot-back-from-who-has-taken-it",
        "P6",
        "warp/groups/slots.py",
        "        return state is None or state.holder is None or state.holder == self._own\n",
        "        return state is None or state.holder is None or state.holder != self._own\n",
        (f"{FAULTS}::test_two_coordinators_do_not_take_a_slot_from_each_other_in_turns",),
    ),
    Breakage(
        "restore-members-without-sessions",
        "P6",
        "warp/groups/stored.py",
        "        group.roster.add(member)\n        group.renew(member, now)\n",
        "        group.roster.add(member)\n",
        (f"{FAULTS}::test_members_that_do_not_come_back_after_a_restart_are_given_up",),
    ),
    Breakage(
        "give-members-up-for-a-pause-of-the-agent",
        "P6",
        "warp/groups/alarm.py",
        "        if late_ms > self._stall_ms:\n",
        "        if late_ms < 0:\n",
        (f"{COORDINATOR}::test_members_are_not_given_up_when_it_was_the_agent_that_stood_still",),
    ),
    Breakage(
        "answer-heartbeats-without-renewing-sessions",
        "P6",
        "warp/groups/state.py",
        """\
            self.sessions.set(member.member_id, ticks_ms + member.session_timeout_ms)
        return HEARTBEATS[self.state]
""",
        """\
            pass
        return HEARTBEATS[self.state]
""",
        (f"{COORDINATOR}::test_heartbeats_by_the_short_way_renew_the_session",),
    ),
    Breakage(
        "know-an-instance-by-its-name-alone",
        "P7",
        "warp/groups/members.py",
        "            return static if static.member_id == member_id else ErrorCode.FENCED_INSTANCE_ID\n",
        "            return static\n",
        (f"{STATIC}::test_old_id_of_an_instance_is_fenced_everywhere",),
    ),
    Breakage(
        "keep-memory-of-requests-while-members-wait",
        "P8",
        "warp/handlers/groups.py",
        "    return Later(future, build, ends_with_client=True, needs_request=False)\n",
        "    return Later(future, build, ends_with_client=True, needs_request=True)\n",
        (f"{MEMBERSHIP}::test_members_that_wait_hold_no_memory_of_requests",),
    ),
    Breakage(
        "let-frames-behind-a-join-hold-memory",
        "P8",
        "warp/server/connection.py",
        "        if patience.is_hoard(needed_bytes, now_s):\n",
        "        if patience.is_hoard(self.reserved_bytes, now_s):\n",
        (f"{LIMITS}::test_frames_behind_a_member_that_waits_keep_nobody_from_memory_for_long",),
    ),
    Breakage(
        "let-members-in-until-they-hold-too-much",
        "P8",
        "warp/groups/weight.py",
        "        if growth <= 0 or self.total_bytes + growth <= self._bytes_max:\n",
        "        if growth <= 0 or self.total_bytes <= self._bytes_max:\n",
        (f"{BOUNDS}::test_members_of_all_groups_hold_no_more_memory_than_they_may",),
    ),
    Breakage(
        "forget-to-count-requests-that-wait",
        "P8",
        "warp/groups/state.py",
        "            self._deferred_bytes += request_weight(request)\n",
        "            self._deferred_bytes += 0\n",
        (f"{BOUNDS}::test_requests_that_wait_for_a_change_count_as_what_members_hold",),
    ),
    Breakage(
        "remember-every-name-while-the-store-is-away",
        "P8",
        "warp/groups/commits.py",
        "        elif any(error in _UNSURE for error in errors) and len(tenure.unsure) < UNSURE_MAX:\n",
        "        elif any(error in _UNSURE for error in errors):\n",
        (BOUNDS,),
    ),
)

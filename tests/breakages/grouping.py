"""Breakages of what is promised to consumer groups: committed offsets and group state, P6."""

from __future__ import annotations

from tests.breakages.tree import Breakage

COMMITTER = "tests/unit/groups/test_offsets.py"
GROUPS = "tests/unit/metadata/test_groups.py"
HISTORIES = "tests/unit/groups/test_offsets_histories.py"
LEASES = "tests/unit/metadata/test_leases.py"
OFFSETS = "tests/unit/metadata/test_group_offsets.py"

COMMITTED = (
    Breakage(
        "write-under-a-lost-lease",
        "P6",
        "warp/metadata/leases.py",
        "    lost = shared - await _current(session, shared, SHARE_LEASES)\n",
        """\
    held = {lease.name for lease in await _current(session, shared, SHARE_LEASES)}
    lost = {lease for lease in shared if lease.name not in held}
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
)

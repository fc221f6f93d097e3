"""Breakages of who lives in a cluster, and of how long an agent may think so of itself; P6."""

from __future__ import annotations

from tests.breakages.tree import Breakage

AGENTS = "tests/unit/metadata/test_agents.py"
MEMBERSHIP = "tests/unit/cluster/test_membership.py"
OBSERVING = "tests/unit/cluster/test_observing.py"
REGISTRATION = "tests/unit/cluster/test_registration.py"

MEMBERS = (
    Breakage(
        "count-a-session-from-the-answer-to-a-beat",
        "P6",
        "warp/cluster/membership.py",
        "self._session.beaten(rows, observer.own, self._incarnation, sent_s)",
        "self._session.beaten(rows, observer.own, self._incarnation, received_s)",
        (f"{MEMBERSHIP}::test_a_session_counts_from_the_sending_of_a_beat_however_late_its_answer_comes",),
    ),
    Breakage(
        "time-a-session-by-a-clock-that-sleeps-with-the-machine",
        "P6",
        "warp/cluster/membership.py",
        "        return self._session.is_live(self._clock.boottime())\n",
        "        return self._session.is_live(self._clock.monotonic())\n",
        (f"{MEMBERSHIP}::test_a_machine_that_slept_knows_at_once_that_its_session_has_lapsed",),
    ),
    Breakage(
        "tell-nobody-that-a-session-is-back",
        "P6",
        "warp/cluster/membership.py",
        "        if has_changed or is_first or not was_live:\n",
        "        if has_changed or is_first:\n",
        (f"{MEMBERSHIP}::test_subscribers_hear_of_a_session_that_is_back_though_nothing_else_has_changed",),
    ),
    Breakage(
        "count-time-in-which-nobody-could-read",
        "P6",
        "warp/cluster/observing.py",
        "        elif self._is_interrupted:\n",
        "        elif self._is_interrupted and not seen.stillness.still_s:\n",
        (OBSERVING, f"{MEMBERSHIP}::test_an_observer_that_could_not_read_gives_everybody_their_time_anew"),
    ),
    Breakage(
        "count-all-the-time-between-two-looks",
        "P6",
        "warp/cluster/observing.py",
        "        self.still_s += min(max(sent_s - self._until_s, 0.0), self.gap_s)\n",
        "        self.still_s += max(sent_s - self._until_s, 0.0)\n",
        (f"{OBSERVING}::test_time_between_two_looks_counts_for_little",),
    ),
    Breakage(
        "count-stillness-from-the-asking",
        "P6",
        "warp/cluster/observing.py",
        "            self._mark, self._until_s, self.still_s = mark, received_s, 0.0\n",
        "            self._mark, self._until_s, self.still_s = mark, sent_s, 0.0\n",
        (OBSERVING,),
    ),
    Breakage(
        "take-the-living-over-after-a-failed-look",
        "P6",
        "warp/cluster/registration.py",
        "            self._stillness.restart(received_s)\n",
        "            self._stillness.gap_s = self._timeout_s\n",
        (f"{REGISTRATION}::test_time_in_which_the_store_is_away_is_no_stillness",),
    ),
    Breakage(
        "take-a-registration-over-that-has-moved-since",
        "P6",
        "warp/metadata/sql/agents.sql",
        "where name = $1 and incarnation = $2 and counter = $3\n",
        "where name = $1 and incarnation = $2 and counter >= $3\n",
        (f"{AGENTS}::test_a_registration_is_taken_over_only_as_it_was_seen",),
    ),
    Breakage(
        "inherit-the-leases-of-the-process-before",
        "P6",
        "warp/metadata/agents.py",
        "        await _release_leases(session, [seen.broker_id])\n        return BrokerId(row[0])\n",
        "        return BrokerId(row[0])\n",
        (f"{AGENTS}::test_who_takes_over_keeps_the_broker_id_and_holds_nothing",),
    ),
    Breakage(
        "go-on-over-a-database-that-went-back",
        "P6",
        "warp/cluster/session.py",
        "        elif self._counter is not None and rows.counter <= self._counter:\n",
        "        elif self._counter is not None and rows.counter == self._counter:\n",
        (f"{MEMBERSHIP}::test_a_database_that_went_back_in_time_stops_the_agent",),
    ),
    Breakage(
        "forget-the-commit-that-was-acknowledged",
        "P1",
        "warp/cluster/membership.py",
        "        if self._commit is None or self._commit[0] != key:\n",
        "        if self._commit is None:\n",
        (f"{MEMBERSHIP}::test_a_commit_is_looked_for_only_while_it_is_young",),
    ),
    Breakage(
        "leave-discovery-with-the-next-beat",
        "P6",
        "warp/cluster/membership.py",
        "        try:\n            await self.refresh()\n        except MetadataError as error:\n",
        "        try:\n            await asyncio.sleep(0)\n        except MetadataError as error:\n",
        (f"{MEMBERSHIP}::test_an_agent_is_sent_nobody_before_it_serves_nor_when_it_leaves",),
    ),
)

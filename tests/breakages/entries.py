"""Breakages of the catalogue's entries, by which ACLs, credentials and quotas come into force; P10."""

from __future__ import annotations

from tests.breakages.tree import Breakage

CATALOGUE = "tests/unit/cluster/test_catalogue_entries.py"
FEED = "tests/unit/test_agent_security.py"
ROWS = "tests/unit/metadata/test_entries.py"
WATCH = "tests/unit/cluster/test_catalogue_watch.py"

IN_FORCE = (
    Breakage(
        "change-entries-that-have-changed-since-they-were-read",
        "P10",
        "warp/metadata/sql/entries.sql",
        "select version from catalogue_entries where version > $2 and kind = $1 limit 1",
        "select version from catalogue_entries where version > $2 + 1 and kind = $1 limit 1",
        (
            f"{ROWS}::test_a_change_decided_by_old_entries_of_the_kind_is_refused_and_changes_nothing",
            f"{ROWS}::test_a_deletion_makes_decisions_old_as_well",
        ),
    ),
    Breakage(
        "delete-entries-without-a-trace",
        "P10",
        "warp/metadata/sql/entries.sql",
        "update catalogue_entries set value = null, version = $2\nwhere ",
        "delete from catalogue_entries\nwhere $2 > 0 and ",
        (f"{ROWS}::test_what_is_deleted_is_told_to_those_who_knew_it",),
    ),
    Breakage(
        "forget-deletions-that-others-have-not-seen",
        "P10",
        "warp/metadata/entry_rows.py",
        "    are_all = version - known_version > DELETED_VERSIONS\n",
        "    are_all = known_version == 0\n",
        (
            f"{ROWS}::test_deletions_are_forgotten_and_who_may_have_missed_some_is_told_everything",
            f"{CATALOGUE}::test_an_agent_that_was_away_for_long_finds_out_what_is_gone",
        ),
    ),
    Breakage(
        "keep-entries-that-are-gone-from-all",
        "P10",
        "warp/cluster/catalogue_entries.py",
        "        if are_all:\n",
        "        if are_all and found:\n",
        (f"{CATALOGUE}::test_an_agent_that_was_away_for_long_finds_out_what_is_gone",),
    ),
    Breakage(
        "repeat-a-change-that-may-have-been-made",
        "P10",
        "warp/cluster/catalogue.py",
        "            if unsure is not None and are_in_place(entries, unsure):\n",
        "            if unsure is entries:\n",
        (f"{CATALOGUE}::test_a_change_whose_outcome_is_unknown_is_made_once",),
    ),
    Breakage(
        "tell-of-a-change-only-once-it-was-read-again",
        "P10",
        "warp/cluster/catalogue.py",
        "            self._tell_version(version)\n            await self.refresh()\n            return wanted\n",
        "            await self.refresh()\n            self._tell_version(version)\n            return wanted\n",
        (f"{CATALOGUE}::test_others_are_told_of_a_change_though_this_agent_can_not_look_at_it",),
    ),
    Breakage(
        "wait-for-hints",
        "P10",
        "warp/cluster/catalogue.py",
        "        if self._store.is_shared:\n            self._watch.start()\n",
        "        if not self._store.is_shared:\n            self._watch.start()\n",
        (f"{WATCH}::test_entries_are_known_within_a_second_without_hints",),
    ),
    Breakage(
        "look-at-the-catalogue-too-rarely",
        "P10",
        "warp/cluster/catalogue_watch.py",
        "LOOK_INTERVAL_S = 0.5\n",
        "LOOK_INTERVAL_S = 1.5\n",
        (f"{WATCH}::test_entries_are_known_within_a_second_without_hints",),
    ),
    Breakage(
        "let-one-who-fails-keep-a-change-from-the-others",
        "P10",
        "warp/agent_security.py",
        "            except Exception:  # a bug: logged, and the others must not miss what has changed\n",
        "            except ValueError:\n",
        (f"{FEED}::test_one_who_fails_keeps_nothing_from_the_others",),
    ),
)

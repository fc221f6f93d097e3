"""Breakages of what clients may do and see; P10."""

from __future__ import annotations

from tests.breakages.tree import Breakage

TABLE = "tests/broker/test_authorization.py"
NAMES = "tests/broker/test_authorization_names.py"
AUDIT = "tests/unit/security/test_audit.py"

WALK = f"{TABLE}::test_what_a_client_may_do_is_what_acls_say"

ASKED = (
    Breakage(
        "allow-what-nobody-has-named",
        "P10",
        "warp/handlers/context.py",
        "        return authorizer.only_logs\n\n    @property",
        "        return authorizer.only_logs or not is_asked_for\n\n    @property",
        (f"{NAMES}::test_a_list_of_groups_has_those_that_the_client_may_describe",),
    ),
    Breakage(
        "list-every-topic-to-everybody",
        "P10",
        "warp/handlers/access.py",
        "    return [name for name in every if name not in hidden]\n",
        "    return every if hidden else list(every)\n",
        (f"{NAMES}::test_a_list_of_all_topics_leaves_out_what_the_client_may_not_describe",),
    ),
    Breakage(
        "let-who-may-describe-a-topic-commit-offsets-of-it",
        "P10",
        "warp/handlers/group_offsets.py",
        "    names = await _names_of(context, AclOperation.READ, request.topics)\n",
        "    names = await _names_of(context, AclOperation.DESCRIBE, request.topics)\n",
        (WALK,),
    ),
    Breakage(
        "ask-about-the-name-in-the-request-though-it-names-an-id",
        "P10",
        "warp/handlers/access.py",
        "            name = found.name\n",
        "            name = name.strip()\n",
        (f"{TABLE}::test_every_version_is_guarded",),
    ),
    Breakage(
        "say-that-a-topic-is-unknown-to-who-may-not-know",
        "P10",
        "warp/handlers/topics.py",
        "        elif name in hidden:\n",
        "        elif name in hidden and name in catalogue.by_name:\n",
        (f"{NAMES}::test_deleting_tells_the_name_to_an_id_only_to_who_may_know_it",),
    ),
    Breakage(
        "hand-over-what-a-fetch-has-waited-for-whatever-has-happened-since",
        "P10",
        "warp/handlers/fetch.py",
        "        if isinstance(target, LogTarget) and not access.allows(target.topic):\n",
        "        if isinstance(target, LogTarget) and target.topic is None:\n",
        (f"{NAMES}::test_a_fetch_that_waits_hands_nothing_over_to_who_may_not_read_any_more",),
    ),
    Breakage(
        "let-one-client-fill-the-audit-log",
        "P10",
        "warp/security/audit.py",
        "        who = asker.principal, asker.host\n",
        '        who = asker.principal, f"{asker.host} {self._lines}"\n',
        (f"{AUDIT}::test_a_flood_by_one_does_not_hide_another",),
    ),
)

"""Breakages of what ACLs come to, and of how soon; P10."""

from __future__ import annotations

from tests.breakages.tree import Breakage

RULES = "tests/unit/security/test_acl_authorizer.py"
ORACLE = "tests/unit/security/test_acl_oracle.py"
BROKER = "tests/broker/test_acls.py"

DECIDED = (
    Breakage(
        "deny-what-an-operation-would-imply",
        "P10",
        "warp/security/acl_index.py",
        "        return bits << DENY_SHIFT\n",
        "        return (bits | (1 << _IMPLIED[operation] if operation in _IMPLIED else 0)) << DENY_SHIFT\n",
        (f"{RULES}::test_rules_come_to",),
    ),
    Breakage(
        "let-a-denial-of-one-name-dominate-a-prefix",
        "P10",
        "warp/security/acl_index.py",
        "            any(allows_beginning(text) for text, _ in patterns.prefixed.items())\n",
        "            any(allows(text) for text, _ in patterns.prefixed.items())\n",
        (f"{RULES}::test_some_resource_is_writable_unless_every_permission_is_dominated",),
    ),
    Breakage(
        "leave-prefixes-hanging-on-one-that-is-gone",
        "P10",
        "warp/security/acl_index.py",
        "        self._hang(place, text, removed, removed.parent)\n",
        "",
        (f"{ORACLE}::test_prefixes_are_found_whatever_came_and_went",),
    ),
    Breakage(
        "take-an-ipv4-client-on-an-ipv6-socket-for-somebody-else",
        "P10",
        "warp/security/acl.py",
        "    return _plain(Network(address.version, address.max_prefixlen, int(address)))\n",
        "    return Network(address.version, address.max_prefixlen, int(address))\n",
        (f"{RULES}::test_rules_hold_at_their_hosts",),
    ),
    Breakage(
        "forget-of-a-prefix-nothing-but-its-own-name",
        "P10",
        "warp/security/acl_authorizer.py",
        "            if acl.pattern == AclPatternType.LITERAL and acl.name != ANYTHING:\n",
        "            if acl.name != ANYTHING:\n",
        (f"{RULES}::test_a_change_is_in_force_in_the_next_decision",),
    ),
    Breakage(
        "remember-whether-some-resource-may-be-written",
        "P10",
        "warp/security/acl_authorizer.py",
        "            subject.some.clear()\n",
        "",
        (f"{RULES}::test_a_change_is_in_force_in_the_next_decision",),
    ),
    Breakage(
        "go-on-with-the-acls-that-a-client-came-with",
        "P10",
        "warp/security/acl_authorizer.py",
        "            subject.own = own\n",
        "            subject.own = subject.own or None\n",
        (f"{RULES}::test_a_change_is_in_force_in_the_next_decision",),
    ),
    Breakage(
        "let-the-first-acl-of-a-topic-concern-nobody-else",
        "P10",
        "warp/security/acl_authorizer.py",
        "        everybody = principal == EVERYBODY or self._allow_if_no_acl\n",
        "        everybody = principal == EVERYBODY\n",
        (f"{RULES}::test_without_an_acl_about_a_resource_everybody_may_where_that_is_set",),
    ),
    Breakage(
        "tell-two-clients-that-they-deleted-the-same-acl",
        "P10",
        "warp/handlers/acls.py",
        "        changes = [EntryChange(key, None) for key in acls if key in entries]\n",
        "        changes = [EntryChange(key, None) for key in acls]\n",
        (f"{BROKER}::test_what_somebody_else_has_deleted_meanwhile_is_not_told_as_deleted",),
    ),
)

"""What ACLs come to: the rules one by one, super users, the mode that only logs, and what is remembered."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from warp.metadata.entries import EntryChange
from warp.protocol.types import (
    AclOperation as Operation,
    AclPatternType as Pattern,
    AclPermissionType as Permission,
    AclResourceType as Resource,
)
from warp.security import acl_authorizer
from warp.security.acl import Acl, acl_key
from warp.security.acl_authorizer import NAME_CHARACTERS_MAX, AclAuthorizer
from warp.security.authorizer import ALL_OPERATIONS, CLUSTER_NAME, OPEN
from warp.security.principal import ANONYMOUS, Principal, parse_principal

ALICE = Principal("User", "alice")
BOB = Principal("User", "bob")
HOST = "10.0.0.1"


def acl(text: str) -> Acl:
    """`allow User:alice READ TOPIC orders [from HOST]`; a name that ends in `...` is a prefix."""
    permission, principal, operation, resource, name, *rest = text.split()
    return Acl(
        Resource[resource],
        Pattern.PREFIXED if name.endswith("...") else Pattern.LITERAL,
        name.removesuffix("..."),
        principal,
        rest[1] if rest else "*",
        Operation[operation],
        Permission[permission.upper()],
    )


def authorizer(*texts: str, **settings: object) -> AclAuthorizer:
    made = AclAuthorizer(**settings)  # type: ignore[arg-type]
    come(made, *texts)
    return made


def come(to: AclAuthorizer, *texts: str) -> None:
    changes = [EntryChange(acl_key(acl(text)), "") for text in texts]
    to.entries_changed(dict.fromkeys([*to.acls, *(change.key for change in changes)], ""), changes)


def go(to: AclAuthorizer, *texts: str) -> None:
    keys = [acl_key(acl(text)) for text in texts]
    left = {key: "" for key in to.acls if key not in keys}
    to.entries_changed(left, [EntryChange(key, None) for key in keys])


def may(asked: AclAuthorizer, question: str, principal: Principal = ALICE, host: str = HOST) -> bool:
    """`READ TOPIC orders`."""
    operation, resource, name = question.split()
    return asked.permits(principal, host, Operation[operation], Resource[resource], name)


def some(asked: AclAuthorizer, question: str, principal: Principal = ALICE, host: str = HOST) -> bool:
    """`WRITE TOPIC`."""
    operation, resource = question.split()
    return asked.permits_some(principal, host, Operation[operation], Resource[resource])


@pytest.mark.parametrize(
    ("rules", "question", "expected"),
    [
        ([], "READ TOPIC orders", False),
        (["allow User:alice READ TOPIC orders"], "READ TOPIC orders", True),
        (["allow User:alice READ TOPIC orders"], "WRITE TOPIC orders", False),
        (["allow User:alice READ TOPIC orders"], "READ TOPIC order", False),
        (["allow User:alice READ TOPIC orders"], "READ TOPIC orders2", False),
        (["allow User:alice READ TOPIC orders"], "READ GROUP orders", False),
        (["allow User:bob READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:alic READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow Group:alice READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:ALICE READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:* READ TOPIC orders"], "READ TOPIC orders", True),
        (["allow Group:* READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:al* READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:alice ALL TOPIC orders"], "ALTER_CONFIGS TOPIC orders", True),
        (["allow User:alice ALL TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (["allow User:alice READ TOPIC *"], "READ TOPIC orders", True),
        (["allow User:alice READ TOPIC *"], "READ GROUP orders", False),
        (["allow User:alice READ TOPIC ord*"], "READ TOPIC orders", False),
        (["allow User:alice READ TOPIC ord..."], "READ TOPIC orders", True),
        (["allow User:alice READ TOPIC ord..."], "READ TOPIC ord", True),
        (["allow User:alice READ TOPIC ord..."], "READ TOPIC or", False),
        (["allow User:alice READ TOPIC *..."], "READ TOPIC orders", False),
        (["allow User:alice READ TOPIC *..."], "READ TOPIC *orders", True),
        # What is implied.
        (["allow User:alice READ TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (["allow User:alice WRITE TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (["allow User:alice DELETE TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (["allow User:alice ALTER TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (["allow User:alice CREATE TOPIC orders"], "DESCRIBE TOPIC orders", False),
        (["allow User:alice ALTER_CONFIGS TOPIC orders"], "DESCRIBE TOPIC orders", False),
        (["allow User:alice ALTER_CONFIGS TOPIC orders"], "DESCRIBE_CONFIGS TOPIC orders", True),
        (["allow User:alice ALTER TOPIC orders"], "DESCRIBE_CONFIGS TOPIC orders", False),
        (["allow User:alice DESCRIBE TOPIC orders"], "READ TOPIC orders", False),
        # Denials win, and imply nothing.
        (["allow User:alice ALL TOPIC orders", "deny User:alice READ TOPIC orders"], "READ TOPIC orders", False),
        (["allow User:alice ALL TOPIC orders", "deny User:alice READ TOPIC orders"], "WRITE TOPIC orders", True),
        (["allow User:alice READ TOPIC orders", "deny User:* ALL TOPIC *"], "READ TOPIC orders", False),
        (["allow User:alice READ TOPIC orders", "deny User:* READ TOPIC or..."], "READ TOPIC orders", False),
        (["allow User:alice READ TOPIC orders", "deny User:bob ALL TOPIC *"], "READ TOPIC orders", True),
        (["allow User:alice READ TOPIC orders", "deny User:* ALL GROUP *"], "READ TOPIC orders", True),
        (["allow User:alice READ TOPIC orders", "deny User:alice READ TOPIC orders"], "DESCRIBE TOPIC orders", True),
        (
            ["allow User:alice READ TOPIC orders", "deny User:alice DESCRIBE TOPIC orders"],
            "DESCRIBE TOPIC orders",
            False,
        ),
        (
            ["allow User:alice READ TOPIC orders", "deny User:alice DESCRIBE TOPIC orders"],
            "READ TOPIC orders",
            True,
        ),
        (["allow User:alice ALTER CLUSTER kafka-cluster"], "ALTER CLUSTER kafka-cluster", True),
    ],
)  # fmt: skip
def test_rules_come_to(rules: list[str], question: str, expected: bool) -> None:
    asked = authorizer(*rules)
    assert may(asked, question) is expected
    operation, resource, name = question.split()
    bits = asked.operations(ALICE, HOST, Resource[resource], name)
    assert bool(bits >> Operation[operation] & 1) is expected


@pytest.mark.parametrize(
    ("rule_host", "client_host", "expected"),
    [
        ("*", "10.0.0.1", True),
        ("*", "", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "10.0.0.10", False),
        ("10.0.0.1", "", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "a00::1", False),
        ("::1", "[::1]", True),
        ("0:0:0:0:0:0:0:1", "::1", True),
        ("2001:db8::/32", "2001:db8:1::9", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("::/0", "10.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
    ],
)
def test_rules_hold_at_their_hosts(rule_host: str, client_host: str, expected: bool) -> None:
    allowing = authorizer(f"allow User:alice READ TOPIC orders from {rule_host}")
    assert may(allowing, "READ TOPIC orders", host=client_host) is expected
    denying = authorizer(
        "allow User:alice READ TOPIC orders", f"deny User:alice READ TOPIC orders from {rule_host}"
    )
    assert may(denying, "READ TOPIC orders", host=client_host) is not expected


def test_one_host_written_in_two_ways_holds_until_both_are_gone() -> None:
    rules = [
        "allow User:alice READ TOPIC orders from 10.0.0.1",
        "allow User:alice READ TOPIC orders from 10.0.0.1/32",
    ]
    asked = authorizer(*rules)
    go(asked, rules[0])
    assert may(asked, "READ TOPIC orders")
    go(asked, rules[1])
    assert not may(asked, "READ TOPIC orders")


def test_super_users_may_do_everything_whatever_denies_it() -> None:
    asked = authorizer("deny User:* ALL TOPIC *", super_users=[ALICE, parse_principal("User:a:b")])
    assert may(asked, "READ TOPIC orders")
    assert may(asked, "ALTER CLUSTER kafka-cluster")
    assert some(asked, "WRITE TOPIC")
    assert asked.operations(ALICE, HOST, Resource.TOPIC, "orders") == ALL_OPERATIONS
    assert may(asked, "READ TOPIC orders", Principal("User", "a:b"))
    assert not may(asked, "READ TOPIC orders", BOB)
    assert not may(asked, "READ TOPIC orders", Principal("Group", "alice"))


def test_without_an_acl_about_a_resource_everybody_may_where_that_is_set() -> None:
    asked = authorizer(
        "allow User:bob READ TOPIC orders", "allow User:bob READ TOPIC pay...", allow_if_no_acl=True
    )
    assert not may(asked, "READ TOPIC orders")
    assert not may(asked, "READ TOPIC payments")
    assert may(asked, "WRITE TOPIC other")
    assert may(asked, "READ GROUP orders")
    assert some(asked, "WRITE TOPIC")
    come(asked, "allow User:bob READ TOPIC other")
    assert not may(asked, "WRITE TOPIC other")
    come(asked, "deny User:bob READ TOPIC *")
    assert not some(asked, "WRITE TOPIC")
    assert not may(asked, "WRITE TOPIC yet-another")
    go(
        asked,
        "allow User:bob READ TOPIC other",
        "deny User:bob READ TOPIC *",
        "allow User:bob READ TOPIC orders",
    )
    assert may(asked, "WRITE TOPIC other")
    assert may(asked, "WRITE TOPIC orders")


def test_an_authorizer_that_only_logs_allows_what_it_does_not_permit() -> None:
    asked = authorizer("deny User:alice ALL TOPIC orders", only_logs=True)
    assert asked.only_logs
    assert asked.allows(ALICE, HOST, Operation.READ, Resource.TOPIC, "orders")
    assert not asked.permits(ALICE, HOST, Operation.READ, Resource.TOPIC, "orders")
    assert asked.allows_some(ALICE, HOST, Operation.WRITE, Resource.TOPIC)
    assert not asked.permits_some(ALICE, HOST, Operation.WRITE, Resource.TOPIC)
    assert asked.operations(ALICE, HOST, Resource.TOPIC, "orders") == ALL_OPERATIONS


def test_one_that_enforces_allows_what_it_permits() -> None:
    asked = authorizer("allow User:alice WRITE TOPIC orders")
    assert asked.allows(ALICE, HOST, Operation.WRITE, Resource.TOPIC, "orders")
    assert not asked.allows(BOB, HOST, Operation.WRITE, Resource.TOPIC, "orders")
    assert asked.allows_some(ALICE, HOST, Operation.WRITE, Resource.TOPIC)
    assert not asked.allows_some(BOB, HOST, Operation.WRITE, Resource.TOPIC)
    bits = asked.operations(ALICE, HOST, Resource.TOPIC, "orders")
    assert bits == 1 << Operation.WRITE | 1 << Operation.DESCRIBE


def test_without_authorization_everybody_may_do_everything() -> None:
    assert not OPEN.is_on
    assert OPEN.allows(ANONYMOUS, "", Operation.ALTER, Resource.CLUSTER, CLUSTER_NAME)
    assert OPEN.permits_some(ANONYMOUS, "", Operation.WRITE, Resource.TOPIC)
    for operation in Operation:
        is_one = operation >= Operation.ALL
        assert bool(OPEN.operations(ANONYMOUS, "", Resource.TOPIC, "x") >> operation & 1) is is_one


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], False),
        (["allow User:alice WRITE TOPIC orders"], True),
        (["allow User:alice READ TOPIC orders"], False),
        (["allow User:alice ALL TOPIC orders"], True),
        (["allow User:* WRITE TOPIC orders"], True),
        (["allow User:bob WRITE TOPIC orders"], False),
        (["allow User:alice WRITE GROUP orders"], False),
        (["allow User:alice WRITE TOPIC orders from 10.0.0.2"], False),
        (["allow User:alice WRITE TOPIC orders from 10.0.0.0/24"], True),
        (["allow User:alice WRITE TOPIC *"], True),
        (["allow User:alice WRITE TOPIC ord..."], True),
        # Dominated: everything, the same literal, a prefix of it.
        (["allow User:alice WRITE TOPIC *", "deny User:alice WRITE TOPIC *"], False),
        (["allow User:alice WRITE TOPIC orders", "deny User:* ALL TOPIC *"], False),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice WRITE TOPIC orders"], False),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice WRITE TOPIC ord..."], False),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice WRITE TOPIC orders..."], False),
        (["allow User:alice WRITE TOPIC ord...", "deny User:alice WRITE TOPIC ord..."], False),
        (["allow User:alice WRITE TOPIC orders...", "deny User:alice ALL TOPIC ord..."], False),
        # Not dominated.
        (["allow User:alice WRITE TOPIC *", "deny User:alice WRITE TOPIC ord..."], True),
        (["allow User:alice WRITE TOPIC ord...", "deny User:alice WRITE TOPIC orders..."], True),
        (["allow User:alice WRITE TOPIC ord...", "deny User:alice WRITE TOPIC ord"], True),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice WRITE TOPIC orders2"], True),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice READ TOPIC *"], True),
        (["allow User:alice WRITE TOPIC orders", "deny User:bob WRITE TOPIC *"], True),
        (["allow User:alice WRITE TOPIC orders", "deny User:alice WRITE TOPIC * from 10.0.0.2"], True),
        (
            [
                "allow User:alice WRITE TOPIC orders",
                "deny User:alice WRITE TOPIC orders",
                "allow User:* WRITE TOPIC payments",
            ],
            True,
        ),
    ],
)  # fmt: skip
def test_some_resource_is_writable_unless_every_permission_is_dominated(
    rules: list[str], expected: bool
) -> None:
    assert some(authorizer(*rules), "WRITE TOPIC") is expected


def test_some_cluster_is_the_cluster() -> None:
    asked = authorizer("allow User:alice IDEMPOTENT_WRITE CLUSTER kafka-cluster")
    assert some(asked, "IDEMPOTENT_WRITE CLUSTER")
    assert not some(asked, "ALTER CLUSTER")
    open_one = authorizer("allow User:bob ALTER CLUSTER kafka-cluster", allow_if_no_acl=True)
    assert not some(open_one, "ALTER CLUSTER")


def test_users_with_strange_names_are_told_apart() -> None:
    names = ["CN=a, O=b", "a:b", "a", "a\0", "a\n", "\U0001f600", "é", "e\u0301"]
    for name in names:
        one = Acl(Resource.TOPIC, Pattern.LITERAL, "t", f"User:{name}", "*", Operation.READ, Permission.ALLOW)
        asked = AclAuthorizer()
        asked.entries_changed({}, [EntryChange(acl_key(one), "")])
        allowed = [other for other in names if may(asked, "READ TOPIC t", Principal("User", other))]
        assert allowed == [name]


def test_a_change_is_in_force_in_the_next_decision() -> None:
    asked = authorizer()
    for rule in (
        "allow User:alice READ TOPIC orders",
        "allow User:alice READ TOPIC ord...",
        "allow User:alice READ TOPIC *",
        "allow User:* READ TOPIC orders",
    ):
        assert not may(asked, "READ TOPIC orders")
        assert not some(asked, "READ TOPIC")
        come(asked, rule)
        assert may(asked, "READ TOPIC orders")
        assert some(asked, "READ TOPIC")
        go(asked, rule)


def test_a_change_about_one_topic_costs_no_other_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = authorizer("allow User:alice READ TOPIC *", "allow User:bob READ TOPIC *")
    topics = ("orders", "payments")
    decided = []
    decide = AclAuthorizer._decide

    def counted(self: AclAuthorizer, subject: Any, resource: Resource, name: str) -> int:
        who = next(principal for principal, hosts in self._subjects.items() if subject in hosts.values())
        decided.append((who, name))
        return decide(self, subject, resource, name)

    monkeypatch.setattr(AclAuthorizer, "_decide", counted)

    def ask_all() -> list[tuple[Principal, str]]:
        decided.clear()
        for who in (ALICE, BOB):
            for topic in topics:
                assert may(asked, f"READ TOPIC {topic}", who)
        return list(decided)

    assert len(ask_all()) == 4
    assert ask_all() == []
    come(asked, "allow User:alice READ TOPIC orders")
    assert ask_all() == [(ALICE, "orders")]
    come(asked, "allow User:alice READ TOPIC pay...")
    assert ask_all() == [(ALICE, "orders"), (ALICE, "payments")]
    come(asked, "deny User:* WRITE TOPIC payments")
    assert ask_all() == [(ALICE, "payments"), (BOB, "payments")]
    come(asked, "deny User:* WRITE GROUP payments")
    assert ask_all() == []


def test_many_changes_for_many_clients_are_forgotten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl_authorizer, "VISITS_MAX", 3)
    asked = authorizer()
    for host in ("10.0.0.1", "10.0.0.2"):
        assert not may(asked, "READ TOPIC orders", host=host)
    come(asked, "allow User:alice READ TOPIC orders", "allow User:bob READ TOPIC orders")
    assert not asked._subjects
    for who in (ALICE, BOB):
        assert may(asked, "READ TOPIC orders", who)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl_authorizer, "SUBJECTS_MAX", 3)
    asked = authorizer("allow User:alice READ TOPIC *", decisions_max=5)

    def remembered() -> tuple[int, int]:
        subjects = [subject for hosts in asked._subjects.values() for subject in hosts.values()]
        return len(subjects), sum(len(names) for subject in subjects for names in subject.granted)

    for number in range(20):
        assert may(asked, f"READ TOPIC t{number}")
        assert remembered()[1] <= 5
    for number in range(20):
        assert may(asked, "READ TOPIC t", host=f"10.0.0.{number}")
        assert not may(asked, "READ TOPIC t", Principal("User", str(number)))
        assert remembered()[0] <= 3
        assert remembered()[1] <= 5
    before = remembered()
    assert may(asked, "READ TOPIC " + "n" * (NAME_CHARACTERS_MAX + 1), host="10.0.0.19")
    assert remembered()[1] <= before[1]


def test_an_entry_that_cannot_be_read_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    asked = authorizer("allow User:alice READ TOPIC orders")
    with caplog.at_level(logging.ERROR):
        asked.entries_changed({}, [EntryChange('[2,9,"x"]', ""), EntryChange("[", "")])
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "an ACL is not in force" in caplog.text
    assert len(asked.acls) == 1
    asked.entries_changed({}, [EntryChange("[", None)])
    assert may(asked, "READ TOPIC orders")


def test_an_entry_that_cannot_be_read_keeps_no_other_from_being_in_force() -> None:
    asked = authorizer()
    come(asked, "allow User:alice READ TOPIC orders")
    deny = '[2,3,"orders","User:alice","*",3,2]'
    asked.entries_changed(
        {}, [EntryChange('[2,3,["orders"],"User:alice","*",3,3]', ""), EntryChange(deny, "")]
    )
    assert not may(asked, "READ TOPIC orders")


def test_being_told_twice_changes_nothing() -> None:
    rule = "allow User:alice READ TOPIC orders"
    asked = authorizer(rule, rule)
    come(asked, rule)
    go(asked, rule)
    assert not may(asked, "READ TOPIC orders")
    go(asked, rule)
    assert not asked.acls

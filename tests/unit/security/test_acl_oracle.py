"""The index and its remembered decisions, against the rules as they are written down, over random ACLs that change."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from tests.unit.security.acl_oracle import Oracle
from warp.metadata.entries import EntryChange
from warp.protocol.types import (
    AclOperation as Operation,
    AclPatternType as Pattern,
    AclPermissionType as Permission,
    AclResourceType as Resource,
)
from warp.security.acl import LEGAL_OPERATIONS, Acl, acl_key
from warp.security.acl_authorizer import CHANGES_SINGLED_OUT_MAX, AclAuthorizer
from warp.security.acl_index import PrefixMap
from warp.security.principal import Principal

NAMES = ("a", "ab", "abc", "abd", "b", "ba", "*", "*a", "c")
OPERATIONS = (
    Operation.ALL,
    Operation.READ,
    Operation.WRITE,
    Operation.DESCRIBE,
    Operation.ALTER_CONFIGS,
    Operation.DESCRIBE_CONFIGS,
)
ASKED = tuple(operation for operation in Operation if operation > Operation.ALL)
PRINCIPALS = ("User:alice", "User:bob", "User:*", "Group:alice")
HOSTS = ("*", "*", "10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "0.0.0.0/0", "::1", "::/0", "fe80::/10")
CLIENTS = ("10.0.0.1", "10.9.9.9", "11.0.0.1", "::1", "fe80::9", "::ffff:10.0.0.1", "")
RESOURCES = (Resource.TOPIC, Resource.TOPIC, Resource.GROUP, Resource.CLUSTER)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    resource = draw(st.sampled_from(RESOURCES))
    is_cluster = resource == Resource.CLUSTER
    operations = [one for one in OPERATIONS if one == Operation.ALL or one in LEGAL_OPERATIONS[resource]]
    return Acl(
        resource,
        draw(st.sampled_from((Pattern.LITERAL, Pattern.PREFIXED))),
        "kafka-cluster" if is_cluster else draw(st.sampled_from(NAMES)),
        draw(st.sampled_from(PRINCIPALS)),
        draw(st.sampled_from(HOSTS)),
        draw(st.sampled_from(operations)),
        draw(st.sampled_from((Permission.ALLOW, Permission.ALLOW, Permission.DENY))),
    )


questions = st.tuples(
    st.sampled_from([Principal("User", "alice"), Principal("User", "bob"), Principal("Group", "alice")]),
    st.sampled_from(CLIENTS),
    st.sampled_from(ASKED),
    st.sampled_from(RESOURCES),
    st.sampled_from([*NAMES, "abcd", "kafka-cluster", "", "n" * 300]),
)
steps = st.lists(st.lists(acls(), max_size=8), min_size=1, max_size=5)
"""Each toggles its ACLs: those that are there go, the others come."""


@settings(max_examples=400, deadline=None)
@given(
    steps,
    st.lists(questions, min_size=1, max_size=10),
    st.booleans(),
    st.sampled_from([1, 3, 1000]),
)
def test_decisions_are_those_of_the_rules_after_every_change(
    changes: Sequence[Sequence[Acl]],
    asked: Sequence[tuple[Principal, str, Operation, Resource, str]],
    allow_if_no_acl: bool,
    decisions_max: int,
) -> None:
    authorizer = AclAuthorizer(allow_if_no_acl=allow_if_no_acl, decisions_max=decisions_max)
    there: dict[str, str] = {}
    for toggled in changes:
        told = []
        for acl in toggled:
            key = acl_key(acl)
            value = "" if there.pop(key, None) is None else None
            if value is not None:
                there[key] = value
            told.append(EntryChange(key, value))
        authorizer.entries_changed(there, told)
        assert set(authorizer.acls) == set(there)
        oracle = Oracle(list(authorizer.acls.values()), allow_if_no_acl=allow_if_no_acl)
        # Twice, so that the second answers come from memory.
        for principal, host, operation, resource, name in [*asked, *asked]:
            expected = oracle.permits(principal, host, operation, resource, name)
            assert authorizer.permits(principal, host, operation, resource, name) == expected
            bits = authorizer.operations(principal, host, resource, name)
            assert bool(bits >> operation & 1) == expected
            some = oracle.permits_some(principal, host, operation, resource)
            assert authorizer.permits_some(principal, host, operation, resource) == some


@settings(deadline=None)
@given(st.lists(questions, min_size=1, max_size=10), st.lists(acls(), min_size=1, max_size=3))
def test_many_changes_at_once_are_in_force_too(
    asked: Sequence[tuple[Principal, str, Operation, Resource, str]], some: Sequence[Acl]
) -> None:
    many = [some[0]._replace(resource=Resource.TOPIC, name=f"n{n}", operation=Operation.READ)
            for n in range(CHANGES_SINGLED_OUT_MAX)]  # fmt: skip
    entries = {acl_key(acl): "" for acl in [*many, *some]}
    authorizer = AclAuthorizer()
    for question in asked:
        assert not authorizer.permits(*question)
    authorizer.entries_changed(entries, [EntryChange(key, "") for key in entries])
    oracle = Oracle(list(authorizer.acls.values()))
    for question in asked:
        assert authorizer.permits(*question) == oracle.permits(*question)
    authorizer.entries_changed({}, [EntryChange(key, None) for key in entries])
    for question in asked:
        assert not authorizer.permits(*question)


@given(st.lists(st.text("ab", min_size=1, max_size=6), max_size=40), st.text("ab", max_size=8))
def test_prefixes_are_found_whatever_came_and_went(toggled: Sequence[str], name: str) -> None:
    prefixes: PrefixMap[str] = PrefixMap()
    there: set[str] = set()
    for text in toggled:
        if text in there:
            there.remove(text)
            prefixes.remove(text)
        else:
            there.add(text)
            prefixes.add(text, text.upper())
        found = sorted((one for one in there if name.startswith(one)), key=len, reverse=True)
        assert prefixes.matching(name) == [one.upper() for one in found]
        assert [text for text, _ in prefixes.items()] == sorted(there)
        assert all(prefixes.get(text) == text.upper() for text in sorted(there))
        assert prefixes.get("c") is None

"""ACLs: which are legal, how they are written as entries, and which filters mean which."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from warp.errors import ErrorCode, KafkaError
from warp.protocol.types import (
    AclOperation as Operation,
    AclPatternType as Pattern,
    AclPermissionType as Permission,
    AclResourceType as Resource,
)
from warp.security.acl import (
    LEGAL_OPERATIONS,
    Acl,
    AclFilter,
    Network,
    acl_key,
    check_acl,
    client_address,
    host_network,
    parse_acl_key,
)

ACL = Acl(Resource.TOPIC, Pattern.LITERAL, "orders", "User:alice", "*", Operation.READ, Permission.ALLOW)


def refused(acl: Acl) -> str:
    with pytest.raises(KafkaError) as caught:
        check_acl(acl)
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    return caught.value.message


@pytest.mark.parametrize("resource", LEGAL_OPERATIONS, ids=lambda resource: resource.name)
def test_a_resource_has_the_operations_that_it_knows_and_no_others(resource: Resource) -> None:
    name = "kafka-cluster" if resource == Resource.CLUSTER else "x"
    for operation in Operation:
        acl = ACL._replace(resource=resource, name=name, operation=operation)
        if operation == Operation.ALL or operation in LEGAL_OPERATIONS[resource]:
            check_acl(acl)
        else:
            assert f"{resource.name} has no operation {operation.name}" in refused(acl)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"resource": Resource.UNKNOWN}, "UNKNOWN is no type of resource"),
        ({"resource": Resource.ANY}, "ANY is no type of resource"),
        ({"pattern": Pattern.UNKNOWN}, "UNKNOWN is no pattern type"),
        ({"pattern": Pattern.ANY}, "ANY is no pattern type"),
        ({"pattern": Pattern.MATCH}, "MATCH is no pattern type"),
        ({"operation": Operation.UNKNOWN}, "TOPIC has no operation UNKNOWN"),
        ({"operation": Operation.ANY}, "TOPIC has no operation ANY"),
        ({"permission": Permission.UNKNOWN}, "UNKNOWN is no permission"),
        ({"permission": Permission.ANY}, "ANY is no permission"),
        ({"name": ""}, "1 to 1024 characters"),
        ({"name": "n" * 1_025}, "1 to 1024 characters"),
        (
            {"resource": Resource.CLUSTER, "operation": Operation.ALTER, "name": "*"},
            "the only name of the CLUSTER resource is kafka-cluster",
        ),
        ({"principal": "alice"}, "not a principal"),
        ({"principal": ":alice"}, "not a principal"),
        ({"principal": "User:"}, "not a principal"),
        ({"principal": "User:" + "a" * 1_020}, "longer than"),
        ({"name": "\U0001f600" * 400}, "more than 4096 characters"),
        ({"host": ""}, "neither *, nor an IP address"),
        ({"host": "example.org"}, "neither *, nor an IP address"),
        ({"host": "10.0.0.1/8"}, "has host bits set"),
        ({"host": "10.0.0.0/33"}, "neither *, nor an IP address"),
        ({"host": "10.0.0.0/255.0.0.0"}, "a number of bits"),
        ({"host": "10.0.0.0/"}, "a number of bits"),
        ({"host": "fe80::1%eth0"}, "zone"),
    ],
    ids=str,
)
def test_what_would_never_do_what_it_says_is_refused(change: dict[str, Any], problem: str) -> None:
    assert problem in refused(ACL._replace(**change))


@pytest.mark.parametrize(
    ("change"),
    [
        {"name": "*"},
        {"name": "*", "pattern": Pattern.PREFIXED},
        {"name": "n" * 1_024},
        {"principal": "User:*"},
        {"principal": 'User:CN=x, O="quoted", OU=a:b\\c'},
        {"principal": "User:Ωλ\n\0\x1b \U0001f600"},
        {"principal": "ServiceAccount:x"},
        {"host": "10.1.2.3"},
        {"host": "10.0.0.0/8"},
        {"host": "0:0:0:0:0:0:0:1"},
        {"host": "2001:db8::/32"},
        {"resource": Resource.CLUSTER, "name": "kafka-cluster", "operation": Operation.IDEMPOTENT_WRITE},
        {"resource": Resource.USER, "operation": Operation.CREATE_TOKENS},
        {"permission": Permission.DENY},
    ],
    ids=str,
)
def test_what_is_legal_is_written_as_ascii_and_read_back(change: dict[str, Any]) -> None:
    acl = ACL._replace(**change)
    check_acl(acl)
    key = acl_key(acl)
    assert key.isascii()
    assert key.isprintable()
    assert parse_acl_key(key) == acl


@given(st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=50))
def test_any_names_are_written_and_read_back(name: str, user: str) -> None:
    acl = ACL._replace(name=name, principal=f"User:{user}")
    assert parse_acl_key(acl_key(acl)) == acl


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "{}",
        "[]",
        "null",
        '[2,3,"orders","User:alice","*",3]',
        '[2,3,"orders","User:alice","*",3,3,0]',
        '[2,3,"orders","User:alice","*",3,9]',
        '[99,3,"orders","User:alice","*",3,3]',
        '[2,3,5,"User:alice","*",3,3]',
        '[2,3,["orders"],"User:alice","*",3,3]',
        '[2,3,{"orders":1},"User:alice","*",3,3]',
        '[2,3,"orders",null,"*",3,3]',
        '[2,3,"orders","User:alice",[],3,3]',
        '[2,3,"orders","alice","*",3,3]',
        '[2, 3, "orders", "User:alice", "*", 3, 3]',
        '[2.0,3,"orders","User:alice","*",3,3]',
        "[" * 10_000,
    ],
)
def test_what_is_no_entry_of_an_acl_is_a_value_error(key: str) -> None:
    with pytest.raises(ValueError, match=r"is no ACL|is not how"):
        parse_acl_key(key)


def test_the_key_is_the_numbers_of_the_protocol() -> None:
    assert json.loads(acl_key(ACL)) == [2, 3, "orders", "User:alice", "*", 3, 3]


# ---- hosts ----


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("*", None),
        ("10.0.0.1", Network(4, 32, 0x0A000001)),
        ("10.0.0.1/32", Network(4, 32, 0x0A000001)),
        ("10.0.0.0/8", Network(4, 8, 0x0A000000)),
        ("0.0.0.0/0", Network(4, 0, 0)),
        ("::1", Network(6, 128, 1)),
        ("0:0:0:0:0:0:0:1", Network(6, 128, 1)),
        ("::/0", Network(6, 0, 0)),
        ("::ffff:10.0.0.1", Network(4, 32, 0x0A000001)),
        ("::ffff:10.0.0.0/104", Network(4, 8, 0x0A000000)),
    ],
)
def test_a_host_of_an_acl_is_a_network(host: str, network: Network | None) -> None:
    assert host_network(host) == network


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", Network(4, 32, 0x0A000001)),
        ("::ffff:10.0.0.1", Network(4, 32, 0x0A000001)),
        ("::1", Network(6, 128, 1)),
        ("[::1]", Network(6, 128, 1)),
        ("fe80::1%eth0", Network(6, 128, 0xFE80 << 112 | 1)),
        ("", None),
        ("a local peer", None),
    ],
)
def test_the_address_of_a_client_is_what_its_connection_tells(host: str, address: Network | None) -> None:
    assert client_address(host) == address


# ---- filters ----

ORDERS = ACL
ORDERS_PREFIX = ACL._replace(pattern=Pattern.PREFIXED, name="ord")
EVERY_TOPIC = ACL._replace(name="*", principal="User:*")
OTHER = ACL._replace(name="others", host="10.0.0.0/8", permission=Permission.DENY)
GROUP = ACL._replace(resource=Resource.GROUP, name="orders", principal="User:bob")
STAR_PREFIX = ACL._replace(pattern=Pattern.PREFIXED, name="*")
EVERYTHING = (ORDERS, ORDERS_PREFIX, EVERY_TOPIC, OTHER, GROUP, STAR_PREFIX)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ({}, EVERYTHING),
        ({"pattern": Pattern.MATCH}, EVERYTHING),
        ({"resource": Resource.GROUP}, (GROUP,)),
        ({"pattern": Pattern.LITERAL}, (ORDERS, EVERY_TOPIC, OTHER, GROUP)),
        ({"pattern": Pattern.PREFIXED}, (ORDERS_PREFIX, STAR_PREFIX)),
        ({"name": "orders"}, (ORDERS, GROUP)),
        ({"name": "orders", "pattern": Pattern.LITERAL}, (ORDERS, GROUP)),
        ({"name": "orders", "pattern": Pattern.PREFIXED}, ()),
        ({"name": "ord", "pattern": Pattern.PREFIXED}, (ORDERS_PREFIX,)),
        ({"name": "ord"}, (ORDERS_PREFIX,)),
        ({"name": "*"}, (EVERY_TOPIC, STAR_PREFIX)),
        ({"name": "*", "pattern": Pattern.LITERAL}, (EVERY_TOPIC,)),
        ({"name": "orders", "pattern": Pattern.MATCH}, (ORDERS, ORDERS_PREFIX, EVERY_TOPIC, GROUP)),
        ({"name": "ordnance", "pattern": Pattern.MATCH}, (ORDERS_PREFIX, EVERY_TOPIC)),
        ({"name": "or", "pattern": Pattern.MATCH}, (EVERY_TOPIC,)),
        ({"name": "*", "pattern": Pattern.MATCH}, (EVERY_TOPIC, STAR_PREFIX)),
        ({"name": ""}, ()),
        ({"principal": "User:*"}, (EVERY_TOPIC,)),
        ({"principal": "User:bob"}, (GROUP,)),
        ({"host": "10.0.0.0/8"}, (OTHER,)),
        ({"host": "10.0.0.1"}, ()),
        ({"host": "*", "resource": Resource.GROUP}, (GROUP,)),
        ({"operation": Operation.WRITE}, ()),
        ({"operation": Operation.READ}, EVERYTHING),
        ({"operation": Operation.ALL}, ()),
        ({"permission": Permission.DENY}, (OTHER,)),
    ],
    ids=str,
)
def test_a_filter_means(wanted: dict[str, Any], meant: tuple[Acl, ...]) -> None:
    assert tuple(filter(AclFilter(**wanted).matches, EVERYTHING)) == meant


def test_a_filter_that_leaves_nothing_open_means_one_acl() -> None:
    assert AclFilter(*ACL).exact == ACL
    for field, value in {**dict.fromkeys(("name", "principal", "host")), **AclFilter()._asdict()}.items():
        assert AclFilter(*ACL)._replace(**{field: value}).exact is None
    assert AclFilter(*ACL)._replace(pattern=Pattern.MATCH).exact is None

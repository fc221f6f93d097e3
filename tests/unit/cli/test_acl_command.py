"""`warp acl`: what it asks of the client library's admin client, what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclBinding, AclBindingFilter

from warp.cli.client import Client
from warp.cli.main import main
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, AclFilter, acl_key, parse_acl_key

Run = Callable[..., tuple[int, str, str]]


def fields(binding: Any) -> tuple[Any, ...]:
    return (
        AclResourceType(binding.restype.value),
        AclPatternType(binding.resource_pattern_type.value),
        binding.name,
        binding.principal,
        binding.host,
        AclOperation(binding.operation.value),
        AclPermissionType(binding.permission_type.value),
    )


def binding_of(acl: Acl) -> AclBinding:
    kinds: tuple[Any, ...] = (acl.resource, acl.pattern, acl.operation, acl.permission)
    resource, pattern, operation, permission = map(int, kinds)
    names: Any = (acl.name, acl.principal, acl.host)
    return AclBinding(resource, names[0], pattern, names[1], names[2], operation, permission)


class FakeAdmin:
    """A broker's ACLs in memory, behind the methods of librdkafka's admin client that `warp acl` calls."""

    def __init__(self) -> None:
        self.acls: list[Acl] = []
        self.refused: dict[str, int] = {}
        """Error codes by the name of the resource."""
        self.filters: list[AclFilter] = []

    def create_acls(self, bindings: Sequence[AclBinding], request_timeout: float) -> dict[AclBinding, Any]:
        done = {}
        for binding in bindings:
            acl = Acl(*fields(binding))
            done[binding] = self._future(None, self.refused.get(acl.name))
            if acl.name not in self.refused and acl not in self.acls:
                self.acls.append(acl)
        return done

    def describe_acls(self, one: AclBindingFilter, request_timeout: float) -> Future[Any]:
        return self._future([binding_of(acl) for acl in self._meant(one)], self.refused.get("list"))

    def delete_acls(
        self, filters: Sequence[AclBindingFilter], request_timeout: float
    ) -> dict[AclBindingFilter, Any]:
        done = {one: self._future([binding_of(acl) for acl in self._meant(one)], None) for one in filters}
        gone = [acl for one in filters for acl in self._meant(one)]
        self.acls = [acl for acl in self.acls if acl not in gone]
        return done

    def poll(self, timeout: float) -> int:
        return 0

    def _meant(self, one: AclBindingFilter) -> list[Acl]:
        self.filters.append(AclFilter(*fields(one)))
        return [acl for acl in self.acls if self.filters[-1].matches(acl)]

    def _future(self, result: Any, code: int | None) -> Future[Any]:
        future: Future[Any] = Future()
        if code is None:
            future.set_result(result)
        else:
            future.set_exception(KafkaException(KafkaError(code)))
        return future

    def keys(self) -> list[str]:
        return [acl_key(acl) for acl in self.acls]


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def run(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(Client, "admin", lambda _: admin)

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(["acl", *words])
        out, error = capsys.readouterr()
        return code, out, error

    return run_words


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            "--allow User:alice --operation read --topic orders",
            ['[2,3,"orders","User:alice","*",3,3]'],
        ),
        (
            "--deny User:* --operation ALL --cluster --host 192.0.2.0/24",
            ['[4,3,"kafka-cluster","User:*","192.0.2.0/24",2,2]'],
        ),
        (
            "--allow User:a --operation Describe_Configs --topic t --prefixed",
            ['[2,4,"t","User:a","*",10,3]'],
        ),
        (
            "--allow User:a --deny User:b --operation read --operation read --topic t --group g",
            [
                '[2,3,"t","User:a","*",3,3]',
                '[2,3,"t","User:b","*",3,2]',
                '[3,3,"g","User:a","*",3,3]',
                '[3,3,"g","User:b","*",3,2]',
            ],
        ),
        (
            "--allow User:a --producer --topic t --transactional-id x",
            [
                '[2,3,"t","User:a","*",4,3]',
                '[2,3,"t","User:a","*",8,3]',
                '[2,3,"t","User:a","*",5,3]',
                '[5,3,"x","User:a","*",4,3]',
                '[5,3,"x","User:a","*",8,3]',
            ],
        ),
        (
            "--allow User:a --consumer --topic t --group g",
            [
                '[2,3,"t","User:a","*",3,3]',
                '[2,3,"t","User:a","*",8,3]',
                '[3,3,"g","User:a","*",3,3]',
            ],
        ),
        (
            "--allow User:a --consumer --producer --topic t --group g --prefixed",
            [
                '[2,4,"t","User:a","*",4,3]',
                '[2,4,"t","User:a","*",8,3]',
                '[2,4,"t","User:a","*",5,3]',
                '[2,4,"t","User:a","*",3,3]',
                '[3,4,"g","User:a","*",3,3]',
            ],
        ),
        (
            "--allow User:a --operation write --transactional-id x --host ::1 --host 10.0.0.1",
            ['[5,3,"x","User:a","::1",4,3]', '[5,3,"x","User:a","10.0.0.1",4,3]'],
        ),
    ],
)
def test_words_create(run: Run, admin: FakeAdmin, words: str, keys: list[str]) -> None:
    code, out, error = run("create", *words.split())
    assert (code, error) == (0, "")
    assert admin.keys() == keys
    assert len(out.splitlines()) == 1 + len(keys)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("create", "nobody is named"),
        ("create --allow User:a", "no resource is named"),
        ("create --allow User:a --topic t", "no operation is named"),
        ("create --allow alice --topic t --operation read", "perhaps User:alice"),
        ("create --allow User:a --topic t --operation raed", "there is no operation raed; did you mean read"),
        (
            "create --allow User:a --group g --operation write",
            "a group has no operation write, only all, read",
        ),
        ("create --allow User:a --topic t --producer --operation read", "--operation does not go with them"),
        ("create --allow User:a --group g --producer", "--producer needs a --topic"),
        ("create --allow User:a --topic t --consumer", "--consumer needs a --group"),
        ("create --allow User:a --topic t --group g --producer", "--producer has no use for a group"),
        ("create --allow User:a --topic t --cluster --producer", "--producer has no use for a cluster"),
        ("delete --yes", "takes --all"),
        ("delete --yes --pattern match", "takes --all"),
        ("list --pattern some", "invalid choice"),
        ("remove", "unknown action remove"),
        ("", "no action"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    run: Run, admin: FakeAdmin, words: str, problem: str
) -> None:
    admin.acls = [parse_acl_key('[2,3,"t","User:a","*",3,3]')]
    code, _, error = run(*words.split())
    assert code == 2
    assert problem in error
    assert error.count("\n") == 1
    assert len(admin.acls) == 1


THERE = [
    '[2,3,"*","User:*","*",8,3]',
    '[2,3,"orders","User:alice","*",3,3]',
    '[2,4,"ord","User:bob","10.0.0.0/8",10,2]',
    '[3,3,"orders","User:alice","*",3,3]',
]


@pytest.fixture
def filled(admin: FakeAdmin) -> FakeAdmin:
    admin.acls = list(map(parse_acl_key, reversed(THERE)))
    return admin


def test_acls_are_listed_in_columns(run: Run, filled: FakeAdmin) -> None:
    code, out, error = run("list")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "RESOURCE  NAME    PATTERN   PERMISSION  PRINCIPAL   OPERATION         HOST",
        "topic     *       literal   allow       User:*      describe          *",
        "topic     orders  literal   allow       User:alice  read              *",
        "topic     ord     prefixed  deny        User:bob    describe-configs  10.0.0.0/8",
        "group     orders  literal   allow       User:alice  read              *",
    ]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("", [0, 1, 2, 3]),
        ("--topic orders", [0, 1, 2]),
        ("--topic orders --pattern literal", [1]),
        ("--topic ord --pattern prefixed", [2]),
        ("--topic ord --pattern any", [2]),
        ("--topic orders --group orders --pattern literal", [1, 3]),
        ("--principal User:alice", [1, 3]),
        ("--principal User:alice --principal User:bob --operation describe-configs", [2]),
        ("--permission deny", [2]),
        ("--host 10.0.0.0/8", [2]),
        ("--pattern prefixed", [2]),
        ("--cluster", []),
    ],
)
def test_words_mean_these_to_list(run: Run, filled: FakeAdmin, words: str, meant: list[int]) -> None:
    code, out, error = run("list", "--json", *words.split())
    assert (code, error) == (0, "")
    rows = json.loads(out)
    expected = [parse_acl_key(THERE[number]) for number in meant]
    assert [(row["resource"], row["name"], row["operation"]) for row in rows] == [
        (acl.resource.name, acl.name, acl.operation.name) for acl in expected
    ]


def test_json_has_the_names_of_the_protocol(run: Run, filled: FakeAdmin) -> None:
    _, out, _ = run("list", "--json", "--permission", "deny")
    assert json.loads(out) == [
        {
            "resource": "TOPIC",
            "pattern": "PREFIXED",
            "name": "ord",
            "principal": "User:bob",
            "host": "10.0.0.0/8",
            "operation": "DESCRIBE_CONFIGS",
            "permission": "DENY",
        }
    ]


def test_without_yes_nothing_is_deleted(run: Run, filled: FakeAdmin) -> None:
    code, out, _ = run("delete", "--topic", "orders")
    assert code == 0
    assert "dry run: nothing was changed; --yes deletes 1 ACL" in out
    assert sorted(filled.keys()) == sorted(THERE)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("--topic orders", [0, 2, 3]),
        ("--topic orders --pattern match", [3]),
        ("--principal User:alice", [0, 2]),
        ("--all", []),
        ("--topic nothing", [0, 1, 2, 3]),
    ],
)
def test_with_yes_what_is_meant_is_deleted(run: Run, filled: FakeAdmin, words: str, left: list[int]) -> None:
    code, out, error = run("delete", "--yes", *words.split())
    assert (code, error) == (0, "")
    assert sorted(filled.keys()) == sorted(THERE[number] for number in left)
    count = len(THERE) - len(left)
    assert f"deleted {count} ACL{'' if count == 1 else 's'}" in out


def test_what_a_broker_refuses_is_told_and_the_rest_created(run: Run, admin: FakeAdmin) -> None:
    admin.refused = {"bad": KafkaError.INVALID_REQUEST}
    words = ("create", "--allow", "User:a", "--operation", "read", "--topic", "bad", "--topic", "good")
    code, out, error = run(*words)
    assert code == 1
    assert "good" in out
    assert "bad" not in out
    assert "ALLOW User:a READ on LITERAL TOPIC bad from *" in error
    assert "INVALID_REQUEST" in error
    assert admin.keys() == ['[2,3,"good","User:a","*",3,3]']


def test_a_broker_without_authorization_is_one_line(run: Run, admin: FakeAdmin) -> None:
    admin.refused = {"t": KafkaError.SECURITY_DISABLED, "list": KafkaError.SECURITY_DISABLED}
    for words in (
        ("list",),
        ("create", "--allow", "User:a", "--operation", "read", "--operation", "write", "--topic", "t"),
    ):
        code, out, error = run(*words)
        assert (code, out) == (1, "")
        assert error == "warp acl: the broker has no ACLs: its authorization is off (SECURITY_DISABLED)\n"


def test_names_that_would_move_the_cursor_are_escaped(run: Run, admin: FakeAdmin) -> None:
    admin.acls = [parse_acl_key('[2,3,"t\\u001b[2J","User:a\\u0007","*",3,3]')]
    _, out, _ = run("list")
    assert "t\\x1b[2J" in out
    assert "User:a\\x07" in out

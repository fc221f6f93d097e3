"""`warp acl`: what it asks of a broker, what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Self

import pytest

from warp.cli.acl import command
from warp.cli.main import main
from warp.errors import ErrorCode
from warp.protocol.messages.acls import (
    AclCreationResult,
    AclDescription,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, AclFilter, acl_key, parse_acl_key

Run = Callable[..., tuple[int, str, str]]


class FakeBroker:
    """A broker's ACLs in memory, behind the connection that `warp acl` makes."""

    def __init__(self) -> None:
        self.acls: list[Acl] = []
        self.refused: dict[str, ErrorCode] = {}
        """Error codes by the name of the resource; of any list by `list`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ask(self, request: Any) -> Any:
        kinds: dict[type, Callable[[Any], Any]] = {
            CreateAclsRequest: self._create,
            DescribeAclsRequest: self._describe,
            DeleteAclsRequest: self._delete,
        }
        return kinds[type(request)](request)

    def _create(self, request: CreateAclsRequest) -> CreateAclsResponse:
        results = []
        for one in request.creations:
            acl = Acl(
                AclResourceType(one.resource_type),
                AclPatternType(one.resource_pattern_type),
                one.resource_name,
                one.principal,
                one.host,
                AclOperation(one.operation),
                AclPermissionType(one.permission_type),
            )
            code = self.refused.get(acl.name, ErrorCode.NONE)
            results.append(AclCreationResult(error_code=code, error_message=None))
            if not code and acl not in self.acls:
                self.acls.append(acl)
        return CreateAclsResponse(results=results)

    def _describe(self, request: DescribeAclsRequest) -> DescribeAclsResponse:
        if "list" in self.refused:
            return DescribeAclsResponse(error_code=self.refused["list"], error_message="no", resources=[])
        return DescribeAclsResponse(
            error_code=0,
            error_message=None,
            resources=[
                DescribeAclsResource(
                    resource_type=acl.resource,
                    resource_name=acl.name,
                    pattern_type=acl.pattern,
                    acls=[
                        AclDescription(
                            principal=acl.principal,
                            host=acl.host,
                            operation=acl.operation,
                            permission_type=acl.permission,
                        )
                    ],
                )
                for acl in self._meant(request)
            ],
        )

    def _delete(self, request: DeleteAclsRequest) -> DeleteAclsResponse:
        results = [
            DeleteAclsFilterResult(
                error_code=0,
                error_message=None,
                matching_acls=[
                    DeleteAclsMatchingAcl(
                        error_code=0,
                        error_message=None,
                        resource_type=acl.resource,
                        resource_name=acl.name,
                        pattern_type=acl.pattern,
                        principal=acl.principal,
                        host=acl.host,
                        operation=acl.operation,
                        permission_type=acl.permission,
                    )
                    for acl in self._meant(one)
                ],
            )
            for one in request.filters
        ]
        gone = [acl for one in request.filters for acl in self._meant(one)]
        self.acls = [acl for acl in self.acls if acl not in gone]
        return DeleteAclsResponse(filter_results=results)

    def _meant(self, one: Any) -> list[Acl]:
        wanted = AclFilter(
            AclResourceType(one.resource_type_filter),
            AclPatternType(one.pattern_type_filter),
            one.resource_name_filter,
            one.principal_filter,
            one.host_filter,
            AclOperation(one.operation),
            AclPermissionType(one.permission_type),
        )
        return list(filter(wanted.matches, self.acls))

    def keys(self) -> list[str]:
        return [acl_key(acl) for acl in self.acls]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def run(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(command, "WireClient", lambda client: broker)

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
def test_words_create(run: Run, broker: FakeBroker, words: str, keys: list[str]) -> None:
    code, out, error = run("create", *words.split())
    assert (code, error) == (0, "")
    assert broker.keys() == keys
    assert len(out.splitlines()) == 1 + len(keys)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("create", "nobody is named"),
        ("create --allow User:a", "no resource is named"),
        ("create --allow User:a --topic t", "no operation is named"),
        ("create --allow alice --topic t --operation read", "perhaps User:alice"),
        ("create --deny user:mallory --topic t --operation read", "use User:mallory"),
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
    run: Run, broker: FakeBroker, words: str, problem: str
) -> None:
    broker.acls = [parse_acl_key('[2,3,"t","User:a","*",3,3]')]
    code, _, error = run(*words.split())
    assert code == 2
    assert problem in error
    assert error.count("\n") == 1
    assert len(broker.acls) == 1


THERE = [
    '[2,3,"*","User:*","*",8,3]',
    '[2,3,"orders","User:alice","*",3,3]',
    '[2,4,"ord","User:bob","10.0.0.0/8",10,2]',
    '[3,3,"orders","User:alice","*",3,3]',
]


@pytest.fixture
def filled(broker: FakeBroker) -> FakeBroker:
    broker.acls = list(map(parse_acl_key, reversed(THERE)))
    return broker


def test_acls_are_listed_in_columns(run: Run, filled: FakeBroker) -> None:
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
def test_words_mean_these_to_list(run: Run, filled: FakeBroker, words: str, meant: list[int]) -> None:
    code, out, error = run("list", "--json", *words.split())
    assert (code, error) == (0, "")
    rows = json.loads(out)
    expected = [parse_acl_key(THERE[number]) for number in meant]
    assert [(row["resource"], row["name"], row["operation"]) for row in rows] == [
        (acl.resource.name, acl.name, acl.operation.name) for acl in expected
    ]


def test_json_has_the_names_of_the_protocol(run: Run, filled: FakeBroker) -> None:
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


def test_without_yes_nothing_is_deleted(run: Run, filled: FakeBroker) -> None:
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
def test_with_yes_what_is_meant_is_deleted(run: Run, filled: FakeBroker, words: str, left: list[int]) -> None:
    code, out, error = run("delete", "--yes", *words.split())
    assert (code, error) == (0, "")
    assert sorted(filled.keys()) == sorted(THERE[number] for number in left)
    count = len(THERE) - len(left)
    assert f"deleted {count} ACL{'' if count == 1 else 's'}" in out


def test_what_a_broker_refuses_is_told_and_the_rest_created(run: Run, broker: FakeBroker) -> None:
    broker.refused = {"bad": ErrorCode.INVALID_REQUEST}
    words = ("create", "--allow", "User:a", "--operation", "read", "--topic", "bad", "--topic", "good")
    code, out, error = run(*words)
    assert code == 1
    assert "good" in out
    assert "bad" not in out
    assert "ALLOW User:a READ on LITERAL TOPIC bad from *" in error
    assert "INVALID_REQUEST" in error
    assert broker.keys() == ['[2,3,"good","User:a","*",3,3]']


def test_a_broker_without_authorization_is_one_line(run: Run, broker: FakeBroker) -> None:
    broker.refused = {"t": ErrorCode.SECURITY_DISABLED, "list": ErrorCode.SECURITY_DISABLED}
    for words in (
        ("list",),
        ("create", "--allow", "User:a", "--operation", "read", "--operation", "write", "--topic", "t"),
    ):
        code, out, error = run(*words)
        assert (code, out) == (1, "")
        assert error == "warp acl: the broker has no ACLs: its authorization is off (SECURITY_DISABLED)\n"


def test_names_that_would_move_the_cursor_are_escaped(run: Run, broker: FakeBroker) -> None:
    broker.acls = [parse_acl_key('[2,3,"t\\u001b[2J","User:a\\u0007","*",3,3]')]
    _, out, _ = run("list")
    assert "t\\x1b[2J" in out
    assert "User:a\\x07" in out

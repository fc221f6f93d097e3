"""`warp acl list|create|delete`: its words, and what it does with them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from warp.cli.acl.admin import AclAdmin
from warp.cli.acl.rules import NAMED, PATTERNS, filters_of, operation_of, principal_of, rules_of, shown
from warp.cli.arguments import Parser, action_of, add_client_options
from warp.cli.client import Client, ClientError
from warp.cli.tables import printable, table
from warp.cli.wire_client import WireClient
from warp.errors import UsageError
from warp.protocol.types import AclPatternType
from warp.security.acl import Acl, AclFilter

ACTIONS: Final = {
    "list": "List ACLs; of a named resource all that matter to it, prefixes and * among them.",
    "create": "Allow or deny operations on resources to principals.",
    "delete": "Delete ACLs. Only lists them without --yes.",
}
EXAMPLES: Final = """\
  warp acl list
  warp acl list --topic orders
  warp acl list --principal User:alice --json
  warp acl create --allow User:alice --operation read --topic orders --group billing
  warp acl create --allow User:app --producer --topic orders. --prefixed
  warp acl create --allow User:app --consumer --topic orders --group billing
  warp acl create --deny 'User:*' --host 192.0.2.0/24 --operation all --cluster
  warp acl delete --principal User:alice
  warp acl delete --topic orders --operation read --yes
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp acl", words, ACTIONS, EXAMPLES)
    if action is None:
        return 0
    found = _parser(action).parse_all(words[1:])
    actions = {"list": _list, "create": _create, "delete": _delete}
    actions[action](found)
    return 0


# ---- words ----


def _parser(action: str) -> Parser:
    examples = "".join(f"{line}\n" for line in EXAMPLES.splitlines() if f"acl {action}" in line)
    parser = Parser(f"warp acl {action}", ACTIONS[action], examples)
    if action == "create":
        _add_many(
            parser, "--allow", "PRINCIPAL", "Who may, as User:alice; User:* is everybody.", principal_of
        )
        _add_many(parser, "--deny", "PRINCIPAL", "Who may not, whatever allows it.", principal_of)
    _add_resources(parser)
    if action == "create":
        parser.add_argument(
            "--prefixed", action="store_true", help="The names are prefixes of the resources' names."
        )
        parser.add_argument(
            "--producer",
            action="store_true",
            help="All that a producer does to its topics and transactional ids.",
        )
        parser.add_argument(
            "--consumer", action="store_true", help="All that a consumer does to its topics and groups."
        )
    else:
        _add_filter(parser)
    _add_many(parser, "--operation", "OPERATION", "Such as read, write, describe or all.", operation_of)
    _add_many(parser, "--host", "HOST", "Address or network of clients; * is every host.", str)
    if action == "delete":
        parser.add_argument("--all", action="store_true", help="Every ACL, when nothing else is named.")
        parser.add_argument("--yes", action="store_true", help="Delete them.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of columns.")
    add_client_options(parser)
    return parser


def _add_many(parser: Parser, flag: str, metavar: str, help_text: str, kind: Any) -> None:
    parser.add_argument(
        flag, action="append", default=[], type=kind, metavar=metavar, help=f"{help_text} May be repeated."
    )


def _add_resources(parser: Parser) -> None:
    for option in NAMED:
        words = option.replace("_", " ")
        _add_many(parser, f"--{option.replace('_', '-')}", "NAME", f"A {words}; * is all of them.", str)
    parser.add_argument("--cluster", action="store_true", help="The cluster as a whole.")


def _add_filter(parser: Parser) -> None:
    parser.add_argument(
        "--pattern",
        choices=tuple(PATTERNS),
        help="How names are meant: the ACL's own (literal, prefixed, any of both), or match, for all ACLs that matter "
        "to the resource. Default: match to list, literal to delete.",
    )
    _add_many(parser, "--principal", "PRINCIPAL", "Whom the ACL is about.", principal_of)
    parser.add_argument("--permission", choices=("allow", "deny"), help="What it does.")


# ---- actions ----


def _list(found: argparse.Namespace) -> None:
    filters = filters_of(found, AclPatternType.MATCH)
    with WireClient(Client(found)) as broker:
        acls = AclAdmin(broker).listed(filters)
    _show(acls, is_json=found.json)


def _create(found: argparse.Namespace) -> None:
    rules = rules_of(found)
    with WireClient(Client(found)) as broker:
        problems = AclAdmin(broker).create(rules)
    made = [rule for rule, problem in zip(rules, problems, strict=True) if problem is None]
    if made or found.json:
        _show(made, is_json=found.json)
    failures = [
        f"{printable(str(rule))}: {problem}"
        for rule, problem in zip(rules, problems, strict=True)
        if problem is not None
    ]
    if len(failures) == len(rules) and len(set(map(str, problems))) == 1:
        raise ClientError(str(problems[0]))
    if failures:
        raise ClientError("; ".join(failures))


def _delete(found: argparse.Namespace) -> None:
    filters = filters_of(found, AclPatternType.LITERAL)
    if not found.all and any(one._replace(pattern=AclPatternType.ANY) == AclFilter() for one in filters):
        raise UsageError("nothing is named: that would be every ACL, which takes --all")
    with WireClient(Client(found)) as broker:
        admin = AclAdmin(broker)
        acls = admin.delete(filters) if found.yes else admin.listed(filters)
    _show(acls, is_json=found.json)
    if not found.json:
        many = f"{len(acls)} ACL{'' if len(acls) == 1 else 's'}"
        print(f"\ndeleted {many}" if found.yes else f"\ndry run: nothing was changed; --yes deletes {many}")


def _show(acls: Iterable[Acl], *, is_json: bool) -> None:
    if is_json:
        rows = [
            {
                "resource": acl.resource.name,
                "pattern": acl.pattern.name,
                "name": acl.name,
                "principal": acl.principal,
                "host": acl.host,
                "operation": acl.operation.name,
                "permission": acl.permission.name,
            }
            for acl in acls
        ]
        print(json.dumps(rows))
        return
    header = ("RESOURCE", "NAME", "PATTERN", "PERMISSION", "PRINCIPAL", "OPERATION", "HOST")
    lines = [
        (
            shown(acl.resource),
            acl.name,
            shown(acl.pattern),
            shown(acl.permission),
            acl.principal,
            shown(acl.operation),
            acl.host,
        )
        for acl in acls
    ]
    print(table(header, lines))

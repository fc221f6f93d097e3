"""Checks of ACLs: what one topic costs with 10,000 ACLs, remembered and not, and what a change of one ACL costs.

The promise is 2 µs for a topic. The yardstick is the obvious way: go through all ACLs and compare each.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from benchmarks.micro.common import Comparison, Contender, Target, compare, main
from warp.handlers.context import Client, Endpoint, RequestContext
from warp.metadata.entries import EntryChange
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, acl_key, parse_acl_key
from warp.security.acl_authorizer import AclAuthorizer
from warp.security.principal import Principal

ACLS = 10_000
TOPICS = 1_000
"""Asked about in one call."""
HOST = "10.0.0.1"
USER = Principal("User", "user-7")
NAMES = [f"team-{number % 97}.topic-{number}" for number in range(0, 7 * TOPICS, 7)]

Setting = tuple[str, list[Acl]]


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    settings = [
        ("ACLs of 100 users", acls(lambda number: f"User:user-{number % 100}")),
        ("all ACLs about the user who asks", acls(lambda number: str(USER))),
        ("all ACLs about everybody", acls(lambda number: "User:*")),
    ]
    return [*(checks(setting, quick) for setting in settings), changes(settings, quick)]


def acls(principal: Callable[[int], str]) -> list[Acl]:
    """Half are prefixes, a tenth denies, a fifth is about a network."""
    return [
        Acl(
            AclResourceType.TOPIC,
            AclPatternType.PREFIXED if number % 2 else AclPatternType.LITERAL,
            f"team-{number % 97}.topic-{number}",
            principal(number),
            "10.0.0.0/8" if number % 5 == 0 else "*",
            AclOperation.READ if number % 3 else AclOperation.WRITE,
            AclPermissionType.ALLOW if number % 10 else AclPermissionType.DENY,
        )
        for number in range(ACLS)
    ]


def authorizer_of(rules: Sequence[Acl]) -> AclAuthorizer:
    made = AclAuthorizer()
    made.entries_changed({}, [EntryChange(acl_key(acl), "") for acl in rules])
    return made


def checks(setting: Setting, quick: bool) -> Comparison:
    """One operation on 1,000 topics."""
    title, rules = setting
    authorizer = authorizer_of(rules)

    def ask() -> None:
        permits = authorizer.permits
        for name in NAMES:
            permits(USER, HOST, AclOperation.READ, AclResourceType.TOPIC, name)

    def ask_anew() -> None:
        authorizer._forget_everything()
        ask()

    toggled = itertools.cycle(toggles(rules[1]._replace(name="team-1", principal=str(USER))))

    def ask_after_a_change() -> None:
        authorizer.entries_changed({}, [next(toggled)])
        ask()

    services: Any = SimpleNamespace(authorizer=authorizer)
    client = Client(f"{HOST}:12345", Endpoint("localhost", 9092), principal=USER)
    context = RequestContext(services, [], client, "bench", 1)

    def ask_as_handlers_do() -> None:
        allows = context.allows
        for name in NAMES:
            allows(AclOperation.READ, AclResourceType.TOPIC, name, is_asked_for=False)

    scan = Scan(rules)
    return compare(
        f"Checks of {TOPICS:,} topics with {ACLS:,} ACLs: {title}",
        [
            Contender("every ACL compared, for 10 topics", lambda: scan(NAMES[::100]), slow=True),
            Contender("decided anew", ask_anew),
            Contender("remembered", ask),
            Contender("remembered, by a handler's context", ask_as_handlers_do),
            Contender("after a change of one prefix of this user", ask_after_a_change),
        ],
        work=TOPICS,
        unit="topics",
        # It does a hundredth of the work.
        targets=[Target("decided anew", "every ACL compared, for 10 topics", 5)],
        quick=quick,
    )


def changes(settings: Sequence[Setting], quick: bool) -> Comparison:
    """One ACL comes or goes, out of 10,000, with 1,000 decisions remembered by another user."""

    def toggle(setting: Setting, acl: Acl) -> Callable[[], object]:
        authorizer = authorizer_of(setting[1])
        for name in NAMES:
            authorizer.permits(USER, HOST, AclOperation.READ, AclResourceType.TOPIC, name)
        changes = itertools.cycle(toggles(acl))
        return lambda: authorizer.entries_changed({}, [next(changes)])

    first, second, _ = settings
    literal = Acl(
        AclResourceType.TOPIC, AclPatternType.LITERAL, "new", str(USER), "*",
        AclOperation.READ, AclPermissionType.ALLOW,
    )  # fmt: skip
    prefix = literal._replace(pattern=AclPatternType.PREFIXED, name="team-9", principal="User:other")
    keys = [acl_key(acl) for acl in first[1]]
    return compare(
        f"A change of one ACL out of {ACLS:,}",
        [
            Contender("its entry is read", lambda: parse_acl_key(keys[4711])),
            Contender("a literal name, 100 users", toggle(first, literal)),
            Contender("a prefix, 100 users", toggle(first, prefix)),
            Contender("a literal name, one user", toggle(second, literal)),
            Contender(
                "a prefix of 5,000 others, one user",
                toggle(second, prefix._replace(name="t", principal=str(USER))),
            ),
            Contender("all of them, at start", lambda: authorizer_of(first[1]), slow=True),
        ],
        work=1,
        unit="changes",
        quick=quick,
    )


def toggles(acl: Acl) -> list[EntryChange]:
    return [EntryChange(acl_key(acl), ""), EntryChange(acl_key(acl), None)]


class Scan:
    """The obvious way, without networks."""

    def __init__(self, rules: Sequence[Acl]) -> None:
        self._rules = rules

    def __call__(self, names: Sequence[str]) -> list[bool]:
        return [self._permits(name) for name in names]

    def _permits(self, name: str) -> bool:
        found = False
        who = (str(USER), "User:*")
        for acl in self._rules:
            if acl.resource is not AclResourceType.TOPIC or acl.principal not in who:
                continue
            if acl.host not in ("*", HOST) or acl.operation not in (AclOperation.READ, AclOperation.ALL):
                continue
            if acl.pattern is AclPatternType.PREFIXED:
                if not name.startswith(acl.name):
                    continue
            elif acl.name not in (name, "*"):
                continue
            if acl.permission is AclPermissionType.DENY:
                return False
            found = True
        return found


if __name__ == "__main__":
    sys.exit(main("acls", run))

"""`warp group list|describe|reset-offsets|delete`: its words, and what it does with them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from warp.cli.arguments import Parser, action_of, add_client_options
from warp.cli.client import Client, ClientError
from warp.cli.group.admin import KINDS, STATES, GroupAdmin
from warp.cli.group.facts import Description, Place, progress_of
from warp.cli.group.report import (
    count,
    description_json,
    description_text,
    list_json,
    list_text,
    moves_json,
    moves_text,
)
from warp.cli.group.reset import Target, parse_offset, parse_shift, parse_time_ms, parse_topic, plan
from warp.units import parse_duration_ms

T = TypeVar("T")

ACTIONS: Final = {
    "list": "List the consumer groups.",
    "describe": "Show a group's members, and how far it is in each partition.",
    "reset-offsets": "Move the committed offsets of a group without members. Changes nothing without --execute.",
    "delete": "Delete groups without members, with all their committed offsets.",
}
EXAMPLES: Final = """\
  warp group list --state stable
  warp group describe billing
  warp group reset-offsets billing --all-topics --to-earliest
  warp group reset-offsets billing --topic orders:0,1 --by-duration 15m --execute
  warp group delete billing
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp group", words, ACTIONS, EXAMPLES)
    if action is None:
        return 0
    found = _parser(action).parse_all(words[1:])
    client = Client(found)
    admin = GroupAdmin(client, client.admin())
    actions = {"list": _list, "describe": _describe, "reset-offsets": _reset, "delete": _delete}
    actions[action](found, admin)
    return 0


def _list(found: argparse.Namespace, admin: GroupAdmin) -> None:
    rows = admin.listings(found.state, found.type)
    print(json.dumps(list_json(rows)) if found.json else list_text(rows))


def _describe(found: argparse.Namespace, admin: GroupAdmin) -> None:
    is_all = found.members == found.offsets
    for number, name in enumerate(found.groups):
        group = admin.require(name)
        rows = None
        if is_all or found.offsets:
            committed = admin.committed(name)
            read = {place for member in group.members for place in member.places}
            rows = progress_of(group, committed, admin.ends(sorted(read.union(committed))))
        has_members = is_all or found.members
        if found.json:
            print(json.dumps(description_json(group, rows, has_members=has_members)))
        else:
            print(("\n" if number else "") + description_text(group, rows, has_members=has_members))


def _reset(found: argparse.Namespace, admin: GroupAdmin) -> None:
    name, target = found.group, _target(found)
    group = admin.describe(name)
    _require_no_members(group)
    committed = admin.committed(name)
    places, gone = _places(found, admin, group, committed)
    at_time = {} if target.time_ms is None else admin.offsets_at(places, target.time_ms)
    moves = plan(target, committed, admin.logs(places), at_time)
    if found.execute:
        admin.commit(name, {move.place: move.new for move in moves})
    if found.json:
        print(json.dumps(moves_json(name, moves, is_executed=found.execute)))
        return
    print(moves_text(moves))
    for place in gone:
        print(f"{place} is left out: there is no such partition any more")
    if found.execute:
        print(f"\nreset {count(len(moves), 'offset')} of group {name}")
        return
    made = "" if group.is_there else f"; there is no group {name} yet, it would be made"
    print(f"\ndry run: nothing was changed{made}; add --execute to do it")


def _require_no_members(group: Description) -> None:
    if group.members or group.state not in ("Empty", "Dead"):
        raise ClientError(
            f"group {group.name} has {count(len(group.members), 'live member')} ({group.state}); "
            "stop them first: they would commit over what is reset"
        )


def _places(
    found: argparse.Namespace, admin: GroupAdmin, group: Description, committed: dict[Place, int]
) -> tuple[list[Place], list[Place]]:
    """The partitions to reset, and those that would be, if they were still there."""
    if found.all_topics:
        if not group.is_there:
            raise admin.missing(group.name)
        there = [place for place in sorted(committed) if place.partition in admin.partitions(place.topic)]
        if not there:
            raise ClientError(
                f"group {group.name} has committed nothing that is still there; name topics with --topic"
            )
        return there, sorted(committed.keys() - set(there))
    chosen = {
        Place(topic, partition)
        for topic, numbers in found.topic
        for partition in admin.require_partitions(topic, numbers)
    }
    return sorted(chosen), []


def _delete(found: argparse.Namespace, admin: GroupAdmin) -> None:
    failures = []
    for name in found.groups:
        try:
            admin.delete(name)
            print(f"deleted group {name}")
        except ClientError as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise ClientError("; ".join(failures))


def _target(found: argparse.Namespace) -> Target:
    if found.to_earliest or found.to_latest:
        return Target(is_earliest=found.to_earliest, is_latest=found.to_latest)
    time_ms = found.to_time
    if found.by_duration is not None:
        time_ms = max(0, time.time_ns() // 1_000_000 - found.by_duration)
    return Target(offset=found.to_offset, shift=found.shift_by, time_ms=time_ms)


def _parser(action: str) -> Parser:
    examples = "".join(f"{line}\n" for line in EXAMPLES.splitlines() if f" {action}" in line)
    parser = Parser(f"warp group {action}", ACTIONS[action], examples)
    if action == "list":
        _add_list(parser)
    elif action == "describe":
        parser.add_argument("groups", metavar="GROUP", nargs="+")
        parser.add_argument("--members", action="store_true", help="Show the members alone.")
        parser.add_argument("--offsets", action="store_true", help="Show the offsets alone.")
    elif action == "reset-offsets":
        _add_reset(parser)
    else:
        parser.add_argument("groups", metavar="GROUP", nargs="+")
    if action != "delete":
        what = (
            "Print JSON: an object for each group, one per line." if action == "describe" else "Print JSON."
        )
        parser.add_argument("--json", action="store_true", help=what)
    add_client_options(parser)
    return parser


def _add_list(parser: Parser) -> None:
    for option, names in (("--state", tuple(STATES)), ("--type", tuple(KINDS))):
        parser.add_argument(
            option,
            action="append",
            default=[],
            type=_one_of(names),
            metavar="NAME",
            help=f"Only these: {', '.join(names)}. May be repeated.",
        )


def _add_reset(parser: Parser) -> None:
    parser.add_argument("group", metavar="GROUP")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--topic",
        action="append",
        type=_reading(parse_topic),
        metavar="TOPIC[:0,1]",
        help="All partitions of a topic, or those that are listed. May be repeated.",
    )
    where.add_argument(
        "--all-topics", action="store_true", help="Every partition that the group has committed."
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to-earliest", action="store_true", help="To the first record that is still there.")
    target.add_argument("--to-latest", action="store_true", help="To the end: only what comes from now on.")
    target.add_argument("--to-offset", type=_reading(parse_offset), metavar="NUMBER", help="To this offset.")
    target.add_argument(
        "--shift-by",
        type=_reading(parse_shift),
        metavar="NUMBER",
        help="By so many records forward; back when it is below 0.",
    )
    target.add_argument(
        "--to-time",
        type=_reading(parse_time_ms),
        metavar="TIME",
        help="To the first record of a time or later, as 2026-01-31T12:00:00Z.",
    )
    target.add_argument(
        "--by-duration",
        type=_reading(parse_duration_ms),
        metavar="DURATION",
        help="To the first record of so long ago or later, as 15m.",
    )
    parser.add_argument(
        "--execute", action="store_true", help="Do it; without this, only show what would be done."
    )


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """A name in any case, with or without dashes: `preparing-rebalance` is PreparingRebalance."""
    known = {name.lower(): name for name in names}

    def read(text: str) -> str:
        found = known.get(text.lower().replace("-", "").replace("_", ""))
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return found

    return read


def _reading(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser of options whose ValueError says what is wrong."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read

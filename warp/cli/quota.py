"""`warp quota list|set|remove`: what clients may use in a time, at any Kafka broker (KIP-546).

The client library has no call for quotas, so the broker is asked with frames of our own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from warp.cli.arguments import Parser, action_of, add_client_options
from warp.cli.client import Client, ClientError
from warp.cli.tables import table
from warp.cli.wire_client import WireClient, check
from warp.config import did_you_mean
from warp.errors import UsageError
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
    DescribeClientQuotasRequest,
    QuotaFilterComponent,
)
from warp.security.quotas.changes import MatchType
from warp.security.quotas.entity import CLIENT_ID, IP, USER, QuotaKey, describe_entity
from warp.units import format_size, parse_size

ACTIONS: Final = {
    "list": "List quotas: all, or those whose entity has the given parts.",
    "set": "Set quotas of a user, a client id, both, or an address.",
    "remove": "Remove quotas of an entity; all that it has when none is named.",
}
EXAMPLES: Final = """\
  warp quota list
  warp quota list --user alice
  warp quota set --user alice producer_byte_rate=1MiB consumer_byte_rate=4MiB
  warp quota set --default-user --client-id batch request_percentage=25
  warp quota set --default-ip connection_creation_rate=20
  warp quota remove --user alice producer_byte_rate
"""
BYTE_RATES: Final = (QuotaKey.PRODUCER_BYTE_RATE, QuotaKey.CONSUMER_BYTE_RATE)
KINDS: Final = (USER, CLIENT_ID, IP)

Entity = dict[str, str | None]
"""Names by type; None is the default."""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp quota", words, ACTIONS, EXAMPLES)
    if action is None:
        return 0
    found = _parser(action).parse_all(words[1:])
    actions = {"list": _list, "set": _set, "remove": _remove}
    actions[action](found)
    return 0


def _parser(action: str) -> Parser:
    examples = "".join(f"{line}\n" for line in EXAMPLES.splitlines() if f" {action}" in line)
    parser = Parser(f"warp quota {action}", ACTIONS[action], examples)
    for kind, metavar, words in (
        (USER, "NAME", "of a user"),
        (CLIENT_ID, "ID", "of a client id"),
        (IP, "ADDRESS", "of an address"),
    ):
        group = parser.add_mutually_exclusive_group()
        group.add_argument(f"--{kind}", metavar=metavar, help=f"Quotas {words}.")
        group.add_argument(
            f"--default-{kind}",
            action="store_true",
            help=f"Quotas {words} that has none of its own, each for itself.",
        )
    if action == "list":
        parser.add_argument("--json", action="store_true", help="Print JSON instead of columns.")
    elif action == "set":
        names = ", ".join(QuotaKey)
        parser.add_argument(
            "quotas",
            metavar="KEY=VALUE",
            nargs="+",
            help=f"Keys: {names}. Byte rates take units, as 1MiB; all are per second, percentages of a processor.",
        )
    else:
        parser.add_argument(
            "keys", metavar="KEY", nargs="*", help="Which quotas. Default: all of the entity's."
        )
    add_client_options(parser)
    return parser


def _list(found: argparse.Namespace) -> None:
    with WireClient(Client(found)) as broker:
        quotas = _described(broker, _entity(found), is_strict=False)
    if found.json:
        print(json.dumps([{"entity": entity, "quotas": values} for entity, values in quotas]))
        return
    if not quotas:
        print("no quotas")
        return
    rows = [
        (_words(entity), key, _shown(key, value))
        for entity, values in quotas
        for key, value in sorted(values.items())
    ]
    print(table(("ENTITY", "QUOTA", "VALUE"), rows))


def _set(found: argparse.Namespace) -> None:
    values = dict(map(_quota, found.quotas))
    if len(values) < len(found.quotas):
        raise UsageError("a quota is set twice")
    entity = _wanted_entity(found)
    with WireClient(Client(found)) as broker:
        _alter(broker, entity, dict(values))
    for key, value in values.items():
        print(f"set {key}={_shown(key, value)} for {_words(entity)}")


def _remove(found: argparse.Namespace) -> None:
    entity = _wanted_entity(found)
    with WireClient(Client(found)) as broker:
        there = next((values for _, values in _described(broker, entity, is_strict=True)), {})
        keys = found.keys or sorted(there)
        missing = [key for key in keys if key not in there]
        if missing or not keys:
            raise ClientError(f"{_words(entity)} has no quota {', '.join(missing)}".rstrip())
        _alter(broker, entity, dict.fromkeys(keys))
    for key in keys:
        print(f"removed {key} of {_words(entity)}")


def _entity(found: argparse.Namespace) -> Entity:
    """The parts of an entity that the options name."""
    entity: Entity = {}
    for kind in KINDS:
        option = kind.replace("-", "_")
        name = getattr(found, option)
        if name is not None:
            entity[kind] = name
        elif getattr(found, f"default_{option}"):
            entity[kind] = None
    return entity


def _wanted_entity(found: argparse.Namespace) -> Entity:
    entity = _entity(found)
    if not entity:
        options = ", ".join(f"--{kind}" for kind in KINDS)
        raise UsageError(f"whose quotas? {options} name them, and --default-user and so on their defaults")
    return entity


def _quota(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    if key not in tuple(QuotaKey):
        raise UsageError(f"there is no quota {key}{did_you_mean(key, tuple(QuotaKey))}")
    try:
        if key in BYTE_RATES and not value.isdecimal():
            return key, float(parse_size(value))
        return key, float(value)
    except ValueError as error:
        reason = str(error) if key in BYTE_RATES else f"{value!r} is not a number"
        raise UsageError(f"{key}: {reason}") from None


def _described(
    broker: WireClient, entity: Entity, *, is_strict: bool
) -> list[tuple[Entity, dict[str, float]]]:
    """Quotas by entity, of entities that have these parts; with `is_strict` no others."""
    components = [
        QuotaFilterComponent(
            entity_type=kind,
            match_type=MatchType.DEFAULT if name is None else MatchType.EXACT,
            match=name,
        )
        for kind, name in entity.items()
    ]
    answer = broker.ask(DescribeClientQuotasRequest(components=components, strict=is_strict))
    check(answer.error_code, answer.error_message)
    return [
        (
            {part.entity_type: part.entity_name for part in entry.entity},
            {value.key: value.value for value in entry.values},
        )
        for entry in answer.entries or []
    ]


def _alter(broker: WireClient, entity: Entity, values: Mapping[str, float | None]) -> None:
    """Set quotas; those that are None are removed."""
    entry = AlterQuotaEntry(
        entity=[AlterQuotaEntity(entity_type=kind, entity_name=name) for kind, name in entity.items()],
        ops=[
            AlterQuotaOperation(key=key, value=0.0 if value is None else value, remove=value is None)
            for key, value in values.items()
        ],
    )
    answer: Any = broker.ask(AlterClientQuotasRequest(entries=[entry], validate_only=False))
    for result in answer.entries:
        check(result.error_code, result.error_message)


def _words(entity: Entity) -> str:
    order = [kind for kind in KINDS if kind in entity] + sorted(entity.keys() - set(KINDS))
    return describe_entity((kind, entity[kind]) for kind in order)


def _shown(key: str, value: float) -> str:
    if key in BYTE_RATES and value == int(value):
        return format_size(int(value))
    return f"{value:g}"

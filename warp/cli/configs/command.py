"""What `warp topic config` and `warp cluster config` have in common: their options, and what they print."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import Final

from warp.cli.arguments import Parser
from warp.cli.configs.resource import Change, Config, Resource
from warp.cli.tables import table
from warp.errors import UsageError
from warp.protocol.types import AlterConfigOperation

SECRET: Final = "(secret)"


def add_config_options(parser: Parser) -> None:
    """How to change configs, and how to show them."""
    for option, words in (
        ("--set", "Give a config this value."),
        ("--append", "Add an item to a config that is a list."),
        ("--subtract", "Take an item away from a config that is a list."),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="NAME=VALUE", help=f"{words} May be repeated."
        )
    parser.add_argument(
        "--delete",
        action="append",
        default=[],
        metavar="NAME",
        help="Set a config no longer: what holds is then its default. May be repeated.",
    )
    parser.add_argument(
        "--validate-only", action="store_true", help="See whether the changes would be made; change nothing."
    )
    parser.add_argument("--all", action="store_true", help="Show all configs, with where each comes from.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of text.")


def run_config(found: argparse.Namespace, resource: Resource) -> None:
    """Make the changes that were asked for, if any, and show what is set then."""
    changes = changes_of(found)
    if changes:
        resource.alter(changes, validate_only=found.validate_only)
    configs = resource.describe() if found.all else resource.describe_own()
    if found.json:
        print(json.dumps([_as_json(config) for config in configs]))
        return
    if changes:
        done = "valid, and nothing was changed" if found.validate_only else f"altered {resource.title}"
        print(f"{done}: {', '.join(map(_words, changes))}")
    if found.all:
        print(table(("NAME", "VALUE", "SOURCE"), [_cells(config) for config in configs]))
    elif configs:
        for config in configs:
            print(f"{config.name}={_shown(config)}")
    elif not changes:
        print(f"no configs are set for {resource.title}; --all shows those that hold")


def changes_of(found: argparse.Namespace) -> list[Change]:
    """The changes that were asked for. Raises UsageError."""
    changes = [_change(text, "--set", AlterConfigOperation.SET) for text in found.set]
    for option, texts, operation in (
        ("--append", found.append, AlterConfigOperation.APPEND),
        ("--subtract", found.subtract, AlterConfigOperation.SUBTRACT),
    ):
        items: dict[str, list[str]] = {}
        for name, _, value in (_change(text, option, operation) for text in texts):
            items.setdefault(name, []).append(value or "")
        changes += [Change(name, operation, ",".join(values)) for name, values in items.items()]
    changes += [Change(name, AlterConfigOperation.DELETE, None) for name in found.delete]
    for name, count in Counter(change.name for change in changes).items():
        if count > 1:
            raise UsageError(f"{name} is to be changed in {count} ways at once")
    if found.validate_only and not changes:
        raise UsageError("--validate-only needs changes to look at: --set, --delete, --append or --subtract")
    return changes


def _change(text: str, option: str, operation: AlterConfigOperation) -> Change:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{option} {text!r} is not NAME=VALUE")
    return Change(name, operation, value)


def _words(change: Change) -> str:
    if change.operation is AlterConfigOperation.DELETE:
        return f"{change.name} deleted"
    sign = {AlterConfigOperation.APPEND: "+", AlterConfigOperation.SUBTRACT: "-"}.get(change.operation, "")
    return f"{change.name}{sign}={change.value}"


def _cells(config: Config) -> Sequence[str]:
    return config.name, _shown(config), config.source


def _shown(config: Config) -> str:
    return SECRET if config.value is None else config.value


def _as_json(config: Config) -> dict[str, object]:
    return {
        "name": config.name,
        "value": config.value,
        "source": config.source,
        "is_read_only": config.is_read_only,
    }

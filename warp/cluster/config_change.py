"""Changes of configs, as AlterConfigs and IncrementalAlterConfigs ask for them. Pure: configs in, configs out.

A change applies to the whole set of a resource's own configs, so that whoever stores the result can see whether the set
is still the one that it was made of.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from warp.cluster.config_definition import ConfigDefinition, shown, split_list
from warp.errors import ErrorCode, KafkaError


class ConfigOperation(enum.IntEnum):
    """What happens to one config, with the numbers of IncrementalAlterConfigs (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigChange(NamedTuple):
    """One change; `value` means nothing to DELETE."""

    name: str
    operation: int
    value: str | None


def check_changes(changes: Sequence[ConfigChange]) -> None:
    """Raises KafkaError (INVALID_REQUEST) for changes that no set of configs could take."""
    _check_names([change.name for change in changes])
    for change in changes:
        if change.operation not in tuple(ConfigOperation):
            problem = f"Unknown operation {change.operation} for config {shown(change.name)}"
            raise KafkaError(ErrorCode.INVALID_REQUEST, problem)
        if change.value is None and change.operation != ConfigOperation.DELETE:
            raise KafkaError(ErrorCode.INVALID_REQUEST, _null(change.name))


def applied(
    changes: Sequence[ConfigChange],
    current: Mapping[str, str],
    definition_of: Callable[[str], ConfigDefinition],
    value_of: Callable[[str], str],
) -> dict[str, str]:
    """The configs after the changes, not yet checked beside each other.

    `definition_of` finds a config by its name, or raises; `value_of` gives the value that holds where `current` has
    none, to which the items of a list are added. Deleting what is not set does nothing. Raises KafkaError: what
    `definition_of` raises, and INVALID_CONFIG for items of something that is no list.
    """
    configs = dict(current)
    for name, operation, value in changes:
        if operation == ConfigOperation.DELETE:
            configs.pop(name, None)
            continue
        assert value is not None
        if operation != ConfigOperation.SET:
            definition = definition_of(name)
            if not definition.is_list:
                verb = ConfigOperation(operation).name
                problem = f"Can't {verb} to {name}: its type is {definition.type.name}, not LIST"
                raise KafkaError(ErrorCode.INVALID_CONFIG, problem)
            items = split_list(configs[name] if name in configs else value_of(name))
            value = ",".join(_changed_items(items, operation, split_list(value)))
        configs[name] = value
    return configs


def replacement(configs: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """The whole set that AlterConfigs wants. Raises KafkaError (INVALID_REQUEST) for names twice and null values."""
    _check_names([name for name, _ in configs])
    replaced = {}
    for name, value in configs:
        if value is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, _null(name))
        replaced[name] = value
    return replaced


def _changed_items(items: Sequence[str], operation: int, named: Sequence[str]) -> list[str]:
    if operation == ConfigOperation.APPEND:
        return list(dict.fromkeys([*items, *named]))
    return [item for item in items if item not in named]


def _check_names(names: Sequence[str]) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Config {shown(name)} is named {count} times")


def _null(name: str) -> str:
    return f"Null value not supported for config: {shown(name)}"

"""Describing and altering quotas: pure, over the entries of the catalogue (KIP-546)."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import EntryChange
from warp.security.quotas.entity import (
    CLIENT_ID,
    ENTITY_TYPES,
    IP,
    NAME_CHARACTERS_MAX,
    USER,
    Entity,
    checked_address,
    checked_entity,
    checked_key,
    checked_value,
    describe_entity,
    entity_text,
    parse_entity,
    parse_values,
    values_text,
)

logger = logging.getLogger(__name__)


class MatchType(enum.IntEnum):
    """How a filter compares the names of entities."""

    EXACT = 0
    DEFAULT = 1
    ANY = 2
    """Any name, and the default."""


class Component(NamedTuple):
    """What a filter wants of the entities' part of one type."""

    kind: str
    match: MatchType
    name: str | None


class Operation(NamedTuple):
    """One quota to be set, or with None removed."""

    key: str
    value: float | None


class Alteration(NamedTuple):
    """What is to change about the quotas of one entity; checked."""

    entity: Entity
    operations: tuple[Operation, ...]


def checked_filter(components: Iterable[tuple[str, int, str | None]]) -> list[Component]:
    """The components of a filter: type, match type, name. Raises KafkaError.

    A type that nobody knows is UNSUPPORTED_VERSION, as in Kafka; what else is wrong INVALID_REQUEST.
    """
    found: list[Component] = []
    for kind, match, name in components:
        if not kind:
            raise _refused("a component of the filter has no entity type")
        if kind not in ENTITY_TYPES:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"{kind[:100]!r} is no entity type: {', '.join(ENTITY_TYPES)} are",
            )
        if any(kind == other.kind for other in found):
            raise _refused(f"the filter has the entity type {kind} twice")
        if match not in MatchType.__members__.values():
            raise _refused(f"the match type {match} is unknown")
        if (match == MatchType.EXACT) != (name is not None):
            raise _refused(f"the component {kind} has {'no' if name is None else 'a needless'} name to match")
        if name is not None and len(name) > NAME_CHARACTERS_MAX:
            raise _refused(f"the name to match is longer than {NAME_CHARACTERS_MAX} characters")
        if kind == IP and name is not None:
            name = checked_address(name)
        found.append(Component(kind, MatchType(match), name))
    kinds = {component.kind for component in found}
    if IP in kinds and kinds & {USER, CLIENT_ID}:
        raise _refused("an ip does not combine with a user or a client id in one filter")
    return found


def described(
    entries: Mapping[str, str], components: Sequence[Component], *, is_strict: bool
) -> list[tuple[Entity, dict[str, float]]]:
    """The entities that match all components, in the order of their keys; with `is_strict` none with further types."""
    found = []
    for text in sorted(entries):
        try:
            entity, values = parse_entity(text), parse_values(entries[text])
        except ValueError as error:
            logger.error("a stored quota can't be read and is not shown: %s: %s", text[:300], error)
            continue
        if _matches(dict(entity), components, is_strict):
            found.append((entity, values))
    return found


def _matches(entity: Mapping[str, str | None], components: Sequence[Component], is_strict: bool) -> bool:
    for kind, match, name in components:
        if kind not in entity:
            return False
        if match is MatchType.EXACT and entity[kind] != name:
            return False
        if match is MatchType.DEFAULT and entity[kind] is not None:
            return False
    return not is_strict or len(entity) == len(components)


def checked_alteration(
    parts: Iterable[tuple[str, str | None]], operations: Iterable[tuple[str, float, bool]]
) -> Alteration:
    """What is asked of an entity: operations of key, value, and whether it is removed. Raises KafkaError."""
    entity = checked_entity(parts)
    checked: list[Operation] = []
    for key, value, is_removed in operations:
        if any(key == other.key for other in checked):
            raise _refused(f"{key[:100]} is altered twice")
        if is_removed:
            checked.append(Operation(checked_key(entity, key), None))
        else:
            checked.append(Operation(checked_key(entity, key), checked_value(entity, key, value)))
    return Alteration(entity, tuple(checked))


def refuse_twice(alterations: Sequence[Alteration | KafkaError]) -> list[Alteration | KafkaError]:
    """The same, with those refused whose entity is altered more than once in the request."""
    times = Counter(each.entity for each in alterations if isinstance(each, Alteration))
    return [
        _refused(f"{describe_entity(each.entity)} is altered twice in one request")
        if isinstance(each, Alteration) and times[each.entity] > 1
        else each
        for each in alterations
    ]


def changes_of(alterations: Iterable[Alteration], entries: Mapping[str, str]) -> list[EntryChange]:
    """What alterations come to, given all entries; those that change nothing are left out."""
    changes = []
    for entity, operations in alterations:
        key = entity_text(entity)
        before = entries.get(key)
        values = _values_of(before)
        for name, value in operations:
            if value is None:
                values.pop(name, None)
            else:
                values[name] = value
        after = values_text(values) if values else None
        if after != before:
            changes.append(EntryChange(key, after))
    return changes


def told_changes(changes: Iterable[EntryChange], entries: Mapping[str, str]) -> list[str]:
    """Words for the audit log: the entity of each change, what it had and what it has."""
    return [f"{key} {entries.get(key) or 'none'} -> {value or 'none'}" for key, value in changes]


def _values_of(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    try:
        return parse_values(text)
    except ValueError:
        return {}  # what nobody can read holds for nobody: see QuotaTable


def _refused(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)

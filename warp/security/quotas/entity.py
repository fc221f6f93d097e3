"""Whom a quota is for, and what it limits: Kafka's entities and keys, and how both are written in the catalogue.

An entity names a user, a client id, both, or an address; each by its name or as the default of its type, which is for
all that have no quota of their own. The stored key of an entity is a JSON object from types to names, null for the
default; the stored value one from quota keys to numbers.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import KEY_CHARACTERS_MAX

USER: Final = "user"
CLIENT_ID: Final = "client-id"
IP: Final = "ip"
ENTITY_TYPES: Final = (USER, CLIENT_ID, IP)

NAME_CHARACTERS_MAX: Final = 1_024
"""Of a user, a client id or an address in an entity."""

Entity: TypeAlias = tuple[tuple[str, str | None], ...]
"""(type, name) in the order of types; a name that is None is the default of its type."""


class QuotaKey(enum.StrEnum):
    """What is limited."""

    PRODUCER_BYTE_RATE = "producer_byte_rate"
    """Bytes of record batches per second."""
    CONSUMER_BYTE_RATE = "consumer_byte_rate"
    """Bytes of record batches per second."""
    REQUEST_PERCENTAGE = "request_percentage"
    """Time that the agent spends on requests, in per cent of one processor."""
    CONTROLLER_MUTATION_RATE = "controller_mutation_rate"
    """Partitions created and deleted per second."""
    CONNECTION_CREATION_RATE = "connection_creation_rate"
    """Connections opened per second; of addresses alone."""


WHOLE_NUMBERS: Final = frozenset(
    {QuotaKey.PRODUCER_BYTE_RATE, QuotaKey.CONSUMER_BYTE_RATE, QuotaKey.CONNECTION_CREATION_RATE}
)
VALUE_MAX: Final = float(2**63 - 1)
_FRACTION: Final = 1e-6


def checked_entity(parts: Iterable[tuple[str, str | None]]) -> Entity:
    """The entity of these parts. Raises KafkaError (INVALID_REQUEST) when they are none."""
    found: dict[str, str | None] = {}
    for kind, name in parts:
        if kind not in ENTITY_TYPES:
            raise _refused(f"{kind[:100]!r} is no type of a quota entity: {', '.join(ENTITY_TYPES)} are")
        if kind in found:
            raise _refused(f"the entity has the type {kind} twice")
        found[kind] = _checked_name(kind, name)
    if not found:
        raise _refused("a quota needs an entity: a user, a client id, both, or an ip")
    if IP in found and len(found) > 1:
        raise _refused("an ip does not combine with a user or a client id in one entity")
    entity = tuple(sorted(found.items()))
    if len(entity_text(entity)) > KEY_CHARACTERS_MAX:
        raise _refused("the names in the entity are too long")
    return entity


def _checked_name(kind: str, name: str | None) -> str | None:
    if name is None:
        return None
    if not name:
        raise _refused(f"the name of the {kind} is empty; null means the default")
    if len(name) > NAME_CHARACTERS_MAX:
        raise _refused(f"the name of the {kind} is longer than {NAME_CHARACTERS_MAX} characters")
    return name if kind != IP else checked_address(name)


def checked_address(text: str) -> str:
    """An IP address in its usual form. Raises KafkaError (INVALID_REQUEST)."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise _refused(f"{text[:100]!r} is not an IP address") from None


def checked_value(entity: Entity, key: str, value: float) -> float:
    """The value of a quota. Raises KafkaError (INVALID_REQUEST) when the entity can't have it."""
    checked = checked_key(entity, key)
    if math.isnan(value):
        raise _refused(f"{key} is not a number")
    if value <= 0:
        raise _refused(f"{key} must be greater than 0, not {value:g}")
    if value > VALUE_MAX:
        raise _refused(f"{key} is too large")
    if checked in WHOLE_NUMBERS:
        if abs(value - round(value)) > _FRACTION or round(value) < 1:
            raise _refused(f"{key} must be a whole number, not {value:g}")
        return float(round(value))
    return value


def checked_key(entity: Entity, key: str) -> QuotaKey:
    """A quota key that such an entity can have. Raises KafkaError (INVALID_REQUEST)."""
    of_address = is_of_address(entity)
    known = [each.value for each in QuotaKey if (each is QuotaKey.CONNECTION_CREATION_RATE) == of_address]
    if key not in known:
        raise _refused(
            f"{key[:100]!r} is no quota of {describe_entity(entity)[:300]}: {', '.join(known)}"
            f"{' is' if len(known) == 1 else ' are'}"
        )
    return QuotaKey(key)


def is_of_address(entity: Entity) -> bool:
    """Whether the entity is an address, or the default of addresses."""
    return entity[0][0] == IP


def describe_entity(entity: Iterable[tuple[str, str | None]]) -> str:
    """Words for people: `user alice, default client-id`."""
    return ", ".join(f"default {kind}" if name is None else f"{kind} {name}" for kind, name in entity)


def entity_text(entity: Entity) -> str:
    """The entity as a key of the catalogue."""
    return json.dumps(dict(entity), sort_keys=True, separators=(",", ":"))


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_entity(text: str) -> Entity:
    """An entity from its key in the catalogue. Raises ValueError."""
    parts = _read(text)
    if not isinstance(parts, dict) or not all(isinstance(name, str | None) for name in parts.values()):
        raise ValueError("not an object from types to names")
    try:
        return checked_entity(parts.items())
    except KafkaError as error:
        raise ValueError(error.message) from None


def values_text(values: Mapping[str, float]) -> str:
    """The quotas of an entity as a value of the catalogue."""
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"))


def parse_values(text: str) -> dict[str, float]:
    """The quotas of an entity from their value in the catalogue, by key. Raises ValueError."""
    values = _read(text)
    if not isinstance(values, dict):
        raise ValueError("not an object from quota keys to numbers")
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= VALUE_MAX:
            raise ValueError(f"{key} is not a number above 0")
        found[key] = float(value)
    return found


def _refused(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)

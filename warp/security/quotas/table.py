"""Which quota holds for a client: Kafka's order of precedence among those that are defined.

The most specific one holds alone, from the named user with the named client id down to the default client id; and who
shares it follows from its level: all connections of a user, all of a client id, or all of one client id of one user.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from warp.security.quotas.entity import CLIENT_ID, IP, USER, QuotaKey, parse_entity, parse_values

logger = logging.getLogger(__name__)

_DEFAULT: Final = "*"
_ABSENT: Final = ""
# Names stand behind a mark, so that none can pass for a default.
_NAMED: Final = "="
_KEYS: Final = {key.value: key for key in QuotaKey}


class Limit(NamedTuple):
    """A quota that holds for a client, and whose use counts together with its own."""

    bound: float
    """Per second."""
    user: str
    """The user that it is counted for, "" for a quota of client ids."""
    client_id: str
    """The client id that it is counted for, "" for a quota of users."""


_Quotas: TypeAlias = list[tuple[QuotaKey, Mapping[str, str | None], float]]
"""Of one entry: what is limited, for whom, and the bound."""


class QuotaTable:
    """All quotas at one time; never changes. Entries that can't be read are logged and left out.

    Of the table `before`, what was read from entries that are still the same need not be read again: with tens of
    thousands that would hold up the loop at each change.
    """

    def __init__(self, entries: Mapping[str, str], before: QuotaTable | None = None) -> None:
        self._by_client: dict[QuotaKey, dict[tuple[str, str], float]] = {}
        self._by_address: dict[str | None, float] = {}
        self._read: dict[str, tuple[str, _Quotas]] = {}
        read_before = {} if before is None else before._read
        for text, values in sorted(entries.items()):
            read = read_before.get(text)
            if read is None or read[0] != values:
                read = values, _read(text, values)
            self._read[text] = read
            for key, entity, value in read[1]:
                self._put(key, entity, value)

    def _put(self, key: QuotaKey, entity: Mapping[str, str | None], value: float) -> None:
        if key is QuotaKey.CONNECTION_CREATION_RATE:
            if IP in entity:
                self._by_address[entity[IP]] = value
        elif IP not in entity:
            self._by_client.setdefault(key, {})[_level(entity, USER), _level(entity, CLIENT_ID)] = value

    def limits(self, key: QuotaKey) -> bool:
        """Whether anybody has a quota of this kind."""
        if key is QuotaKey.CONNECTION_CREATION_RATE:
            return bool(self._by_address)
        return key in self._by_client

    def of_client(self, key: QuotaKey, user: str, client_id: str) -> Limit | None:
        """The quota that holds for a client, if any does."""
        bounds = self._by_client.get(key)
        if bounds is None:
            return None
        by_user, by_client = _NAMED + user, _NAMED + client_id
        for levels, user_counts, client_counts in (
            ((by_user, by_client), True, True),
            ((by_user, _DEFAULT), True, True),
            ((by_user, _ABSENT), True, False),
            ((_DEFAULT, by_client), True, True),
            ((_DEFAULT, _DEFAULT), True, True),
            ((_DEFAULT, _ABSENT), True, False),
            ((_ABSENT, by_client), False, True),
            ((_ABSENT, _DEFAULT), False, True),
        ):
            bound = bounds.get(levels)
            if bound is not None:
                return Limit(bound, user if user_counts else "", client_id if client_counts else "")
        return None

    def of_address(self, host: str) -> float | None:
        """How many connections per second an address may open; None for any number."""
        return self._by_address.get(host, self._by_address.get(None))


def _read(text: str, values: str) -> _Quotas:
    """What an entry says; nothing if it can't be read. Keys of a later release are left out."""
    try:
        entity = dict(parse_entity(text))
        found = parse_values(values)
    except ValueError as error:
        logger.error("a stored quota can't be read and holds for nobody: %s: %s", text[:300], error)
        return []
    return [(_KEYS[key], entity, value) for key, value in found.items() if key in _KEYS]


def _level(entity: Mapping[str, str | None], kind: str) -> str:
    if kind not in entity:
        return _ABSENT
    name = entity[kind]
    return _DEFAULT if name is None else _NAMED + name


NO_QUOTAS: Final = QuotaTable({})

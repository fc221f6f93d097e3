"""What a Kafka config is: a name, a type, a default, the values that it takes, and how clients are told about it."""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

SHOWN_CHARACTERS_MAX = 100
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1


class ConfigType(enum.IntEnum):
    """Types of configs, with their numbers in DescribeConfigs (KIP-569)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSource(enum.IntEnum):
    """Where a config's value comes from, with the numbers of DescribeConfigs (KIP-226)."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


class Effect(enum.Enum):
    """What comes of a config's value here."""

    HONOURED = "honoured"
    NONE = "without meaning"
    """Checked and shown; there is nothing here that it could govern."""


class Synonym(NamedTuple):
    """One of the places where a config's value could come from."""

    name: str
    value: str | None
    source: ConfigSource


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One config as it is described to a client. `synonyms` come highest first; the first one holds the value.

    A secret is described by its name alone: its values are None.
    """

    name: str
    value: str | None
    source: ConfigSource
    type: ConfigType
    is_read_only: bool
    documentation: str
    synonyms: tuple[Synonym, ...]
    is_sensitive: bool = False


Check = Callable[[str], str | None]
"""Says what is wrong with a value (words that follow "must"), None for nothing."""


@dataclass(frozen=True, slots=True)
class ConfigDefinition:
    """A config that Kafka knows. `synonyms` are the broker's names for a topic's config, highest first.

    `is_dynamic` ones can be set for the whole cluster; `flag` is the agent's option for one that can't.
    """

    name: str
    type: ConfigType
    default: str
    check: Check
    documentation: str
    synonyms: tuple[str, ...] = ()
    effect: Effect = Effect.HONOURED
    is_dynamic: bool = False
    flag: str | None = None

    @property
    def broker_name(self) -> str:
        """The broker's name for the default of a topic's config.

        Its other names for a time are in minutes or hours, which nothing here is set in.
        """
        return self.synonyms[0] if self.synonyms else self.name

    @property
    def is_list(self) -> bool:
        """Whether single items can be added and taken away."""
        return self.type is ConfigType.LIST

    @property
    def is_sensitive(self) -> bool:
        """Whether its value is told to nobody."""
        return self.type is ConfigType.PASSWORD

    def problem(self, value: str) -> str | None:
        """Why `value` can't be taken, in one sentence; None when it can."""
        wrong = self.check(value.strip())
        return None if wrong is None else f"Invalid value {shown(value)!r} for {self.name}: it must {wrong}"


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REPLICA_LIST = re.compile(r"[0-9]+:[0-9]+(,[0-9]+:[0-9]+)*")
_DOUBLE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def boolean(value: str) -> str | None:
    """A check: true or false, in any case."""
    return None if value.lower() in ("true", "false") else "be true or false"


def integer(least: int, most: int) -> Check:
    """A check: a whole number within bounds, both inclusive."""

    def check(value: str) -> str | None:
        if not _INTEGER.fullmatch(value):
            return "be a whole number"
        if int(value) < least:
            return f"be at least {least}"
        return None if int(value) <= most else f"be at most {most}"

    return check


def either(single: int, check: Check) -> Check:
    """A check: one number that stands apart, or what another check takes."""

    def checked(value: str) -> str | None:
        if _INTEGER.fullmatch(value) and int(value) == single:
            return None
        wrong = check(value)
        return None if wrong is None else f"be {single} or {wrong}"

    return checked


def double(least: float, most: float) -> Check:
    """A check: a number within bounds, both inclusive."""

    def check(value: str) -> str | None:
        if not _DOUBLE.fullmatch(value) or not math.isfinite(float(value)):
            return "be a number"
        return None if least <= float(value) <= most else f"be from {least:g} to {most:g}"

    return check


def one_of(*words: str) -> Check:
    """A check: one of some words, as they are written."""
    return lambda value: None if value in words else f"be one of {', '.join(words)}"


def list_of(*words: str) -> Check:
    """A check: any of some words, separated by commas, none of them twice; may be empty."""

    def check(value: str) -> str | None:
        items = split_list(value)
        if any(item not in words for item in items):
            return f"be a list of {', '.join(words)}"
        return None if len(set(items)) == len(items) else "name nothing twice"

    return check


def throttled_replicas(value: str) -> str | None:
    """A check: `*`, or pairs of partition and broker, separated by commas; may be empty."""
    if value in ("", "*") or _REPLICA_LIST.fullmatch(value.replace(" ", "")):
        return None
    return "be * or a list of PARTITION:BROKER"


def anything(_value: str) -> str | None:
    """A check that takes every text."""
    return None


def shown(text: str) -> str:
    """A client's text as it may stand in an error message, which has to fit into an answer."""
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that offer the nearest known name, to end an error message with; "" where none is near."""
    near = difflib.get_close_matches(name[:SHOWN_CHARACTERS_MAX], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def split_list(value: str) -> list[str]:
    """The items of a list config."""
    return [item.strip() for item in value.split(",")] if value.strip() else []

"""Who is at the other end of a connection: Kafka's principals, a type and a name, written `User:alice`."""

from __future__ import annotations

from typing import NamedTuple

USER = "User"
NAME_CHARACTERS_MAX = 1_024
"""Distinguished names of certificates are long."""


class Principal(NamedTuple):
    """A type, which is `User` for all that an agent makes itself, and a name, which may hold any character."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"


ANONYMOUS = Principal(USER, "ANONYMOUS")
"""Everybody on a listener that does not authenticate."""


def parse_principal(text: str) -> Principal:
    """`TYPE:NAME`; the name may hold colons. Raises ValueError."""
    kind, colon, name = text.partition(":")
    if not colon or not kind or not name:
        raise ValueError(f"{text[:100]!r} is not a principal like User:alice")
    if len(text) > NAME_CHARACTERS_MAX:
        raise ValueError(f"a principal is longer than {NAME_CHARACTERS_MAX} characters")
    return Principal(kind, name)

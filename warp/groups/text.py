"""Text of clients that is stored or logged: cut to a length, and without what databases and terminals choke on."""

from __future__ import annotations

from typing import Final

NAME_BYTES_MAX: Final = 249
"""Of names of protocols and protocol types; as long as a topic's name may be."""
GROUP_ID_BYTES_MAX: Final = 1024
"""Longer ids would not fit into the key of an index in every database."""
REASON_CHARACTERS_MAX: Final = 255


def is_storable(name: str, bytes_max: int = NAME_BYTES_MAX) -> bool:
    """Can the name be stored as it is? NUL is no text in PostgreSQL, and neither are halves of surrogate pairs."""
    if "\0" in name:
        return False
    try:
        return len(name.encode("utf-8")) <= bytes_max
    except UnicodeEncodeError:
        return False


def clean_text(text: str, bytes_max: int) -> str:
    """The text without what can't be stored, cut to a length in UTF-8."""
    raw = text.replace("\0", "").encode("utf-8", "ignore")
    return raw[:bytes_max].decode("utf-8", "ignore")


def clean_reason(reason: str | None) -> str:
    """What a client gave as its reason (KIP-800), fit for a line of a log."""
    if not reason:
        return "no reason given"
    shown = reason[:REASON_CHARACTERS_MAX]
    return "".join(character if character.isprintable() else "?" for character in shown)

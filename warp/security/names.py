"""Names of users: which may be authenticated as, and how two spellings of one name become the same (RFC 4013).

The name of a user goes into log lines, ACLs, quotas and metadata; so it is one line of printable text of bounded
length. Names and passwords of SCRAM and PLAIN are prepared by SASLprep, without which `é` typed on one machine is not
that of another.
"""

from __future__ import annotations

import re
import stringprep
import unicodedata

from warp.security.principal import ANONYMOUS, NAME_CHARACTERS_MAX

_ESCAPE = re.compile(r"=(2C|3D)?")
_NOBODYS = ("*", ANONYMOUS.name)
"""Names that mean everybody, and those who have not authenticated."""


def check_name(name: str) -> str:
    """The name itself. Raises ValueError, which does not quote it, when nobody can be called so."""
    if not name:
        raise ValueError("the name is empty")
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"the name is longer than {NAME_CHARACTERS_MAX} characters")
    if not name.isprintable():
        raise ValueError("the name holds characters that can't be printed")
    if name in _NOBODYS:
        raise ValueError(f"no user can be called {name}")
    return name


def prepare_name(name: str, *, is_stored: bool = False) -> str:
    """The name as SASLprep makes it, checked. Raises ValueError, which does not quote it."""
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"the name is longer than {NAME_CHARACTERS_MAX} characters")
    try:
        return check_name(saslprep(name, is_stored=is_stored))
    except UnicodeError as error:
        raise ValueError(f"the name {error}") from None


def unescape_name(name: str) -> str:
    """The name that SCRAM and OAUTHBEARER write with `=2C` for a comma and `=3D` for an equals sign (RFC 5801).

    Raises ValueError, which does not quote it.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            raise ValueError("the name is not escaped as it should be")
        return "," if match[1] == "2C" else "="

    return _ESCAPE.sub(replaced, name)


def saslprep(text: str, *, is_stored: bool = False) -> str:
    """The text as RFC 4013 prepares names and passwords to be compared.

    `is_stored` refuses code points that Unicode 3.2 had not assigned, as it must be done for what is kept (RFC 3454,
    section 7). Raises UnicodeError, with words that follow "the name", where the text has no prepared form.
    """
    if text.isascii():
        if not text.isprintable():
            raise UnicodeError("holds control characters")
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    prohibited = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    for char in prepared:
        if any(is_in(char) for is_in in prohibited):
            raise UnicodeError("holds characters that SASLprep prohibits")
        if is_stored and stringprep.in_table_a1(char):
            raise UnicodeError("holds characters that SASLprep does not know")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """Text from right to left has to begin and end so, and holds nothing from left to right (RFC 3454, section 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    ends_so = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends_so or any(map(stringprep.in_table_d2, text)):
        raise UnicodeError("mixes directions of writing")

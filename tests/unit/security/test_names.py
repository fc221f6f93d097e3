"""Names and passwords as SASLprep makes them, and which names nobody can have."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.security.names import check_name, prepare_name, saslprep, unescape_name
from warp.security.principal import NAME_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # The examples of RFC 4013, section 3.
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # A space that is none in ASCII, a ligature, an accent that stands alone.
        ("a\u00a0b", "a b"),
        ("\ufb01n", "fin"),
        ("e\u0301", "\u00e9"),
        ("a,b=c d", "a,b=c d"),
        ("", ""),
    ],
)
def test_saslprep_makes_one_spelling_of_several(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared
    assert saslprep(prepared) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "\u0007",  # of RFC 4013
        "\u06271",  # of RFC 4013: right to left that does not end so
        "a\tb",
        "a\x7f",
        "a\u0085",
        "a\u2028b",
        "a\ue000",  # private use
        "a" + chr(0xD800),  # half a character
        "a\ufffd",
        "a\u200e",
        "\u0627b\u0627",  # both directions
        "\u0341\ufff9",
    ],
)
def test_saslprep_refuses_what_it_prohibits(text: str) -> None:
    with pytest.raises(UnicodeError):
        saslprep(text)


def test_code_points_of_a_later_unicode_may_be_asked_for_but_not_kept() -> None:
    later = "\u0220\u0221"
    assert saslprep(later) == later
    with pytest.raises(UnicodeError, match="does not know"):
        saslprep(later, is_stored=True)


@given(st.text(max_size=50))
def test_saslprep_either_refuses_or_is_the_same_when_done_twice(text: str) -> None:
    try:
        prepared = saslprep(text)
    except UnicodeError:
        return
    assert saslprep(prepared) == prepared


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "Jürgen Groß",
        "CN=app,OU=it, O=Acme",
        "a=b,c",
        "日本語",
        "user:with:colons",
        "x" * NAME_CHARACTERS_MAX,
    ],
)
def test_names_may_hold_strange_characters(name: str) -> None:
    assert check_name(name) == name
    assert prepare_name(name, is_stored=True) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("\u00ad", "empty"),
        ("x" * (NAME_CHARACTERS_MAX + 1), "longer"),
        ("line\nbreak", "control|printed"),
        ("nul\0", "control|printed"),
        ("esc\x1b[31m", "control|printed"),
        ("bell\u0007", "control|printed"),
        ("half" + chr(0xD83D), "prohibits|printed"),
        ("*", "can be called"),
        ("ANONYMOUS", "can be called"),
    ],
)
def test_names_that_would_harm_logs_or_mean_somebody_else_are_refused(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        prepare_name(name)
    assert len(name) < 3 or name == "ANONYMOUS" or name not in str(raised.value)
    if name != "\u00ad":
        with pytest.raises(ValueError, match=problem):
            check_name(name)


def test_a_name_that_grows_beyond_the_limit_is_refused() -> None:
    # One character that NFKC makes eighteen of.
    with pytest.raises(ValueError, match="longer"):
        prepare_name("\ufdfa" * 100)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_escaped_names_come_back(name: str) -> None:
    assert unescape_name(name.replace("=", "=3D").replace(",", "=2C")) == name


@pytest.mark.parametrize("text", ["=", "a=b", "=2c", "=3d", "=2", "a=3", "=20"])
def test_names_that_are_not_escaped_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="escaped"):
        unescape_name(text)

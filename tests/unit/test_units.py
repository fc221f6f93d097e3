"""Sizes and durations: what is read, what is refused, and that what is printed reads back as itself."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from warp.units import approximate_size, format_duration_ms, format_size, parse_duration_ms, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512B", 512),
        ("8MiB", 8 * 2**20),
        ("8 MiB", 8 * 2**20),
        (" 1GB ", 10**9),
        ("1.5KiB", 1536),
        ("0.1KB", 100),
        ("2TiB", 2 * 2**40),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("250ms", 250), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000), ("7d", 604_800_000)],
)
def test_durations_are_read(text: str, expected: int) -> None:
    assert parse_duration_ms(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8", "has no unit"),
        ("8mib", "unknown unit 'mib'"),
        ("-1MiB", "is not a size"),
        ("", "is not a size"),
        ("MiB", "is not a size"),
        ("1.0001KiB", "not a whole number of B"),
        ("1e3MiB", "is not a size"),
        ("9" * 19 + "B", "is not a size"),
    ],
)
def test_a_bad_size_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("30", "has no unit"), ("30sec", "unknown unit"), ("soon", "not a duration")]
)
def test_a_bad_duration_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_duration_ms(text)


@given(st.integers(0, 2**50))
def test_printed_sizes_read_back_as_themselves(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**12))
def test_printed_durations_read_back_as_themselves(duration_ms: int) -> None:
    assert parse_duration_ms(format_duration_ms(duration_ms)) == duration_ms


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1.25 * 2**20, "1.25 MiB"), (5 * 2**40, "5 TiB")],
)
def test_sizes_for_people_are_short(size: float, text: str) -> None:
    assert approximate_size(size) == text

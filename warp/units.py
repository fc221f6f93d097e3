"""Sizes and durations as people write them: `8MiB`, `250ms`.

A number without a unit is refused rather than guessed: whether `30` means seconds or milliseconds, bytes or mebibytes,
is exactly what a reader of a configuration can't know. `0` alone needs none.
"""

from __future__ import annotations

import re
from typing import Final

_SIZE_UNITS: Final = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATION_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_NUMBER_AND_UNIT = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]+)")


def parse_size(text: str) -> int:
    """Bytes of `8MiB`, `1.5GB` or `512B`; units of 1024 carry an `i`. Raises ValueError that says what is wrong."""
    return _parse(text, _SIZE_UNITS, "a size", "8MiB")


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `250ms`, `30s`, `1.5m`, `2h` or `7d`. Raises ValueError that says what is wrong."""
    return _parse(text, _DURATION_UNITS_MS, "a duration", "250ms")


def format_size(size_bytes: int) -> str:
    """The shortest exact text that `parse_size` reads back as the same number of bytes."""
    return _format(
        size_bytes, {name: unit for name, unit in _SIZE_UNITS.items() if "i" in name or name == "B"}
    )


def format_duration_ms(duration_ms: int) -> str:
    """The shortest exact text that `parse_duration_ms` reads back as the same number of milliseconds."""
    return _format(duration_ms, _DURATION_UNITS_MS)


def approximate_size(size_bytes: float) -> str:
    """A size for people to read, three digits at most: `1.25 MiB`."""
    for name in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {name}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} TiB"


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int:
    text = text.strip()
    if text == "0":
        return 0
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        hint = "has no unit" if re.fullmatch(r"\d+(\.\d+)?", text) else f"is not {what}"
        raise ValueError(f"{text!r} {hint}; write it like {example}, with one of {', '.join(units)}")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}; use one of {', '.join(units)}")
    value = _exact(number, units[unit])
    if value is None:
        raise ValueError(f"{text!r} is not a whole number of {next(iter(units))}")
    return value


def _exact(number: str, unit: int) -> int | None:
    """`number` times `unit` in integers, because 0.1 has no exact float. None when the product is not whole."""
    whole, _, fraction = number.partition(".")
    scaled = int(whole + fraction) * unit
    value, rest = divmod(scaled, 10 ** len(fraction))
    return None if rest else value


def _format(value: int, units: dict[str, int]) -> str:
    if value == 0:
        return "0"
    name, unit = max(
        ((name, unit) for name, unit in units.items() if value % unit == 0), key=lambda entry: entry[1]
    )
    return f"{value // unit}{name}"

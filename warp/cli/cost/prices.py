"""Prices of an object store: a list price by default, a TOML file or options otherwise."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from warp.config import did_you_mean
from warp.errors import UsageError

PRICE_MAX: Final = 1_000_000.0
NAME_LENGTH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in `currency`: requests per 1,000, storage per GB and month, transfer per GB read; 1 GB = 2^30 bytes."""

    name: str
    currency: str
    put_price: float
    get_price: float
    list_price: float
    delete_price: float
    storage_price: float
    transfer_price: float


S3_STANDARD: Final = Prices(
    # https://aws.amazon.com/s3/pricing/, the first 50 TB of a month. HEAD costs what GET costs. Nothing is charged for
    # transfer into S3, nor to machines in the bucket's region.
    name="S3 Standard, us-east-1, list prices of June 2025",
    currency="USD",
    put_price=0.005,
    get_price=0.0004,
    list_price=0.005,
    delete_price=0.0,
    storage_price=0.023,
    transfer_price=0.0,
)

PRICE_NAMES: Final = tuple(field.name for field in fields(Prices) if field.name.endswith("_price"))
_TEXT_NAMES: Final = ("name", "currency")


def read_prices(path: Path) -> Prices:
    """The prices of a TOML file whose keys are the options without dashes, `name` and `currency`.

    Prices that it leaves out are those of S3_STANDARD. Raises UsageError.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    known = {name.replace("_", "-"): name for name in (*_TEXT_NAMES, *PRICE_NAMES)}
    changes: dict[str, Any] = {"name": path.name}
    for key, value in content.items():
        if key not in known:
            raise UsageError(f"{path}: unknown key {key}{did_you_mean(key, known)}")
        changes[known[key]] = _text(path, key, value) if key in _TEXT_NAMES else _price(path, key, value)
    return replace(S3_STANDARD, **changes)


def with_changes(prices: Prices, changes: Mapping[str, float]) -> Prices:
    """Prices with some of them changed by options; the name tells."""
    if not changes:
        return prices
    changed = ", ".join(name.replace("_", " ") for name in changes)
    fields_changed: dict[str, Any] = {"name": f"{prices.name}, with another {changed}", **changes}
    return replace(prices, **fields_changed)


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_LENGTH_MAX:
        raise UsageError(f"{path}: {key} is not a text of 1 to {NAME_LENGTH_MAX} characters")
    return value


def _price(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= PRICE_MAX:
        raise UsageError(f"{path}: {key} is not a price from 0 to {PRICE_MAX:g}")
    return float(value)

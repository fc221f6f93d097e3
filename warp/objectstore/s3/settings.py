"""What the URL of an S3 store says: `s3://bucket/prefix?region=…&endpoint=…`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from warp.errors import UsageError
from warp.objectstore.base import check_key
from warp.units import parse_duration_ms

PREFIX_LENGTH_MAX = 100
CONNECTIONS_MAX = 1024
ATTEMPTS_MAX = 10
TIMEOUT_S_MIN, TIMEOUT_S_MAX = 0.05, 600.0

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,40}")
_SECRET = re.compile(r"secret|key|token|password|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The settings of one store; empty texts mean what the environment and configuration files say."""

    bucket: str
    prefix: str = ""
    """Before each key: empty, or ending in a slash."""
    region: str = ""
    endpoint: str = ""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    connect_timeout_s: float = 2.0
    read_timeout_s: float = 10.0
    connections: int = 64
    attempts: int = 4
    sign_payload: bool = False
    profile: str = ""
    ca_bundle: str = ""

    def describe(self) -> str:
        """For messages: the URL without its parameters."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def parse_settings(parts: SplitResult) -> S3Settings:
    """The settings in a URL that `urlsplit` has taken apart. Raises UsageError, one line that says what to write."""
    name = f"s3://{parts.netloc}{parts.path}"
    if not parts.netloc:
        raise UsageError(f"object store {name!r}: name a bucket after the slashes, as in s3://bucket/prefix")
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(
            f"object store {name!r}: {parts.netloc!r} is not the name of a bucket;"
            " those are 3 to 63 letters, digits, dots and dashes"
        )
    found: dict[str, Any] = {}
    for parameter, text in parse_qsl(parts.query, keep_blank_values=True):
        if parameter not in _PARAMETERS:
            raise UsageError(f"object store {name!r}: {_unknown(parameter)}")
        field, parse = _PARAMETERS[parameter]
        if field in found:
            raise UsageError(f"object store {name!r}: {parameter} is given twice")
        try:
            found[field] = parse(text)
        except ValueError as error:
            raise UsageError(f"object store {name!r}: {parameter}: {error}") from error
    return S3Settings(bucket=parts.netloc, prefix=_prefix(name, parts.path), **found)


def _unknown(parameter: str) -> str:
    if _SECRET.search(parameter):
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile="
        return f"{parameter!r} has no place in a URL; {remedy}"
    nearest = difflib.get_close_matches(parameter, _PARAMETERS, n=1, cutoff=0.0)[0]
    return f"unknown parameter {parameter!r}; did you mean {nearest!r}?"


def _prefix(name: str, path: str) -> str:
    prefix = unquote(path).strip("/")
    if not prefix:
        return ""
    try:
        check_key(prefix)
    except ValueError:
        raise UsageError(
            f"object store {name!r}: write its prefix in letters, digits, dots, dashes, underscores and slashes"
        ) from None
    if len(prefix) > PREFIX_LENGTH_MAX:
        raise UsageError(f"object store {name!r}: its prefix is longer than {PREFIX_LENGTH_MAX} characters")
    return prefix + "/"


def _endpoint(text: str) -> str:
    problem = f"{text!r} is not a server; write it like https://s3.example.net:9000"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    if parts.username or parts.password:
        raise ValueError("user name and password have no place in it")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(problem)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} has more than a scheme, a host and a port")
    return f"{parts.scheme}://{parts.netloc}"


def _region(text: str) -> str:
    if not _REGION.fullmatch(text):
        raise ValueError(f"{text!r} is not a region; they look like eu-central-1")
    return text


def _addressing(text: str) -> str:
    if text not in ("auto", "path", "virtual"):
        raise ValueError(f"{text!r} is none of auto, path, virtual")
    return text


def _timeout(text: str) -> float:
    seconds = parse_duration_ms(text) / 1000
    if not TIMEOUT_S_MIN <= seconds <= TIMEOUT_S_MAX:
        raise ValueError(f"{text!r} is not between {TIMEOUT_S_MIN * 1000:.0f}ms and {TIMEOUT_S_MAX:.0f}s")
    return seconds


def _count(largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= largest):
            raise ValueError(f"{text!r} is not a number from 1 to {largest}")
        return int(text)

    return parse


def _yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _given(text: str) -> str:
    if not text:
        raise ValueError("give a value or leave it out")
    return text


_PARAMETERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "region": ("region", _region),
    "endpoint": ("endpoint", _endpoint),
    "addressing": ("addressing", _addressing),
    "connect_timeout": ("connect_timeout_s", _timeout),
    "read_timeout": ("read_timeout_s", _timeout),
    "connections": ("connections", _count(CONNECTIONS_MAX)),
    "attempts": ("attempts", _count(ATTEMPTS_MAX)),
    "sign_payload": ("sign_payload", _yes_or_no),
    "profile": ("profile", _given),
    "ca_bundle": ("ca_bundle", _given),
}

"""The kinds of value that an option can have: how each is read from text, and how it is shown.

Every value enters as text, whether from a flag, the environment or a file, so that one rule and one message serve all
three. Readers raise ValueError with a message that can follow the option's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from warp.units import format_duration_ms, format_size, parse_duration_ms, parse_size

_WILDCARDS = ("0.0.0.0", "::")
_MASK = "********"
_SECRET_WORDS = ("password", "secret", "token", "key")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port. Port 0 means any free port to a listener, and "as the listener" to an advertised one."""

    host: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        """True for an address that stands for every interface, which a client can't connect to."""
        return self.host in _WILDCARDS

    @property
    def is_loopback(self) -> bool:
        """True for an address that only this machine can reach."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
"""Of listeners, by Kafka's names: whether they have TLS (SSL), and whether their clients authenticate by SASL."""


@dataclass(frozen=True, slots=True)
class ListenAddress(Address):
    """An address to listen on, and the protocol that is spoken there."""

    protocol: str = "PLAINTEXT"

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether clients have to authenticate by SASL."""
        return self.protocol.startswith("SASL_")

    def __str__(self) -> str:
        return str(Address(self.host, self.port))


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of value is read and shown. `show(parse(text))` reads back as the same value, but for secrets."""

    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str


def parse_address(text: str) -> Address:
    """`HOST:PORT`; an IPv6 host stands in brackets."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(_host(host, text), _port(port))


def parse_listen_address(text: str) -> ListenAddress:
    """`[PROTOCOL://]HOST:PORT`; PLAINTEXT where no protocol is named."""
    named, separator, rest = text.strip().partition("://")
    protocol = named.upper() if separator else "PLAINTEXT"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{text!r}: {named!r} is none of the protocols {', '.join(PROTOCOLS)}")
    address = parse_address(rest if separator else named)
    return ListenAddress(address.host, address.port, protocol)


def parse_advertised_address(text: str) -> Address:
    """`HOST` or `HOST:PORT`; without a port, port 0."""
    text = text.strip()
    bare = text.startswith("[") and text.endswith("]")
    address = Address(_host(text, text), 0) if bare or ":" not in text else parse_address(text)
    if address.is_wildcard:
        raise ValueError(f"{text!r} stands for every interface, so no client can connect to it; name a host")
    return address


def parse_http_address(text: str) -> Address | None:
    """`HOST:PORT`, or None for `off`."""
    return None if text.strip() == "off" else parse_address(text)


def parse_count(text: str) -> int:
    """A whole number, at least 0."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def parse_boolean(text: str) -> bool:
    """`true` or `false`."""
    try:
        return {"true": True, "false": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither true nor false") from None


def parse_name(text: str) -> str:
    """Up to 64 letters, digits, dots, dashes and underscores."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not 1 to 64 letters, digits, dots, dashes and underscores")
    return text


def parse_path(text: str) -> Path:
    """A path of the file system; `~` is the home directory."""
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return Path(text).expanduser()


def parse_url(text: str) -> str:
    """`SCHEME://…`, well formed; what the scheme asks for is the business of the store that it names."""
    try:
        parts = urlsplit(text)
        if "," not in parts.netloc.rpartition("@")[2]:  # PostgreSQL takes several hosts, each with a port
            _ = parts.port
    except ValueError as error:
        raise ValueError(f"{mask_url(text)!r} is not a URL: {error}") from None
    if not parts.scheme or "://" not in text:
        raise ValueError(f"{mask_url(text)!r} is not a URL like file:///dir")
    return text


def mask_url(text: str) -> str:
    """The URL without its password and without query parameters that look like secrets: fit for logs and screens."""
    try:
        parts = urlsplit(text)
        userinfo, at, _ = parts.netloc.rpartition("@")
        if (not at or ":" in userinfo) and text.count("@") > parts.netloc.count("@"):
            # A password with a slash, a question mark or a # that nobody has escaped has ended the location too soon.
            text = _mask_up_to_at(text)
            parts = urlsplit(text)
    except ValueError:
        return _mask_up_to_at(text)
    location = parts.netloc
    if "@" in location:
        user, _, host = location.rpartition("@")
        name, colon, _password = user.partition(":")
        location = f"{name}{colon}{_MASK if colon else ''}@{host}"
    query = parts.query
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(_looks_secret(name) for name, _ in pairs):
        query = urlencode(
            [(name, _MASK if _looks_secret(name) else value) for name, value in pairs], safe="*/:"
        )
    masked = urlunsplit((parts.scheme, location, parts.path, query, parts.fragment))
    # urlunsplit drops the slashes of an empty location, as in mem://.
    return f"{parts.scheme}://{masked.partition(':')[2].removeprefix('//')}" if "://" in text else masked


def _mask_up_to_at(text: str) -> str:
    return re.sub(r"(://[^/@:]*):.*@", rf"\1:{_MASK}@", text)


def one_of(*choices: str) -> Kind:
    """A kind that takes one of a few words."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return word

    return Kind("|".join(choices), parse)


def _show_advertised(address: Address) -> str:
    return str(address) if address.port else str(address).removesuffix(":0")


def _show_listen(address: ListenAddress) -> str:
    return str(address) if address.protocol == "PLAINTEXT" else f"{address.protocol}://{address}"


LISTEN_ADDRESS = Kind("[PROTOCOL://]HOST:PORT", parse_listen_address, _show_listen)
ADDRESS = Kind("HOST:PORT", parse_address)
ADVERTISED_ADDRESS = Kind("HOST[:PORT]", parse_advertised_address, _show_advertised)
HTTP_ADDRESS = Kind("HOST:PORT|off", parse_http_address, lambda address: str(address or "off"))
BOOLEAN = Kind("true|false", parse_boolean, lambda value: str(value).lower())
COUNT = Kind("NUMBER", parse_count)
DURATION = Kind("DURATION", parse_duration_ms, format_duration_ms)
NAME = Kind("NAME", parse_name)
PATH = Kind("DIR", parse_path)
FILE = Kind("FILE", parse_path)
SIZE = Kind("SIZE", parse_size, format_size)
URL = Kind("URL", parse_url, mask_url)


def _host(host: str, text: str) -> str:
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not inner:
        raise ValueError(f"{text!r} names no host")
    if ":" in inner and inner is host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, like [::1]:9092")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", inner):
        raise ValueError(f"{text!r}: {inner!r} is not a host name or an address")
    return inner


def _port(text: str) -> int:
    port = int(text[:9])
    if port > 65535:
        raise ValueError(f"port {text} is above 65535")
    return port


def _looks_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def parse_text(text: str) -> str:
    """Any text of one line that is not empty, up to 8,192 characters."""
    if not text.strip() or len(text) > 8_192 or not text.isprintable():
        raise ValueError(f"{text[:100]!r} is not one line of text")
    return text.strip()


TEXT = Kind("TEXT", parse_text)


def one_of_exactly(*choices: str) -> Kind:
    """A kind that takes one of a few words, in any case, and shows it as it is written here."""
    known = {choice.upper(): choice for choice in choices}

    def parse(text: str) -> str:
        word = known.get(text.strip().upper())
        if word is None:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return word

    return Kind("|".join(choices), parse)


def parse_principals(text: str) -> tuple[str, ...]:
    """Principals like User:alice, separated by semicolons, because names of certificates hold commas."""
    found = tuple(piece.strip() for piece in text.split(";") if piece.strip())
    for principal in found:
        kind, colon, name = principal.partition(":")
        if not colon or not kind or not name:
            raise ValueError(f"{principal!r} is not a principal like User:alice")
        if kind != "User":
            raise ValueError(f"{principal!r}: no client is ever a {kind}; use User:{name}")
    return found


PRINCIPALS = Kind("PRINCIPALS", parse_principals, ";".join)

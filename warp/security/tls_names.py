"""The subject of a certificate as text: RFC 2253, in the very form of Java's X500Principal.getName().

Kafka's principals and their mapping rules are written for that form, so it has to be matched character by character:
the most specific part first, no spaces around commas, only nine types by keyword and all others by number with their
value in hexadecimal, `=` and `#` escaped wherever they stand. Python's ssl tells the parts of a subject, but not how
they were encoded, and the library that does costs more memory than all else of TLS; so the few elements of DER that
lead to the subject are read here. The certificate itself was checked by OpenSSL before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_SEQUENCE, _SET, _OBJECT_IDENTIFIER, _EXPLICIT_VERSION = 0x30, 0x31, 0x06, 0xA0

_KEYWORDS: Final = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}

_ENCODINGS: Final = {
    0x0C: "utf-8",  # UTF8String
    0x13: "utf-8",  # PrintableString
    0x14: "utf-8",  # T61String
    0x16: "utf-8",  # IA5String
    0x1B: "utf-8",  # GeneralString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
"""By the tag of a string. Java reads the last two as UTF-8 as well, which makes a zero of every other byte."""

_ESCAPED: Final = str.maketrans({**{character: f"\\{character}" for character in ',=+<>#;"\\'}, "\0": "\\00"})


class MalformedName(ValueError):
    """A certificate whose subject can't be read."""


def subject_text(certificate: bytes) -> str:
    """The subject of a certificate in DER. Raises MalformedName."""
    body, _ = _element(certificate, 0, _SEQUENCE)
    fields, _ = _element(body, 0, _SEQUENCE)
    at = 0
    if fields[:1] == bytes([_EXPLICIT_VERSION]):
        at = _end(fields, at)
    for _name in ("serial number", "signature algorithm", "issuer", "validity"):
        at = _end(fields, at)
    subject, _ = _element(fields, at, _SEQUENCE)
    parts = [_relative_name(part) for part in _elements(subject, _SET)]
    return ",".join(reversed(parts))


def _relative_name(encoded: bytes) -> str:
    return "+".join(_attribute(part) for part in _elements(encoded, _SEQUENCE))


def _attribute(encoded: bytes) -> str:
    identifier, at = _element(encoded, 0, _OBJECT_IDENTIFIER)
    end = _end(encoded, at)
    tag, value = encoded[at], _content(encoded, at)
    number = _dotted(identifier)
    keyword, encoding = _KEYWORDS.get(number), _ENCODINGS.get(tag)
    if keyword is not None and encoding is not None:
        try:
            return f"{keyword}={_escape(value.decode(encoding))}"
        except UnicodeDecodeError:
            pass  # shown as the bytes that it is
    return f"{keyword or number}=#{encoded[at:end].hex()}"


def _escape(text: str) -> str:
    """A value as RFC 2253 writes it; spaces and line ends at either end are escaped too."""
    inner = text.strip(" \r")
    lead = len(text) - len(text.lstrip(" \r"))
    outer = (text[:lead], text[lead + len(inner) :] if inner else "")
    before, after = ("".join(f"\\{character}" for character in part) for part in outer)
    return before + inner.translate(_ESCAPED) + after


def _dotted(identifier: bytes) -> str:
    """An object identifier by its numbers."""
    numbers: list[int] = []
    value = 0
    for octet in identifier:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    if not numbers or identifier[-1] & 0x80 or len(identifier) > 64:
        raise MalformedName("an object identifier in the subject of the certificate is malformed")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _elements(data: bytes, tag: int) -> Iterator[bytes]:
    """The contents of the elements that data is made of, which all have that tag."""
    at = 0
    while at < len(data):
        content, at = _element(data, at, tag)
        yield content


def _element(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """The content of the element at `at`, and where it ends."""
    if data[at : at + 1] != bytes([tag]):
        raise MalformedName(f"the certificate has something else where an element {tag:#04x} was expected")
    start, end = _bounds(data, at)
    return data[start:end], end


def _content(data: bytes, at: int) -> bytes:
    start, end = _bounds(data, at)
    return data[start:end]


def _end(data: bytes, at: int) -> int:
    return _bounds(data, at)[1]


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    if at + 2 > len(data):
        raise MalformedName("the certificate ends in the middle of an element")
    length, start = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or start + size > len(data):
            raise MalformedName("the length of an element of the certificate is malformed")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise MalformedName("an element of the certificate is longer than what holds it")
    return start, start + length

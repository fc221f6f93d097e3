"""Messages by the book: a slow, obvious interpreter of the message tables.

It is the oracle of the native decoder and encoder, and the pure-Python side of their benchmarks. It follows the
protocol guide field by field and shares nothing with the native code but the tables.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

from warp.protocol.schema import Field, Message, Struct

S = TypeVar("S", bound=Struct)
M = TypeVar("M", bound=Message)

_FIXED = {
    "int8": struct.Struct(">b"),
    "int16": struct.Struct(">h"),
    "uint16": struct.Struct(">H"),
    "int32": struct.Struct(">i"),
    "uint32": struct.Struct(">I"),
    "int64": struct.Struct(">q"),
    "float64": struct.Struct(">d"),
}


class MalformedError(ValueError):
    """The bytes are no such message, or the message can't be written in that version."""


# ---- decoding ----


class Reader:
    """Bytes and how far they have been read."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise MalformedError("cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def fixed(self, kind: str) -> Any:
        (value,) = _FIXED[kind].unpack(self.take(_FIXED[kind].size))
        return value

    def uvarint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise MalformedError("a varint of more than five bytes")
        if value >= 2**32:
            raise MalformedError("a varint of more than 32 bits")
        return value


def decode(message: type[M], version: int, data: bytes, offset: int = 0) -> M:
    """One message, which has to take up all of `data` from `offset` on."""
    reader = Reader(data, offset)
    decoded = _read_struct(reader, message, version, message.is_flexible(version))
    if reader.at != len(data):
        raise MalformedError("bytes after the end")
    return decoded


def _read_struct(reader: Reader, cls: type[S], version: int, flexible: bool) -> S:
    fields: tuple[Field, ...] = cls.__layout__.fields
    present = [one for one in fields if one.since <= version <= one.until]
    values = {one.name: [] if one.starts_as_list else one.initial for one in fields}
    for one in present:
        if one.tag is None:
            values[one.name] = _read_field(reader, one, version, flexible)
    if flexible:
        tagged = {one.tag: one for one in present if one.tag is not None}
        last = -1
        for _ in range(reader.uvarint()):
            tag, size = reader.uvarint(), reader.uvarint()
            if tag <= last:
                raise MalformedError("tags have to rise")
            last = tag
            inner = Reader(reader.take(size))
            if tag in tagged:
                values[tagged[tag].name] = _read_field(inner, tagged[tag], version, flexible)
                if inner.at != size:
                    raise MalformedError("a tagged field is longer than its value")
    return cls(**values)


def _read_field(reader: Reader, one: Field, version: int, flexible: bool) -> Any:
    nullable = one.nullable is not None and version >= one.nullable
    if not one.is_array:
        return _read_value(reader, one, version, flexible, nullable)
    count = reader.uvarint() - 1 if flexible else reader.fixed("int32")
    if count == -1 and nullable:
        return None
    if not 0 <= count <= len(reader.data) - reader.at:
        raise MalformedError("an impossible number of elements")
    return [_read_value(reader, one, version, flexible, nullable=False) for _ in range(count)]


def _read_value(reader: Reader, one: Field, version: int, flexible: bool, nullable: bool) -> Any:
    if one.kind in _FIXED:
        return reader.fixed(one.kind)
    if one.kind == "boolean":
        return reader.take(1) != b"\0"
    if one.kind == "uuid":
        return reader.take(16)
    if one.kind == "struct":
        assert one.struct is not None
        if nullable:
            mark = reader.fixed("int8")
            if mark == -1:
                return None
            if mark != 1:
                raise MalformedError("a struct is there or it is not")
        return _read_struct(reader, one.struct, version, flexible)
    if flexible:
        size = reader.uvarint() - 1
    else:
        size = reader.fixed("int16" if one.kind == "string" else "int32")
    if size == -1 and nullable:
        return None
    value = reader.take(size)
    if one.kind != "string":
        return value
    if size > 32767:
        raise MalformedError("a string that is too long")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(str(error)) from None


# ---- encoding ----


def encode(message: Message, version: int) -> bytes:
    """The body of that version."""
    out = bytearray()
    _write_struct(out, message, version, message.is_flexible(version))
    return bytes(out)


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _write_struct(out: bytearray, instance: Struct, version: int, flexible: bool) -> None:
    tags: list[tuple[int, bytes]] = []
    one: Field
    for one in instance.__layout__.fields:
        value = getattr(instance, one.name)
        is_initial = value == ([] if one.starts_as_list else one.initial)
        if not one.since <= version <= one.until:
            if not is_initial and not one.ignorable:
                raise MalformedError(f"{one.name} is not the default in a version that lacks it")
        elif one.tag is None:
            _write_field(out, one, value, version, flexible)
        elif not is_initial:
            entry = bytearray()
            _write_field(entry, one, value, version, flexible)
            tags.append((one.tag, bytes(entry)))
    if flexible:
        out += _uvarint(len(tags))
        for tag, entry_bytes in sorted(tags):
            out += _uvarint(tag) + _uvarint(len(entry_bytes)) + entry_bytes


def _write_field(out: bytearray, one: Field, value: Any, version: int, flexible: bool) -> None:
    nullable = one.nullable is not None and version >= one.nullable
    if not one.is_array:
        _write_value(out, one, value, version, flexible, nullable)
        return
    if value is None and not nullable:
        raise MalformedError(f"{one.name} is null")
    count = -1 if value is None else len(value)
    out += _uvarint(count + 1) if flexible else _FIXED["int32"].pack(count)
    for element in value or ():
        _write_value(out, one, element, version, flexible, nullable=False)


def _write_value(
    out: bytearray, one: Field, value: Any, version: int, flexible: bool, nullable: bool
) -> None:
    if one.kind in _FIXED:
        try:
            out += _FIXED[one.kind].pack(value)
        except struct.error as error:
            raise MalformedError(str(error)) from None
    elif one.kind == "boolean":
        out.append(value)
    elif one.kind == "uuid":
        out += value
    elif one.kind == "struct":
        if nullable:
            out += _FIXED["int8"].pack(-1 if value is None else 1)
        if value is not None:
            _write_struct(out, value, version, flexible)
    else:
        _write_bytes(out, one, value, flexible, nullable)


def _write_bytes(out: bytearray, one: Field, value: Any, flexible: bool, nullable: bool) -> None:
    if value is None and not nullable:
        raise MalformedError(f"{one.name} is null")
    if isinstance(value, str):
        value = value.encode("utf-8")
        if len(value) > 32767:
            raise MalformedError("a string that is too long")
    elif isinstance(value, (list, tuple)):
        value = b"".join(value)
    size = -1 if value is None else len(value)
    if flexible:
        out += _uvarint(size + 1)
    else:
        out += _FIXED["int16" if one.kind == "string" else "int32"].pack(size)
    out += value or b""

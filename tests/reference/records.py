"""Record batches of magic 2, read, judged and written one step at a time: what the native core is held against.

It follows the protocol's text, trusts Python's own bounds checks, and knows no limits and no speed.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import cramjam
import lz4.frame
import zstandard

from tests.reference.crc32c import crc32c

HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_START = 21
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x08, 0x10, 0x20, 0x40
CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP = 2, 10, 32
UNSUPPORTED_COMPRESSION_TYPE, INVALID_RECORD = 76, 87
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Headers = Sequence[tuple[bytes, bytes | None]]


class Malformed(Exception):
    """The bytes are no record."""


class Refused(Exception):
    """A broker has to refuse the batch, with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Header:
    """The fixed part of a batch, in wire order."""

    base_offset: int = 0
    batch_length: int = 0
    leader_epoch: int = -1
    magic: int = 2
    crc: int = 0
    attributes: int = 0
    last_offset_delta: int = 0
    base_timestamp: int = 0
    max_timestamp: int = 0
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    record_count: int = 0

    @property
    def codec(self) -> int:
        return self.attributes & 7


@dataclass(frozen=True)
class RawRecord:
    """A record as it stands in a batch."""

    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    attributes: int = 0


@dataclass(frozen=True)
class Rules:
    """What a topic asks of a batch; the names are those of the native core."""

    max_message_bytes: int = 1048588
    message_timestamp_type: int = 0
    now_ms: int = 0
    timestamp_before_max_ms: int = INT64_MAX
    timestamp_after_max_ms: int = 3600000
    require_key: bool = False
    allow_zstd: bool = True


# ---- writing ----


def encode_varint(value: int) -> bytes:
    """Zigzag, then seven bits a byte from the lowest on."""
    rest = 2 * value if value >= 0 else -2 * value - 1
    out = bytearray()
    while rest > 127:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def encode_nullable(value: bytes | None) -> bytes:
    return encode_varint(-1) if value is None else encode_varint(len(value)) + value


def encode_record(record: RawRecord) -> bytes:
    body = struct.pack(">b", record.attributes)
    body += encode_varint(record.timestamp_delta) + encode_varint(record.offset_delta)
    body += encode_nullable(record.key) + encode_nullable(record.value)
    body += encode_varint(len(record.headers))
    for name, value in record.headers:
        body += encode_nullable(name) + encode_nullable(value)
    return encode_varint(len(body)) + body


def encode_batch(header: Header, records: bytes) -> bytes:
    """The batch with its CRC and, where the header says 0, its length filled in. `records` are compressed already."""
    fields = [*header.__dict__.values()]
    fields[1] = header.batch_length or HEADER.size - 12 + len(records)
    return with_crc(HEADER.pack(*fields) + records)


def with_crc(batch: bytes) -> bytes:
    """The batch with the CRC that belongs to it."""
    return batch[:17] + struct.pack(">I", crc32c(batch[CRC_START:])) + batch[CRC_START:]


# ---- reading ----


class Cursor:
    """A position in bytes that can't leave them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise Malformed(f"{count} bytes wanted, {self.left} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, bits: int) -> int:
        value = 0
        for index in range((bits + 6) // 7):
            byte = self.take(1)[0]
            value += (byte & 127) << (7 * index)
            if byte < 128:
                if value >> bits:
                    raise Malformed("varint has too many bits")
                return value // 2 if value % 2 == 0 else -(value // 2) - 1
        raise Malformed("varint has too many bytes")

    def nullable(self) -> bytes | None:
        length = self.varint(32)
        if length < -1:
            raise Malformed("negative length")
        return None if length == -1 else self.take(length)


def decode_header(data: bytes) -> Header:
    return Header(*HEADER.unpack(data[: HEADER.size]))


def decode_record(cursor: Cursor) -> RawRecord:
    inner = Cursor(cursor.take(cursor.varint(32)))
    (attributes,) = struct.unpack(">b", inner.take(1))
    timestamp_delta, offset_delta = inner.varint(64), inner.varint(32)
    key, value = inner.nullable(), inner.nullable()
    count = inner.varint(32)
    if count < 0:
        raise Malformed("negative header count")
    headers = []
    for _ in range(count):
        name = inner.nullable()
        if name is None:
            raise Malformed("null header name")
        headers.append((name, inner.nullable()))
    if inner.left:
        raise Malformed("bytes left in the record")
    return RawRecord(timestamp_delta, offset_delta, key, value, tuple(headers), attributes)


def decode_records(data: bytes, count: int) -> list[RawRecord]:
    cursor = Cursor(data)
    records = [decode_record(cursor) for _ in range(count)]
    if cursor.left:
        raise Malformed("bytes left in the batch")
    return records


def decompress(codec: int, data: bytes) -> bytes:
    """For what is known to be small and well-formed: nothing is limited here."""
    if codec == 1:
        return gzip.decompress(data)
    if codec == 2:
        return _unsnappy(data)
    if codec == 3:
        return lz4.frame.decompress(data)
    if codec == 4:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _unsnappy(data: bytes) -> bytes:
    if not data.startswith(b"\x82SNAPPY\0"):
        return bytes(cramjam.snappy.decompress_raw(data))
    cursor, out = Cursor(data), b""
    while cursor.left:
        if data.startswith(b"\x82SNAPPY\0", cursor.position):
            cursor.take(16)  # streams may follow one another
            continue
        (size,) = struct.unpack(">I", cursor.take(4))
        out += bytes(cramjam.snappy.decompress_raw(cursor.take(size)))
    return out


def read_batch(data: bytes) -> tuple[Header, list[RawRecord]]:
    """The header and records of one well-formed batch."""
    header = decode_header(data)
    return header, decode_records(decompress(header.codec, data[HEADER.size :]), header.record_count)


# ---- judging ----


def validate(data: bytes, rules: Rules) -> bytes:
    """What a broker stores for these records of a Produce request; Refused with the code of the first failed check."""
    header = _judge_frame(data, rules)
    if crc32c(data[CRC_START:]) != header.crc:
        raise Refused(CORRUPT_MESSAGE, "CRC")
    _judge_header(header)
    try:
        records = decode_records(decompress(header.codec, data[HEADER.size :]), header.record_count)
    except Malformed as error:
        raise Refused(INVALID_RECORD, str(error)) from None
    max_timestamp = _judge_records(header, records, rules)
    attributes = header.attributes
    if rules.message_timestamp_type == 1:
        attributes, max_timestamp = attributes | LOG_APPEND_TIME, rules.now_ms
    stamped = data[:21] + struct.pack(">h", attributes) + data[23:35] + struct.pack(">q", max_timestamp)
    return with_crc(stamped + data[43:])


def _judge_frame(data: bytes, rules: Rules) -> Header:
    if not data:
        raise Refused(INVALID_RECORD, "no batch")
    if len(data) > 16 and data[16] != 2:
        raise Refused(INVALID_RECORD, "magic")
    if len(data) < HEADER.size:
        raise Refused(CORRUPT_MESSAGE, "too short")
    header = decode_header(data)
    if header.codec == 4 and not rules.allow_zstd:
        raise Refused(UNSUPPORTED_COMPRESSION_TYPE, "zstd")
    if header.batch_length >= 49 and 12 + header.batch_length < len(data):
        raise Refused(INVALID_RECORD, "more than one batch")
    if header.base_offset != 0:
        raise Refused(INVALID_RECORD, "base offset")
    if len(data) > rules.max_message_bytes:
        raise Refused(MESSAGE_TOO_LARGE, "size")
    if 12 + header.batch_length != len(data):
        raise Refused(CORRUPT_MESSAGE, "length")
    return header


def _judge_header(header: Header) -> None:
    def refuse_if(condition: bool, code: int, message: str) -> None:
        if condition:
            raise Refused(code, message)

    has_producer = header.producer_id >= 0
    refuse_if(header.record_count <= 0, INVALID_RECORD, "no records")
    refuse_if(header.record_count != header.last_offset_delta + 1, INVALID_RECORD, "count")
    refuse_if(bool(header.attributes & CONTROL), INVALID_RECORD, "control")
    refuse_if(bool(header.attributes & DELETE_HORIZON), INVALID_RECORD, "delete horizon")
    refuse_if(header.producer_id < -1, INVALID_RECORD, "producer id")
    refuse_if(has_producer and header.base_sequence < 0, INVALID_RECORD, "sequence")
    refuse_if(has_producer and header.producer_epoch < 0, INVALID_RECORD, "epoch")
    refuse_if(bool(header.attributes & TRANSACTIONAL) and not has_producer, INVALID_RECORD, "transactional")
    refuse_if(bool(header.attributes & LOG_APPEND_TIME), INVALID_TIMESTAMP, "timestamp type")
    refuse_if(header.codec > 4, UNSUPPORTED_COMPRESSION_TYPE, "codec")


def _judge_records(header: Header, records: list[RawRecord], rules: Rules) -> int:
    """The largest timestamp, -1 if there is none. One bad timestamp makes the whole an INVALID_TIMESTAMP."""
    codes = set()
    timestamps = [header.base_timestamp + record.timestamp_delta for record in records]
    for index, (record, timestamp) in enumerate(zip(records, timestamps, strict=True)):
        if record.offset_delta != index or (rules.require_key and record.key is None):
            codes.add(INVALID_RECORD)
        is_early = rules.now_ms - timestamp > rules.timestamp_before_max_ms
        is_late = timestamp - rules.now_ms > rules.timestamp_after_max_ms
        is_impossible = not INT64_MIN <= timestamp <= INT64_MAX
        if rules.message_timestamp_type == 0 and timestamp != -1 and (is_early or is_late or is_impossible):
            codes.add(INVALID_TIMESTAMP)
    if codes:
        raise Refused(min(codes), "records")
    return max(-1, *timestamps)

"""Validation of record batches: header and CRC, the records inside, and the same under each codec.

The other libraries have no validation of records; iterating over them is the nearest that they do. Under a codec the
yardstick is the decompression alone, by the library call that is fastest for it.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable, Sequence

import aiokafka.record.default_records as aiokafka_records
import cramjam
import kafka.record.default_records as kafka_records
import lz4.frame
import zstandard

from benchmarks.micro.common import Comparison, Contender, Target, compare, main
from tests.reference import records as reference
from tests.reference.crc32c import crc32c as slow_crc32c
from warp._records import BatchRules, build_batch, iterate_records, validate_produce, verify_batch

NOW_MS = 1_700_000_000_000
OURS, PURE, AIOKAFKA, KAFKA_PYTHON = "warp", "pure Python", "aiokafka", "kafka-python with crc32c"
RULES = BatchRules(
    max_message_bytes=1 << 30,
    message_timestamp_type=0,
    now_ms=NOW_MS,
    timestamp_before_max_ms=2**63 - 1,
    timestamp_after_max_ms=3_600_000,
    require_key=False,
    decompressed_bytes_max=1 << 30,
)
SLOW_RULES = reference.Rules(max_message_bytes=1 << 30, now_ms=NOW_MS)
CODEC_NAMES = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


def batch(count: int, codec: int = 0) -> bytes:
    """Records with keys of 8 bytes and values of 100, which compress to about half their size."""
    source = random.Random(1)
    values = (source.randbytes(33).hex() + " status=ok region=eu-west-1 latency" for _ in range(count))
    return build_batch(
        [(b"%08d" % index, value.encode()[:100], [], NOW_MS + index) for index, value in enumerate(values)],
        codec=codec,
    )


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    full, small = batch(8800), batch(137)
    return [
        header_and_crc(small, quick),
        produce(small, quick),
        records(full, quick),
        objects(full, quick),
        *(compressed(codec, quick) for codec in CODEC_NAMES),
    ]


def header_and_crc(data: bytes, quick: bool) -> Comparison:
    """What has to be done to every batch, whoever reads it."""
    return compare(
        f"Header and CRC of a batch of {len(data):,} bytes",
        [
            Contender(OURS, lambda: verify_batch(data)),
            Contender(AIOKAFKA, lambda: aiokafka_records.DefaultRecordBatch(data).validate_crc()),
            Contender(KAFKA_PYTHON, lambda: kafka_records.DefaultRecordBatch(data).validate_crc()),
            Contender(PURE, lambda: slow_header_and_crc(data), slow=True),
        ],
        work=len(data),
        unit="B",
        targets=[Target(OURS, AIOKAFKA, 5), Target(OURS, KAFKA_PYTHON, 1.3), Target(OURS, PURE, 500)],
        quick=quick,
    )


def slow_header_and_crc(data: bytes) -> bool:
    return reference.decode_header(data).crc == slow_crc32c(data[reference.CRC_START :])


def produce(data: bytes, quick: bool) -> Comparison:
    """All that Produce checks, of a batch of the size that clients send by default."""
    return compare(
        f"All of Produce's checks of a batch of {len(data):,} bytes, {records_in(data)} records",
        [
            Contender(OURS, lambda: validate_produce(data, RULES)),
            Contender(PURE, lambda: reference.validate(data, SLOW_RULES), slow=True),
        ],
        work=records_in(data),
        unit="records",
        quick=quick,
    )


def records(data: bytes, quick: bool) -> Comparison:
    """The records of 1 MiB, with header and CRC on our side and without them on the others'."""
    count = records_in(data)
    return compare(
        f"Records of an uncompressed batch of {len(data):,} bytes, {count:,} records",
        [
            Contender(OURS, lambda: validate_produce(data, RULES)),
            Contender("aiokafka, iterating", lambda: exhaust(aiokafka_records.DefaultRecordBatch(data))),
            Contender(
                "kafka-python, iterating", lambda: exhaust(kafka_records.DefaultRecordBatch(data)), slow=True
            ),
            Contender(
                PURE, lambda: reference.decode_records(data[reference.HEADER.size :], count), slow=True
            ),
        ],
        work=count,
        unit="records",
        targets=[
            Target(OURS, "aiokafka, iterating", 8),
            Target(OURS, PURE, 150),
            Target(OURS, "kafka-python, iterating", 200),
        ],
        quick=quick,
    )


def objects(data: bytes, quick: bool) -> Comparison:
    """What tools and tests do: an object per record."""
    return compare(
        f"An object for each of {records_in(data):,} records",
        [
            Contender(OURS, lambda: exhaust(iterate_records(data, 1 << 30))),
            Contender(AIOKAFKA, lambda: exhaust(aiokafka_records.DefaultRecordBatch(data))),
        ],
        work=records_in(data),
        unit="records",
        quick=quick,
    )


def compressed(codec: int, quick: bool) -> Comparison:
    """The records of 1 MiB when they come compressed."""
    data = batch(8800, codec)
    yardstick = f"{CODEC_NAMES[codec]} alone"
    return compare(
        f"The same under {CODEC_NAMES[codec]}, {len(data):,} bytes",
        [
            Contender(OURS, lambda: validate_produce(data, RULES)),
            Contender(yardstick, decompression(codec, data)),
        ],
        work=records_in(data),
        unit="records",
        targets=[Target(OURS, yardstick, 1 / 1.35)],
        quick=quick,
    )


def decompression(codec: int, data: bytes) -> Callable[[], object]:
    """The codec's own call over the payload of `data`."""
    payload = data[reference.HEADER.size :]
    if codec == 1:
        return lambda: zlib.decompress(payload, 31)
    if codec == 2:
        chunks = snappy_chunks(payload)
        return lambda: [cramjam.snappy.decompress_raw(chunk) for chunk in chunks]
    if codec == 3:
        return lambda: lz4.frame.decompress(payload)
    unpacker = zstandard.ZstdDecompressor()
    return lambda: unpacker.decompress(payload)


def snappy_chunks(payload: bytes) -> Sequence[bytes]:
    """The raw blocks of a stream of the Java library, cut out beforehand."""
    cursor, chunks = reference.Cursor(payload[16:]), []
    while cursor.left:
        chunks.append(cursor.take(int.from_bytes(cursor.take(4), "big")))
    return chunks


def records_in(data: bytes) -> int:
    return verify_batch(data).record_count


def exhaust(iterable: object) -> None:
    for _ in iterable:  # type: ignore[attr-defined]
        continue


if __name__ == "__main__":
    sys.exit(main("records", run))
